//! Files that are made under a temporary name, and appear when they are whole.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use store_api::{Error, Outcome, Result};

use crate::{create_private, failed, is_same, leads_to, link, look, remove, rename, sync, sync_directory_of};

/// A file under a temporary name beside the one that it is to become. It is readable by its owner alone, and goes
/// away when it is dropped without having been published. It is locked as long as somebody works on it: an unlocked
/// one, and one that is a second name of what it became, was left by a process that died. The next who begins a file for
/// the same target clears it away, and so does whoever opens that ([`is_settled`](crate::recovery::is_settled)).
#[derive(Debug)]
pub struct Staged {
    path: PathBuf,
    target: PathBuf,
    file: File,
}

impl Staged {
    /// Begins a file that is to stand at `target`. What processes that died left over there is cleared away.
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
    /// `AlreadyExists` when something has; `Backend`, in doubt when it has the name and may lose it again.
    pub fn publish(self) -> Result<()> {
        // A link is made only where nothing is, in one step; a rename would replace what is there.
        self.place(link)
    }

    /// Flushes the file and gives it its name, in the place of what has that name.
    ///
    /// # Errors
    /// `Backend`, in doubt when it has the name and may lose it again.
    pub fn replace(self) -> Result<()> {
        self.place(rename)
    }

    fn place(self, place: impl FnOnce(&Path, &Path) -> Result<()>) -> Result<()> {
        sync(&self.path, &self.file)?;
        place(&self.path, &self.target)?;
        sync_directory_of(&self.target).map_err(|e| e.with_outcome(Outcome::InDoubt))
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

/// Removes the temporary files for `target` that nobody works on any more. Those that this process may not touch are
/// somebody else's, and in nobody's way.
pub(crate) fn clear_leftovers(target: &Path) -> Result<()> {
    let directory = target.parent().unwrap_or(target);
    let reading = |e| failed("reading the directory", directory, e);
    let prefix = prefix(target);
    let entries = match fs::read_dir(directory) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
        other => other.map_err(reading)?,
    };
    for entry in entries {
        let entry = entry.map_err(reading)?;
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        if name.starts_with(prefix.as_encoded_bytes()) && name.ends_with(SUFFIX.as_bytes()) {
            match clear_leftover(&entry.path(), target) {
                Err(error) if is_forbidden(&error) => {}
                cleared => cleared?,
            }
        }
    }
    Ok(())
}

fn clear_leftover(path: &Path, target: &Path) -> Result<()> {
    let Some(left) = look(path)? else { return Ok(()) };
    if !left.is_file() {
        return Ok(());
    }
    // Elsewhere two names of one file cannot be told from two files.
    if cfg!(unix) && look(target)?.is_some_and(|target| is_same(&target, &left)) {
        // Published. It is not opened: closing it could let go of locks that this process has on the same file under
        // the other name.
        return remove(path);
    }
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

fn is_forbidden(error: &Error) -> bool {
    let Error::Backend { source, .. } = error else { return false };
    source.downcast_ref().is_some_and(|cause: &io::Error| cause.kind() == io::ErrorKind::PermissionDenied)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Step, watch};
    use std::io::Write;
    use std::sync::Arc;
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

    /// Its lock is the database's, which whoever opens that holds.
    #[cfg(unix)]
    #[test]
    fn a_second_name_goes_whoever_has_the_file_locked() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("a.redb");
        let second = directory.path().join(".a.redb.1-0.new");
        let file = create_private(&target).unwrap();
        fs::hard_link(&target, &second).unwrap();
        file.lock().unwrap();
        clear_leftovers(&target).unwrap();
        assert!(target.exists() && !second.exists());
    }

    #[cfg(unix)]
    #[test]
    fn what_was_not_made_here_stays_and_is_in_nobodys_way() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().canonicalize().unwrap();
        let target = place.join("a.redb");
        let (link, folder, foreign) =
            (place.join(".a.redb.0-0.new"), place.join(".a.redb.0-1.new"), place.join(".a.redb.0-2.new"));
        fs::write(place.join("other"), b"x").unwrap();
        std::os::unix::fs::symlink(place.join("other"), &link).unwrap();
        fs::create_dir(&folder).unwrap();
        fs::write(&foreign, b"x").unwrap();
        let removed = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&removed);
        let watching = watch(&place, move |step, take| match step {
            Step::Remove(_) => {
                counted.fetch_add(1, Ordering::SeqCst);
                Err(io::ErrorKind::PermissionDenied.into())
            }
            _ => take(),
        });
        clear_leftovers(&target).unwrap();
        drop(watching);
        assert_eq!(removed.load(Ordering::SeqCst), 1);
        assert!(link.exists() && folder.exists() && foreign.exists());
        let watching = watch(&place, |_, _| Err(io::Error::other("the disk failed")));
        assert_eq!(clear_leftovers(&target).unwrap_err().kind(), ErrorKind::Backend);
        drop(watching);
    }
}
