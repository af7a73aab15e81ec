//! A recovery that is cut off by a loss of power, after every step, with every choice of what of it reached the disk.

#![allow(clippy::unwrap_used)] // of the helpers: each is an assertion

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use safe_files::recovery::{self, Claim, Logs, Recovery, is_marked, is_settled, mark, marker};
use safe_files::{Step, watch};
use store_api::{Error, ErrorKind, Result};

const LOGS: Logs = &["-wal", "-shm", "-journal"];

/// What the store is worth: its file and its log, together.
const WORTH: &str = "old+log";

/// Opens a store as an engine does: what it is worth is its file and its log.
fn open(path: &Path) -> Result<String> {
    match Recovery::claim(path, LOGS)? {
        Claim::Unmarked => {}
        Claim::Elsewhere => return Err(Error::Closed),
        Claim::Here(recovery) => {
            if !recovery.is_copied()? {
                recovery.copy(|copy| {
                    fs::write(copy, worth(path)).unwrap();
                    fs::write(safe_files::with_suffix(copy, "-wal"), "").unwrap();
                    Ok(())
                })?;
            }
            recovery.swap()?;
        }
    }
    assert!(is_settled(path, &fs::File::open(path).unwrap(), LOGS)?);
    Ok(worth(path))
}

fn worth(path: &Path) -> String {
    let log = fs::read_to_string(safe_files::with_suffix(path, "-wal")).unwrap_or_default();
    fs::read_to_string(path).unwrap() + &log
}

/// The files of a directory, by name.
type Files = BTreeMap<String, String>;

fn look(directory: &Path) -> Files {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    entries.map(|e| (e.file_name().into_string().unwrap(), fs::read_to_string(e.path()).unwrap())).collect()
}

fn lay(directory: &Path, files: &Files) -> PathBuf {
    for (name, content) in files {
        fs::write(directory.join(name), content).unwrap();
    }
    directory.canonicalize().unwrap().join("s.db")
}

fn marked() -> Files {
    let directory = tempfile::tempdir().unwrap();
    let path =
        lay(directory.path(), &[("s.db".into(), "old".into()), ("s.db-wal".into(), "+log".into())].into());
    mark(&path, "why").unwrap();
    look(directory.path())
}

fn recovered() -> Files {
    [("s.db".to_owned(), WORTH.to_owned())].into()
}

/// A change of names that may not have reached the disk. A file that gets a name has what was flushed into it.
enum Pending {
    Named { gone: Option<String>, name: String, content: String },
    Removed(String),
}

impl Pending {
    fn happen(&self, to: &mut Files) {
        match self {
            Pending::Named { gone, name, content } => {
                gone.iter().for_each(|gone| drop(to.remove(gone)));
                to.insert(name.clone(), content.clone());
            }
            Pending::Removed(name) => drop(to.remove(name)),
        }
    }
}

/// A disk: what is certainly on it, what may be, and every state that a loss of power could have left so far.
struct Disk {
    certain: Files,
    pending: Vec<Pending>,
    /// What was flushed, by the names that the files have by now.
    flushed: Files,
    left: BTreeSet<Files>,
}

impl Disk {
    fn of(files: &Files) -> Self {
        let (certain, flushed) = (files.clone(), files.clone());
        Disk { certain, pending: Vec::new(), flushed, left: BTreeSet::new() }
    }

    fn note(&mut self, step: &Step<'_>) {
        let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        match *step {
            Step::Create(path) => {
                self.flushed.remove(&name(path));
                self.pending.push(Pending::Named { gone: None, name: name(path), content: String::new() });
            }
            Step::Sync(path) => {
                let now = fs::read_to_string(path).unwrap();
                for pending in &mut self.pending {
                    if let Pending::Named { name: named, content, .. } = pending
                        && *named == name(path)
                    {
                        content.clone_from(&now);
                    }
                }
                self.flushed.insert(name(path), now);
            }
            Step::Rename { from, to } => {
                let content = self.flushed.remove(&name(from)).unwrap_or_default();
                self.flushed.insert(name(to), content.clone());
                self.pending.push(Pending::Named { gone: Some(name(from)), name: name(to), content });
            }
            Step::Remove(path) => {
                self.flushed.remove(&name(path));
                self.pending.push(Pending::Removed(name(path)));
            }
            Step::SyncDirectory(_) => {
                let pending = std::mem::take(&mut self.pending);
                pending.iter().for_each(|pending| pending.happen(&mut self.certain));
            }
            Step::Link { .. } => panic!("a recovery links nothing"),
        }
    }

    /// Every choice of the pending changes happens, and no other.
    fn lose_power(&mut self) {
        for choice in 0..1_u32 << self.pending.len() {
            let mut files = self.certain.clone();
            let chosen = self.pending.iter().enumerate().filter(|(n, _)| choice >> n & 1 == 1);
            chosen.for_each(|(_, pending)| pending.happen(&mut files));
            self.left.insert(files);
        }
    }
}

/// Recovers from `files`, and gives every state that a loss of power on the way could have left.
fn interrupted(files: &Files) -> BTreeSet<Files> {
    let directory = tempfile::tempdir().unwrap();
    let path = lay(directory.path(), files);
    let disk = Arc::new(Mutex::new(Disk::of(files)));
    let watched = Arc::clone(&disk);
    let watching = watch(path.parent().unwrap(), move |step, take| {
        let mut disk = watched.lock().unwrap();
        take()?;
        disk.note(step);
        disk.lose_power();
        Ok(())
    });
    assert_eq!(open(&path).unwrap(), WORTH, "from {files:?}");
    drop(watching);
    assert_eq!(look(directory.path()), recovered(), "from {files:?}");
    let disk = disk.lock().unwrap();
    disk.left.clone()
}

/// Power that goes in a recovery, and goes again in the recovery from that, and so on, until nothing new is left.
#[test]
fn a_recovery_may_lose_power_after_any_step_and_again_in_the_next_one() {
    let mut todo = vec![marked()];
    let mut seen: BTreeSet<Files> = todo.iter().cloned().collect();
    while let Some(files) = todo.pop() {
        for left in interrupted(&files) {
            if seen.insert(left.clone()) {
                todo.push(left);
            }
        }
    }
    assert!(seen.contains(&recovered()));
    let whole_copies = seen.iter().filter(|files| files.contains_key("s.db-recovered")).count();
    assert!(seen.len() >= 10 && whole_copies >= 3, "{} states, {whole_copies} with a whole copy", seen.len());
}

/// A maker died, or failed, between naming its database and flushing the name. The next opener wrote to the database
/// and flushed that, and a loss of power took all of it, together with the name.
#[test]
fn a_name_that_was_never_flushed_is_flushed_by_who_opens_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = lay(directory.path(), &[("s.db".into(), WORTH.into())].into());
    let certain = Arc::new(Mutex::new(false));
    let flushed = Arc::clone(&certain);
    let named_in = path.parent().unwrap().to_owned();
    let watching = watch(path.parent().unwrap(), move |step, take| {
        *flushed.lock().unwrap() |= matches!(step, Step::SyncDirectory(directory) if *directory == named_in);
        take()
    });
    assert_eq!(open(&path).unwrap(), WORTH);
    drop(watching);
    assert!(*certain.lock().unwrap(), "the name may go with the power");
}

/// A step that fails is an error, and the next attempt does the rest.
#[test]
fn every_step_may_fail_and_the_next_open_does_the_rest() {
    for failing in 0.. {
        let directory = tempfile::tempdir().unwrap();
        let path = lay(directory.path(), &marked());
        let steps = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&steps);
        let watching = watch(path.parent().unwrap(), move |_, take| {
            let mut steps = counted.lock().unwrap();
            *steps += 1;
            if *steps > failing { Err(std::io::ErrorKind::StorageFull.into()) } else { take() }
        });
        let first = open(&path);
        drop(watching);
        assert_eq!(open(&path).unwrap(), WORTH, "after {failing} steps");
        assert_eq!(look(directory.path()), recovered(), "after {failing} steps");
        match first {
            Ok(_) => return assert!(failing > 12, "{failing} steps"),
            Err(error) => assert!(error.kind() == ErrorKind::Backend && error.is_retryable(), "{error}"),
        }
    }
}

#[test]
fn a_copy_that_cannot_be_made_leaves_everything_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let path = lay(directory.path(), &marked());
    let Claim::Here(recovery) = Recovery::claim(&path, LOGS).unwrap() else { panic!("no marker") };
    let failed = recovery.copy(|copy| {
        fs::write(copy, "half").unwrap();
        Err(Error::corrupt("the copy", "damaged"))
    });
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(look(directory.path()), marked());
}

#[test]
fn one_recovers_and_the_others_are_told_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = lay(directory.path(), &marked());
    let Claim::Here(recovery) = Recovery::claim(&path, LOGS).unwrap() else { panic!("no marker") };
    assert!(matches!(Recovery::claim(&path, LOGS).unwrap(), Claim::Elsewhere));
    recovery.copy(|copy| fs::write(copy, WORTH).map_err(|e| Error::backend("writing", e))).unwrap();
    recovery.swap().unwrap();
    assert!(matches!(Recovery::claim(&path, LOGS).unwrap(), Claim::Unmarked));
}

#[test]
fn the_first_reason_stands_and_a_marker_that_cannot_be_left_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().canonicalize().unwrap().join("s.db");
    assert_eq!(recovery::mark_because(&path, "the first".into()), "the first");
    mark(&path, "the second").unwrap();
    assert_eq!(fs::read_to_string(marker(&path)).unwrap(), "the first\n");
    assert!(is_marked(&path).unwrap());
    let nowhere = directory.path().join("none/s.db");
    let told = recovery::mark_because(&nowhere, "the disk is gone".into());
    assert!(told.starts_with("the disk is gone; and ") && told.contains("s.db-flush-failed"), "{told}");
}
