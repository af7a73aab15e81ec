//! Opening, and before it the recovery of a database whose flush failed. How it goes, and why: [`safe_files::recovery`].

use std::path::Path;
use std::time::Instant;

use rusqlite::Connection;
use safe_files::recovery::{Claim, Logs, Recovery, is_settled, mark};
use store_api::{Durability, Error, Result, describe};

use crate::connection::{self, PAUSE};
use crate::file::{self, Held};
use crate::tx::Tx;
use crate::{Options, backup, error, unit, verify};

/// What SQLite lays beside a database.
pub(crate) const LOGS: Logs = &["-wal", "-shm", "-journal"];

/// Who holds the store, when it is being recovered or waits for that.
const RECOVERING: &str =
    "a flush failed, and the file is being recovered, or others that have it open keep it from that";

/// Opens the connection that writes, and the file below it. When a flush of it failed it is recovered before that.
///
/// # Errors
/// `Busy` while others are in the way for longer than the timeout, and those of [`recover`], [`file::hold`] and
/// [`connection::open_writer`].
pub(crate) fn open(path: &Path, options: &Options) -> Result<(Held, Connection)> {
    let start = Instant::now();
    loop {
        let opened = attempt(path, options).map_err(|e| error::waited_since(start, e))?;
        if let Some(opened) = opened {
            return Ok(opened);
        }
        if start.elapsed() >= options.busy_timeout {
            return Err(error::busy(start.elapsed(), RECOVERING));
        }
        std::thread::sleep(PAUSE);
    }
}

/// `None` when others are in the way.
fn attempt(path: &Path, options: &Options) -> Result<Option<(Held, Connection)>> {
    let recovered = match Recovery::claim(path, LOGS)? {
        Claim::Unmarked => true,
        Claim::Elsewhere => false,
        Claim::Here(recovery) => recover(recovery, path, options)?,
    };
    if !recovered {
        return Ok(None);
    }
    let file = file::hold(path, options.create)?;
    match connection::open_writer(path, options, || is_settled(path, &file, LOGS)) {
        Ok(writer) => Ok(writer.map(|writer| (file, writer))),
        Err(error) if error::is_disk_failure(&error) => Err(marked(path, error)),
        Err(error) => Err(error),
    }
}

/// Leaves the marker after `error`, which may be a failed flush.
fn marked(path: &Path, error: Error) -> Error {
    let reason = describe(&error);
    match mark(path, &reason) {
        Ok(()) => error,
        Err(unmarked) => Error::backend(format!("leaving a marker after {reason:?}"), unmarked),
    }
}

/// Recovers the database, unless somebody has it open: then the answer is no.
///
/// # Errors
/// `Corrupt` when the copy does not verify; those of [`file::hold`]; `Backend`. The database and the marker are
/// as they were then, or the next opener goes on.
fn recover(recovery: Recovery, path: &Path, options: &Options) -> Result<bool> {
    if recovery.is_copied()? {
        return recovery.swap().map(|()| true);
    }
    let _file = match file::hold(path, false) {
        Err(Error::NotFound { .. }) => return recovery.forget().map(|()| true),
        other => other?,
    };
    let Some(alone) = connection::open_alone(path)? else { return Ok(false) };
    recovery.copy(|copy| copy_and_verify(&alone, copy, options))?;
    recovery.swap()?;
    Ok(true)
}

/// Copies what `from` reads, which may be in memory alone, to an empty file, and brings the copy up to date: what the
/// failed flush was to store may have been the schema itself.
fn copy_and_verify(from: &Connection, to: &Path, options: &Options) -> Result<()> {
    backup::copy(from, to, options.busy_timeout)?;
    let options = Options { durability: Durability::PowerLoss, ..options.clone() };
    let Some(copy) = connection::open_writer(to, &options, || Ok(true))? else { return Ok(()) };
    unit::begin(&copy, options.busy_timeout)?;
    let found = verify::run(&Tx::writing(&copy))?;
    unit::abort(&copy)?;
    copy.close().map_err(|(_, e)| error::sqlite("closing the copy", e))?;
    found.require_sound("database that a failed flush left")
}
