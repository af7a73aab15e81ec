//! Files: what stands at a path, and files that appear whole or not at all.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use store_api::{Entity, Error, Result};

use crate::error::io;

/// What every redb file begins with.
const MAGIC: [u8; 9] = *b"redb\x1a\x0a\xa9\x0d\x0a";

/// What stands at the path of a store.
pub(crate) enum Standing {
    Nothing,
    /// A file without a byte in it: somebody made room for a store.
    Empty(File),
    /// A file that begins as redb files do.
    Redb(File),
    /// Something else than a moment ago: another opener puts a new store there.
    Changing,
}

/// The path of a file: absolute, and without symbolic links in its directory, so that it goes on leading there. The
/// file itself need not exist.
///
/// # Errors
/// `InvalidInput` for a path that names no file; `Backend` when its directory cannot be reached.
pub(crate) fn resolve(path: &Path) -> Result<PathBuf> {
    let unnamed = || Error::invalid("path", format!("{path:?} names no file"));
    let name = path.file_name().ok_or_else(unnamed)?;
    if name.as_encoded_bytes().contains(&0) {
        return Err(Error::invalid("path", "has the character U+0000"));
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory =
        directory.canonicalize().map_err(|e| io(format!("opening {}", directory.display()), e))?;
    Ok(directory.join(name))
}

/// Looks at a path without changing anything there, and without following a link.
///
/// # Errors
/// `NotThisStore` for anything but an ordinary file that is empty or begins as redb files do.
pub(crate) fn look(path: &Path) -> Result<Standing> {
    let before = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Standing::Nothing),
        other => other.map_err(|e| io(format!("looking at {}", path.display()), e))?,
    };
    if !before.is_file() {
        return Err(not_this_store(path, "is no ordinary file"));
    }
    let opening = |e| io(format!("opening {}", path.display()), e);
    let mut file = OpenOptions::new().read(true).write(true).open(path).map_err(opening)?;
    let opened = file.metadata().map_err(opening)?;
    if !is_same(&before, &opened) {
        return Ok(Standing::Changing);
    }
    if opened.len() == 0 {
        return Ok(Standing::Empty(file));
    }
    let mut magic = Vec::new();
    (&mut file).take(MAGIC.len() as u64).read_to_end(&mut magic).map_err(opening)?;
    if magic != MAGIC {
        return Err(not_this_store(path, "is no redb file"));
    }
    Ok(Standing::Redb(file))
}

pub(crate) fn not_this_store(path: &Path, detail: &str) -> Error {
    Error::NotThisStore { detail: format!("{} {detail}", path.display()) }
}

#[cfg(unix)]
fn is_same(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

#[cfg(not(unix))]
fn is_same(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    one.file_type() == other.file_type()
}

/// Whether `path` still leads to the file that was opened from it.
pub(crate) fn leads_to(path: &Path, file: &File) -> Result<bool> {
    let opened = file.metadata().map_err(|e| io("looking at an open file", e))?;
    Ok(fs::symlink_metadata(path).is_ok_and(|there| is_same(&there, &opened)))
}

/// A file under a temporary name beside the one that it is to become. It is readable by its owner alone, and goes
/// away when it is dropped without having been published. It is locked as long as somebody works on it: an unlocked
/// one was left by a process that died.
pub(crate) struct Staged {
    path: PathBuf,
    target: PathBuf,
    file: File,
}

impl Staged {
    /// Begins a file that is to stand at `target`. What a process that died left over there is cleared away.
    pub(crate) fn beside(target: &Path) -> Result<Self> {
        clear_leftovers(target)?;
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let mut name = prefix(target);
            name.push(format!("{}-{number}{SUFFIX}", std::process::id()));
            let path = target.with_file_name(name);
            let creating = |e| io(format!("creating {}", path.display()), e);
            let file = match create_new(&path) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                other => other.map_err(creating)?,
            };
            match file.try_lock() {
                Ok(()) if leads_to(&path, &file)? => {
                    return Ok(Staged { path, target: target.to_owned(), file });
                }
                // Somebody found it before it was locked, and clears it away or has done so.
                Ok(()) | Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(e)) => return Err(creating(e)),
            }
        }
    }

    /// The temporary name.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A handle of the file, to write to.
    pub(crate) fn file(&self) -> Result<File> {
        self.file.try_clone().map_err(|e| io("opening a new file", e))
    }

    /// Flushes the file and gives it its name, unless something has that name.
    ///
    /// # Errors
    /// `AlreadyExists` when something has.
    pub(crate) fn publish(self) -> Result<()> {
        // A link is made only where nothing is, in one step; a rename would replace what is there.
        self.place(|from, to| fs::hard_link(from, to))
    }

    /// Flushes the file and gives it its name, in the place of what has that name.
    pub(crate) fn replace(self) -> Result<()> {
        self.place(|from, to| fs::rename(from, to))
    }

    fn place(self, place: impl FnOnce(&Path, &Path) -> io::Result<()>) -> Result<()> {
        let naming = |e: io::Error| match e.kind() {
            io::ErrorKind::AlreadyExists => taken(&self.target),
            _ => io(format!("naming {}", self.target.display()), e),
        };
        self.file.sync_all().map_err(|e| io(format!("flushing {}", self.path.display()), e))?;
        place(&self.path, &self.target).map_err(naming)?;
        flush_directory(&self.target)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Nothing to report to: after a rename it is gone already, and a leftover is cleared away by the next one.
        drop(fs::remove_file(&self.path));
    }
}

/// Something stands where a new file was to be.
pub(crate) fn taken(path: &Path) -> Error {
    Error::already_exists(Entity::File, "path", path.display().to_string())
}

fn create_new(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Makes a name outlast a power loss.
fn flush_directory(path: &Path) -> Result<()> {
    #[cfg(unix)]
    File::open(directory_of(path))
        .and_then(|directory| directory.sync_all())
        .map_err(|e| io(format!("flushing the directory of {}", path.display()), e))?;
    Ok(())
}

/// The directory of a path that was resolved.
fn directory_of(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
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
    let directory = directory_of(target);
    let reading = |e| io(format!("reading the directory {}", directory.display()), e);
    let prefix = prefix(target);
    for entry in fs::read_dir(directory).map_err(reading)? {
        let entry = entry.map_err(reading)?;
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        if name.starts_with(prefix.as_encoded_bytes()) && name.ends_with(SUFFIX.as_bytes()) {
            clear_leftover(&entry.path()).map_err(reading)?;
        }
    }
    Ok(())
}

fn clear_leftover(path: &Path) -> io::Result<()> {
    let cleared = File::open(path).and_then(|file| match file.try_lock() {
        Ok(()) => fs::remove_file(path),
        Err(TryLockError::WouldBlock) => Ok(()),
        Err(TryLockError::Error(e)) => Err(e),
    });
    match cleared {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
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
