//! Files: what stands at a path.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::Path;

use safe_files::{failed, is_same};
use store_api::{Error, Result};

/// What every redb file begins with.
const MAGIC: [u8; 9] = *b"redb\x1a\x0a\xa9\x0d\x0a";

/// What stands at the path of a store.
pub(crate) enum Standing {
    Nothing,
    /// A file without a byte in it: somebody made room for a store.
    Empty(File),
    /// A file that begins as redb files do.
    Redb(File),
    /// Something else than a moment ago: another opener puts a new store there.
    Changing,
}

/// Looks at a path without changing anything there, and without following a link.
///
/// # Errors
/// `NotThisStore` for anything but an ordinary file that is empty or begins as redb files do.
pub(crate) fn look(path: &Path) -> Result<Standing> {
    let before = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Standing::Nothing),
        other => other.map_err(|e| failed("looking at", path, e))?,
    };
    if !before.is_file() {
        return Err(not_this_store(path, "is no ordinary file"));
    }
    let opening = |e| failed("opening", path, e);
    let mut file = OpenOptions::new().read(true).write(true).open(path).map_err(opening)?;
    let opened = file.metadata().map_err(opening)?;
    if !is_same(&before, &opened) {
        return Ok(Standing::Changing);
    }
    if opened.len() == 0 {
        return Ok(Standing::Empty(file));
    }
    let mut magic = Vec::new();
    (&mut file).take(MAGIC.len() as u64).read_to_end(&mut magic).map_err(opening)?;
    if magic != MAGIC {
        return Err(not_this_store(path, "is no redb file"));
    }
    Ok(Standing::Redb(file))
}

pub(crate) fn not_this_store(path: &Path, detail: &str) -> Error {
    Error::NotThisStore { detail: format!("{} {detail}", path.display()) }
}
