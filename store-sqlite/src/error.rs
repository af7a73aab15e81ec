//! What SQLite and the system report, as the errors of the contract: the one place where they are translated.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{ErrorCode, ffi};
use store_api::{Error, Outcome};

/// What a failure of SQLite means. Never a refusal: every failure here dooms the transaction that it happens in,
/// because SQLite may have undone the whole of it.
///
/// A constraint that fails is damage: every rule is checked before a write, and writers follow one another, so tables
/// and indexes do not agree.
pub(crate) fn sqlite(doing: &'static str, error: rusqlite::Error) -> Error {
    use rusqlite::Error as E;
    match &error {
        E::SqliteFailure(failure, message) => {
            let detail = || message.clone().unwrap_or_else(|| failure.to_string());
            match failure.code {
                ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => busy(Duration::ZERO, ANOTHER_PROCESS),
                // A file that is no database was refused before SQLite saw it; here it has become none.
                ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::ConstraintViolation => {
                    Error::corrupt("database file", detail())
                }
                ErrorCode::DiskFull | ErrorCode::OutOfMemory | ErrorCode::OperationInterrupted => {
                    backend(doing, true, error)
                }
                _ if failure.extended_code == ffi::SQLITE_ERROR => other_schema(detail()),
                _ => backend(doing, false, error),
            }
        }
        E::SqlInputError { error: failure, msg, .. } if failure.extended_code == ffi::SQLITE_ERROR => {
            other_schema(msg.clone())
        }
        E::FromSqlConversionFailure(..)
        | E::IntegralValueOutOfRange(..)
        | E::Utf8Error(..)
        | E::InvalidColumnType(..) => Error::corrupt("database row", error.to_string()),
        _ => backend(doing, false, error),
    }
}

/// Statements are constants that fit our schema, so one that SQLite finds wrong met another schema: a flipped bit in
/// the text of a table, say.
fn other_schema(detail: String) -> Error {
    Error::corrupt("database schema", detail)
}

fn backend(doing: &'static str, retryable: bool, error: rusqlite::Error) -> Error {
    Error::Backend { doing: doing.into(), outcome: Outcome::NotApplied, retryable, source: Arc::new(error) }
}

/// Whether the disk has failed to take something: then a flush may have failed (law DUR-2). A full disk has not.
pub(crate) fn is_disk_failure(error: &Error) -> bool {
    let Error::Backend { source, .. } = error else { return false };
    let source: &(dyn std::error::Error + 'static) = &**source;
    let Some(failure) = source.downcast_ref().and_then(rusqlite::Error::sqlite_error) else { return false };
    let reading = [ffi::SQLITE_IOERR_READ, ffi::SQLITE_IOERR_SHORT_READ];
    failure.code == ErrorCode::SystemIoFailure && !reading.contains(&failure.extended_code)
}

/// Who holds the store, when it is not this process.
pub(crate) const ANOTHER_PROCESS: &str = "another process uses the file";

/// `Busy` after waiting for `holder`.
pub(crate) fn busy(waited: Duration, holder: &'static str) -> Error {
    Error::Busy { waited, holder: holder.into() }
}

/// The same error; a `Busy` says how long the caller has waited since `start`.
pub(crate) fn waited_since(start: Instant, error: Error) -> Error {
    match error {
        Error::Busy { holder, .. } => Error::Busy { waited: start.elapsed(), holder },
        other => other,
    }
}

/// A call took a second look without having asked for one moment: a fault of ours, which must not give a mixed answer.
pub(crate) fn second_moment() -> Error {
    Error::backend("reading", std::io::Error::other("a second look would see another moment"))
}

/// The transaction is gone although nobody ended it: SQLite undoes it by itself after some failures.
pub(crate) fn undone_by_sqlite() -> Error {
    Error::backend(
        "going on with a transaction",
        std::io::Error::other("SQLite has undone it after a failure"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::Connection;
    use store_api::ErrorKind;

    /// A flipped bit in the text of a table renames a column. `verify` once gave up on such a file as on a failing
    /// disk, where it was to tell of the damage.
    #[test]
    fn a_statement_that_does_not_fit_the_schema_is_damage() {
        let db = Connection::open_in_memory().unwrap();
        let tables = "PRAGMA foreign_keys = OFF; CREATE TABLE p (ie TEXT UNIQUE); CREATE TABLE c (p REFERENCES p (id)); INSERT INTO c VALUES ('x');";
        db.execute_batch(tables).unwrap();
        for sql in ["SELECT id FROM p", "SELECT 1 FROM q", "PRAGMA foreign_key_check"] {
            let run = || db.prepare(sql)?.query([])?.next().map(drop);
            assert_eq!(sqlite("reading", run().unwrap_err()).kind(), ErrorKind::Corrupt, "{sql}");
        }
    }
}
