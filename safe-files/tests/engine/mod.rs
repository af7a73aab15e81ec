//! What the recovery of every engine is held to: included by the tests of each, which say how its stores are opened.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use safe_files::recovery::{mark, marker};
use safe_files::{Step, Watching, watch, with_suffix};
use store_api::{ErrorKind, Expect, Name, PrincipalId, Result, Skill, SkillId, Store};
use tempfile::TempDir;

/// An engine that keeps files.
pub(crate) struct Engine {
    /// Opens the store at a path, waiting for others so long; creates it when told to.
    pub(crate) open: fn(&Path, Duration, bool) -> Result<Arc<dyn Store>>,
    /// What it lays beside a file that is open, as suffixes, in order.
    pub(crate) beside: &'static [&'static str],
}

const SHORT: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(30);

pub(crate) fn save(store: &dyn Store, id: &str) -> Result<()> {
    let mut skill = Skill::new(SkillId::new(id)?, PrincipalId::new("o")?, Name::new(id)?);
    skill.body = "x".repeat(3000);
    store.skills().save(&skill, Expect::Any).map(drop)
}

pub(crate) fn has(store: &dyn Store, id: &str) -> bool {
    store.skills().get(&SkillId::new(id).unwrap()).unwrap().is_some()
}

/// The process is gone after so many steps: none is taken any more, not even to clear up.
fn killed_after(last: usize, directory: &Path) -> Watching {
    let steps = AtomicUsize::new(0);
    watch(directory, move |_, take| {
        if steps.fetch_add(1, Ordering::SeqCst) >= last {
            return Err(io::Error::other("the process was killed"));
        }
        take()
    })
}

pub(crate) fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

/// The files in the directory of a store, but for what SQLite makes by locking one: the index of the log, and an empty
/// log.
pub(crate) fn files(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let directory = path.parent().unwrap();
    let names = names(directory).into_iter().filter(|name| !name.ends_with("-shm"));
    let files = names.map(|name| (name.clone(), fs::read(directory.join(name)).unwrap()));
    files.filter(|(name, bytes)| !(name.ends_with("-wal") && bytes.is_empty())).collect()
}

/// Every file is as it was, to the byte.
pub(crate) fn untouched(path: &Path, before: &BTreeMap<String, Vec<u8>>) {
    let after = files(path);
    assert!(after.keys().eq(before.keys()), "{:?} were {:?}", after.keys(), before.keys());
    assert!(after == *before, "a file was changed");
}

impl Engine {
    pub(crate) fn opened(&self, path: &Path) -> Arc<dyn Store> {
        (self.open)(path, LONG, true).unwrap_or_else(|e| panic!("{}", store_api::describe(&e)))
    }

    pub(crate) fn impatient(&self, path: &Path) -> Result<Arc<dyn Store>> {
        (self.open)(path, SHORT, true)
    }

    /// A place with a store as a process leaves it that is killed after a flush has failed: one record was there
    /// when it opened the store, another it has written since, nothing is closed; and the marker.
    pub(crate) fn left(&self) -> (TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let original = directory.path().join("s.db");
        let store = self.opened(&original);
        save(&*store, "early").unwrap();
        store.close().unwrap();
        let store = self.opened(&original);
        save(&*store, "late").unwrap();
        let place = directory.path().canonicalize().unwrap().join("place");
        fs::create_dir(&place).unwrap();
        for suffix in [""].iter().chain(self.beside) {
            fs::copy(with_suffix(&original, suffix), with_suffix(&place.join("s.db"), suffix)).unwrap();
        }
        let path = place.join("s.db");
        mark(&path, "a test says so").unwrap();
        (directory, path)
    }

    /// The store has what was acknowledged, nothing is left of its recovery, and it takes writes.
    pub(crate) fn is_well(&self, path: &Path, what: &str) {
        let store = (self.open)(path, LONG, true).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert!(has(&*store, "early") && has(&*store, "late"), "{what}: something is gone");
        assert!(store.verify().unwrap().is_sound(), "{what}");
        save(&*store, "after").unwrap();
        let laid = [""].iter().chain(self.beside).map(|suffix| format!("s.db{suffix}"));
        assert_eq!(names(path.parent().unwrap()), laid.collect::<Vec<_>>(), "{what}");
        store.close().unwrap();
        assert!(has(&*self.opened(path), "after"), "{what}");
    }

    pub(crate) fn a_recovery_may_be_cut_off_after_any_step(&self) {
        for last in 0.. {
            let (_directory, path) = self.left();
            let watching = killed_after(last, path.parent().unwrap());
            let cut_off = self.impatient(&path).map(drop);
            drop(watching);
            self.is_well(&path, &format!("after {last} steps"));
            if cut_off.is_ok() {
                return assert!(last > 8 + 2 * self.beside.len(), "{last} steps");
            }
        }
    }

    /// A process was killed between the two names of a new file: when it had published the file and not yet taken the
    /// temporary name away. The store was there, so nobody made it again, and only who makes a file cleared up: the
    /// second name stayed for ever. Nor did anybody make sure of the first one, before writes were acknowledged.
    ///
    /// `make` makes a file at a path, the only one beside those that are there.
    pub(crate) fn a_file_may_be_cut_off_while_it_appears(&self, make: impl Fn(&Path) -> Result<()>) {
        for last in 0.. {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().canonicalize().unwrap().join("s.db");
            let watching = killed_after(last, path.parent().unwrap());
            let cut_off = make(&path);
            drop(watching);
            let left = names(directory.path());
            let certain = Arc::new(AtomicBool::new(left.len() < 2));
            let flushed = Arc::clone(&certain);
            let watching = watch(path.parent().unwrap(), move |step, take| {
                let is_flush = matches!(step, Step::SyncDirectory(_));
                take().map(|()| flushed.fetch_or(is_flush, Ordering::SeqCst)).map(drop)
            });
            self.opened(&path).close().unwrap();
            drop(watching);
            assert!(certain.load(Ordering::SeqCst), "after {last} steps: the name is not certain");
            assert_eq!(names(directory.path()), ["s.db"], "after {last} steps, which left {left:?}");
            if cut_off.is_ok() {
                return assert!(last > 3, "{last} steps");
            }
        }
    }

    pub(crate) fn what_was_acknowledged_is_there_whatever_was_left(&self) {
        type Change = fn(&Engine, &Path);
        let changes: [(&str, Change); 5] = [
            ("nothing else", |_, _| {}),
            ("a closed store", |engine, path| {
                fs::remove_file(marker(path)).unwrap();
                engine.opened(path).close().unwrap();
                mark(path, "again").unwrap();
            }),
            ("half a copy", |engine, path| {
                for suffix in [""].iter().chain(engine.beside) {
                    let part = with_suffix(&with_suffix(path, "-recovering"), suffix);
                    fs::write(part, b"SQLite format 3\0and so").unwrap();
                }
            }),
            ("no index of a log", |_, path| safe_files::remove(&with_suffix(path, "-shm")).unwrap()),
            ("an empty marker", |_, path| fs::write(marker(path), b"").unwrap()),
        ];
        for (what, change) in changes {
            let (_directory, path) = self.left();
            change(self, &path);
            self.is_well(&path, what);
        }
    }

    /// Somebody takes the marker away while a recovery is cut off. What comes later must not lose to the old copy.
    pub(crate) fn a_copy_without_a_marker_is_never_used(&self) {
        let (_directory, path) = self.left();
        fs::copy(&path, with_suffix(&path, "-recovered")).unwrap();
        fs::remove_file(marker(&path)).unwrap();
        self.is_well(&path, "without a marker");
        mark(&path, "later").unwrap();
        assert!(has(&*self.opened(&path), "after"));
        self.is_well(&path, "with a later marker");
    }

    pub(crate) fn a_marker_is_in_nobodys_way_where_no_store_is(&self) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().canonicalize().unwrap().join("s.db");
        mark(&path, "gone").unwrap();
        assert_eq!((self.open)(&path, SHORT, false).map(drop).unwrap_err().kind(), ErrorKind::NotFound);
        for empty in [false, true] {
            mark(&path, "while it was created").unwrap();
            if empty {
                fs::write(&path, b"").unwrap();
            }
            save(&*self.opened(&path), "a").unwrap();
            assert_eq!(names(directory.path()), ["s.db"]);
            fs::remove_file(&path).unwrap();
        }
        fs::write(&path, b"#!/bin/sh\n").unwrap();
        mark(&path, "not ours").unwrap();
        let before = files(&path);
        assert_eq!(self.impatient(&path).map(drop).unwrap_err().kind(), ErrorKind::NotThisStore);
        untouched(&path, &before);
    }

    /// The store at `path` has a damaged record, which the error tells, and that can be opened all the same.
    pub(crate) fn what_is_damaged_is_refused_and_stays_as_it_is(&self, path: &Path, record: &str) {
        let before = files(path);
        for _ in 0..2 {
            let error = self.impatient(path).map(drop).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            assert!(error.to_string().contains(record), "{error}");
            untouched(path, &before);
        }
        // Who wants it as it is takes the marker away.
        fs::remove_file(marker(path)).unwrap();
        assert!(has(&*self.opened(path), "early"));
    }

    pub(crate) fn where_no_copy_can_be_made_the_error_says_so_and_nothing_changes(&self) {
        for (kind, retryable) in
            [(io::ErrorKind::StorageFull, true), (io::ErrorKind::PermissionDenied, false)]
        {
            let (_directory, path) = self.left();
            let before = files(&path);
            let watching = watch(path.parent().unwrap(), move |step, take| match step {
                Step::Create(_) => Err(kind.into()),
                _ => take(),
            });
            let error = self.impatient(&path).map(drop).unwrap_err();
            assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Backend, retryable), "{error}");
            assert!(error.to_string().contains("s.db-recovering"), "{error}");
            untouched(&path, &before);
            drop(watching);
            self.is_well(&path, "once a copy can be made");
        }
    }

    /// Whoever wants to recover waits until a store that has the file open is closed; `meanwhile` is about that one.
    pub(crate) fn a_store_that_is_open_keeps_a_recovery_waiting(
        &self,
        meanwhile: impl Fn(&Path, &dyn Store),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().canonicalize().unwrap().join("s.db");
        let store = self.opened(&path);
        save(&*store, "early").unwrap();
        save(&*store, "late").unwrap();
        mark(&path, "another process says so").unwrap();
        meanwhile(&path, &*store);
        assert_eq!(self.impatient(&path).map(drop).unwrap_err().kind(), ErrorKind::Busy);
        let open = self.open;
        let waiting = std::thread::spawn({
            let path = path.clone();
            move || open(&path, LONG, true).map(|store| has(&*store, "late"))
        });
        std::thread::sleep(2 * SHORT);
        store.close().unwrap();
        assert!(waiting.join().unwrap().unwrap());
        self.is_well(&path, "after all have closed");
    }

    /// Of openers that come at once one recovers, and all of them find what was acknowledged.
    pub(crate) fn openers_that_race_recover_once(&self) {
        for _ in 0..5 {
            let (_directory, path) = self.left();
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
                        let store = self.opened(path);
                        assert!(has(&*store, "early") && has(&*store, "late"));
                        save(&*store, &format!("of {number}")).unwrap();
                    });
                }
            });
            drop(watching);
            assert_eq!(copies.load(Ordering::SeqCst), 1, "copies");
            let store = self.opened(&path);
            assert!((0..4).all(|number| has(&*store, &format!("of {number}"))));
            drop(store);
            self.is_well(&path, "after the race");
        }
    }
}
