//! A storage that counts its flushes, and whose flushes or growth fail while a switch is on.

use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

type Locked<T> = Result<T, BackendError>;

/// Turns failing on and off.
#[derive(Debug, Clone, Default)]
pub(crate) struct Switch(Arc<State>);

#[derive(Debug, Default)]
struct State {
    fail: AtomicBool,
    full: AtomicBool,
    flushes: AtomicU64,
}

impl Switch {
    /// Whether flushes fail.
    pub(crate) fn fail(&self, fail: bool) {
        self.0.fail.store(fail, Ordering::SeqCst);
    }

    /// Whether the file cannot grow.
    pub(crate) fn full(&self, full: bool) {
        self.0.full.store(full, Ordering::SeqCst);
    }

    /// How often the file was flushed.
    pub(crate) fn flushes(&self) -> u64 {
        self.0.flushes.load(Ordering::SeqCst)
    }

    /// Puts itself between a store and its files.
    pub(crate) fn beneath(&self) -> impl Fn(&Path, FileBackend) -> Failing + use<> {
        let switch = self.clone();
        move |_, file| Failing { file, switch: switch.clone() }
    }
}

#[derive(Debug)]
pub(crate) struct Failing {
    file: FileBackend,
    switch: Switch,
}

impl StorageBackend for Failing {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        if self.switch.0.full.load(Ordering::SeqCst) && len > self.file.len()? {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.switch.0.flushes.fetch_add(1, Ordering::SeqCst);
        if self.switch.0.fail.load(Ordering::SeqCst) {
            return Err(io::Error::other("the disk does not answer"));
        }
        self.file.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data)
    }
    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<bool> {
        self.file.try_lock_range(start, end)
    }
    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<bool> {
        self.file.try_lock_shared_range(start, end)
    }
    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<()> {
        self.file.lock_range(start, end)
    }
    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<()> {
        self.file.lock_shared_range(start, end)
    }
    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<()> {
        self.file.unlock_range(start, end)
    }
    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<bool> {
        self.file.query_lock_range(start, end)
    }
}
