//! Files that appear, change places and vanish whole or not at all, also when the power goes in between: what the
//! engines that live in files share.
//!
//! - [`resolve`]: the path of a database, so that it goes on leading there.
//! - [`Staged`]: a file that is made under a temporary name and published when it is whole.
//! - [`recovery`]: what becomes of a database whose flush failed.
//!
//! Everything that changes a name or flushes a file goes through one module of single steps (`steps.rs`), where a test can
//! stop after each of them ([`watch`]).

use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use store_api::{Error, Outcome, Result};

pub mod recovery;
mod staged;
mod steps;

pub use staged::Staged;
#[doc(hidden)]
pub use steps::{Step, Watching, watch};
pub use steps::{create_private, link, remove, rename, sync, sync_directory_of};

/// The path of a database: absolute and without symbolic links in its directory, so that nothing in it can be taken
/// for a URI and it goes on leading there. The file itself need not exist.
///
/// # Errors
/// `InvalidInput` for a path that names no file; `Backend` when its directory cannot be reached.
pub fn resolve(path: &Path) -> Result<PathBuf> {
    if path.as_os_str().as_encoded_bytes().contains(&0) {
        return Err(Error::invalid("path", "has the character U+0000"));
    }
    let name = path.file_name().ok_or_else(|| Error::invalid("path", format!("{path:?} names no file")))?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory = directory.canonicalize().map_err(|e| failed("opening", directory, e))?;
    Ok(directory.join(name))
}

/// The path with `suffix` after its name.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Whether something stands at `path`, be it a link that leads nowhere.
///
/// # Errors
/// `Backend`.
pub fn exists(path: &Path) -> Result<bool> {
    look(path).map(|found| found.is_some())
}

/// What stands at `path`, without following a link.
fn look(path: &Path) -> Result<Option<Metadata>> {
    match path.symlink_metadata() {
        Ok(found) => Ok(Some(found)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed("looking at", path, e)),
    }
}

/// Whether `path` still leads to the file that was opened from it.
///
/// # Errors
/// `Backend`.
pub fn leads_to(path: &Path, file: &File) -> Result<bool> {
    let opened = file.metadata().map_err(|e| failed("looking at", path, e))?;
    Ok(fs::symlink_metadata(path).is_ok_and(|there| is_same(&there, &opened)))
}

/// Whether two looks were at one file.
#[cfg(unix)]
pub fn is_same(one: &Metadata, other: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Whether two looks were at one file, as far as can be told here.
#[cfg(not(unix))]
pub fn is_same(one: &Metadata, other: &Metadata) -> bool {
    one.file_type() == other.file_type()
}

/// What a failure of the file system means. A full disk may have room later.
pub fn failed(doing: &str, path: &Path, error: io::Error) -> Error {
    let retryable = error.kind() == io::ErrorKind::StorageFull;
    let doing = format!("{doing} {}", path.display());
    Error::Backend { doing: doing.into(), outcome: Outcome::NotApplied, retryable, source: Arc::new(error) }
}
