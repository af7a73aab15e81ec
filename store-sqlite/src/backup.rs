//! Backup: a consistent copy while others go on, whole or not there.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};
use safe_files::{
    create_private, exists, failed, link, remove, resolve, sync, sync_directory_of, with_suffix,
};
use store_api::{Entity, Error, Result};

use crate::{error, recovery};

/// How long to sleep when somebody is in the way of the copy.
const PAUSE: Duration = Duration::from_millis(10);

/// Copies the database that `from` reads to `to`: under another name beside it first, flushed, then published under
/// its own, where nothing may be.
pub(crate) fn run(from: &Connection, to: &Path, timeout: Duration) -> Result<()> {
    let to = resolve(to)?;
    refuse_existing(&to)?;
    let partial = Partial::create(&to)?;
    copy(from, &partial.path, timeout)?;
    let copied = File::open(&partial.path).map_err(|e| failed("opening", &partial.path, e))?;
    sync(&partial.path, &copied)?;
    link(&partial.path, &to)?;
    partial.remove()?;
    sync_directory_of(&to)
}

/// Also a log without its database is in the way: SQLite would play it into the copy. And so is the marker of a
/// recovery, which would be taken for the copy's.
fn refuse_existing(to: &Path) -> Result<()> {
    let logs = recovery::LOGS.iter().map(|suffix| with_suffix(to, suffix));
    for path in logs.chain([to.to_owned(), safe_files::recovery::marker(to)]) {
        if exists(&path)? {
            return Err(Error::already_exists(Entity::File, "path", path.display().to_string()));
        }
    }
    Ok(())
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
        drop(create_private(&path)?);
        Ok(Partial { path })
    }

    fn remove(&self) -> Result<()> {
        recovery::LOGS.iter().try_for_each(|suffix| remove(&with_suffix(&self.path, suffix)))?;
        remove(&self.path)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if self.remove().is_err() {
            // The error that cut the backup off is on its way to the caller already.
        }
    }
}

/// Copies all pages that `from` sees into the empty file `to`.
pub(crate) fn copy(from: &Connection, to: &Path, timeout: Duration) -> Result<()> {
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
