//! Recovery after a failed flush: every step may be the last, others are in the way, files are missing or damaged.

#![allow(clippy::unwrap_used)] // of the helpers: each is an assertion

mod harness;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use harness::fault::Switch;
use safe_files::recovery::{is_marked, mark, marker};
use safe_files::{Step, watch, with_suffix};
use store_api::{ErrorKind, Expect, Name, PrincipalId, Result, Seams, Skill, SkillId, Store};
use store_redb::{Options, RedbStore};
use tempfile::TempDir;

fn save(store: &RedbStore, id: &str) -> Result<()> {
    let skill = Skill::new(SkillId::new(id)?, PrincipalId::new("o")?, Name::new(id)?);
    store.skills().save(&skill, Expect::Any).map(drop)
}

fn has(store: &RedbStore, id: &str) -> bool {
    store.skills().get(&SkillId::new(id).unwrap()).unwrap().is_some()
}

fn impatient(path: &Path) -> Result<RedbStore> {
    RedbStore::open_with(path, Options { busy_timeout: Duration::from_millis(50), ..Options::default() })
}

fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    entries.map(|e| (e.file_name().into_string().unwrap(), fs::read(e.path()).unwrap())).collect()
}

/// Every file is as it was, to the byte.
fn untouched(path: &Path, before: &BTreeMap<String, Vec<u8>>) {
    let after = files(path.parent().unwrap());
    assert!(after.keys().eq(before.keys()), "{:?} were {:?}", after.keys(), before.keys());
    assert!(after == *before, "a file was changed");
}

/// A place with a store as a process leaves it that is killed after a flush has failed: nothing is closed.
fn left() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let store = RedbStore::open(directory.path().join("original.redb")).unwrap();
    save(&store, "a").unwrap();
    save(&store, "b").unwrap();
    let place = directory.path().canonicalize().unwrap().join("place");
    fs::create_dir(&place).unwrap();
    let path = place.join("s.redb");
    fs::copy(directory.path().join("original.redb"), &path).unwrap();
    mark(&path, "a test says so").unwrap();
    (directory, path)
}

/// The store has what was acknowledged, nothing is left of its recovery, and it takes writes.
fn is_well(path: &Path, what: &str) {
    let store = RedbStore::open(path).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert!(has(&store, "a") && has(&store, "b"), "{what}: something is gone");
    assert!(Store::verify(&store).unwrap().is_sound(), "{what}");
    save(&store, "after").unwrap();
    Store::close(&store).unwrap();
    assert!(has(&RedbStore::open(path).unwrap(), "after"), "{what}");
    assert!(files(path.parent().unwrap()).keys().eq(["s.redb"]), "{what}");
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
        let cut_off = RedbStore::open(&path).map(drop);
        drop(watching);
        is_well(&path, &format!("after {last} steps"));
        if cut_off.is_ok() {
            return assert!(last > 8, "{last} steps");
        }
    }
}

#[test]
fn what_was_acknowledged_is_there_whatever_was_left() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 4] = [
        ("nothing else", |_| {}),
        ("a closed store", |path| {
            fs::remove_file(marker(path)).unwrap();
            Store::close(&RedbStore::open(path).unwrap()).unwrap();
            mark(path, "again").unwrap();
        }),
        ("half a copy", |path| fs::write(with_suffix(path, "-recovering"), b"redb and so on").unwrap()),
        ("an empty marker", |path| fs::write(marker(path), b"").unwrap()),
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
    assert!(has(&RedbStore::open(&path).unwrap(), "after"));
    is_well(&path, "with a later marker");
}

#[test]
fn a_marker_without_a_database_is_in_nobodys_way() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().canonicalize().unwrap().join("s.redb");
    mark(&path, "gone").unwrap();
    let absent = RedbStore::open_with(&path, Options { create: false, ..Options::default() });
    assert_eq!(absent.unwrap_err().kind(), ErrorKind::NotFound);
    for empty in [false, true] {
        mark(&path, "gone").unwrap();
        if empty {
            fs::write(&path, b"").unwrap();
        }
        save(&RedbStore::open(&path).unwrap(), "a").unwrap();
        assert!(files(directory.path()).keys().eq(["s.redb"]));
        fs::remove_file(&path).unwrap();
    }
    fs::write(&path, b"#!/bin/sh\n").unwrap();
    mark(&path, "not ours").unwrap();
    let before = files(directory.path());
    assert_eq!(impatient(&path).unwrap_err().kind(), ErrorKind::NotThisStore);
    untouched(&path, &before);
}

#[test]
fn what_is_damaged_is_refused_and_stays_as_it_is() {
    let (_directory, path) = left();
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(8).position(|window| window == b"\"id\":\"b\"").unwrap();
    bytes[at + 6] ^= 1;
    fs::write(&path, bytes).unwrap();
    let before = files(path.parent().unwrap());
    for _ in 0..2 {
        assert_eq!(impatient(&path).unwrap_err().kind(), ErrorKind::Corrupt);
        untouched(&path, &before);
    }
}

/// A record that is not what its checksum says, in a file that is sound to redb.
#[test]
fn a_damaged_record_is_refused_too() {
    let (_directory, path) = left();
    let raw = redb::Database::open(&path).unwrap();
    let tx = raw.begin_write().unwrap();
    let value: &[u8] = b"\0\0\0\0\0\0\0\0{\"last\":9}";
    tx.open_table(harness::META).unwrap().insert(b"counter\0\0".as_slice(), value).unwrap();
    tx.commit().unwrap();
    raw.close().unwrap();
    let before = files(path.parent().unwrap());
    let error = impatient(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains("counter"), "{error}");
    untouched(&path, &before);
    // Who wants it as it is takes the marker away.
    fs::remove_file(marker(&path)).unwrap();
    assert!(has(&impatient(&path).unwrap(), "a"));
}

/// Also a program that knows nothing of the marker.
#[test]
fn nobody_opens_the_file_while_it_is_copied() {
    let (_directory, path) = left();
    let tried = Arc::new(AtomicUsize::new(0));
    let (counted, place) = (Arc::clone(&tried), path.clone());
    let watching = watch(path.parent().unwrap(), move |step, take| {
        if matches!(step, Step::Create(_)) {
            let other = redb::Database::open(&place);
            assert!(matches!(other, Err(redb::DatabaseError::DatabaseAlreadyOpen)), "{other:?}");
            counted.fetch_add(1, Ordering::SeqCst);
        }
        take()
    });
    is_well(&path, "beside another program");
    drop(watching);
    assert_eq!(tried.load(Ordering::SeqCst), 1);
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
        let error = RedbStore::open(&path).unwrap_err();
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Backend, retryable), "{error}");
        assert!(error.to_string().contains("s.redb-recovering"), "{error}");
        untouched(&path, &before);
        drop(watching);
        is_well(&path, "once a copy can be made");
    }
}

/// A store that has noticed nothing has the file to itself; whoever wants to recover waits until it is closed.
#[test]
fn a_store_that_is_open_keeps_a_recovery_waiting() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().canonicalize().unwrap().join("s.redb");
    let store = RedbStore::open(&path).unwrap();
    save(&store, "a").unwrap();
    save(&store, "b").unwrap();
    mark(&path, "a test says so").unwrap();
    assert_eq!(impatient(&path).unwrap_err().kind(), ErrorKind::Busy);
    let waiting = std::thread::spawn({
        let path = path.clone();
        move || RedbStore::open(path).map(|store| has(&store, "b"))
    });
    std::thread::sleep(Duration::from_millis(100));
    Store::close(&store).unwrap();
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
                    let store = RedbStore::open(path).unwrap();
                    assert!(has(&store, "a") && has(&store, "b"));
                    save(&store, &format!("of {number}")).unwrap();
                });
            }
        });
        drop(watching);
        assert_eq!(copies.load(Ordering::SeqCst), 1, "copies");
        let store = RedbStore::open(&path).unwrap();
        assert!((0..4).all(|number| has(&store, &format!("of {number}"))));
    }
}

/// An opener that found no marker, and was slow: the file that it has opened is not the store any more.
#[test]
fn an_opener_that_a_recovery_overtakes_begins_again() {
    let (_directory, path) = left();
    fs::remove_file(marker(&path)).unwrap();
    let overtaken = AtomicUsize::new(0);
    let store = RedbStore::open_over(&path, Options::default(), |path, file| {
        if overtaken.fetch_add(1, Ordering::SeqCst) == 0 {
            mark(path, "a test says so").unwrap();
            Store::close(&RedbStore::open(path).unwrap()).unwrap();
        }
        file
    })
    .unwrap();
    assert_eq!(overtaken.load(Ordering::SeqCst), 2);
    save(&store, "not lost").unwrap();
    drop(store);
    assert!(has(&RedbStore::open(&path).unwrap(), "not lost"));
    is_well(&path, "after an overtaken opener");
}

/// The flush of a commit fails, or the one at the end, with any durability: the marker is there, and tells why.
#[test]
fn a_flush_that_fails_leaves_the_marker() {
    use store_api::Durability::{PowerLoss, Process};
    for durability in [PowerLoss, Process] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().canonicalize().unwrap().join("s.redb");
        let switch = Switch::default();
        let options = Options { durability, ..Options::default() };
        let store = RedbStore::open_over(&path, options, |_, file| switch.over(file)).unwrap();
        save(&store, "a").unwrap();
        save(&store, "b").unwrap();
        assert!(!is_marked(&path).unwrap());
        switch.fail(true);
        assert_eq!(save(&store, "c").is_err(), durability == PowerLoss);
        if durability == PowerLoss {
            assert_eq!(save(&store, "d").unwrap_err().kind(), ErrorKind::Poisoned);
        } else {
            Store::close(&store).unwrap_err();
        }
        assert_eq!(fs::read_to_string(marker(&path)).unwrap(), "the disk does not answer\n");
        switch.fail(false);
        drop(store);
        is_well(&path, "after a failed flush");
    }
}
