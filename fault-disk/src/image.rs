//! What a disk may hold when the power goes: made from any prefix of a log.
//!
//! A write that was not flushed may be there, or not, or in part, whatever came before or after it; a change of a
//! name may be there or not until its directory was flushed. That is less than most file systems promise.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use fastrand::Rng;

use crate::log::{Event, FileId};

/// The size of a page of the system's cache: what becomes dirty, and is written or forgotten, as a whole.
const PAGE: usize = 4096;

/// The pieces in which a write may be torn, in bytes.
const PIECES: [usize; 4] = [8, 64, 512, 4096];

/// What becomes of what was not flushed.
#[derive(Debug)]
pub enum Fate<'r> {
    /// All of it was written.
    Kept,
    /// None of it was.
    Dropped,
    /// Each write and each name has its own luck: written, not written, or written in pieces.
    Mixed(&'r mut Rng),
}

/// The files of a disk, by path, with what is in them.
pub type Image = BTreeMap<PathBuf, Vec<u8>>;

/// A log that is being read, and the disk as it stands after what was read so far.
#[derive(Debug, Default)]
pub struct Replay {
    files: BTreeMap<FileId, File>,
    /// The names that are certain.
    names: BTreeMap<PathBuf, FileId>,
    /// The changes that are not, in order.
    changes: Vec<Change>,
    /// How many events were read.
    position: usize,
}

#[derive(Debug, Default)]
struct File {
    /// What is certain.
    durable: Vec<u8>,
    /// What a reader sees.
    seen: Vec<u8>,
    /// What is not certain, in order, each after how many events it happened.
    pending: Vec<(usize, Pending)>,
    /// Pages that a failed flush has forgotten: they read as written, and are not, until they are written to again.
    forgotten: BTreeSet<usize>,
}

#[derive(Debug)]
enum Pending {
    Write(usize, Vec<u8>),
    Resize(usize),
}

#[derive(Debug)]
enum Change {
    Set(PathBuf, FileId),
    Unset(PathBuf),
    Rename(PathBuf, PathBuf, FileId),
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<PathBuf, FileId>) {
        match self {
            Change::Set(path, file) => drop(names.insert(path.clone(), *file)),
            Change::Unset(path) => drop(names.remove(path)),
            Change::Rename(from, to, file) => {
                names.remove(from);
                names.insert(to.clone(), *file);
            }
        }
    }

    fn directory(&self) -> Option<&Path> {
        match self {
            Change::Set(path, _) | Change::Unset(path) | Change::Rename(_, path, _) => path.parent(),
        }
    }
}

impl Replay {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads on.
    pub fn advance(&mut self, event: &Event) {
        let now = self.position;
        self.position += 1;
        match event {
            Event::Found(path, file, content) => {
                let content = File { durable: content.clone(), seen: content.clone(), ..File::default() };
                self.files.insert(*file, content);
                self.names.insert(path.clone(), *file);
            }
            Event::Created(path, file) => {
                self.files.insert(*file, File::default());
                self.changes.push(Change::Set(path.clone(), *file));
            }
            Event::Named(path, file) => self.changes.push(Change::Set(path.clone(), *file)),
            Event::Renamed(from, to, file) => {
                self.changes.push(Change::Rename(from.clone(), to.clone(), *file));
            }
            Event::Removed(path) => self.changes.push(Change::Unset(path.clone())),
            Event::DirectorySynced(directory) => {
                let names = &mut self.names;
                self.changes.retain(|change| {
                    let flushed = change.directory() == Some(directory);
                    if flushed {
                        change.apply(names);
                    }
                    !flushed
                });
            }
            Event::Written(file, offset, data) => self.file(*file).write(now, *offset as usize, data),
            Event::Resized(file, len) => self.file(*file).resize(now, *len as usize),
            Event::Synced(file, began) => self.file(*file).sync(*began),
            Event::Forgot(file) => self.file(*file).forget(),
        }
    }

    fn file(&mut self, file: FileId) -> &mut File {
        self.files.entry(file).or_default()
    }

    /// What may be on the disk if the power goes now.
    pub fn image(&self, fate: &mut Fate<'_>) -> Image {
        let mut names = self.names.clone();
        for change in &self.changes {
            let kept = match fate {
                Fate::Kept => true,
                Fate::Dropped => false,
                Fate::Mixed(rng) => rng.bool(),
            };
            if kept {
                change.apply(&mut names);
            }
        }
        let mut content = |file| self.files.get(&file).map(|file| file.content(fate));
        names.into_iter().map(|(path, file)| (path, content(file).unwrap_or_default())).collect()
    }
}

impl File {
    fn write(&mut self, now: usize, offset: usize, data: &[u8]) {
        put(&mut self.seen, offset, data);
        self.pending.push((now, Pending::Write(offset, data.to_vec())));
        // A page that is dirty again is written as a whole, with what had been forgotten of it.
        for page in offset / PAGE..(offset + data.len()).div_ceil(PAGE) {
            if self.forgotten.remove(&page) {
                let end = self.seen.len().min((page + 1) * PAGE);
                if let Some(whole) = self.seen.get(page * PAGE..end) {
                    self.pending.push((now, Pending::Write(page * PAGE, whole.to_vec())));
                }
            }
        }
    }

    fn resize(&mut self, now: usize, len: usize) {
        self.seen.resize(len, 0);
        self.pending.push((now, Pending::Resize(len)));
    }

    fn sync(&mut self, began: usize) {
        let flushed = self.pending.partition_point(|(at, _)| *at < began);
        for (_, pending) in self.pending.drain(..flushed) {
            pending.apply(&mut self.durable);
        }
    }

    fn forget(&mut self) {
        for (_, pending) in self.pending.drain(..) {
            if let Pending::Write(offset, data) = pending {
                self.forgotten.extend(offset / PAGE..(offset + data.len()).div_ceil(PAGE));
            }
        }
    }

    fn content(&self, fate: &mut Fate<'_>) -> Vec<u8> {
        let mut content = self.durable.clone();
        for (_, pending) in &self.pending {
            match fate {
                Fate::Kept => pending.apply(&mut content),
                Fate::Dropped => {}
                Fate::Mixed(rng) => match rng.u8(0..3) {
                    0 => {}
                    1 => pending.apply(&mut content),
                    _ => pending.tear(&mut content, rng),
                },
            }
        }
        content
    }
}

impl Pending {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Pending::Write(offset, data) => put(content, *offset, data),
            Pending::Resize(len) => content.resize(*len, 0),
        }
    }

    /// Writes some of the pieces: the first ones, the last ones, or each by its own luck.
    fn tear(&self, content: &mut Vec<u8>, rng: &mut Rng) {
        let Pending::Write(offset, data) = self else {
            if rng.bool() {
                self.apply(content);
            }
            return;
        };
        let size = PIECES[rng.usize(0..PIECES.len())];
        let pieces = data.len().div_ceil(size);
        let (way, cut) = (rng.u8(0..3), rng.usize(0..=pieces));
        for (number, piece) in data.chunks(size).enumerate() {
            let written = match way {
                0 => number < cut,
                1 => number >= cut,
                _ => rng.bool(),
            };
            if written {
                put(content, offset + number * size, piece);
            }
        }
    }
}

/// Writes into a file, which grows as it must.
fn put(content: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(data);
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: FileId = FileId(0);

    fn path() -> PathBuf {
        "/d/a".into()
    }

    fn after(events: &[Event]) -> Replay {
        let mut replay = Replay::new();
        events.iter().for_each(|event| replay.advance(event));
        replay
    }

    fn only(replay: &Replay, fate: &mut Fate<'_>) -> Option<Vec<u8>> {
        replay.image(fate).remove(&path())
    }

    fn written(offset: u64, bytes: &[u8]) -> Event {
        Event::Written(FILE, offset, bytes.to_vec())
    }

    #[test]
    fn what_was_flushed_is_there_and_the_rest_may_be() {
        let mut events = vec![
            Event::Created(path(), FILE),
            written(0, b"one"),
            Event::Synced(FILE, 2),
            Event::DirectorySynced("/d".into()),
            written(3, b"two"),
        ];
        let replay = after(&events);
        assert_eq!(only(&replay, &mut Fate::Kept).unwrap(), b"onetwo");
        assert_eq!(only(&replay, &mut Fate::Dropped).unwrap(), b"one");
        let mut rng = Rng::with_seed(1);
        let mixed: BTreeSet<_> =
            (0..100).map(|_| only(&replay, &mut Fate::Mixed(&mut rng)).unwrap()).collect();
        assert_eq!(mixed, BTreeSet::from([b"one".to_vec(), b"onetwo".to_vec()]));
        events.push(Event::Synced(FILE, 5));
        assert_eq!(only(&after(&events), &mut Fate::Dropped).unwrap(), b"onetwo");
    }

    /// Of several writers one may write while another one's flush is under way, which says nothing of what it wrote.
    #[test]
    fn a_flush_is_of_what_was_written_before_it_began() {
        let events = [
            Event::Found(path(), FILE, vec![]),
            written(0, b"one"),
            written(3, b"two"),
            Event::Synced(FILE, 2),
        ];
        assert_eq!(only(&after(&events), &mut Fate::Dropped).unwrap(), b"one");
        assert_eq!(only(&after(&events), &mut Fate::Kept).unwrap(), b"onetwo");
    }

    #[test]
    fn a_name_is_certain_when_its_directory_was_flushed() {
        let mut events = vec![Event::Created(path(), FILE), written(0, b"x"), Event::Synced(FILE, 2)];
        assert_eq!(only(&after(&events), &mut Fate::Kept).unwrap(), b"x");
        assert_eq!(only(&after(&events), &mut Fate::Dropped), None);
        events.push(Event::DirectorySynced("/d".into()));
        assert_eq!(only(&after(&events), &mut Fate::Dropped).unwrap(), b"x");
        events.push(Event::Renamed(path(), "/d/b".into(), FILE));
        assert_eq!(only(&after(&events), &mut Fate::Kept), None);
        assert_eq!(only(&after(&events), &mut Fate::Dropped).unwrap(), b"x");
        events.push(Event::DirectorySynced("/elsewhere".into()));
        assert_eq!(only(&after(&events), &mut Fate::Dropped).unwrap(), b"x");
        events.push(Event::DirectorySynced("/d".into()));
        assert_eq!(only(&after(&events), &mut Fate::Dropped), None);
    }

    #[test]
    fn a_torn_write_has_pieces_of_both() {
        let replay = after(&[Event::Found(path(), FILE, vec![0; 4096]), written(0, &[1; 4096])]);
        let mut rng = Rng::with_seed(1);
        let torn = (0..500).filter_map(|_| only(&replay, &mut Fate::Mixed(&mut rng)));
        let torn = torn.filter(|image| image.contains(&0) && image.contains(&1));
        let smallest = torn.map(|image| image.chunk_by(|a, b| a == b).map(<[u8]>::len).min()).min();
        assert_eq!(smallest, Some(Some(8)));
    }

    /// A page that a failed flush has forgotten is not on disk, whatever is flushed later, until it is written to.
    #[test]
    fn a_forgotten_page_comes_back_only_when_it_is_written_to() {
        let mut events = vec![
            Event::Found(path(), FILE, vec![0; 2 * PAGE]),
            written(0, &[1; 2 * PAGE]),
            Event::Forgot(FILE),
            written(PAGE as u64, b"2"),
            Event::Synced(FILE, 4),
        ];
        let image = only(&after(&events), &mut Fate::Kept).unwrap();
        assert_eq!((image[0], &image[PAGE..PAGE + 2]), (0, &[b'2', 1][..]));
        events.extend([written(7, b"3"), Event::Synced(FILE, 6)]);
        let image = only(&after(&events), &mut Fate::Kept).unwrap();
        assert_eq!((image[0], image[7]), (1, b'3'));
    }
}
