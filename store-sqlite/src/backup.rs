//! Backup: a consistent copy while others go on, whole or not there.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};
use store_api::{Entity, Error, Result};

use crate::{error, file};

/// How long to sleep when somebody is in the way of the copy.
const PAUSE: Duration = Duration::from_millis(10);

/// Copies the database that `from` reads to `to`: under another name beside it first, flushed, then published under
/// its own, where nothing may be.
pub(crate) fn run(from: &Connection, to: &Path, timeout: Duration) -> Result<()> {
    let to = file::resolve(to)?;
    refuse_existing(&to)?;
    let partial = Partial::create(&to)?;
    copy(from, &partial.path, timeout)?;
    flush(&partial.path)?;
    publish(&partial.path, &to)?;
    partial.remove()?;
    file::sync_directory_of(&to)
}

/// Also a log without its database is in the way: SQLite would play it into the copy.
fn refuse_existing(to: &Path) -> Result<()> {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let path = with_suffix(to, suffix);
        match path.symlink_metadata() {
            Ok(_) => return Err(exists(&path)),
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(error::io(format!("looking at {path:?}"), e)),
        }
    }
    Ok(())
}

fn exists(path: &Path) -> Error {
    Error::already_exists(Entity::File, "path", path.display().to_string())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// A copy under way, with a name of its own. Dropped before it is done, it is removed with all that SQLite laid
/// beside it.
struct Partial {
    path: PathBuf,
}

impl Partial {
    fn create(to: &Path) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let mut name = OsString::from(".");
        name.push(to.file_name().unwrap_or(OsStr::new("backup")));
        name.push(format!(".{}-{}.partial", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        let path = to.with_file_name(name);
        file::create_private(&path).map_err(|e| error::io(format!("creating {path:?}"), e))?;
        Ok(Partial { path })
    }

    fn remove(&self) -> Result<()> {
        for suffix in ["", "-wal", "-shm", "-journal"] {
            match fs::remove_file(with_suffix(&self.path, suffix)) {
                Err(e) if e.kind() != ErrorKind::NotFound => {
                    return Err(error::io(format!("removing {:?}", self.path), e));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if self.remove().is_err() {
            // The error that cut the backup off is on its way to the caller already.
        }
    }
}

fn copy(from: &Connection, to: &Path, timeout: Duration) -> Result<()> {
    let doing = "copying the database";
    let failed = |e| error::sqlite(doing, e);
    let start = Instant::now();
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE
        | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX
        | rusqlite::OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let mut target = Connection::open_with_flags(to, flags).map_err(failed)?;
    // It is flushed once, as a whole, before anybody can see it.
    target.execute_batch("PRAGMA synchronous = OFF; PRAGMA journal_mode = MEMORY").map_err(failed)?;
    {
        let backup = Backup::new(from, &mut target).map_err(failed)?;
        // All pages in one step: one moment of the source, whatever is written meanwhile.
        while backup.step(-1).map_err(failed)? != StepResult::Done {
            if start.elapsed() >= timeout {
                return Err(error::busy(start.elapsed(), error::ANOTHER_PROCESS));
            }
            std::thread::sleep(PAUSE);
        }
    }
    target.close().map_err(|(_, e)| failed(e))
}

fn flush(path: &Path) -> Result<()> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|e| error::io("flushing the copy", e))
}

/// Gives the copy its name, unless something has it by now.
fn publish(partial: &Path, to: &Path) -> Result<()> {
    fs::hard_link(partial, to).map_err(|e| match e.kind() {
        ErrorKind::AlreadyExists => exists(to),
        _ => error::io(format!("creating {to:?}"), e),
    })
}
