//! A disk that writes down what happens to it.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;

use crate::{Below, Disk, Handle};

/// A file of a log. It stays the same under every name that it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub(crate) u32);

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A file that was there before the log saw it, whole and on disk.
    Found(PathBuf, FileId, Vec<u8>),
    /// A new file, empty.
    Created(PathBuf, FileId),
    /// Bytes were written from an offset on.
    Written(FileId, u64, Vec<u8>),
    /// The file was given a length.
    Resized(FileId, u64),
    /// The file was flushed: of what was written to it, what had happened before the flush began, which was after so
    /// many events.
    Synced(FileId, usize),
    /// The file was flushed, and that failed: what it had not written reads as before and will never be written.
    Forgot(FileId),
    /// A file was given a name, in the place of what had it.
    Named(PathBuf, FileId),
    /// A file was given another name, in the place of what had it.
    Renamed(PathBuf, PathBuf, FileId),
    /// A name was taken away.
    Removed(PathBuf),
    /// The names in a directory were flushed.
    DirectorySynced(PathBuf),
}

/// A disk that writes down everything that changes it, in order, and does it.
///
/// What engines do to files without the layers of this crate is told with [`created`](Log::created),
/// [`linked`](Log::linked), [`renamed`](Log::renamed), [`removed`](Log::removed), [`synced`](Log::synced) and
/// [`directory_synced`](Disk::directory_synced), after it was done.
#[derive(Debug, Default)]
pub struct Log {
    state: Mutex<State>,
    /// Whether flushes count. Without them it is the log of a disk that lies.
    forgets_syncs: bool,
    /// How long a flush of an open file takes.
    flush: Duration,
}

#[derive(Debug, Default)]
struct State {
    events: Vec<Event>,
    /// The files that have a name now.
    names: HashMap<PathBuf, FileId>,
    /// For each file, whether its writes are seen.
    seen: Vec<bool>,
}

impl State {
    fn appear(&mut self, seen: bool) -> FileId {
        self.seen.push(seen);
        FileId(self.seen.len() as u32 - 1)
    }

    /// What happened to an open file, unless it has no name any more.
    fn note(&mut self, path: &Path, event: impl FnOnce(FileId) -> Event) {
        if let Some(&file) = self.names.get(path) {
            self.events.push(event(file));
        }
    }
}

impl Log {
    /// A log in which nothing has happened.
    pub fn new() -> Self {
        Self::default()
    }

    /// A log of a disk that says of every flush that it was done, and does none.
    pub fn without_syncs() -> Self {
        Log { forgets_syncs: true, ..Self::default() }
    }

    /// The same log of a disk whose flushes of open files take so long.
    pub fn with_flushes_of(self, flush: Duration) -> Self {
        Log { flush, ..self }
    }

    /// How many things have happened.
    pub fn len(&self) -> usize {
        self.state.lock().events.len()
    }

    /// Whether nothing has happened.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What has happened since the log began, or was last taken.
    pub fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.state.lock().events)
    }

    /// Takes note of every file in a directory, as what is whole and on disk.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn find_all(&self, directory: &Path) -> io::Result<()> {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let content = fs::read(&path)?;
            let mut state = self.state.lock();
            let file = state.appear(false);
            state.names.insert(path.clone(), file);
            state.events.push(Event::Found(path, file, content));
        }
        Ok(())
    }

    /// A file was created.
    pub fn created(&self, path: &Path) {
        let mut state = self.state.lock();
        let file = state.appear(false);
        state.names.insert(path.to_owned(), file);
        state.events.push(Event::Created(path.to_owned(), file));
    }

    /// A file was given a second name.
    pub fn linked(&self, from: &Path, to: &Path) {
        let mut state = self.state.lock();
        if let Some(&file) = state.names.get(from) {
            state.names.insert(to.to_owned(), file);
            state.events.push(Event::Named(to.to_owned(), file));
        }
    }

    /// A file was given another name.
    pub fn renamed(&self, from: &Path, to: &Path) {
        let mut state = self.state.lock();
        if let Some(file) = state.names.remove(from) {
            state.names.insert(to.to_owned(), file);
            state.events.push(Event::Renamed(from.to_owned(), to.to_owned(), file));
        }
    }

    /// A name was taken away.
    pub fn removed(&self, path: &Path) {
        let mut state = self.state.lock();
        if state.names.remove(path).is_some() {
            state.events.push(Event::Removed(path.to_owned()));
        }
    }

    /// A file was flushed. One whose writes are not seen is taken as it stands.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn synced(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let Some(&file) = state.names.get(path) else { return Ok(()) };
        if state.seen.get(file.0 as usize) == Some(&false) {
            let content = fs::read(path)?;
            state.events.push(Event::Resized(file, content.len() as u64));
            state.events.push(Event::Written(file, 0, content));
        }
        let now = state.events.len();
        self.note_sync(&mut state, file, now);
        Ok(())
    }

    /// A flush of an open file failed, and what was not written yet never will be.
    pub fn forgot(&self, path: &Path) {
        self.state.lock().note(path, Event::Forgot);
    }

    fn note_sync(&self, state: &mut State, file: FileId, began: usize) {
        if !self.forgets_syncs {
            state.events.push(Event::Synced(file, began));
        }
    }

    /// An open file is seen from now on.
    fn opened(&self, path: &Path, was_there: bool) -> io::Result<()> {
        let mut state = self.state.lock();
        if let Some(&FileId(file)) = state.names.get(path) {
            if let Some(seen) = state.seen.get_mut(file as usize) {
                *seen = true;
            }
            return Ok(());
        }
        let content = fs::read(path)?;
        let file = state.appear(true);
        state.names.insert(path.to_owned(), file);
        state.events.push(if was_there && !content.is_empty() {
            Event::Found(path.to_owned(), file, content)
        } else {
            Event::Created(path.to_owned(), file)
        });
        Ok(())
    }
}

impl Disk for Log {
    fn open(&self, path: &Path, below: Below<'_>) -> io::Result<()> {
        let was_there = path.exists();
        below()?;
        self.opened(path, was_there)
    }

    fn write(&self, file: &dyn Handle, offset: u64, data: &[u8]) -> io::Result<()> {
        file.write(offset, data)?;
        self.state.lock().note(file.path(), |file| Event::Written(file, offset, data.to_vec()));
        Ok(())
    }

    fn set_len(&self, file: &dyn Handle, len: u64) -> io::Result<()> {
        file.set_len(len)?;
        self.state.lock().note(file.path(), |file| Event::Resized(file, len));
        Ok(())
    }

    fn sync(&self, file: &dyn Handle) -> io::Result<()> {
        let began = self.len();
        std::thread::sleep(self.flush);
        let mut state = self.state.lock();
        if let Some(&file) = state.names.get(file.path()) {
            self.note_sync(&mut state, file, began);
        }
        Ok(())
    }

    fn delete(&self, path: &Path, below: Below<'_>) -> io::Result<()> {
        below()?;
        self.removed(path);
        Ok(())
    }

    fn directory_synced(&self, directory: &Path) {
        if !self.forgets_syncs {
            self.state.lock().events.push(Event::DirectorySynced(directory.to_owned()));
        }
    }
}
