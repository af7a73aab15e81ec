//! The one write path: one connection, one writer at a time.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use store_api::{Error, Outcome, Result, describe};

use crate::error;
use crate::tx::Tx;
use crate::unit::Unit;

/// The connection that writes, until it is closed.
pub(crate) struct Writer {
    connection: Mutex<Option<Connection>>,
    timeout: Duration,
    /// Why writes are refused, once a commit has ended in doubt (law DUR-2).
    poisoned: OnceLock<String>,
}

impl Writer {
    pub(crate) fn new(connection: Connection, timeout: Duration) -> Self {
        Writer { connection: Mutex::new(Some(connection)), timeout, poisoned: OnceLock::new() }
    }

    /// Runs `work` in a transaction and commits it, or undoes it when it fails or panics.
    pub(crate) fn write<R>(&self, work: impl FnOnce(&Tx<'_>) -> Result<R>) -> Result<R> {
        let start = Instant::now();
        let slot = self.lock(start)?;
        let connection = slot.as_ref().ok_or(Error::Closed)?;
        if let Some(reason) = self.poisoned.get() {
            return Err(Error::Poisoned { reason: reason.clone() });
        }
        let left = self.timeout.saturating_sub(start.elapsed());
        let unit = Unit::begin(connection, left).map_err(|e| error::waited_since(start, e))?;
        let done = match work(&Tx::on(connection)) {
            Ok(done) => done,
            Err(error) => {
                unit.undo()?;
                return Err(error);
            }
        };
        match unit.commit() {
            Ok(()) => Ok(done),
            Err(error) => {
                let error = error::waited_since(start, error);
                if error.outcome() == Outcome::InDoubt {
                    self.poison(connection, &error);
                }
                Err(error)
            }
        }
    }

    /// Waits for the writers before in this process.
    fn lock(&self, start: Instant) -> Result<MutexGuard<'_, Option<Connection>>> {
        let locked = self.connection.try_lock_for(self.timeout);
        locked.ok_or_else(|| error::busy(start.elapsed(), "another writer in this process"))
    }

    /// Refuses writes from now on, and leaves the WAL as it is: what a later checkpoint would copy into the
    /// database may not be what is on disk.
    fn poison(&self, connection: &Connection, cause: &Error) {
        let mut reason = describe(cause);
        if let Err(e) = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true) {
            reason.push_str(&format!("; the write-ahead log could not be set aside: {e}"));
        }
        self.poisoned.get_or_init(|| reason);
    }

    /// Ends writing: waits for the writer at work, then for `readers` to end, copies the WAL back and closes.
    /// Closing again does nothing.
    pub(crate) fn close(&self, readers: impl FnOnce() -> Result<()>) -> Result<()> {
        let mut slot = self.lock(Instant::now())?;
        if slot.is_none() {
            return Ok(());
        }
        readers()?;
        let Some(connection) = slot.take() else { return Ok(()) };
        let copied = if self.poisoned.get().is_none() { copy_back(&connection) } else { Ok(()) };
        connection.close().map_err(|(_, e)| error::sqlite("closing the database", e))?;
        copied
    }
}

/// Copies the WAL into the database and empties it, as far as other processes let it; the last to close does the rest.
fn copy_back(connection: &Connection) -> Result<()> {
    let copy = || {
        connection.busy_timeout(Duration::ZERO)?;
        connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
    };
    match copy().map_err(|e| error::sqlite("copying the write-ahead log back", e)) {
        Err(Error::Busy { .. }) => Ok(()),
        other => other,
    }
}
