//! A store that is being made, until it is whole and gets its name.
//!
//! It grows in a hidden directory beside its target (`.agents.db.copying/`), which its owner alone may enter and which
//! is locked as long as somebody works in it. A process that dies leaves the directory behind, unlocked; the next
//! copy to the same target throws it away.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use store::{Entity, Error, Outcome, Result};

use super::failed;

/// What SQLite lays beside a database that is in use, or whose user died.
const SIDE_FILES: [&str; 3] = ["-wal", "-shm", "-journal"];

/// A new store beside its target. Dropped before it was placed, it is gone.
pub(crate) struct Staging {
    directory: PathBuf,
    name: OsString,
    target: PathBuf,
    /// The lock on the directory, as long as this is open.
    _lock: File,
}

impl Staging {
    /// Begins a store that is to stand at `target`.
    ///
    /// # Errors
    /// `Busy` while another copy to this target is under way.
    pub(crate) fn begin(target: &Path) -> Result<Self> {
        let target = safe_files::resolve(target)?;
        let name = target.file_name().unwrap_or_default().to_owned();
        let mut hidden = OsString::from(".");
        hidden.push(&name);
        hidden.push(".copying");
        let directory = target.with_file_name(hidden);
        loop {
            match DirBuilder::new().mode(0o700).create(&directory) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    clear_leftover(&directory)?;
                    continue;
                }
                Err(error) => return Err(failed("making a directory beside the target")(error)),
            }
            // Somebody may take it for a leftover before it is locked; then it is made again.
            if let Some(lock) = lock(&directory)? {
                return Ok(Staging { directory, name, target, _lock: lock });
            }
        }
    }

    /// Where the new store grows.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.join(&self.name)
    }

    /// Gives the store its name, where nothing may be. It is closed.
    ///
    /// # Errors
    /// `AlreadyExists` when something has the name by now; in doubt when it has the name and may lose it again.
    pub(crate) fn publish(self) -> Result<()> {
        // A log without its database is in the way too: SQLite would play it into the new one.
        if let Some(path) = side_file(&self.target)? {
            return Err(taken(&path));
        }
        // A link is made only where nothing is, in one step. The name in the hidden directory goes with that.
        self.place(safe_files::link)
    }

    /// Gives the store the name of the one that it replaces, in one step: at any moment the one or the other has it.
    /// Both are closed.
    ///
    /// # Errors
    /// `Busy` when the old one is in use: what others go on writing would be lost; in doubt when the new one has the
    /// name and may lose it again.
    pub(crate) fn replace(self) -> Result<()> {
        self.place(|from, to| {
            refuse_in_use(to)?;
            safe_files::rename(from, to)
        })
    }

    /// Flushes the new store, which by now is one file, and gives it its name for good.
    fn place(&self, place: impl FnOnce(&Path, &Path) -> Result<()>) -> Result<()> {
        let path = self.path();
        if let Some(side) = side_file(&path)? {
            return Err(Error::Busy {
                waited: Duration::ZERO,
                holder: format!("{} is still there, so somebody has opened the new store", side.display())
                    .into(),
            });
        }
        let file = File::open(&path).map_err(failed("opening the new store"))?;
        safe_files::sync(&path, &file)?;
        place(&path, &self.target)?;
        safe_files::sync_directory_of(&self.target).map_err(|e| e.with_outcome(Outcome::InDoubt))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What cannot be removed now is a leftover, which the next copy removes.
        drop(fs::remove_dir_all(&self.directory));
    }
}

/// Refuses a store, closed by this process, that others have open: the last to close it leaves one file.
///
/// # Errors
/// `Busy`.
pub(crate) fn refuse_in_use(store: &Path) -> Result<()> {
    let Some(side) = side_file(store)? else { return Ok(()) };
    let holder = format!("the store to replace is in use, as {} shows", side.display());
    Err(Error::Busy { waited: Duration::ZERO, holder: holder.into() })
}

/// Something that SQLite has laid beside a file.
fn side_file(path: &Path) -> Result<Option<PathBuf>> {
    for side in SIDE_FILES.map(|suffix| safe_files::with_suffix(path, suffix)) {
        if safe_files::exists(&side)? {
            return Ok(Some(side));
        }
    }
    Ok(None)
}

fn taken(path: &Path) -> Error {
    Error::already_exists(Entity::File, "path", path.display().to_string())
}

/// Locks a directory; `None` when by then another one, or nothing, has its name.
///
/// # Errors
/// `Busy` when somebody else has it locked.
fn lock(directory: &Path) -> Result<Option<File>> {
    let opening = failed("opening the directory beside the target");
    match fs::symlink_metadata(directory) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Err(taken(directory)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(opening(error)),
    }
    let file = match File::open(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(&opening)?,
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let holder = format!("another copy to the same target works in {}", directory.display());
            return Err(Error::Busy { waited: Duration::ZERO, holder: holder.into() });
        }
        Err(TryLockError::Error(error)) => return Err(opening(error)),
    }
    Ok(safe_files::leads_to(directory, &file)?.then_some(file))
}

/// Removes the directory of a copy that died.
///
/// # Errors
/// `Busy` when its copy lives.
fn clear_leftover(directory: &Path) -> Result<()> {
    let Some(_lock) = lock(directory)? else { return Ok(()) };
    fs::remove_dir_all(directory).map_err(failed("removing what an earlier copy left"))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use safe_files::{Step, watch};
    use store::ErrorKind;

    fn staged(target: &Path, text: &str) -> Staging {
        let staging = Staging::begin(target).unwrap();
        fs::write(staging.path(), text).unwrap();
        staging
    }

    fn names(directory: &Path) -> Vec<String> {
        let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string());
        let mut names: Vec<String> = names.map(Result::unwrap).collect();
        names.sort();
        names
    }

    #[test]
    fn a_store_gets_its_name_where_nothing_is() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("a.db");
        staged(&target, "one").publish().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"one");
        let refused = staged(&target, "two").publish().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&target).unwrap(), b"one");
        staged(&target, "three").replace().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"three");
        assert_eq!(names(directory.path()), ["a.db"]);
    }

    /// What a power cut leaves depends on the order: a name that is there before the store is flushed may be that of
    /// half a store.
    #[test]
    fn a_store_is_flushed_then_named_then_its_name_is_flushed() {
        for place in [Staging::publish as fn(Staging) -> Result<()>, Staging::replace] {
            for fails in 0..4 {
                let directory = tempfile::tempdir().unwrap();
                let root = directory.path().canonicalize().unwrap();
                let target = root.join("a.db");
                let steps = Arc::<Mutex<Vec<&str>>>::default();
                let watched = [root.clone(), root.join(".a.db.copying")].map(|place| {
                    let steps = Arc::clone(&steps);
                    watch(&place, move |step, take| {
                        let mut steps = steps.lock().unwrap();
                        steps.push(match step {
                            Step::Sync(path) if path.ends_with(".a.db.copying/a.db") => "flush",
                            Step::Link { .. } | Step::Rename { .. } => "name",
                            Step::SyncDirectory(_) => "flush the name",
                            _ => "something else",
                        });
                        if steps.len() == fails + 1 {
                            Err(io::Error::other("the disk failed"))
                        } else {
                            take()
                        }
                    })
                });
                let placed = place(staged(&target, "one"));
                drop(watched);
                let all = ["flush", "name", "flush the name"];
                assert_eq!(*steps.lock().unwrap(), all[..all.len().min(fails + 1)]);
                assert_eq!(target.exists(), fails > 1);
                let outcome = placed.map_err(|error| error.outcome());
                assert_eq!(
                    outcome,
                    match fails {
                        0 | 1 => Err(Outcome::NotApplied),
                        2 => Err(Outcome::InDoubt),
                        _ => Ok(()),
                    }
                );
                assert!(!root.join(".a.db.copying").exists());
            }
        }
    }

    #[test]
    fn side_files_are_in_the_way() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("a.db");
        fs::write(directory.path().join("a.db-wal"), "").unwrap();
        assert_eq!(staged(&target, "one").publish().unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(staged(&target, "one").replace().unwrap_err().kind(), ErrorKind::Busy);
        assert_eq!(names(directory.path()), ["a.db-wal"]);
    }

    #[test]
    fn leftovers_are_thrown_away_and_live_copies_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("a.db");
        let left = directory.path().join(".a.db.copying");
        fs::create_dir(&left).unwrap();
        fs::write(left.join("a.db-wal"), "half").unwrap();
        let live = Staging::begin(&target).unwrap();
        assert_eq!(names(&left), Vec::<String>::new());
        assert_eq!(Staging::begin(&target).err().unwrap().kind(), ErrorKind::Busy);
        drop(live);
        assert_eq!(names(directory.path()), Vec::<String>::new());
        fs::write(&left, "somebody's file").unwrap();
        assert_eq!(Staging::begin(&target).err().unwrap().kind(), ErrorKind::AlreadyExists);
        assert!(left.exists());
    }
}
