//! One unit of writing: begun with BEGIN IMMEDIATE, ended by a commit whose result is looked at, or undone.

use std::time::{Duration, Instant};

use rusqlite::Connection;
use store_api::{Error, Outcome, Result};

use crate::error;

/// A write transaction that is open. Dropped without a commit, as by a panic, it is undone.
pub(crate) struct Unit<'c> {
    connection: &'c Connection,
}

impl<'c> Unit<'c> {
    /// Begins, waiting up to `timeout` for writers in other processes.
    pub(crate) fn begin(connection: &'c Connection, timeout: Duration) -> Result<Self> {
        let start = Instant::now();
        let begin = || {
            if !connection.is_autocommit() {
                run(connection, "ROLLBACK")?; // one that could not be undone before
            }
            connection.busy_timeout(timeout)?;
            run(connection, "BEGIN IMMEDIATE")
        };
        begin().map_err(|e| error::waited_since(start, error::sqlite("beginning a transaction", e)))?;
        Ok(Unit { connection })
    }

    /// Commits.
    ///
    /// # Errors
    /// `Busy` when others were in the way, and nothing was stored; otherwise `Backend`, in doubt unless SQLite had
    /// undone the transaction before.
    pub(crate) fn commit(self) -> Result<()> {
        if self.connection.is_autocommit() {
            return Err(error::undone_by_sqlite());
        }
        run(self.connection, "COMMIT").map_err(|e| match error::sqlite("committing a transaction", e) {
            busy @ Error::Busy { .. } => busy,
            other @ Error::Backend { .. } => other.with_outcome(Outcome::InDoubt),
            other => Error::backend("committing a transaction", other).with_outcome(Outcome::InDoubt),
        })
    }

    /// Undoes everything.
    ///
    /// # Errors
    /// `Backend`, when not even that worked.
    pub(crate) fn undo(self) -> Result<()> {
        self.roll_back().map_err(|e| error::sqlite("undoing a transaction", e))
    }

    fn roll_back(&self) -> rusqlite::Result<()> {
        if self.connection.is_autocommit() { Ok(()) } else { run(self.connection, "ROLLBACK") }
    }
}

impl Drop for Unit<'_> {
    fn drop(&mut self) {
        if self.roll_back().is_err() {
            // Nobody can be told here. The transaction is still open, and the next `begin` tries again.
        }
    }
}

/// Runs one of the statements that begin and end transactions.
pub(crate) fn run(connection: &Connection, sql: &'static str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}
