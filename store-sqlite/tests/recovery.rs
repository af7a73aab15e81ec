//! Recovery after a failed flush: every step may be the last, others are in the way, files are missing or damaged.

#![allow(clippy::unwrap_used)] // of the helpers: each is an assertion

#[path = "../../safe-files/tests/engine/mod.rs"]
mod engine;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use engine::{Engine, files, has, save, untouched};
use fault_disk::sqlite::mount;
use fault_disk::{Below, Disk, Handle};
use safe_files::recovery::{mark, marker};
use safe_files::with_suffix;
use store_api::{ErrorKind, Store};
use store_sqlite::{Options, SqliteStore};

const SQLITE: Engine = Engine {
    open: |path, busy_timeout, create| {
        let options = Options { busy_timeout, create, ..Options::default() };
        Ok(Arc::new(SqliteStore::open_with(path, options)?))
    },
    beside: &["-shm", "-wal"],
};

#[test]
fn a_recovery_may_be_cut_off_after_any_step() {
    SQLITE.a_recovery_may_be_cut_off_after_any_step();
}

#[test]
fn what_was_acknowledged_is_there_whatever_was_left() {
    SQLITE.what_was_acknowledged_is_there_whatever_was_left();
}

#[test]
fn a_backup_may_be_cut_off_after_any_step() {
    let (_directory, path) = SQLITE.left();
    let store = SQLITE.opened(&path);
    SQLITE.a_file_may_be_cut_off_while_it_appears(|copy| store.backup(copy));
}

#[test]
fn a_copy_without_a_marker_is_never_used() {
    SQLITE.a_copy_without_a_marker_is_never_used();
}

#[test]
fn where_no_copy_can_be_made_the_error_says_so_and_nothing_changes() {
    SQLITE.where_no_copy_can_be_made_the_error_says_so_and_nothing_changes();
}

#[test]
fn openers_that_race_recover_once() {
    SQLITE.openers_that_race_recover_once();
}

#[test]
fn a_marker_is_in_nobodys_way_where_no_store_is() {
    SQLITE.a_marker_is_in_nobodys_way_where_no_store_is();
}

#[test]
fn what_is_damaged_is_refused_and_stays_as_it_is() {
    let (_directory, path) = SQLITE.left();
    SQLITE.is_well(&path, "before");
    let raw = rusqlite::Connection::open(&path).unwrap();
    raw.execute("UPDATE definitions SET doc = replace(doc, 'x', 'y') WHERE id = 'late'", []).unwrap();
    drop(raw);
    mark(&path, "again").unwrap();
    SQLITE.what_is_damaged_is_refused_and_stays_as_it_is(&path, "late");
}

/// A store that has noticed nothing: its next write is refused, its reads go on, and the log stays as it is.
#[test]
fn a_store_that_is_open_refuses_writes_and_keeps_a_recovery_waiting() {
    SQLITE.a_store_that_is_open_keeps_a_recovery_waiting(|path, store| {
        let refused = save(store, "too late").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Poisoned, "{refused}");
        assert!(has(store, "late"));
        let busy = SQLITE.impatient(path).map(drop).unwrap_err();
        assert!(busy.to_string().contains("a flush failed"), "{busy}");
        assert!(fs::metadata(with_suffix(path, "-wal")).unwrap().len() > 0);
    });
}

/// A disk that has no room for a copy.
#[derive(Debug)]
struct Full;

impl Disk for Full {
    fn write(&self, file: &dyn Handle, offset: u64, data: &[u8]) -> io::Result<()> {
        if offset > 0 && file.path().to_str().unwrap().contains("-recover") {
            return Err(io::ErrorKind::StorageFull.into());
        }
        file.write(offset, data)
    }
}

#[test]
fn where_the_disk_is_full_half_a_copy_is_removed_again() {
    let (_directory, path) = SQLITE.left();
    let before = files(&path);
    let mounted = mount(path.parent().unwrap(), Arc::new(Full)).unwrap();
    let error = SqliteStore::open(&path).unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Backend, true), "{error}");
    untouched(&path, &before);
    drop(mounted);
    SQLITE.is_well(&path, "once there is room");
}

/// The flush that fails is one of opening: of the schema, of the log's beginning.
#[test]
fn a_flush_that_fails_while_a_store_is_created_leaves_the_marker() {
    for failing in 0.. {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().canonicalize().unwrap().join("s.db");
        let flushes = Arc::new(FailingOnce { left: AtomicUsize::new(failing) });
        let mounted = mount(directory.path(), flushes).unwrap();
        let opened = SqliteStore::open(&path);
        drop(mounted);
        match opened {
            Ok(_) => return assert!(failing > 2, "{failing} flushes"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Backend, "{error}"),
        }
        assert!(marker(&path).exists(), "after {failing} flushes");
        save(&*SQLITE.opened(&path), "early").unwrap();
        save(&*SQLITE.opened(&path), "late").unwrap();
        SQLITE.is_well(&path, &format!("after {failing} flushes"));
    }
}

/// A disk with one flush that fails.
#[derive(Debug)]
struct FailingOnce {
    left: AtomicUsize,
}

impl Disk for FailingOnce {
    fn sync(&self, file: &dyn Handle) -> io::Result<()> {
        if self.left.fetch_sub(1, Ordering::SeqCst) == 0 {
            return Err(io::Error::other("the disk does not answer"));
        }
        file.sync()
    }
}

/// A disk on which, between the opening of the file and the first look into it, a whole recovery goes by.
#[derive(Debug)]
struct Overtaking {
    path: PathBuf,
    done: AtomicBool,
}

impl Disk for Overtaking {
    fn open(&self, path: &Path, below: Below<'_>) -> io::Result<()> {
        below()?;
        if path == self.path && !self.done.swap(true, Ordering::SeqCst) {
            mark(path, "a test says so").unwrap();
            SqliteStore::open(path).unwrap().close().unwrap();
        }
        Ok(())
    }
}

/// An opener that found no marker, and was slow: the file that it has opened is not the store any more.
#[test]
fn an_opener_that_a_recovery_overtakes_begins_again() {
    let (_directory, path) = SQLITE.left();
    fs::remove_file(marker(&path)).unwrap();
    let disk = Arc::new(Overtaking { path: path.clone(), done: AtomicBool::new(false) });
    let _mounted = mount(path.parent().unwrap(), disk.clone()).unwrap();
    let store = SqliteStore::open(&path).unwrap();
    assert!(disk.done.load(Ordering::SeqCst));
    save(&store, "not lost").unwrap();
    drop(store);
    assert!(has(&*SQLITE.opened(&path), "not lost"));
    SQLITE.is_well(&path, "after an overtaken opener");
}

/// Where the other process finds the store that it is to open.
const PLACE: &str = "STORE_SQLITE_RECOVERY_PLACE";

/// The other process: opens the store, says so, and writes each time when it is told, until a write is refused.
#[test]
fn other_process() {
    let Ok(path) = std::env::var(PLACE) else { return };
    let store = SqliteStore::open(path).unwrap();
    for number in 0.. {
        let saved = save(&store, &format!("other {number}"));
        println!("\nsaved: {:?}", saved.as_ref().map_err(store_api::Error::kind));
        io::stdin().read_line(&mut String::new()).unwrap();
        if saved.is_err() {
            return;
        }
    }
}

#[test]
fn a_process_that_has_the_file_open_refuses_writes_and_is_waited_for() {
    use std::io::{BufRead, BufReader, Write};
    let (_directory, path) = SQLITE.left();
    let mut other = Command::new(std::env::current_exe().unwrap())
        .args(["other_process", "--exact", "--nocapture", "--test-threads=1"])
        .env(PLACE, &path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut tell = other.stdin.take().unwrap();
    let mut lines = BufReader::new(other.stdout.take().unwrap()).lines();
    let mut hear = || loop {
        let line = lines.next().unwrap().unwrap();
        if let Some(said) = line.strip_prefix("saved: ") {
            return said.to_owned();
        }
    };
    // It has recovered the store, and writes to it beside this process.
    assert_eq!(hear(), "Ok(())");
    let store = SqliteStore::open(&path).unwrap();
    save(&store, "of this one").unwrap();
    // Long enough that it has found the directory unmarked for good, and only a change of it makes it look again.
    std::thread::sleep(Duration::from_millis(150));
    for _ in 0..2 {
        writeln!(tell, "go on").unwrap();
        assert_eq!(hear(), "Ok(())");
    }
    mark(&path, "a flush of this process failed").unwrap();
    drop(store);
    writeln!(tell, "go on").unwrap();
    assert_eq!(hear(), "Err(Poisoned)");
    assert_eq!(SQLITE.impatient(&path).map(drop).unwrap_err().kind(), ErrorKind::Busy);
    writeln!(tell, "end").unwrap();
    let store = SqliteStore::open(&path).unwrap();
    assert!(has(&store, "other 0") && has(&store, "of this one"));
    assert!(has(&store, "other 2") && !has(&store, "other 3"));
    drop(store);
    assert!(other.wait().unwrap().success());
    SQLITE.is_well(&path, "after both");
}
