//! Recovery after a failed flush: every step may be the last, others are in the way, files are missing or damaged.

#![allow(clippy::unwrap_used)] // of the helpers: each is an assertion

mod harness;

#[path = "../../safe-files/tests/engine/mod.rs"]
mod engine;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use engine::{Engine, files, has, save, untouched};
use harness::fault::Switch;
use safe_files::recovery::{is_marked, mark, marker};
use safe_files::{Step, watch};
use store_api::{ErrorKind, Store};
use store_redb::{Options, RedbStore};

const REDB: Engine = Engine {
    open: |path, busy_timeout, create| {
        let options = Options { busy_timeout, create, ..Options::default() };
        Ok(Arc::new(RedbStore::open_with(path, options)?))
    },
    beside: &[],
};

#[test]
fn a_recovery_may_be_cut_off_after_any_step() {
    REDB.a_recovery_may_be_cut_off_after_any_step();
}

#[test]
fn what_was_acknowledged_is_there_whatever_was_left() {
    REDB.what_was_acknowledged_is_there_whatever_was_left();
}

#[test]
fn a_new_store_may_be_cut_off_after_any_step() {
    REDB.a_file_may_be_cut_off_while_it_appears(|path| REDB.impatient(path)?.close());
}

#[test]
fn a_backup_may_be_cut_off_after_any_step() {
    let (_directory, path) = REDB.left();
    let store = REDB.opened(&path);
    REDB.a_file_may_be_cut_off_while_it_appears(|copy| store.backup(copy));
}

#[test]
fn a_copy_without_a_marker_is_never_used() {
    REDB.a_copy_without_a_marker_is_never_used();
}

#[test]
fn where_no_copy_can_be_made_the_error_says_so_and_nothing_changes() {
    REDB.where_no_copy_can_be_made_the_error_says_so_and_nothing_changes();
}

#[test]
fn openers_that_race_recover_once() {
    REDB.openers_that_race_recover_once();
}

#[test]
fn a_marker_is_in_nobodys_way_where_no_store_is() {
    REDB.a_marker_is_in_nobodys_way_where_no_store_is();
}

#[test]
fn a_store_that_is_open_keeps_a_recovery_waiting() {
    REDB.a_store_that_is_open_keeps_a_recovery_waiting(|_, _| {});
}

/// A record that is not what its checksum says, in a file that is sound to redb.
#[test]
fn a_damaged_record_is_refused_and_stays_as_it_is() {
    let (_directory, path) = REDB.left();
    let raw = redb::Database::open(&path).unwrap();
    let tx = raw.begin_write().unwrap();
    let value: &[u8] = b"\0\0\0\0\0\0\0\0{\"last\":9}";
    tx.open_table(harness::META).unwrap().insert(b"counter\0\0".as_slice(), value).unwrap();
    tx.commit().unwrap();
    raw.close().unwrap();
    REDB.what_is_damaged_is_refused_and_stays_as_it_is(&path, "counter");
}

#[test]
fn a_damaged_page_is_refused_and_stays_as_it_is() {
    let (_directory, path) = REDB.left();
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(9).position(|window| window == b"\"id\":\"lat").unwrap();
    bytes[at + 6] ^= 1;
    fs::write(&path, bytes).unwrap();
    let before = files(&path);
    assert_eq!(REDB.impatient(&path).map(drop).unwrap_err().kind(), ErrorKind::Corrupt);
    untouched(&path, &before);
}

/// Also a program that knows nothing of the marker.
#[test]
fn nobody_opens_the_file_while_it_is_copied() {
    let (_directory, path) = REDB.left();
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
    REDB.is_well(&path, "beside another program");
    drop(watching);
    assert_eq!(tried.load(Ordering::SeqCst), 1);
}

/// An opener that found no marker, and was slow: the file that it has opened is not the store any more.
#[test]
fn an_opener_that_a_recovery_overtakes_begins_again() {
    let (_directory, path) = REDB.left();
    fs::remove_file(marker(&path)).unwrap();
    let overtaken = Arc::new(AtomicUsize::new(0));
    let openings = Arc::clone(&overtaken);
    let store = RedbStore::open_over(&path, Options::default(), move |path, file| {
        if openings.fetch_add(1, Ordering::SeqCst) == 0 {
            mark(path, "a test says so").unwrap();
            Store::close(&RedbStore::open(path).unwrap()).unwrap();
        }
        file
    })
    .unwrap();
    assert_eq!(overtaken.load(Ordering::SeqCst), 2);
    save(&store, "not lost").unwrap();
    drop(store);
    assert!(has(&*REDB.opened(&path), "not lost"));
    REDB.is_well(&path, "after an overtaken opener");
}

/// The flush of a commit fails, or the one at the end, with any durability: the marker is there, and tells why.
#[test]
fn a_flush_that_fails_leaves_the_marker() {
    use store_api::Durability::{PowerLoss, Process};
    for durability in [PowerLoss, Process] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().canonicalize().unwrap().join("s.db");
        let switch = Switch::default();
        let options = Options { durability, ..Options::default() };
        let store = RedbStore::open_over(&path, options, switch.beneath()).unwrap();
        save(&store, "early").unwrap();
        save(&store, "late").unwrap();
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
        REDB.is_well(&path, "after a failed flush");
    }
}
