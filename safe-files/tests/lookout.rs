//! A look for the marker that asks the directory when it last changed misses none.

#![cfg(unix)] // where directories can be opened
#![allow(clippy::unwrap_used)] // of the helpers: each is an assertion

use std::fs::{File, remove_file};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use safe_files::recovery::{Lookout, mark, marker};

/// Longer than the tick of a file system that does not count in seconds.
const LONG: Duration = Duration::from_millis(150);

/// A time in seconds and nanoseconds.
fn time(seconds: u64, nanos: u32) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos)
}

/// A change that `change` makes of a directory, at this time as the file system has it.
fn at(time: SystemTime, directory: &Path, change: impl FnOnce()) {
    change();
    File::open(directory).unwrap().set_modified(time).unwrap();
}

#[test]
fn a_marker_is_seen_however_coarse_the_clock_of_the_file_system() {
    let (early, late, whole) = (time(1_000, 5), time(2_000, 5), time(1_000, 0));
    for (what, found, pause, marked) in [
        ("later", early, LONG, late),
        ("at once, and later", early, Duration::ZERO, late),
        ("earlier, for the clock was set back", late, LONG, early),
        ("in the same tick", early, Duration::ZERO, early),
        ("in the same second", whole, LONG, whole),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("s.db");
        let lookout = Lookout::of(&database).unwrap();
        at(found, directory.path(), || ());
        assert!(!lookout.is_marked().unwrap(), "{what}");
        if !pause.is_zero() {
            sleep(pause);
            assert!(!lookout.is_marked().unwrap(), "{what}");
        }
        at(marked, directory.path(), || mark(&database, "the disk is gone").unwrap());
        for _ in 0..3 {
            assert!(lookout.is_marked().unwrap(), "{what}");
        }
        remove_file(marker(&database)).unwrap();
        assert!(!lookout.is_marked().unwrap(), "{what}");
    }
}

/// What the looks are for: one that finds nothing new does not ask for the marker.
#[test]
fn a_directory_that_has_not_changed_is_not_looked_into() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("s.db");
    let lookout = Lookout::of(&database).unwrap();
    at(time(1_000, 5), directory.path(), || ());
    assert!(!lookout.is_marked().unwrap());
    sleep(LONG);
    assert!(!lookout.is_marked().unwrap());
    at(time(1_000, 5), directory.path(), || mark(&database, "at a time that no file system gives").unwrap());
    assert!(!lookout.is_marked().unwrap());
    at(time(1_000, 6), directory.path(), || ());
    assert!(lookout.is_marked().unwrap());
}
