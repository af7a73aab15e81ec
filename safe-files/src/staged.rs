//! Files that are made under a temporary name, and appear when they are whole.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use store_api::{Error, Result};

use crate::{create_private, failed, leads_to, link, remove, rename, sync, sync_directory_of};

/// A file under a temporary name beside the one that it is to become. It is readable by its owner alone, and goes
/// away when it is dropped without having been published. It is locked as long as somebody works on it: an unlocked
/// one was left by a process that died.
#[derive(Debug)]
pub struct Staged {
    path: PathBuf,
    target: PathBuf,
    file: File,
}

impl Staged {
    /// Begins a file that is to stand at `target`. What a process that died left over there is cleared away.
    ///
    /// # Errors
    /// `Backend`.
    pub fn beside(target: &Path) -> Result<Self> {
        clear_leftovers(target)?;
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let mut name = prefix(target);
            name.push(format!("{}-{number}{SUFFIX}", std::process::id()));
            let path = target.with_file_name(name);
            let file = match create_private(&path) {
                Err(Error::AlreadyExists { .. }) => continue,
                other => other?,
            };
            match file.try_lock() {
                Ok(()) if leads_to(&path, &file)? => {
                    return Ok(Staged { path, target: target.to_owned(), file });
                }
                // Somebody found it before it was locked, and clears it away or has done so.
                Ok(()) | Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(e)) => return Err(failed("locking", &path, e)),
            }
        }
    }

    /// The temporary name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A handle of the file, to write to.
    ///
    /// # Errors
    /// `Backend`.
    pub fn file(&self) -> Result<File> {
        self.file.try_clone().map_err(|e| failed("opening", &self.path, e))
    }

    /// Flushes the file and gives it its name, unless something has that name.
    ///
    /// # Errors
    /// `AlreadyExists` when something has; `Backend`.
    pub fn publish(self) -> Result<()> {
        // A link is made only where nothing is, in one step; a rename would replace what is there.
        self.place(link)
    }

    /// Flushes the file and gives it its name, in the place of what has that name.
    ///
    /// # Errors
    /// `Backend`.
    pub fn replace(self) -> Result<()> {
        self.place(rename)
    }

    fn place(self, place: impl FnOnce(&Path, &Path) -> Result<()>) -> Result<()> {
        sync(&self.path, &self.file)?;
        place(&self.path, &self.target)?;
        sync_directory_of(&self.target)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Nothing to report to: after a rename it is gone already, and a leftover is cleared away by the next one.
        drop(remove(&self.path));
    }
}

const SUFFIX: &str = ".new";

/// How the temporary names for `target` begin.
fn prefix(target: &Path) -> OsString {
    let mut name = OsString::from(".");
    name.push(target.file_name().unwrap_or(OsStr::new("store")));
    name.push(".");
    name
}

/// Removes the temporary files for `target` that nobody has locked.
fn clear_leftovers(target: &Path) -> Result<()> {
    let directory = target.parent().unwrap_or(target);
    let reading = |e| failed("reading the directory", directory, e);
    let prefix = prefix(target);
    for entry in fs::read_dir(directory).map_err(reading)? {
        let entry = entry.map_err(reading)?;
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        if name.starts_with(prefix.as_encoded_bytes()) && name.ends_with(SUFFIX.as_bytes()) {
            clear_leftover(&entry.path())?;
        }
    }
    Ok(())
}

fn clear_leftover(path: &Path) -> Result<()> {
    let file = match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|e| failed("opening", path, e))?,
    };
    match file.try_lock() {
        Ok(()) => remove(path),
        Err(TryLockError::WouldBlock) => Ok(()),
        Err(TryLockError::Error(e)) => Err(failed("locking", path, e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use store_api::ErrorKind;

    #[test]
    fn a_staged_file_appears_whole_and_clobbers_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("a.redb");
        let staged = Staged::beside(&target).unwrap();
        staged.file().unwrap().write_all(b"one").unwrap();
        assert!(!target.exists());
        staged.publish().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"one");

        let staged = Staged::beside(&target).unwrap();
        staged.file().unwrap().write_all(b"two").unwrap();
        assert_eq!(staged.publish().unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&target).unwrap(), b"one");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn leftovers_are_cleared_away_and_files_in_use_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("a.redb");
        let dead = directory.path().join(".a.redb.1-0.new");
        let live = directory.path().join(".a.redb.1-1.new");
        let other = directory.path().join(".b.redb.1-0.new");
        for path in [&dead, &live, &other] {
            fs::write(path, b"x").unwrap();
        }
        let held = File::open(&live).unwrap();
        held.lock().unwrap();
        drop(Staged::beside(&target).unwrap());
        assert!(!dead.exists() && live.exists() && other.exists());
    }
}
