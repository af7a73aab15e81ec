//! A look for the marker that asks the directory when it last changed misses none.

#![cfg(unix)] // where directories can be opened
#![allow(clippy::unwrap_used)] // of the helper: each is an assertion

use std::fs::File;
use std::path::Path;
use std::time::{Duration, SystemTime};

use safe_files::recovery::{Lookout, mark, marker};

/// A file system that gives the change which `change` makes the time `at`, as to everything within one of its ticks.
fn at(at: SystemTime, directory: &Path, change: impl FnOnce()) {
    change();
    File::open(directory).unwrap().set_modified(at).unwrap();
}

#[test]
fn a_marker_is_seen_however_coarse_the_clock_of_the_file_system() {
    let now = SystemTime::now();
    let second = SystemTime::UNIX_EPOCH
        + Duration::from_secs(now.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs());
    let ago = |millis| now - Duration::from_millis(millis);
    for (what, found, marked) in [
        ("long ago, then now", ago(3_600_000), now),
        ("twice in one tick", now, now),
        ("twice in one second", second - Duration::from_secs(1), second - Duration::from_secs(1)),
        ("in the future, then now", now + Duration::from_secs(60), now),
        ("in the future, and again", now + Duration::from_secs(60), now + Duration::from_secs(60)),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("s.db");
        let lookout = Lookout::of(&database).unwrap();
        at(found, directory.path(), || ());
        for _ in 0..3 {
            assert!(!lookout.is_marked().unwrap(), "{what}");
        }
        at(marked, directory.path(), || mark(&database, "the disk is gone").unwrap());
        for _ in 0..3 {
            assert!(lookout.is_marked().unwrap(), "{what}");
        }
        std::fs::remove_file(marker(&database)).unwrap();
        assert!(!lookout.is_marked().unwrap(), "{what}");
    }
}

/// What the looks are for: one that finds nothing new does not ask for the marker.
#[test]
fn a_directory_that_has_not_changed_is_not_looked_into() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("s.db");
    let lookout = Lookout::of(&database).unwrap();
    let long_ago = SystemTime::now() - Duration::from_secs(3600);
    at(long_ago, directory.path(), || ());
    assert!(!lookout.is_marked().unwrap());
    at(long_ago, directory.path(), || mark(&database, "at a time that no file system would give").unwrap());
    assert!(!lookout.is_marked().unwrap());
}
