//! Units of writing: begun with BEGIN IMMEDIATE, ended by a commit whose result is looked at, or undone.

use std::time::{Duration, Instant};

use rusqlite::Connection;
use store_api::{Error, Outcome, Result};

use crate::error;

/// Begins, waiting up to `timeout` for writers in other processes.
///
/// # Errors
/// `Busy`, `Backend`; nothing is open then.
pub(crate) fn begin(connection: &Connection, timeout: Duration) -> Result<()> {
    let start = Instant::now();
    let begin = || {
        if !connection.is_autocommit() {
            run(connection, "ROLLBACK")?; // one that could not be undone before
        }
        connection.busy_timeout(timeout)?;
        run(connection, "BEGIN IMMEDIATE")
    };
    begin().map_err(|e| error::waited_since(start, error::sqlite("beginning a transaction", e)))
}

/// Commits. When it cannot, everything is undone.
///
/// # Errors
/// `Busy` when others were in the way, and nothing was stored; otherwise `Backend`, in doubt unless SQLite had
/// undone the transaction before.
pub(crate) fn commit(connection: &Connection) -> Result<()> {
    if connection.is_autocommit() {
        return Err(error::undone_by_sqlite());
    }
    let Err(failure) = run(connection, "COMMIT") else { return Ok(()) };
    // A commit that failed may have left the transaction open. Should not even the undoing work, the next `begin`
    // tries again; what to report is why the commit failed.
    drop(abort(connection));
    Err(match error::sqlite("committing a transaction", failure) {
        busy @ Error::Busy { .. } => busy,
        other @ Error::Backend { .. } => other.with_outcome(Outcome::InDoubt),
        other => Error::backend("committing a transaction", other).with_outcome(Outcome::InDoubt),
    })
}

/// Undoes everything.
///
/// # Errors
/// `Backend`, when not even that worked.
pub(crate) fn abort(connection: &Connection) -> Result<()> {
    if connection.is_autocommit() {
        return Ok(());
    }
    run(connection, "ROLLBACK").map_err(|e| error::sqlite("undoing a transaction", e))
}

/// Runs one of the statements that begin and end transactions.
pub(crate) fn run(connection: &Connection, sql: &'static str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}
