//! Backup: a consistent copy while others go on, whole or not there.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};
use safe_files::{Staged, exists, resolve, with_suffix};
use store_api::{Entity, Error, Result};

use crate::{error, recovery};

/// How long to sleep when somebody is in the way of the copy.
const PAUSE: Duration = Duration::from_millis(10);

/// Copies the database that `from` reads to `to`: under another name beside it first, flushed, then published under
/// its own, where nothing may be.
pub(crate) fn run(from: &Connection, to: &Path, timeout: Duration) -> Result<()> {
    let to = resolve(to)?;
    refuse_existing(&to)?;
    let staged = Staged::beside(&to)?;
    copy(from, staged.path(), timeout)?;
    staged.publish()
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

/// Copies all pages that `from` sees into the empty file `to`.
pub(crate) fn copy(from: &Connection, to: &Path, timeout: Duration) -> Result<()> {
    let doing = "copying the database";
    let failed = |e| error::sqlite(doing, e);
    let start = Instant::now();
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE
        | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX
        | rusqlite::OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let mut target = Connection::open_with_flags(to, flags).map_err(failed)?;
    // It is flushed once, as a whole, before anybody can see it. Nothing is laid beside it.
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
