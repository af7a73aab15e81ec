//! The write-ahead log: kept short, and a failure to copy it back is told.

#![allow(clippy::unwrap_used)] // of the helpers: each is an assertion

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fault_disk::sqlite::{Mount, mount};
use fault_disk::{Disk, Handle};
use store_api::{Checkpoint, ErrorKind, Outcome, Result, RunId, Seams, Store, StoreExt, time};
use store_sqlite::SqliteStore;
use tempfile::TempDir;

const MB: u64 = 1 << 20;

/// What a log holds before it is copied back, and as much again for what is written meanwhile.
const SHORT: u64 = 16 * MB;

fn store() -> (TempDir, PathBuf, SqliteStore) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.db");
    let store = SqliteStore::open(&path).unwrap();
    (directory, path, store)
}

/// Saves a quarter of a megabyte, over the one before and unlike it.
fn save(store: &SqliteStore, iteration: u64) -> Result<()> {
    let state = iteration.to_string().repeat(MB as usize / 4 / iteration.to_string().len()).into();
    let run = RunId::new("run").unwrap();
    store.checkpoints().save(&Checkpoint::new(run, iteration, state, time::from_nanos(0)))
}

fn log_size(path: &Path) -> u64 {
    fs::metadata(path.with_extension("db-wal")).unwrap().len()
}

/// A snapshot keeps what it may still read, so the log grows by what is written meanwhile. That is over once it ends.
#[test]
fn a_long_snapshot_lets_the_log_grow_and_its_end_lets_it_start_anew() {
    let (_directory, path, store) = store();
    let meanwhile = 24;
    store
        .view(|_| {
            std::thread::scope(|scope| {
                scope.spawn(|| (0..meanwhile * 4).for_each(|iteration| save(&store, iteration).unwrap()));
            });
            Ok(())
        })
        .unwrap();
    let grown = log_size(&path);
    assert!((meanwhile * MB..2 * meanwhile * MB).contains(&grown), "{} MB", grown / MB);
    (meanwhile * 4..meanwhile * 8).for_each(|iteration| save(&store, iteration).unwrap());
    let after = log_size(&path);
    assert!((grown..grown + SHORT).contains(&after), "neither cut nor much longer: {} MB", after / MB);
}

/// A disk that cannot do one thing to the database itself, once it is told so; the log it takes.
#[derive(Debug, Default)]
struct Failing {
    on_sync: AtomicBool,
    on_write: AtomicBool,
}

fn fails(switch: &AtomicBool, file: &dyn Handle) -> bool {
    switch.load(Ordering::Relaxed) && file.path().extension().is_some_and(|extension| extension == "db")
}

impl Disk for Failing {
    fn write(&self, file: &dyn Handle, offset: u64, data: &[u8]) -> io::Result<()> {
        if fails(&self.on_write, file) {
            Err(io::ErrorKind::StorageFull.into())
        } else {
            file.write(offset, data)
        }
    }

    fn sync(&self, file: &dyn Handle) -> io::Result<()> {
        if fails(&self.on_sync, file) { Err(io::Error::other("broken")) } else { file.sync() }
    }
}

fn store_on_failing_disk() -> (TempDir, Arc<Failing>, Mount, PathBuf, SqliteStore) {
    let directory = tempfile::tempdir().unwrap();
    let disk = Arc::new(Failing::default());
    let mount = mount(directory.path(), disk.clone()).unwrap();
    let path = directory.path().join("s.db");
    let store = SqliteStore::open(&path).unwrap();
    (directory, disk, mount, path, store)
}

/// Writes until a write is refused; gives how many were acknowledged, and the refusal.
fn until_refused(store: &SqliteStore, from: u64) -> (u64, store_api::Error) {
    for iteration in from..from + 200 {
        if let Err(error) = save(store, iteration) {
            return (iteration, error);
        }
    }
    panic!("200 writes of a quarter of a megabyte, and the log was not copied back")
}

fn load(store: &SqliteStore) -> u64 {
    store.checkpoints().load(&RunId::new("run").unwrap()).unwrap().unwrap().iteration
}

/// SQLite copied the log back by itself after a commit and swallowed what went wrong. After a flush of the database
/// that failed the next try succeeded without having written the pages, the log was begun anew, and they were lost.
#[test]
fn a_flush_that_fails_while_the_log_is_copied_back_stops_the_writers() {
    let (_directory, disk, _mount, path, store) = store_on_failing_disk();
    disk.on_sync.store(true, Ordering::Relaxed);
    let (acknowledged, refusal) = until_refused(&store, 0);
    assert_eq!((refusal.kind(), refusal.outcome()), (ErrorKind::Backend, Outcome::NotApplied), "{refusal}");
    disk.on_sync.store(false, Ordering::Relaxed);
    assert_eq!(save(&store, acknowledged).unwrap_err().kind(), ErrorKind::Poisoned);
    assert_eq!(load(&store), acknowledged - 1, "reads go on");
    drop(store);
    let store = SqliteStore::open(&path).unwrap();
    assert_eq!(load(&store), acknowledged - 1, "what was acknowledged is there");
    save(&store, acknowledged).unwrap();
}

#[test]
fn a_disk_that_is_full_while_the_log_is_copied_back_is_tried_again() {
    let (_directory, disk, _mount, _, store) = store_on_failing_disk();
    disk.on_write.store(true, Ordering::Relaxed);
    let (acknowledged, refusal) = until_refused(&store, 0);
    assert_eq!((refusal.kind(), refusal.outcome()), (ErrorKind::Backend, Outcome::NotApplied), "{refusal}");
    assert!(refusal.is_retryable());
    assert_eq!(save(&store, acknowledged).unwrap_err().kind(), ErrorKind::Backend, "still full");
    disk.on_write.store(false, Ordering::Relaxed);
    save(&store, acknowledged).unwrap();
    assert_eq!(load(&store), acknowledged);
}

/// SQLite copies the log back by itself when the last connection ends, and tells nobody when that fails.
#[test]
fn a_close_that_cannot_copy_the_log_back_says_so_and_loses_nothing() {
    let (_directory, disk, _mount, path, store) = store_on_failing_disk();
    save(&store, 1).unwrap();
    disk.on_sync.store(true, Ordering::Relaxed);
    let failure = store.close().unwrap_err();
    assert_eq!((failure.kind(), failure.outcome()), (ErrorKind::Backend, Outcome::NotApplied), "{failure}");
    disk.on_sync.store(false, Ordering::Relaxed);
    let store = SqliteStore::open(&path).unwrap();
    assert_eq!(load(&store), 1, "what was acknowledged is there");
    store.close().unwrap();
}
