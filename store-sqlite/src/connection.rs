//! Connections: opened one way, with every setting said out loud, because builds of SQLite differ in their defaults.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags};
use store_api::{Durability, Error, Result};

use crate::{Options, checkpoint, error, migrations};

/// The oldest SQLite that is safe: before it, a commit could be lost when several connections write to one WAL.
const OLDEST_LIBRARY: i32 = 3_051_003;

/// How many prepared statements a connection keeps: more than there are in this crate, filters included.
const STATEMENTS: usize = 256;

/// The largest row, in bytes. A record may weigh 16 MiB before JSON escapes it, which takes up to six times that;
/// versions and finished runs hold two such parts.
const LARGEST_ROW: i32 = 256 * 1024 * 1024;

/// How long to sleep before asking again for a lock that SQLite does not wait for by itself.
pub(crate) const PAUSE: Duration = Duration::from_millis(2);

/// The settings of every connection.
///
/// - `page_size` counts when the file is created: documents of 2 KB fill pages of 8 KB better than smaller ones.
/// - The file is not mapped into memory: a failing disk must give an error, not a signal that ends the host.
/// - The WAL is copied back by us (see [`crate::log`]), and cut when it has grown beyond 64 MB.
const SETTINGS: &str = "
    PRAGMA page_size = 8192;
    PRAGMA encoding = 'UTF-8';
    PRAGMA foreign_keys = ON;
    PRAGMA recursive_triggers = OFF;
    PRAGMA trusted_schema = OFF;
    PRAGMA cell_size_check = ON;
    PRAGMA temp_store = MEMORY;
    PRAGMA cache_size = -16384;
    PRAGMA mmap_size = 0;
    PRAGMA wal_autocheckpoint = 0;
    PRAGMA journal_size_limit = 67108864;
";

/// Refuses a library that may lose commits.
///
/// # Errors
/// `Unsupported`.
pub(crate) fn check_library() -> Result<()> {
    if rusqlite::version_number() >= OLDEST_LIBRARY {
        return Ok(());
    }
    let operation = format!("SQLite {}: versions before 3.51.3 may lose commits", rusqlite::version());
    Err(Error::Unsupported { operation: operation.into() })
}

/// Opens the connection that writes, and brings the schema up to date. The file exists. `None` when it is not
/// `settled`, which is asked once SQLite's lock keeps others from putting another file in its place.
pub(crate) fn open_writer(
    path: &Path,
    options: &Options,
    settled: impl FnOnce() -> Result<bool>,
) -> Result<Option<Connection>> {
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE, options)?;
    let timeout = options.busy_timeout;
    // The log that lies beside the name may be another file's, so closing must leave it alone until this is known.
    keep_log(&connection, true)?;
    retry_while_busy(timeout, || look(&connection))?;
    if !settled()? {
        return Ok(None);
    }
    keep_log(&connection, false)?;
    retry_while_busy(timeout, || migrations::run(&connection, timeout))?;
    retry_while_busy(timeout, || switch_to_wal(&connection))?;
    checkpoint::define_head_sum(&connection).map_err(|e| error::sqlite("setting up a connection", e))?;
    Ok(Some(connection))
}

/// Opens a connection that nobody else has one beside, here or in another process, and that neither begins nor ends
/// the log. `None` while somebody has.
pub(crate) fn open_alone(path: &Path) -> Result<Option<Connection>> {
    let alone = || {
        let connection = raw(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.busy_timeout(Duration::ZERO)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        // Before anything is read: the lock is then on the file itself, and its index is kept in memory.
        connection.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; ROLLBACK")?;
        Ok(connection)
    };
    match alone().map_err(|e| error::sqlite("locking the database", e)) {
        Ok(connection) => Ok(Some(connection)),
        Err(Error::Busy { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads the schema, for the lock that this takes and a connection in WAL mode keeps.
fn look(connection: &Connection) -> Result<()> {
    let look = connection.query_one("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()));
    look.map_err(|e| error::sqlite("reading the schema", e))
}

/// Whether closing leaves the write-ahead log as it is.
pub(crate) fn keep_log(connection: &Connection, keep: bool) -> Result<()> {
    let set = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep);
    set.map(drop).map_err(|e| error::sqlite("setting up a connection", e))
}

/// Opens a connection beside the writer's, which copies the log back and leaves it when it is closed.
pub(crate) fn open_beside(path: &Path, options: &Options) -> Result<Connection> {
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE, options)?;
    keep_log(&connection, true)?;
    Ok(connection)
}

/// Opens a connection that reads.
pub(crate) fn open_reader(path: &Path, options: &Options) -> Result<Connection> {
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_ONLY, options)?;
    let forbid = connection.execute_batch("PRAGMA query_only = ON");
    forbid.map_err(|e| error::sqlite("setting up a connection", e))?;
    Ok(connection)
}

fn raw(path: &Path, access: OpenFlags) -> rusqlite::Result<Connection> {
    let flags = access
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW
        | OpenFlags::SQLITE_OPEN_EXRESCODE;
    Connection::open_with_flags(path, flags)
}

pub(crate) fn open(path: &Path, access: OpenFlags, options: &Options) -> Result<Connection> {
    let start = Instant::now();
    let set_up = || {
        let connection = raw(path, access)?;
        configure(&connection, options)?;
        Ok(connection)
    };
    set_up().map_err(|e| error::waited_since(start, error::sqlite("opening the database", e)))
}

fn configure(connection: &Connection, options: &Options) -> rusqlite::Result<()> {
    connection.busy_timeout(options.busy_timeout)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, LARGEST_ROW)?;
    for (setting, on) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_DQS_DDL, false),
        (DbConfig::SQLITE_DBCONFIG_DQS_DML, false),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        // Without it, what is bound to a query counts for its plan, and SQLite would make the plan again each time.
        (DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true),
    ] {
        connection.set_db_config(setting, on)?;
    }
    connection.execute_batch(SETTINGS)?;
    connection.execute_batch(match options.durability {
        Durability::PowerLoss => "PRAGMA synchronous = FULL",
        Durability::Process | Durability::Memory => "PRAGMA synchronous = NORMAL",
    })
}

fn switch_to_wal(connection: &Connection) -> Result<()> {
    let mode = connection.query_one("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0));
    let mode = mode.map_err(|e| error::sqlite("switching to write-ahead logging", e))?;
    if mode == "wal" {
        return Ok(());
    }
    let operation = format!("a file system where SQLite's journal mode stays {mode:?}");
    Err(Error::Unsupported { operation: operation.into() })
}

/// Asks again while the answer is Busy. SQLite gives it at once, whatever its timeout, where waiting could end in a
/// deadlock: when several processes create one file, or switch it to WAL.
fn retry_while_busy<T>(timeout: Duration, mut ask: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match ask() {
            Err(Error::Busy { .. }) if start.elapsed() < timeout => std::thread::sleep(PAUSE),
            answer => return answer.map_err(|e| error::waited_since(start, e)),
        }
    }
}

/// How SQLite runs a query on the current schema, in its own words.
#[cfg(test)]
pub(crate) fn plan(sql: &str) -> String {
    let connection = Connection::open_in_memory().unwrap();
    configure(&connection, &Options::default()).unwrap();
    migrations::run(&connection, Duration::ZERO).unwrap();
    let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    let mut rows = statement.raw_query();
    let mut plan = String::new();
    while let Some(row) = rows.next().unwrap() {
        plan.push_str(&row.get::<_, String>(3).unwrap());
        plan.push('\n');
    }
    plan
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::*;

    /// SECURITY.md says what these are for. Builds of SQLite differ in their defaults, and a setting that one does not
    /// know is ignored without a word, so each is read back.
    #[test]
    fn every_connection_has_the_settings_that_protect_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s.db");
        let options = Options::default();
        let writer = open_writer(&path, &options, || Ok(true));
        assert!(writer.is_err(), "a connection creates no file: it would be readable for everybody");
        std::fs::write(&path, "").unwrap();
        let writer = open_writer(&path, &options, || Ok(true)).unwrap().unwrap();
        let reader = open_reader(&path, &options).unwrap();
        for (connection, reads_only) in [(&writer, 0), (&reader, 1)] {
            for (setting, on) in [
                (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
                (DbConfig::SQLITE_DBCONFIG_DQS_DDL, false),
                (DbConfig::SQLITE_DBCONFIG_DQS_DML, false),
                (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
                (DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false),
            ] {
                assert_eq!(connection.db_config(setting).unwrap(), on, "{setting:?}");
            }
            for (pragma, value) in [
                ("foreign_keys", 1),
                ("trusted_schema", 0),
                ("cell_size_check", 1),
                ("mmap_size", 0),
                ("recursive_triggers", 0),
                ("query_only", reads_only),
                ("synchronous", 2),
            ] {
                let found: i64 =
                    connection.query_one(&format!("PRAGMA {pragma}"), [], |row| row.get(0)).unwrap();
                assert_eq!(found, value, "{pragma}");
            }
            assert_eq!(connection.limit(Limit::SQLITE_LIMIT_LENGTH).unwrap(), LARGEST_ROW);
        }
        let defended = writer.execute_batch("PRAGMA writable_schema = ON; DELETE FROM sqlite_schema");
        assert!(defended.is_err(), "the schema can be written to");
        assert!(reader.execute_batch("DELETE FROM meta").is_err(), "a reader writes");
    }

    /// SQLite made the plan of the due list again for every page of it, an eighth of the page's time, because a bound
    /// value might have led to another.
    #[test]
    fn a_plan_is_made_once() {
        let connection = Connection::open_in_memory().unwrap();
        configure(&connection, &Options::default()).unwrap();
        migrations::run(&connection, Duration::ZERO).unwrap();
        let sql = "SELECT id FROM definitions WHERE kind = 1 AND next_run_at <= ?1 ORDER BY next_run_at, id";
        let mut statement = connection.prepare(sql).unwrap();
        for now in 0..3 {
            assert!(!statement.exists([now]).unwrap());
        }
        assert_eq!(statement.get_status(StatementStatus::RePrepare), 0);
    }
}
