//! The lie after a failed flush. What the flush did not write reads as if it had, and never reaches the disk: a store
//! that went on from it lost, when the power went later, writes that it had acknowledged after it was reopened.

#![allow(clippy::unwrap_used)] // of the helpers: each is an assertion

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fault_disk::{Below, Disk, Fate, Handle, Image, Log, Replay};
use safe_files::recovery::marker;
use safe_files::{Step, watch};
use store_api::*;
use store_sqlite::SqliteStore;

/// A disk that writes down what happens to it, and whose flushes fail and forget while it is told so.
#[derive(Debug, Default)]
struct Forgetful {
    log: Log,
    fails: AtomicBool,
}

impl Disk for Forgetful {
    fn open(&self, path: &Path, below: Below<'_>) -> io::Result<()> {
        self.log.open(path, below)
    }
    fn write(&self, file: &dyn Handle, offset: u64, data: &[u8]) -> io::Result<()> {
        self.log.write(file, offset, data)
    }
    fn set_len(&self, file: &dyn Handle, len: u64) -> io::Result<()> {
        self.log.set_len(file, len)
    }
    fn sync(&self, file: &dyn Handle) -> io::Result<()> {
        if self.fails.load(Ordering::SeqCst) {
            self.log.forgot(file.path());
            return Err(io::Error::other("the disk does not answer"));
        }
        self.log.sync(file)
    }
    fn delete(&self, path: &Path, below: Below<'_>) -> io::Result<()> {
        self.log.delete(path, below)
    }
    fn directory_synced(&self, directory: &Path) {
        self.log.directory_synced(directory);
    }
}

impl Forgetful {
    fn step(&self, step: &Step<'_>, take: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        take()?;
        match *step {
            Step::Create(path) => self.log.created(path),
            Step::Sync(path) => self.log.synced(path)?,
            Step::Link { from, to } => self.log.linked(from, to),
            Step::Rename { from, to } => self.log.renamed(from, to),
            Step::Remove(path) => self.log.removed(path),
            Step::SyncDirectory(directory) => self.log.directory_synced(directory),
        }
        Ok(())
    }
}

fn save(store: &SqliteStore, name: &str) -> Result<()> {
    let mut skill = Skill::new(SkillId::new(name)?, PrincipalId::new("o")?, Name::new(name)?);
    skill.body = "x".repeat(5000);
    store.skills().save(&skill, Expect::Absent).map(drop)
}

/// What is gone, in all states that the power may have left since the store was reopened.
fn lost(recovers: bool) -> usize {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().canonicalize().unwrap();
    let path = directory.join("s.db");
    let disk = Arc::<Forgetful>::default();
    let _mount = fault_disk::sqlite::mount(&directory, disk.clone()).unwrap();
    let _watching = watch(&directory, {
        let disk = disk.clone();
        move |step, take| disk.step(step, take)
    });
    let mut acknowledged = BTreeSet::new();
    let mut write =
        |store: &SqliteStore, names: std::ops::Range<u32>, since: &mut Vec<(usize, BTreeSet<String>)>| {
            for name in names.map(|number| format!("skill {number:02}")) {
                save(store, &name).unwrap();
                acknowledged.insert(name);
                since.push((disk.log.len(), acknowledged.clone()));
            }
        };
    let store = SqliteStore::open(&path).unwrap();
    write(&store, 0..5, &mut Vec::new());
    disk.fails.store(true, Ordering::SeqCst);
    assert_eq!(save(&store, "in doubt").unwrap_err().outcome(), Outcome::InDoubt);
    // Killed: it has no chance to close in order.
    disk.fails.store(false, Ordering::SeqCst);
    drop(store);
    if !recovers {
        fs::remove_file(marker(&path)).unwrap();
        disk.log.removed(&marker(&path));
    }
    let mut since = vec![(disk.log.len(), BTreeSet::new())];
    let store = SqliteStore::open(&path).unwrap();
    write(&store, 5..15, &mut since);

    // The power goes after anything that has happened since.
    let (events, mut replay) = (disk.log.take(), Replay::new());
    let first = since[0].0;
    let mut gone = 0;
    for (number, event) in events.iter().enumerate() {
        replay.advance(event);
        let there = number + 1;
        if there < first || there % 3 != 0 {
            continue;
        }
        let due = since.iter().rfind(|(at, _)| *at <= there).map(|(_, names)| names.clone()).unwrap();
        for mut fate in [Fate::Dropped, Fate::Kept] {
            gone += due.difference(&found(&replay.image(&mut fate))).count();
        }
    }
    gone
}

/// What a store finds on a disk.
fn found(image: &Image) -> BTreeSet<String> {
    let place = tempfile::tempdir().unwrap();
    for (path, content) in image {
        fs::write(place.path().join(path.file_name().unwrap()), content).unwrap();
    }
    let Ok(store) = SqliteStore::open(place.path().join("s.db")) else { return BTreeSet::new() };
    let page = store.skills().list(&Default::default(), &Default::default());
    page.map(|page| page.items.iter().map(|item| item.doc.id.to_string()).collect()).unwrap_or_default()
}

#[test]
fn what_is_acknowledged_after_a_failed_flush_survives_the_power() {
    assert_eq!(lost(true), 0);
}

/// The same without the recovery: what the other test would say if nothing were done.
#[test]
fn without_the_recovery_it_does_not() {
    assert!(lost(false) > 0);
}
