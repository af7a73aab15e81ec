//! Single steps on the file system. Each happens or does not; what several come to is the business of their callers.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use store_api::{Entity, Error, Result};

use crate::failed;

/// Creates a file that only its owner can read; never through a symbolic link, never over what is there.
///
/// # Errors
/// `AlreadyExists`, `Backend`.
pub fn create_private(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut created = None;
    let done = step(&Step::Create(path), || options.open(path).map(|file| created = Some(file)));
    done.map_err(|e| taken_or("creating", path, e))?;
    created.ok_or_else(|| failed("creating", path, io::ErrorKind::NotFound.into()))
}

/// Flushes the file at `path`, which `file` is a handle of.
///
/// # Errors
/// `Backend`.
pub fn sync(path: &Path, file: &File) -> Result<()> {
    step(&Step::Sync(path), || file.sync_all()).map_err(|e| failed("flushing", path, e))
}

/// Gives the file at `from` a second name, `to`, unless something has that.
///
/// # Errors
/// `AlreadyExists` when something has; `Backend`.
pub fn link(from: &Path, to: &Path) -> Result<()> {
    step(&Step::Link { from, to }, || fs::hard_link(from, to)).map_err(|e| taken_or("naming", to, e))
}

/// Gives the file at `from` the name `to`, in the place of what has that name.
///
/// # Errors
/// `Backend`.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    step(&Step::Rename { from, to }, || fs::rename(from, to)).map_err(|e| failed("naming", to, e))
}

/// Removes the file at `path`; that there is none is as good.
///
/// # Errors
/// `Backend`.
pub fn remove(path: &Path) -> Result<()> {
    let removing = || match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    step(&Step::Remove(path), removing).map_err(|e| failed("removing", path, e))
}

/// Makes what happened to the names in the directory of `path` survive a loss of power.
///
/// # Errors
/// `Backend`.
pub fn sync_directory_of(path: &Path) -> Result<()> {
    let directory = path.parent().unwrap_or(path);
    let flushing = || {
        // Elsewhere directories cannot be opened.
        #[cfg(unix)]
        File::open(directory)?.sync_all()?;
        Ok(())
    };
    step(&Step::SyncDirectory(directory), flushing).map_err(|e| failed("flushing", directory, e))
}

fn taken_or(doing: &str, path: &Path, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::AlreadyExists => {
            Error::already_exists(Entity::File, "path", path.display().to_string())
        }
        _ => failed(doing, path, error),
    }
}

/// A step, for who watches them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'p> {
    /// A new file, empty.
    Create(&'p Path),
    /// A flush of a file.
    Sync(&'p Path),
    /// A second name for a file.
    Link {
        /// The name that it has.
        from: &'p Path,
        /// The name that it gets.
        to: &'p Path,
    },
    /// A new name for a file, in the place of what had it.
    Rename {
        /// The name that it had.
        from: &'p Path,
        /// The name that it gets.
        to: &'p Path,
    },
    /// The end of a name.
    Remove(&'p Path),
    /// A flush of the names in a directory.
    SyncDirectory(&'p Path),
}

impl Step<'_> {
    fn directory(&self) -> Option<&Path> {
        match *self {
            Step::SyncDirectory(directory) => Some(directory),
            Step::Create(path) | Step::Sync(path) | Step::Remove(path) => path.parent(),
            Step::Link { to, .. } | Step::Rename { to, .. } => to.parent(),
        }
    }
}

/// What is called in the place of each step in a directory. It takes the step with its second argument, or fails.
type Watcher = dyn Fn(&Step<'_>, &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> + Send + Sync;

static WATCHERS: RwLock<Vec<(PathBuf, Arc<Watcher>)>> = RwLock::new(Vec::new());

/// Puts `watcher` around every step in `directory` (absolute, without symbolic links), whoever takes it, until the
/// guard is dropped: for tests, which stop after a step, or make one fail.
pub fn watch(
    directory: &Path,
    watcher: impl Fn(&Step<'_>, &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> + Send + Sync + 'static,
) -> Watching {
    let watcher: Arc<Watcher> = Arc::new(watcher);
    WATCHERS.write().push((directory.to_owned(), Arc::clone(&watcher)));
    Watching(watcher)
}

/// Watches until it is dropped.
#[must_use]
pub struct Watching(Arc<Watcher>);

impl Drop for Watching {
    fn drop(&mut self) {
        WATCHERS.write().retain(|(_, watcher)| !Arc::ptr_eq(watcher, &self.0));
    }
}

fn step(step: &Step<'_>, mut take: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let watcher = {
        let watchers = WATCHERS.read();
        let mut watchers = watchers.iter();
        watchers
            .find(|(directory, _)| step.directory() == Some(directory))
            .map(|(_, watcher)| watcher.clone())
    };
    match watcher {
        Some(watcher) => watcher(step, &mut take),
        None => take(),
    }
}
