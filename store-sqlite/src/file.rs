//! The file, before SQLite touches it: what it is, whose it is, who may read it.

use std::collections::HashMap;
use std::fs::{File, Metadata, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use store_api::{Entity, Error, Result};

use crate::error;
use crate::migrations::{APPLICATION_ID, SCHEMA};

/// A file that this process has opened, kept open as long as a store uses it.
///
/// POSIX drops *all* locks that a process holds on a file when it closes *any* descriptor of it. So a file is opened
/// once for a look at its header, and closed only when no store of this process uses it any more; a second store
/// looks through the same descriptor.
pub(crate) type Held = Arc<File>;

/// The files that are held, by device and inode.
type Files = HashMap<(u64, u64), Weak<File>>;
static HELD: Mutex<Option<Files>> = Mutex::new(None);

/// The path of a store's file: absolute and without symbolic links in its directory, so that nothing in it can be
/// taken for a URI and nobody can move it under our feet. The file itself need not exist.
///
/// # Errors
/// `InvalidInput` for a path that names no file; `Backend` when its directory cannot be reached.
pub(crate) fn resolve(path: &Path) -> Result<PathBuf> {
    if path.as_os_str().as_encoded_bytes().contains(&0) {
        return Err(Error::invalid("path", "has the character U+0000"));
    }
    let name = path.file_name().ok_or_else(|| Error::invalid("path", format!("{path:?} names no file")))?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory = directory.canonicalize().map_err(|e| error::io(format!("opening {directory:?}"), e))?;
    Ok(directory.join(name))
}

/// Opens the file for a look at its header, creating it (empty, readable by its owner alone) when it may be created.
///
/// # Errors
/// `NotFound`; `NotThisStore`, `SchemaTooNew` or `Corrupt` for a file that SQLite must not touch.
pub(crate) fn hold(path: &Path, create: bool) -> Result<Held> {
    let mut held = HELD.lock();
    let held = held.get_or_insert_default();
    held.retain(|_, file| file.strong_count() > 0);
    let file = match path.symlink_metadata() {
        Ok(found) => hold_existing(path, &found, held)?,
        Err(e) if e.kind() == ErrorKind::NotFound && create => match create_private(path) {
            Ok(file) => Arc::new(file),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                let found = path.symlink_metadata().map_err(|e| error::io("looking at the file", e))?;
                hold_existing(path, &found, held)?
            }
            Err(e) => return Err(error::io(format!("creating {path:?}"), e)),
        },
        Err(e) if e.kind() == ErrorKind::NotFound => {
            return Err(Error::not_found(Entity::File, path.display().to_string()));
        }
        Err(e) => return Err(error::io(format!("looking at {path:?}"), e)),
    };
    let opened = file.metadata().map_err(|e| error::io("looking at the file", e))?;
    held.insert(identity(&opened), Arc::downgrade(&file));
    check_header(path, &file)?;
    Ok(file)
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

fn hold_existing(path: &Path, found: &Metadata, held: &Files) -> Result<Held> {
    let refuse = |what: &str| Err(Error::NotThisStore { detail: format!("{path:?} is {what}") });
    if found.is_symlink() {
        return refuse("a symbolic link");
    }
    if found.is_dir() {
        return refuse("a directory");
    }
    if !found.is_file() {
        return refuse("no regular file");
    }
    if let Some(file) = held.get(&identity(found)).and_then(Weak::upgrade) {
        return Ok(file);
    }
    let file = File::open(path).map_err(|e| error::io(format!("opening {path:?}"), e))?;
    let opened = file.metadata().map_err(|e| error::io("looking at the file", e))?;
    if identity(&opened) != identity(found) {
        return refuse("being replaced by somebody while it is opened");
    }
    Ok(Arc::new(file))
}

/// Creates a file that only its owner can read; never through a symbolic link, never over what is there.
pub(crate) fn create_private(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// How an SQLite file begins.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// How long the header is, and where in it two numbers stand, both big-endian.
const HEADER: usize = 100;
const USER_VERSION: usize = 60;
const APPLICATION: usize = 68;

/// Whether SQLite may open the file: it is empty, or ours and of a schema that we know.
fn check_header(path: &Path, file: &File) -> Result<()> {
    let mut header = [0; HEADER];
    let mut length = 0;
    while length < HEADER {
        match file.read_at(&mut header[length..], length as u64) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(error::io(format!("reading {path:?}"), e)),
        }
    }
    if length == 0 {
        return Ok(());
    }
    if header == [0; HEADER] && journal_of(path).exists() {
        // The power went while the file was created. The journal says that it was empty, and SQLite sees to it.
        return Ok(());
    }
    if !header.starts_with(MAGIC) {
        return Err(Error::NotThisStore { detail: format!("{path:?} is no SQLite database") });
    }
    if length < HEADER {
        return Err(Error::corrupt(path.display().to_string(), format!("is cut off after {length} bytes")));
    }
    let number = |at: usize| {
        let bytes: [u8; 4] = std::array::from_fn(|i| header[at + i]);
        u32::from_be_bytes(bytes)
    };
    check_owner(number(APPLICATION), number(USER_VERSION))
}

fn journal_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-journal");
    name.into()
}

/// Whether a database with these numbers in its header is one of ours, and of a schema that we know.
///
/// # Errors
/// `NotThisStore`; `SchemaTooNew`.
pub(crate) fn check_owner(application: u32, schema: u32) -> Result<()> {
    if application != APPLICATION_ID {
        let detail = format!("an SQLite database of another application ({application:#010x})");
        return Err(Error::NotThisStore { detail });
    }
    if schema > SCHEMA {
        return Err(Error::SchemaTooNew { found: schema, supported: SCHEMA });
    }
    Ok(())
}

/// Makes a new name in a directory survive a loss of power.
pub(crate) fn sync_directory_of(path: &Path) -> Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|e| error::io("flushing a directory", e))
}
