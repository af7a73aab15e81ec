//! Opening: what stands at the path, who else has it open, what a crash while creating leaves.

#![allow(clippy::unwrap_used)] // of the helpers: each is an assertion

mod harness;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use redb::{Database, TableDefinition};
use store_api::{
    Durability, Error, ErrorKind, Expect, Name, PrincipalId, Result, Seams, Skill, SkillId, Store,
};
use store_redb::{Options, RedbStore};
use tempfile::TempDir;

fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agents.redb");
    (directory, path)
}

fn impatient(path: &Path) -> Result<RedbStore> {
    RedbStore::open_with(path, Options { busy_timeout: Duration::from_millis(50), ..Options::default() })
}

fn skill(id: &str) -> Skill {
    Skill::new(SkillId::new(id).unwrap(), PrincipalId::new("o").unwrap(), Name::new(id).unwrap())
}

fn save(store: &RedbStore, id: &str) {
    store.skills().save(&skill(id), Expect::Absent).unwrap();
}

fn has(store: &RedbStore, id: &str) -> bool {
    store.skills().get(&SkillId::new(id).unwrap()).unwrap().is_some()
}

fn names(directory: &Path) -> Vec<String> {
    fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_new_store_is_one_file_of_its_owner_alone() {
    let (directory, path) = place();
    let store = RedbStore::open(&path).unwrap();
    save(&store, "s");
    assert_eq!(names(directory.path()), ["agents.redb"]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let info = Store::info(&store);
    assert_eq!((info.engine.as_str(), info.version.as_str()), ("redb", "redb 4.6.0"));
    assert_eq!((info.durability, info.multi_process, info.schema), (Durability::PowerLoss, false, 4));
    assert_eq!(info.path.unwrap(), directory.path().canonicalize().unwrap().join("agents.redb"));
}

/// The version in `info` is the one that is pinned.
#[test]
fn the_version_is_the_one_that_is_linked() {
    let lock = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock")).unwrap();
    let (_, after) = lock.split_once("name = \"redb\"\nversion = \"").unwrap();
    let (_directory, path) = place();
    let info = Store::info(&RedbStore::open(path).unwrap());
    assert_eq!(info.version, format!("redb {}", after.split('"').next().unwrap()));
}

#[test]
fn what_is_there_after_close_drop_and_reopen() {
    let (_directory, path) = place();
    let store = RedbStore::open(&path).unwrap();
    save(&store, "a");
    Store::close(&store).unwrap();
    assert_eq!(store.skills().get(&SkillId::new("a").unwrap()).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(store.skills().save(&skill("b"), Expect::Any).unwrap_err().kind(), ErrorKind::Closed);
    Store::close(&store).unwrap();

    let store = RedbStore::open(&path).unwrap();
    save(&store, "b");
    drop(store);
    let store = RedbStore::open_with(&path, Options { check_integrity: true, ..Options::default() }).unwrap();
    assert!(has(&store, "a") && has(&store, "b"));
}

#[test]
fn without_flushes_too_what_was_saved_is_there_again() {
    let (_directory, path) = place();
    let options = Options { durability: Durability::Process, ..Options::default() };
    let store = RedbStore::open_with(&path, options.clone()).unwrap();
    assert_eq!(Store::info(&store).durability, Durability::Process);
    save(&store, "a");
    // As a killed process leaves it: nothing is closed. Its lock is the only thing that a copy does not have.
    let killed = path.with_file_name("killed.redb");
    fs::copy(&path, &killed).unwrap();
    assert!(has(&RedbStore::open(&killed).unwrap(), "a"));
    Store::close(&store).unwrap();
    assert!(has(&RedbStore::open_with(&path, options).unwrap(), "a"));
}

#[test]
fn a_second_opener_waits_and_then_hears_who_holds_the_file() {
    let (_directory, path) = place();
    let first = RedbStore::open(&path).unwrap();
    let start = Instant::now();
    let error = impatient(&path).unwrap_err();
    assert!(start.elapsed() >= Duration::from_millis(50));
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(error.is_retryable());
    assert!(
        error.to_string().contains("has the file open") && error.to_string().contains("agents.redb"),
        "{error}"
    );

    let opener = std::thread::spawn({
        let path = path.clone();
        move || RedbStore::open(&path).map(|store| has(&store, "a"))
    });
    std::thread::sleep(Duration::from_millis(50));
    save(&first, "a");
    Store::close(&first).unwrap();
    assert!(opener.join().unwrap().unwrap(), "it waited, and sees what was saved meanwhile");
}

#[test]
fn a_close_waits_for_who_still_reads_and_then_says_busy() {
    let (_directory, path) = place();
    let store = impatient(&path).unwrap();
    std::thread::scope(|scope| {
        store
            .snapshot(&mut |_| {
                let closed = scope.spawn(|| Store::close(&store)).join().unwrap();
                assert_eq!(closed.unwrap_err().kind(), ErrorKind::Busy);
                Ok(())
            })
            .unwrap();
    });
    save(&store, "still open");
    Store::close(&store).unwrap();
}

#[test]
fn a_second_writer_waits_and_then_says_busy() {
    let (_directory, path) = place();
    let store = impatient(&path).unwrap();
    std::thread::scope(|scope| {
        store
            .transaction(&mut |_| {
                let second = scope.spawn(|| store.skills().save(&skill("b"), Expect::Any)).join().unwrap();
                assert_eq!(second.unwrap_err().kind(), ErrorKind::Busy);
                scope.spawn(|| assert!(!has(&store, "b"), "readers do not wait")).join().unwrap();
                Ok(())
            })
            .unwrap();
    });
}

fn refused(path: &Path, kind: ErrorKind) -> Error {
    let before = fs::read(path).ok();
    let error = impatient(path).unwrap_err();
    assert_eq!(error.kind(), kind, "{path:?}: {error}");
    assert!(fs::read(path).ok() == before, "{path:?} was touched");
    error
}

#[test]
fn what_is_no_store_is_refused_and_untouched() {
    let (directory, path) = place();
    fs::write(&path, b"#!/bin/sh\n").unwrap();
    refused(&path, ErrorKind::NotThisStore);
    fs::write(&path, b"redb").unwrap();
    refused(&path, ErrorKind::NotThisStore);
    refused(directory.path(), ErrorKind::NotThisStore);
    assert_eq!(impatient(Path::new("/")).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(impatient(&directory.path().join("no/such.redb")).unwrap_err().kind(), ErrorKind::Backend);
    let absent = Options { create: false, ..Options::default() };
    let error = RedbStore::open_with(directory.path().join("none.redb"), absent).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let memory = Options { durability: Durability::Memory, ..Options::default() };
    assert_eq!(RedbStore::open_with(&path, memory).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(names(directory.path()), ["agents.redb"]);
}

#[cfg(unix)]
#[test]
fn a_link_is_refused_also_one_to_a_store_or_to_nothing() {
    let (directory, path) = place();
    let link = directory.path().join("link.redb");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert_eq!(impatient(&link).unwrap_err().kind(), ErrorKind::NotThisStore);
    assert!(!path.exists(), "nothing was created through the link");
    harness::store(&path);
    refused(&link, ErrorKind::NotThisStore);
}

#[test]
fn redb_files_of_others_are_refused_and_untouched() {
    let (directory, path) = place();
    Database::create(&path).unwrap().close().unwrap();
    refused(&path, ErrorKind::NotThisStore);
    // One with a table of our name, of other types.
    let raw = Database::open(&path).unwrap();
    let tx = raw.begin_write().unwrap();
    tx.open_table(TableDefinition::<u64, &str>::new("meta")).unwrap().insert(1, "x").unwrap();
    tx.commit().unwrap();
    raw.close().unwrap();
    refused(&path, ErrorKind::NotThisStore);
    // One with a table of our name and types, and no mark in it.
    let path = directory.path().join("other.redb");
    let raw = Database::create(&path).unwrap();
    let tx = raw.begin_write().unwrap();
    tx.open_table(harness::META).unwrap().insert(b"x".as_slice(), b"y".as_slice()).unwrap();
    tx.commit().unwrap();
    raw.close().unwrap();
    refused(&path, ErrorKind::NotThisStore);
}

#[test]
fn a_newer_schema_is_refused_and_untouched() {
    let (_directory, path) = place();
    harness::store(&path);
    harness::mark(&path, r#"{"application":"agst","schema":5}"#);
    let error = refused(&path, ErrorKind::SchemaTooNew);
    assert!(matches!(error, Error::SchemaTooNew { found: 5, supported: 4 }));
}

/// A copy of the file that redb has open: what stands there when its process is killed.
fn killed(path: &Path, open: &Database) -> PathBuf {
    let tx = open.begin_write().unwrap();
    tx.open_table(TableDefinition::<u64, &str>::new("theirs")).unwrap().insert(1, "x").unwrap();
    tx.commit().unwrap();
    let copy = path.with_file_name("killed.redb");
    fs::copy(path, &copy).unwrap();
    copy
}

/// redb repairs a file whose last writer died before it reads a byte of it. Such files of others, and of newer
/// versions of ours, were once repaired first and refused afterwards.
#[test]
fn files_that_are_not_ours_and_were_not_closed_are_refused_and_untouched() {
    let (_directory, path) = place();
    let raw = Database::create(&path).unwrap();
    refused(&killed(&path, &raw), ErrorKind::NotThisStore);
    raw.close().unwrap();
    fs::remove_file(&path).unwrap();

    harness::store(&path);
    harness::mark(&path, r#"{"application":"agst","schema":5}"#);
    let raw = Database::open(&path).unwrap();
    refused(&killed(&path, &raw), ErrorKind::SchemaTooNew);
}

#[test]
fn files_that_were_cut_off_are_corrupt() {
    let (_directory, path) = place();
    harness::store(&path);
    let whole = fs::read(&path).unwrap();
    for length in [9, 60, 320, 4096, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        refused(&path, ErrorKind::Corrupt);
    }
}

/// Somebody makes room for a store with an empty file; several openers find it at once.
#[test]
fn an_empty_file_becomes_a_store_once() {
    let (directory, path) = place();
    File::create(&path).unwrap();
    let ids = ["a", "b", "c", "d"];
    std::thread::scope(|scope| {
        for id in ids {
            let path = &path;
            scope.spawn(move || save(&RedbStore::open(path).unwrap(), id));
        }
    });
    let store = RedbStore::open(&path).unwrap();
    assert!(ids.iter().all(|id| has(&store, id)), "no opener replaced the store of another");
    assert_eq!(names(directory.path()), ["agents.redb"]);
}

#[test]
fn many_first_openers_make_one_store() {
    for _ in 0..10 {
        let (directory, path) = place();
        let ids = ["a", "b", "c", "d"];
        std::thread::scope(|scope| {
            for id in ids {
                let path = &path;
                scope.spawn(move || save(&RedbStore::open(path).unwrap(), id));
            }
        });
        let store = RedbStore::open(&path).unwrap();
        assert!(ids.iter().all(|id| has(&store, id)));
        assert_eq!(names(directory.path()), ["agents.redb"]);
    }
}

/// A process that dies while it creates a store leaves its temporary file, whatever is in it.
#[test]
fn a_crash_while_creating_is_cleared_away() {
    let (directory, path) = place();
    let left = directory.path().join(".agents.redb.1-0.new");
    fs::write(&left, b"half a sto").unwrap();
    save(&RedbStore::open(&path).unwrap(), "a");
    assert_eq!(names(directory.path()), ["agents.redb"]);
    // After the link was made and before the temporary name was removed, both names lead to the whole store.
    fs::hard_link(&path, &left).unwrap();
    assert!(has(&RedbStore::open(&path).unwrap(), "a"));
    assert_eq!(names(directory.path()), ["agents.redb"]);
}
