//! Opening: what a store does with files that are not its own, with others that use its file, and at its end.

#![allow(clippy::unwrap_used)] // of the helpers: each is an assertion

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use store_api::{Durability, ErrorKind, Expect, Name, PrincipalId, Seams, Skill, SkillId, Store, StoreExt};
use store_sqlite::{Options, SqliteStore};

fn skill(id: &str) -> Skill {
    Skill::new(SkillId::new(id).unwrap(), PrincipalId::new("owner").unwrap(), Name::new(id).unwrap())
}

fn refusal(path: &Path) -> ErrorKind {
    SqliteStore::open(path).map(drop).unwrap_err().kind()
}

fn names_in(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn closed_store(path: &Path) -> Vec<u8> {
    let store = SqliteStore::open(path).unwrap();
    store.skills().save(&skill("a"), Expect::Any).unwrap();
    store.close().unwrap();
    fs::read(path).unwrap()
}

/// The numbers stand in the header at 60 (schema) and 68 (application), big-endian.
fn with_number(mut bytes: Vec<u8>, at: usize, number: u32) -> Vec<u8> {
    bytes[at..at + 4].copy_from_slice(&number.to_be_bytes());
    bytes
}

#[test]
fn files_that_are_not_ours_are_refused_untouched() {
    let directory = tempfile::tempdir().unwrap();
    let ours = closed_store(&directory.path().join("ours.db"));
    let foreign = directory.path().join("foreign.db");
    rusqlite::Connection::open(&foreign)
        .unwrap()
        .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (x)")
        .unwrap();
    let foreign_bytes = fs::read(&foreign).unwrap();
    let cases: [(&str, Vec<u8>, ErrorKind); 6] = [
        ("text", b"name = \"not a database\"\n".repeat(10), ErrorKind::NotThisStore),
        ("short text", b"x".to_vec(), ErrorKind::NotThisStore),
        ("cut off", ours[..60].to_vec(), ErrorKind::Corrupt),
        ("another application's", with_number(ours.clone(), 68, 7), ErrorKind::NotThisStore),
        ("a newer schema", with_number(ours.clone(), 60, 1_000), ErrorKind::SchemaTooNew),
        ("no application's", foreign_bytes, ErrorKind::NotThisStore),
    ];
    for (what, bytes, kind) in cases {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("f.db");
        fs::write(&path, &bytes).unwrap();
        assert_eq!(refusal(&path), kind, "{what}");
        assert_eq!(fs::read(&path).unwrap(), bytes, "{what} was touched");
        assert_eq!(names_in(place.path()), ["f.db"], "{what}: something was laid beside it");
    }
}

#[test]
fn a_file_that_is_cut_off_after_its_header_is_corrupt() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.db");
    let bytes = closed_store(&path);
    fs::write(&path, &bytes[..bytes.len() / 2 - 100]).unwrap();
    let found = SqliteStore::open(&path).and_then(|store| store.verify());
    match found {
        Ok(found) => assert!(!found.is_sound()),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}"),
    }
}

#[test]
fn what_is_no_regular_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("target.db");
    closed_store(&target);
    let link = directory.path().join("link.db");
    symlink(&target, &link).unwrap();
    let dangling = directory.path().join("dangling.db");
    symlink(directory.path().join("nowhere.db"), &dangling).unwrap();
    assert_eq!(refusal(&link), ErrorKind::NotThisStore);
    assert_eq!(refusal(&dangling), ErrorKind::NotThisStore);
    assert_eq!(refusal(directory.path()), ErrorKind::NotThisStore);
    assert_eq!(refusal(Path::new("a\0b")), ErrorKind::InvalidInput);
    assert_eq!(refusal(Path::new("..")), ErrorKind::InvalidInput);
    assert_eq!(refusal(&directory.path().join("no/such/directory/s.db")), ErrorKind::Backend);
    assert!(!directory.path().join("nowhere.db").exists());
}

/// The file alone does not say what it is: opening it plays the log back. A newer version that died before its log was
/// copied back once had its file changed by the older one that then refused it.
#[test]
fn a_newer_schema_that_only_the_log_tells_is_refused_untouched() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.db");
    closed_store(&path);
    let newer = rusqlite::Connection::open(&path).unwrap();
    newer.execute_batch("PRAGMA user_version = 1000").unwrap();
    let died = tempfile::tempdir().unwrap();
    for name in ["s.db", "s.db-wal"] {
        fs::copy(directory.path().join(name), died.path().join(name)).unwrap();
    }
    let path = died.path().join("s.db");
    let before = (fs::read(&path).unwrap(), fs::read(died.path().join("s.db-wal")).unwrap());
    assert_eq!(refusal(&path), ErrorKind::SchemaTooNew);
    let after = (fs::read(&path).unwrap(), fs::read(died.path().join("s.db-wal")).unwrap());
    assert!(before == after);
    assert_eq!(names_in(died.path()), ["s.db", "s.db-wal"]);
}

/// SQLite takes an empty file for a new database and deletes the log beside it, with all that was committed to it.
#[test]
fn a_log_without_its_database_is_not_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.db");
    let store = SqliteStore::open(&path).unwrap();
    store.skills().save(&skill("a"), Expect::Any).unwrap();
    let left = tempfile::tempdir().unwrap();
    let log = left.path().join("s.db-wal");
    fs::copy(directory.path().join("s.db-wal"), &log).unwrap();
    let before = fs::read(&log).unwrap();
    let path = left.path().join("s.db");
    assert_eq!(refusal(&path), ErrorKind::Corrupt);
    assert_eq!(names_in(left.path()), ["s.db-wal"]);
    fs::write(&path, "").unwrap();
    assert_eq!(refusal(&path), ErrorKind::Corrupt);
    assert!(fs::read(&log).unwrap() == before);
}

/// What SQLite lays beside its file must not be somebody else's file, nor fail once the database is there.
#[test]
fn links_beside_the_file_and_names_too_long_for_it_are_refused() {
    for suffix in ["-wal", "-shm", "-journal"] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s.db");
        let bytes = closed_store(&path);
        let victim = directory.path().join("victim");
        fs::write(&victim, "keep me").unwrap();
        symlink(&victim, directory.path().join(format!("s.db{suffix}"))).unwrap();
        assert_eq!(refusal(&path), ErrorKind::NotThisStore, "{suffix}");
        assert!(fs::read(&path).unwrap() == bytes && fs::read(&victim).unwrap() == b"keep me", "{suffix}");
    }
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(refusal(&directory.path().join("n".repeat(237))), ErrorKind::InvalidInput);
    let deep = directory.path().join(format!("{}/", "d".repeat(100)).repeat(5));
    fs::create_dir_all(&deep).unwrap();
    assert_eq!(refusal(&deep.join("s.db")), ErrorKind::InvalidInput);
    assert_eq!(fs::read_dir(&deep).unwrap().count(), 0);
    closed_store(&directory.path().join("n".repeat(236)));
}

#[test]
fn a_link_in_the_directory_is_followed() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("real")).unwrap();
    symlink(directory.path().join("real"), directory.path().join("alias")).unwrap();
    closed_store(&directory.path().join("alias/s.db"));
    assert!(directory.path().join("real/s.db").exists());
}

/// The bundled SQLite takes every name that begins with `file:` for a URI, whatever the flags say.
#[test]
fn a_path_is_never_taken_for_a_uri() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file:s.db?mode=memory");
    closed_store(&path);
    assert_eq!(names_in(directory.path()), ["file:s.db?mode=memory"]);
}

#[test]
fn an_empty_file_becomes_a_store_and_a_missing_one_only_when_asked() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.db");
    let options = Options { create: false, ..Options::default() };
    assert_eq!(SqliteStore::open_with(&path, options).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(names_in(directory.path()), [""; 0]);
    fs::write(&path, "").unwrap();
    let store = SqliteStore::open(&path).unwrap();
    assert!(store.verify().unwrap().is_sound());
}

/// The power goes while a store is created, and of the first page any part has reached the disk. Its journal says that
/// there was nothing before.
#[test]
fn a_store_that_was_cut_off_while_it_was_created_is_created_again() {
    let directory = tempfile::tempdir().unwrap();
    let creating = directory.path().join("creating.db");
    let raw = rusqlite::Connection::open(&creating).unwrap();
    // A cache of one page, so that the journal is written before the transaction is committed.
    raw.execute_batch(
        "PRAGMA page_size = 8192; PRAGMA cache_size = 1; BEGIN; PRAGMA application_id = 0x61677374; \
         PRAGMA user_version = 1; CREATE TABLE t (x); INSERT INTO t VALUES (zeroblob(100000)), (zeroblob(100000));",
    )
    .unwrap();
    let journal = fs::read(directory.path().join("creating.db-journal")).unwrap();
    raw.execute_batch("COMMIT").unwrap();
    let whole = fs::read(&creating).unwrap();
    assert!(whole.starts_with(b"SQLite format 3\0") && journal.len() >= 28);
    for torn in [0..8192, 0..8, 8..8192, 64..8192, 0..64, 16..72, 72..8192] {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("s.db");
        let mut bytes = whole.clone();
        bytes[torn.clone()].fill(0);
        fs::write(&path, &bytes).unwrap();
        fs::write(place.path().join("s.db-journal"), &journal).unwrap();
        let store = SqliteStore::open(&path).unwrap_or_else(|e| panic!("without {torn:?}: {e}"));
        store.skills().save(&skill("a"), Expect::Any).unwrap();
        assert!(store.verify().unwrap().is_sound());
        // A journal of a database that was something before is no excuse.
        let mut before = journal.clone();
        before[19] = 1;
        let path = place.path().join("other.db");
        fs::write(place.path().join("other.db-journal"), &before).unwrap();
        fs::write(&path, b"text, and more of it").unwrap();
        assert_eq!(refusal(&path), ErrorKind::NotThisStore);
    }
}

#[test]
fn options_out_of_range_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    for options in [
        Options { readers: 0, ..Options::default() },
        Options { busy_timeout: Duration::MAX, ..Options::default() },
        Options { durability: Durability::Memory, ..Options::default() },
    ] {
        let refused = SqliteStore::open_with(directory.path().join("s.db"), options);
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn files_are_their_owners_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.db");
    let store = SqliteStore::open(&path).unwrap();
    store.skills().save(&skill("a"), Expect::Any).unwrap();
    store.backup(&directory.path().join("copy.db")).unwrap();
    assert_eq!(names_in(directory.path()), ["copy.db", "s.db", "s.db-shm", "s.db-wal"]);
    for name in names_in(directory.path()) {
        let mode = fs::metadata(directory.path().join(&name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn info_says_what_the_store_is() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { durability: Durability::Process, ..Options::default() };
    let store = SqliteStore::open_with(directory.path().join("s.db"), options).unwrap();
    let info = Store::info(&store);
    assert_eq!((info.engine.as_str(), info.multi_process, info.schema), ("sqlite", true, 2));
    assert_eq!(info.durability, Durability::Process);
    assert!(info.version.starts_with("SQLite 3."), "{}", info.version);
    assert!(info.path.unwrap().ends_with("s.db"));
}

fn impatient(path: &Path) -> SqliteStore {
    let options = Options { busy_timeout: Duration::from_millis(300), readers: 1, ..Options::default() };
    SqliteStore::open_with(path, options).unwrap()
}

/// Runs `call` while `holder` is inside a transaction or snapshot, and gives how it was refused and how long it took.
fn while_held(
    hold: impl FnOnce(&mut (dyn FnMut() + Send)) + Send,
    call: impl FnOnce() -> store_api::Error,
) -> Duration {
    let (entered, wait_entered) = mpsc::channel();
    let (leave, wait_leave) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            hold(&mut move || {
                entered.send(()).unwrap();
                wait_leave.recv().unwrap();
            });
        });
        wait_entered.recv().unwrap();
        // Dropped also when `call` panics, so the holder ends in any case.
        let leave = leave;
        let start = Instant::now();
        let error = call();
        let took = start.elapsed();
        leave.send(()).unwrap();
        assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
        assert!(error.is_retryable());
        took
    })
}

fn transaction(store: &SqliteStore) -> impl FnOnce(&mut (dyn FnMut() + Send)) + Send {
    move |inside| {
        store
            .transact(|seams| {
                seams.skills().save(&skill("held"), Expect::Any)?;
                inside();
                Ok(())
            })
            .unwrap();
    }
}

fn snapshot(store: &SqliteStore) -> impl FnOnce(&mut (dyn FnMut() + Send)) + Send {
    move |inside| {
        store
            .view(|_| {
                inside();
                Ok(())
            })
            .unwrap();
    }
}

#[test]
fn everybody_who_is_held_up_waits_and_then_says_busy() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.db");
    let (one, other) = (impatient(&path), impatient(&path));
    let save = |store: &SqliteStore| store.skills().save(&skill("b"), Expect::Any).unwrap_err();
    let cases = [
        ("a writer behind a writer of this store", while_held(transaction(&one), || save(&one))),
        ("a writer behind another store's", while_held(transaction(&one), || save(&other))),
        ("a reader in a full pool", while_held(snapshot(&one), || one.view(|_| Ok(())).unwrap_err())),
        ("a close behind a writer", while_held(transaction(&one), || one.close().unwrap_err())),
        ("a close behind a reader", while_held(snapshot(&one), || one.close().unwrap_err())),
    ];
    for (what, took) in cases {
        assert!((300..5_000).contains(&took.as_millis()), "{what} took {took:?}");
    }
    one.skills().save(&skill("b"), Expect::Any).unwrap();
    assert_eq!(other.skills().get(&SkillId::new("b").unwrap()).unwrap().unwrap().name.as_str(), "b");
}

#[test]
fn work_that_fails_lets_go_of_the_file_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.db");
    let (store, other) = (impatient(&path), impatient(&path));
    let failed = store.transact(|seams| {
        seams.skills().save(&skill("refused"), Expect::Any)?;
        Err::<(), _>(store_api::Error::Closed)
    });
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::Closed);
    other.skills().save(&skill("other"), Expect::Absent).unwrap();
    assert_eq!(store.skills().get(&skill("refused").id).unwrap(), None);
}

#[test]
fn a_reader_never_waits_for_a_writer() {
    let directory = tempfile::tempdir().unwrap();
    let store = impatient(&directory.path().join("s.db"));
    store
        .transact(|seams| {
            seams.skills().save(&skill("a"), Expect::Any)?;
            thread::scope(|scope| {
                let seen = scope.spawn(|| store.skills().get(&SkillId::new("a").unwrap()).unwrap());
                assert!(seen.join().unwrap().is_none());
            });
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_snapshot_sees_the_moment_it_began() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path().join("s.db")).unwrap();
    let seen = store.view(|seams| {
        thread::scope(|scope| {
            scope.spawn(|| store.skills().save(&skill("late"), Expect::Any).unwrap());
        });
        seams.skills().get(&SkillId::new("late").unwrap())
    });
    assert!(seen.unwrap().is_none());
}

#[test]
fn a_closed_store_says_so_and_closes_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.db");
    let store = SqliteStore::open(&path).unwrap();
    store.skills().save(&skill("a"), Expect::Any).unwrap();
    store.close().unwrap();
    store.close().unwrap();
    assert_eq!(names_in(directory.path()), ["s.db"], "the write-ahead log was copied back");
    let closed = [
        store.skills().save(&skill("b"), Expect::Any).map(drop),
        store.skills().get(&SkillId::new("a").unwrap()).map(drop),
        store.verify().map(drop),
        store.backup(&directory.path().join("copy.db")),
        store.export(&mut |_| Ok(())),
    ];
    for result in closed {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Closed);
    }
    assert!(SqliteStore::open(&path).unwrap().skills().get(&SkillId::new("a").unwrap()).unwrap().is_some());
}

#[test]
fn many_open_and_create_one_file_at_once() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..10 {
        let path: PathBuf = directory.path().join(format!("{round}.db"));
        let stores: Vec<SqliteStore> = thread::scope(|scope| {
            let opening: Vec<_> = (0..4).map(|_| scope.spawn(|| SqliteStore::open(&path).unwrap())).collect();
            opening.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for (number, store) in stores.iter().enumerate() {
            store.skills().save(&skill(&format!("s{number}")), Expect::Absent).unwrap();
        }
        let found = stores[0].skills().list(&Default::default(), &Default::default()).unwrap();
        assert_eq!(found.items.len(), 4);
    }
}

#[test]
fn an_export_takes_no_reader_away() {
    let directory = tempfile::tempdir().unwrap();
    let store = impatient(&directory.path().join("s.db"));
    store.skills().save(&skill("a"), Expect::Any).unwrap();
    let mut records = 0;
    store
        .export(&mut |_| {
            records += 1;
            thread::scope(|scope| {
                // The only reader of this store.
                scope.spawn(|| store.skills().get(&SkillId::new("a").unwrap()).unwrap().unwrap());
            });
            Ok(())
        })
        .unwrap();
    assert_eq!(records, 2);
    store.close().unwrap();
}
