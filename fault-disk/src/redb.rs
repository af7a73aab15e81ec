//! The layer below redb: a storage backend around the one that writes to the file.

use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

use crate::{Disk, Handle};

/// Puts a disk between redb and the file that `file` has open at `path`.
pub fn over(path: &Path, file: FileBackend, disk: Arc<dyn Disk>) -> Layer {
    let opened = disk.open(path, &mut || Ok(())).map_err(|e| e.kind());
    Layer { opened, below: Open { path: path.to_owned(), file }, disk }
}

/// A storage for redb whose operations go through a [`Disk`]; locks pass it by.
#[derive(Debug)]
pub struct Layer {
    /// What the disk said to the opening. redb hears of it when it asks for the length, which it does first.
    opened: Result<(), io::ErrorKind>,
    below: Open,
    disk: Arc<dyn Disk>,
}

#[derive(Debug)]
struct Open {
    path: PathBuf,
    file: FileBackend,
}

impl Handle for Open {
    fn path(&self) -> &Path {
        &self.path
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

type Locked<T> = Result<T, BackendError>;

impl StorageBackend for Layer {
    fn len(&self) -> io::Result<u64> {
        self.opened?;
        self.below.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.disk.read(&self.below, offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.set_len(&self.below, len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.disk.sync(&self.below)
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk.write(&self.below, offset, data)
    }
    fn close(&self) -> io::Result<()> {
        self.below.file.close()
    }
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<bool> {
        self.below.file.try_lock_range(start, end)
    }
    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<bool> {
        self.below.file.try_lock_shared_range(start, end)
    }
    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<()> {
        self.below.file.lock_range(start, end)
    }
    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<()> {
        self.below.file.lock_shared_range(start, end)
    }
    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<()> {
        self.below.file.unlock_range(start, end)
    }
    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<bool> {
        self.below.file.query_lock_range(start, end)
    }
}
