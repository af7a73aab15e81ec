//! A store that is being made, until it is whole and gets its name.
//!
//! It grows in a hidden directory beside its target (`.agents.db.copying/`), which its owner alone may enter and which
//! is locked as long as somebody works in it. A process that dies leaves the directory behind, unlocked; the next
//! copy to the same target throws it away.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use store::{Entity, Error, Result};

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
        let unnamed = || Error::invalid("to", format!("{} names no file", target.display()));
        let name = target.file_name().ok_or_else(unnamed)?.to_owned();
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
                return Ok(Staging { directory, name, target: target.to_owned(), _lock: lock });
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
    /// `AlreadyExists` when something has the name by now.
    pub(crate) fn publish(self) -> Result<()> {
        // A log without its database is in the way too: SQLite would play it into the new one.
        if let Some(path) = side_file(&self.target)? {
            return Err(taken(&path));
        }
        self.flush()?;
        let store =
            tempfile::TempPath::try_from_path(self.path()).map_err(failed("finding the new store"))?;
        store.persist_noclobber(&self.target).map_err(|refused| match refused.error.kind() {
            io::ErrorKind::AlreadyExists => taken(&self.target),
            _ => Error::backend("naming the new store", refused.error),
        })?;
        flush_directory_of(&self.target)
    }

    /// Gives the store the name of the one that it replaces, in one step: at any moment the one or the other has it.
    /// Both are closed.
    ///
    /// # Errors
    /// `Busy` when the old one is in use: what others go on writing would be lost.
    pub(crate) fn replace(self) -> Result<()> {
        self.flush()?;
        refuse_in_use(&self.target)?;
        fs::rename(self.path(), &self.target).map_err(failed("replacing the old store"))?;
        flush_directory_of(&self.target)
    }

    /// Writes the new store to disk, which by now is one file.
    fn flush(&self) -> Result<()> {
        let path = self.path();
        if let Some(side) = side_file(&path)? {
            return Err(Error::Busy {
                waited: Duration::ZERO,
                holder: format!("{} is still there, so somebody has opened the new store", side.display())
                    .into(),
            });
        }
        File::open(path).and_then(|file| file.sync_all()).map_err(failed("writing the new store to disk"))
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
    for suffix in SIDE_FILES {
        let mut side = path.as_os_str().to_owned();
        side.push(suffix);
        match fs::symlink_metadata(&side) {
            Ok(_) => return Ok(Some(side.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("looking beside a store")(error)),
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
    let locked = file.metadata().map_err(&opening)?;
    let same = |found: fs::Metadata| (found.dev(), found.ino()) == (locked.dev(), locked.ino());
    Ok(fs::symlink_metadata(directory).is_ok_and(same).then_some(file))
}

/// Removes the directory of a copy that died.
///
/// # Errors
/// `Busy` when its copy lives.
fn clear_leftover(directory: &Path) -> Result<()> {
    let Some(_lock) = lock(directory)? else { return Ok(()) };
    fs::remove_dir_all(directory).map_err(failed("removing what an earlier copy left"))
}

/// Makes a new name outlast a power loss.
fn flush_directory_of(path: &Path) -> Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(failed("writing the directory to disk"))
}

#[cfg(test)]
mod tests {
    use super::*;
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
