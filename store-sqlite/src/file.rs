//! The file, before SQLite touches it: what it is, whose it is, who may read it.

use std::collections::HashMap;
use std::fs::{File, Metadata, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use safe_files::{create_private, failed, sync_directory_of, with_suffix};
use store_api::{Entity, Error, Result};

use crate::frames;
use crate::migrations::{APPLICATION_ID, SCHEMA};
use crate::recovery::LOGS;

/// A file that this process has opened, kept open as long as a store uses it.
///
/// POSIX drops *all* locks that a process holds on a file when it closes *any* descriptor of it. So a file is opened
/// once for a look at its header, and closed only when no store of this process uses it any more; a second store
/// looks through the same descriptor.
pub(crate) type Held = Arc<File>;

/// The files that are held, by device and inode.
type Files = HashMap<(u64, u64), Weak<File>>;
static HELD: Mutex<Option<Files>> = Mutex::new(None);

/// What is laid beside a database, at its longest: the journal of a copy that a recovery makes.
const LONGEST_SUFFIX: usize = "-recovering-journal".len();
/// The longest name that file systems take.
const LONGEST_NAME: usize = 255;
/// The longest path that SQLite opens.
const LONGEST_PATH: usize = 512;

/// Refuses a path for which SQLite would find out only once the file is there that nothing can be laid beside it.
///
/// # Errors
/// `InvalidInput`.
pub(crate) fn check_length(path: &Path) -> Result<()> {
    let name = path.file_name().map_or(0, |name| name.len());
    let length = path.as_os_str().len();
    if name + LONGEST_SUFFIX > LONGEST_NAME || length + LONGEST_SUFFIX > LONGEST_PATH {
        let most = "at most 236 in the name and 493 in all";
        return Err(Error::invalid(
            "path",
            format!("{length} bytes, {name} of them in the name, are too many: {most}"),
        ));
    }
    Ok(())
}

/// What lies in the write-ahead log beside a database.
struct Logged {
    is_empty: bool,
    /// The first page of the database, once the log is copied back.
    first_page: Option<Vec<u8>>,
}

/// Looks at what lies beside the database.
///
/// # Errors
/// `NotThisStore` for what SQLite did not lay there, such as a link to elsewhere.
fn look_beside(path: &Path) -> Result<Logged> {
    for suffix in LOGS {
        let side = with_suffix(path, suffix);
        match side.symlink_metadata() {
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Ok(found) if found.is_file() => {}
            Ok(_) => return Err(Error::NotThisStore { detail: format!("{side:?} is no regular file") }),
            Err(e) => return Err(failed("looking at", &side, e)),
        }
    }
    let log = with_suffix(path, "-wal");
    let read = File::open(&log).and_then(|file| {
        Ok(Logged { is_empty: file.metadata()?.len() == 0, first_page: frames::first_page(file)? })
    });
    match read {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Logged { is_empty: true, first_page: None }),
        other => other.map_err(|e| failed("reading", &log, e)),
    }
}

/// Opens the file for a look at its header, creating it (empty, readable by its owner alone) when it may be created.
///
/// # Errors
/// `NotFound`; `NotThisStore`, `SchemaTooNew` or `Corrupt` for a file that SQLite must not touch.
pub(crate) fn hold(path: &Path, create: bool) -> Result<Held> {
    // Looked at before the file is: a new store has its first page before it has a log, so a log that is seen without
    // its database is not one that somebody creates at this moment.
    let logged = look_beside(path)?;
    let orphaned = || {
        let detail = "is gone or empty, and what is in its write-ahead log would be lost";
        Err(Error::corrupt(path.display().to_string(), detail))
    };
    let mut held = HELD.lock();
    let held = held.get_or_insert_default();
    held.retain(|_, file| file.strong_count() > 0);
    let file = match path.symlink_metadata() {
        Ok(found) => hold_existing(path, &found, held)?,
        Err(e) if e.kind() == ErrorKind::NotFound && !logged.is_empty => return orphaned(),
        Err(e) if e.kind() == ErrorKind::NotFound && create => match create_private(path) {
            Ok(file) => {
                sync_directory_of(path)?;
                Arc::new(file)
            }
            Err(Error::AlreadyExists { .. }) => {
                let found = path.symlink_metadata().map_err(|e| failed("looking at", path, e))?;
                hold_existing(path, &found, held)?
            }
            Err(error) => return Err(error),
        },
        Err(e) if e.kind() == ErrorKind::NotFound => {
            return Err(Error::not_found(Entity::File, path.display().to_string()));
        }
        Err(e) => return Err(failed("looking at", path, e)),
    };
    let opened = file.metadata().map_err(|e| failed("looking at", path, e))?;
    held.insert(identity(&opened), Arc::downgrade(&file));
    if opened.len() == 0 && !logged.is_empty {
        return orphaned();
    }
    check_header(path, &file)?;
    // Opening plays the log back, so it must not make the database another one.
    logged.first_page.map_or(Ok(()), |page| check_whole_header(path, &page))?;
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
    // For writing too: SQLite would open a file that it may not write to all the same, and lay its files beside it.
    let file =
        OpenOptions::new().read(true).write(true).open(path).map_err(|e| failed("opening", path, e))?;
    let opened = file.metadata().map_err(|e| failed("looking at", path, e))?;
    if identity(&opened) != identity(found) {
        return refuse("being replaced by somebody while it is opened");
    }
    Ok(Arc::new(file))
}

/// How an SQLite file begins.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// How long the header is, and where in it two numbers stand, both big-endian.
const HEADER: usize = 100;
const USER_VERSION: usize = 60;
const APPLICATION: usize = 68;

/// Whether SQLite may open the file: it is empty, or ours and of a schema that we know.
fn check_header(path: &Path, file: &File) -> Result<()> {
    let header = beginning(path, file, HEADER)?;
    if header.is_empty() {
        return Ok(());
    }
    // The power went while the file was created: SQLite empties it again, whatever of it reached the disk.
    check_whole_header(path, &header).or_else(|refusal| if was_empty(path)? { Ok(()) } else { Err(refusal) })
}

fn check_whole_header(path: &Path, header: &[u8]) -> Result<()> {
    if !header.starts_with(MAGIC) {
        return Err(Error::NotThisStore { detail: format!("{path:?} is no SQLite database") });
    }
    match (number(header, APPLICATION), number(header, USER_VERSION)) {
        (Some(application), Some(schema)) if header.len() >= HEADER => {
            check_owner(application, schema, SCHEMA)
        }
        _ => {
            let detail = format!("is cut off after {} bytes", header.len());
            Err(Error::corrupt(path.display().to_string(), detail))
        }
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_be_bytes)
}

/// The first bytes of a file, as many as there are.
fn beginning(path: &Path, file: &File, most: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; most];
    let mut length = 0;
    while let Some(rest) = bytes.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, length as u64) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(failed("reading", path, e)),
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

/// How a rollback journal begins, and where in it stands how many pages the database had before.
const JOURNAL_MAGIC: &[u8; 8] = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7";
const PAGES_BEFORE: usize = 16;

/// Whether a journal beside the database says that there was nothing in it yet.
fn was_empty(path: &Path) -> Result<bool> {
    let journal = with_suffix(path, "-journal");
    let bytes = match File::open(&journal) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
        other => beginning(&journal, &other.map_err(|e| failed("opening", &journal, e))?, PAGES_BEFORE + 4)?,
    };
    Ok(bytes.starts_with(JOURNAL_MAGIC) && number(&bytes, PAGES_BEFORE) == Some(0))
}

/// Whether a database with these numbers in its header is one of ours, and of no schema after `newest`.
///
/// # Errors
/// `NotThisStore`; `SchemaTooNew`.
pub(crate) fn check_owner(application: u32, schema: u32, newest: u32) -> Result<()> {
    if application != APPLICATION_ID {
        let detail = format!("an SQLite database of another application ({application:#010x})");
        return Err(Error::NotThisStore { detail });
    }
    if schema > newest {
        return Err(Error::SchemaTooNew { found: schema, supported: newest });
    }
    Ok(())
}
