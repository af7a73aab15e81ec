//! Both layers, in a plain session of each engine: every hook is called, and what a hook says reaches the engine.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fault_disk::{Below, Delay, Disk, Handle};
use parking_lot::Mutex;
use redb::{ReadableDatabase, TableDefinition};
use rusqlite::Connection;

/// Counts what it is asked for, and fails what it is told to fail.
#[derive(Debug, Default)]
struct Counter {
    calls: Mutex<BTreeMap<&'static str, u64>>,
    fails: Mutex<Option<(&'static str, io::ErrorKind)>>,
}

impl Counter {
    fn see(&self, call: &'static str) -> io::Result<()> {
        *self.calls.lock().entry(call).or_default() += 1;
        match *self.fails.lock() {
            Some((fails, kind)) if fails == call => Err(kind.into()),
            _ => Ok(()),
        }
    }

    fn fail(&self, call: &'static str, kind: io::ErrorKind) {
        *self.fails.lock() = Some((call, kind));
    }

    fn seen(&self) -> Vec<&'static str> {
        self.calls.lock().keys().copied().collect()
    }
}

impl Disk for Counter {
    fn open(&self, _: &Path, below: Below<'_>) -> io::Result<()> {
        self.see("open")?;
        below()
    }
    fn read(&self, file: &dyn Handle, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.see("read")?;
        file.read(offset, out)
    }
    fn write(&self, file: &dyn Handle, offset: u64, data: &[u8]) -> io::Result<()> {
        self.see("write")?;
        file.write(offset, data)
    }
    fn set_len(&self, file: &dyn Handle, len: u64) -> io::Result<()> {
        self.see("set_len")?;
        file.set_len(len)
    }
    fn sync(&self, file: &dyn Handle) -> io::Result<()> {
        self.see("sync")?;
        file.sync()
    }
    fn delete(&self, _: &Path, below: Below<'_>) -> io::Result<()> {
        self.see("delete")?;
        below()
    }
    fn directory_synced(&self, _: &Path) {
        *self.calls.lock().entry("directory_synced").or_default() += 1;
    }
}

fn counter() -> Arc<Counter> {
    Arc::default()
}

fn wal_session(path: &Path) -> rusqlite::Result<i64> {
    let connection = Connection::open(path)?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         CREATE TABLE IF NOT EXISTS t (x); INSERT INTO t VALUES (1);",
    )?;
    let reader = Connection::open(path)?;
    let count = reader.query_one("SELECT count(*) FROM t", [], |row| row.get(0))?;
    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
    Ok(count)
}

#[test]
fn a_session_of_sqlite_calls_every_hook() {
    let directory = tempfile::tempdir().unwrap();
    let disk = counter();
    let mounted = fault_disk::sqlite::mount(directory.path(), disk.clone()).unwrap();
    let path = directory.path().join("a.db");
    assert_eq!(wal_session(&path).unwrap(), 1);
    assert_eq!(disk.seen(), ["delete", "directory_synced", "open", "read", "set_len", "sync", "write"]);

    // Another directory is no business of this disk, and once it is gone, nor is its own.
    let calls = disk.calls.lock().clone();
    let elsewhere = tempfile::tempdir().unwrap();
    assert_eq!(wal_session(&elsewhere.path().join("a.db")).unwrap(), 1);
    drop(mounted);
    assert_eq!(wal_session(&path).unwrap(), 2);
    assert_eq!(*disk.calls.lock(), calls);
}

#[test]
fn what_a_disk_says_reaches_sqlite() {
    for (call, kind, expected) in [
        ("open", io::ErrorKind::Other, rusqlite::ErrorCode::CannotOpen),
        ("read", io::ErrorKind::Other, rusqlite::ErrorCode::SystemIoFailure),
        ("write", io::ErrorKind::Other, rusqlite::ErrorCode::SystemIoFailure),
        ("write", io::ErrorKind::StorageFull, rusqlite::ErrorCode::DiskFull),
        ("set_len", io::ErrorKind::Other, rusqlite::ErrorCode::SystemIoFailure),
        ("sync", io::ErrorKind::Other, rusqlite::ErrorCode::SystemIoFailure),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.db");
        let disk = counter();
        let _mounted = fault_disk::sqlite::mount(directory.path(), disk.clone()).unwrap();
        disk.fail(call, kind);
        let error = wal_session(&path).unwrap_err();
        assert_eq!(error.sqlite_error_code(), Some(expected), "{call} {kind:?}: {error}");
        disk.fail("nothing", io::ErrorKind::Other);
        assert!(wal_session(&path).unwrap() >= 1, "works again after {call} {kind:?}");
    }
}

const TABLE: TableDefinition<'_, u64, u64> = TableDefinition::new("t");

fn redb_session(path: &Path, disk: Arc<dyn Disk>) -> Result<Option<u64>, redb::Error> {
    let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    let storage = fault_disk::redb::over(path, redb::backends::FileBackend::new(file)?, disk);
    let mut database = redb::Builder::new().create_with_backend(storage)?;
    let tx = database.begin_write()?;
    tx.open_table(TABLE)?.insert(1, 2)?;
    tx.commit()?;
    database.compact()?;
    let value = database.begin_read()?.open_table(TABLE)?.get(1)?.map(|value| value.value());
    database.close()?;
    Ok(value)
}

#[test]
fn a_session_of_redb_calls_every_hook_that_it_has() {
    let directory = tempfile::tempdir().unwrap();
    let (path, disk) = (directory.path().join("a.redb"), counter());
    assert_eq!(redb_session(&path, disk.clone()).unwrap(), Some(2));
    assert_eq!(redb_session(&path, disk.clone()).unwrap(), Some(2));
    assert_eq!(disk.seen(), ["open", "read", "set_len", "sync", "write"]);
}

#[test]
fn what_a_disk_says_reaches_redb() {
    for call in ["open", "write", "set_len", "sync"] {
        let directory = tempfile::tempdir().unwrap();
        let disk = counter();
        disk.fail(call, io::ErrorKind::StorageFull);
        let error = redb_session(&directory.path().join("a.redb"), disk).unwrap_err();
        let redb::Error::Io(inner) = &error else { panic!("{call}: {error}") };
        assert_eq!(inner.kind(), io::ErrorKind::StorageFull, "{call}");
    }
}

#[test]
fn a_slow_disk_makes_every_flush_slow() {
    let directory = tempfile::tempdir().unwrap();
    let delay = Duration::from_millis(20);
    let _mounted = fault_disk::sqlite::mount(directory.path(), Arc::new(Delay(delay))).unwrap();
    let start = Instant::now();
    wal_session(&directory.path().join("a.db")).unwrap();
    redb_session(&directory.path().join("a.redb"), Arc::new(Delay(delay))).unwrap();
    assert!(start.elapsed() >= 4 * delay);
}
