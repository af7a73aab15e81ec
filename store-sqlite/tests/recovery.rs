//! Recovery after a failed flush: every step may be the last, others are in the way, files are missing or damaged.

#![allow(clippy::unwrap_used)] // of the helpers: each is an assertion

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use fault_disk::sqlite::mount;
use fault_disk::{Below, Disk, Handle};
use safe_files::recovery::{mark, marker};
use safe_files::{Step, watch, with_suffix};
use store_api::{ErrorKind, Expect, Name, PrincipalId, Result, Seams, Skill, SkillId, Store};
use store_sqlite::{Options, SqliteStore};
use tempfile::TempDir;

fn skill(id: &str) -> Skill {
    let body = "x".repeat(3000);
    Skill {
        body,
        ..Skill::new(SkillId::new(id).unwrap(), PrincipalId::new("o").unwrap(), Name::new(id).unwrap())
    }
}

fn save(store: &SqliteStore, id: &str) -> Result<()> {
    store.skills().save(&skill(id), Expect::Any).map(drop)
}

fn has(store: &SqliteStore, id: &str) -> bool {
    store.skills().get(&SkillId::new(id).unwrap()).unwrap().is_some()
}

fn impatient(path: &Path) -> Result<SqliteStore> {
    SqliteStore::open_with(path, Options { busy_timeout: Duration::from_millis(50), ..Options::default() })
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

/// The files of a place by name, but for what SQLite makes by locking one: the index of the log, and an empty log.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let names = names(directory).into_iter().filter(|name| !name.ends_with("-shm"));
    let files = names.map(|name| (name.clone(), fs::read(directory.join(name)).unwrap()));
    files.filter(|(name, bytes)| !(name.ends_with("-wal") && bytes.is_empty())).collect()
}

/// Every file is as it was, to the byte.
fn untouched(path: &Path, before: &BTreeMap<String, Vec<u8>>) {
    let after = files(path.parent().unwrap());
    assert!(after.keys().eq(before.keys()), "{:?} were {:?}", after.keys(), before.keys());
    assert!(after == *before, "a file was changed");
}

/// A place with a store as a process leaves it that is killed after a flush has failed: one record in the database,
/// another in its log alone, and the marker.
fn left() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let original = directory.path().join("original");
    fs::create_dir(&original).unwrap();
    let store = SqliteStore::open(original.join("s.db")).unwrap();
    save(&store, "in the file").unwrap();
    store.close().unwrap();
    let store = SqliteStore::open(original.join("s.db")).unwrap();
    save(&store, "in the log").unwrap();
    let place = directory.path().join("place");
    fs::create_dir(&place).unwrap();
    for name in ["s.db", "s.db-wal", "s.db-shm"] {
        fs::copy(original.join(name), place.join(name)).unwrap();
    }
    assert!(fs::metadata(place.join("s.db-wal")).unwrap().len() > 0);
    let path = place.canonicalize().unwrap().join("s.db");
    mark(&path, "a test says so").unwrap();
    (directory, path)
}

/// The store has what was acknowledged, nothing is left of its recovery, and it takes writes.
fn is_well(path: &Path, what: &str) {
    let store = SqliteStore::open(path).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert!(has(&store, "in the file") && has(&store, "in the log"), "{what}: something is gone");
    assert!(store.verify().unwrap().is_sound(), "{what}");
    assert_eq!(names(path.parent().unwrap()), ["s.db", "s.db-shm", "s.db-wal"], "{what}");
    save(&store, "after").unwrap();
    store.close().unwrap();
    assert!(has(&SqliteStore::open(path).unwrap(), "after"), "{what}");
}

#[test]
fn a_recovery_may_be_cut_off_after_any_step() {
    for last in 0.. {
        let (_directory, path) = left();
        let steps = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&steps);
        // The process is gone after so many steps: none is taken any more, not even to clear up.
        let watching = watch(path.parent().unwrap(), move |_, take| {
            if counted.fetch_add(1, Ordering::SeqCst) >= last {
                return Err(io::Error::other("the process was killed"));
            }
            take()
        });
        let cut_off = SqliteStore::open(&path).map(drop);
        drop(watching);
        is_well(&path, &format!("after {last} steps"));
        if cut_off.is_ok() {
            return assert!(last > 12, "{last} steps");
        }
    }
}

#[test]
fn what_was_acknowledged_is_there_whatever_was_left() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 5] = [
        ("nothing else", |_| {}),
        ("a closed store", |path| {
            fs::remove_file(marker(path)).unwrap();
            SqliteStore::open(path).unwrap().close().unwrap();
            mark(path, "again").unwrap();
        }),
        ("half a copy", |path| {
            fs::write(with_suffix(path, "-recovering"), b"SQLite format 3\0and so").unwrap();
            fs::write(with_suffix(path, "-recovering-wal"), b"xxx").unwrap();
            fs::write(with_suffix(path, "-recovering-journal"), b"xxx").unwrap();
        }),
        ("an empty marker", |path| fs::write(marker(path), b"").unwrap()),
        ("no index of the log", |path| fs::remove_file(with_suffix(path, "-shm")).unwrap()),
    ];
    for (what, change) in changes {
        let (_directory, path) = left();
        change(&path);
        is_well(&path, what);
    }
}

/// Somebody takes the marker away while a recovery is cut off. What comes later must not lose to the old copy.
#[test]
fn a_copy_without_a_marker_is_never_used() {
    let (_directory, path) = left();
    fs::copy(&path, with_suffix(&path, "-recovered")).unwrap();
    fs::remove_file(marker(&path)).unwrap();
    is_well(&path, "without a marker");
    mark(&path, "later").unwrap();
    is_well(&path, "with a later marker");
    assert!(has(&SqliteStore::open(&path).unwrap(), "after"));
}

#[test]
fn a_marker_without_a_database_is_in_nobodys_way() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().canonicalize().unwrap().join("s.db");
    mark(&path, "gone").unwrap();
    let absent = SqliteStore::open_with(&path, Options { create: false, ..Options::default() });
    assert_eq!(absent.unwrap_err().kind(), ErrorKind::NotFound);
    mark(&path, "gone").unwrap();
    save(&SqliteStore::open(&path).unwrap(), "a").unwrap();
    assert_eq!(names(directory.path()), ["s.db"]);
}

#[test]
fn a_marker_beside_an_empty_file_or_another_programs() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().canonicalize().unwrap().join("s.db");
    fs::write(&path, b"").unwrap();
    mark(&path, "while it was created").unwrap();
    save(&SqliteStore::open(&path).unwrap(), "a").unwrap();
    assert_eq!(names(directory.path()), ["s.db"]);
    fs::write(&path, b"#!/bin/sh\n").unwrap();
    mark(&path, "not ours").unwrap();
    let before = files(directory.path());
    assert_eq!(impatient(&path).unwrap_err().kind(), ErrorKind::NotThisStore);
    untouched(&path, &before);
}

#[test]
fn what_is_damaged_is_refused_and_stays_as_it_is() {
    let (_directory, path) = left();
    let store = SqliteStore::open(&path).unwrap();
    store.close().unwrap();
    rusqlite::Connection::open(&path)
        .unwrap()
        .execute("UPDATE definitions SET doc = replace(doc, 'x', 'y') WHERE id = 'in the log'", [])
        .unwrap();
    mark(&path, "again").unwrap();
    let before = files(path.parent().unwrap());
    for _ in 0..2 {
        let error = impatient(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains("in the log"), "{error}");
        untouched(&path, &before);
    }
    // Who wants it as it is takes the marker away.
    fs::remove_file(marker(&path)).unwrap();
    assert!(has(&SqliteStore::open(&path).unwrap(), "in the file"));
}

#[test]
fn where_no_copy_can_be_made_the_error_says_so_and_nothing_changes() {
    for (kind, retryable) in [(io::ErrorKind::StorageFull, true), (io::ErrorKind::PermissionDenied, false)] {
        let (_directory, path) = left();
        let before = files(path.parent().unwrap());
        let watching = watch(path.parent().unwrap(), move |step, take| match step {
            Step::Create(_) => Err(kind.into()),
            _ => take(),
        });
        let error = SqliteStore::open(&path).unwrap_err();
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Backend, retryable), "{error}");
        assert!(error.to_string().contains("s.db-recovering"), "{error}");
        untouched(&path, &before);
        drop(watching);
        is_well(&path, "once a copy can be made");
    }
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
    let (_directory, path) = left();
    let before = files(path.parent().unwrap());
    let mounted = mount(path.parent().unwrap(), Arc::new(Full)).unwrap();
    let error = SqliteStore::open(&path).unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Backend, true), "{error}");
    untouched(&path, &before);
    drop(mounted);
    is_well(&path, "once there is room");
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
        save(&SqliteStore::open(&path).unwrap(), "in the file").unwrap();
        save(&SqliteStore::open(&path).unwrap(), "in the log").unwrap();
        is_well(&path, &format!("after {failing} flushes"));
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

/// A store that has noticed nothing: its next write is refused, its reads go on, and whoever wants to recover waits
/// until it is closed.
#[test]
fn a_store_that_is_open_refuses_writes_and_keeps_a_recovery_waiting() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().canonicalize().unwrap().join("s.db");
    let store = SqliteStore::open(&path).unwrap();
    save(&store, "in the file").unwrap();
    save(&store, "in the log").unwrap();
    mark(&path, "another process says so").unwrap();
    let refused = save(&store, "late").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Poisoned, "{refused}");
    assert!(has(&store, "in the log"));
    let busy = impatient(&path).unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::Busy, "{busy}");
    assert!(busy.to_string().contains("a flush failed"), "{busy}");
    let waiting = std::thread::spawn({
        let path = path.clone();
        move || SqliteStore::open(path).map(|store| has(&store, "in the log"))
    });
    std::thread::sleep(Duration::from_millis(100));
    let log = fs::read(with_suffix(&path, "-wal")).unwrap();
    assert!(!log.is_empty(), "the log stays as it is");
    store.close().unwrap();
    assert!(waiting.join().unwrap().unwrap());
    is_well(&path, "after all have closed");
}

/// Of openers that come at once one recovers, and all of them find what was acknowledged.
#[test]
fn openers_that_race_recover_once() {
    for _ in 0..5 {
        let (_directory, path) = left();
        let copies = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&copies);
        let watching = watch(path.parent().unwrap(), move |step, take| {
            if matches!(step, Step::Create(_)) {
                counted.fetch_add(1, Ordering::SeqCst);
            }
            take()
        });
        std::thread::scope(|scope| {
            for number in 0..4 {
                let path = &path;
                scope.spawn(move || {
                    let store = SqliteStore::open(path).unwrap();
                    assert!(has(&store, "in the file") && has(&store, "in the log"));
                    save(&store, &format!("of {number}")).unwrap();
                });
            }
        });
        drop(watching);
        assert_eq!(copies.load(Ordering::SeqCst), 1, "copies");
        let store = SqliteStore::open(&path).unwrap();
        assert!((0..4).all(|number| has(&store, &format!("of {number}"))));
        drop(store);
        is_well(&path, "after the race");
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
    let (_directory, path) = left();
    fs::remove_file(marker(&path)).unwrap();
    let disk = Arc::new(Overtaking { path: path.clone(), done: AtomicBool::new(false) });
    let _mounted = mount(path.parent().unwrap(), disk.clone()).unwrap();
    let store = SqliteStore::open(&path).unwrap();
    assert!(disk.done.load(Ordering::SeqCst));
    save(&store, "not lost").unwrap();
    drop(store);
    assert!(has(&SqliteStore::open(&path).unwrap(), "not lost"));
    is_well(&path, "after an overtaken opener");
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
    let (_directory, path) = left();
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
    mark(&path, "a flush of this process failed").unwrap();
    drop(store);
    writeln!(tell, "go on").unwrap();
    assert_eq!(hear(), "Err(Poisoned)");
    assert_eq!(impatient(&path).unwrap_err().kind(), ErrorKind::Busy);
    writeln!(tell, "end").unwrap();
    let store = SqliteStore::open(&path).unwrap();
    assert!(has(&store, "other 0") && has(&store, "of this one") && !has(&store, "other 1"));
    drop(store);
    assert!(other.wait().unwrap().success());
    is_well(&path, "after both");
}
