//! A disk between an engine and the file system, that records, delays, fails and forgets: for tests and benchmarks.
//!
//! A [`Disk`] is a layer: each of its hooks is handed what lies below it, and decides whether to pass the operation
//! on, what to do before and after, and what to say came of it. What a disk does not mean to change it leaves to the
//! defaults, which pass everything on. One disk serves both engines: [`sqlite::mount`] puts it below SQLite,
//! [`redb::over`] below redb. [`Log`] writes down what happens, and [`Replay`] makes from it what a disk may hold
//! after a loss of power.

use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

mod image;
mod log;
pub mod redb;
pub mod sqlite;

pub use image::{Fate, Image, Replay};
pub use log::{Event, FileId, Log};

/// An open file below a disk.
pub trait Handle {
    /// The path under which it was opened.
    fn path(&self) -> &Path;

    /// Fills `out` with what stands from `offset` on.
    ///
    /// # Errors
    /// What the file system says; also when the file ends before `out` is full.
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// Writes all of `data` from `offset` on.
    ///
    /// # Errors
    /// What the file system says.
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Makes the file `len` bytes long; new ones are 0.
    ///
    /// # Errors
    /// What the file system says.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Waits until everything that was written is on disk.
    ///
    /// # Errors
    /// What the file system says.
    fn sync(&self) -> io::Result<()>;
}

/// What is below an opening or a deletion: does it.
pub type Below<'b> = &'b mut dyn FnMut() -> io::Result<()>;

/// A disk. The defaults pass every operation on as it is.
///
/// An error of kind [`StorageFull`](io::ErrorKind::StorageFull) reaches the engine as a full disk, every other one as
/// a failure of the operation.
pub trait Disk: Debug + Send + Sync + 'static {
    /// A file is opened; `below` opens it, or creates it. A file of redb is open already.
    ///
    /// # Errors
    /// The file is not opened then.
    fn open(&self, path: &Path, below: Below<'_>) -> io::Result<()> {
        _ = path;
        below()
    }

    /// A file is read.
    ///
    /// # Errors
    /// The engine is told.
    fn read(&self, file: &dyn Handle, offset: u64, out: &mut [u8]) -> io::Result<()> {
        file.read(offset, out)
    }

    /// A file is written to.
    ///
    /// # Errors
    /// The engine is told; what was written before stays.
    fn write(&self, file: &dyn Handle, offset: u64, data: &[u8]) -> io::Result<()> {
        file.write(offset, data)
    }

    /// A file is cut off, or made longer.
    ///
    /// # Errors
    /// The engine is told.
    fn set_len(&self, file: &dyn Handle, len: u64) -> io::Result<()> {
        file.set_len(len)
    }

    /// A file is flushed.
    ///
    /// # Errors
    /// The engine is told.
    fn sync(&self, file: &dyn Handle) -> io::Result<()> {
        file.sync()
    }

    /// A file is deleted.
    ///
    /// # Errors
    /// The engine is told.
    fn delete(&self, path: &Path, below: Below<'_>) -> io::Result<()> {
        _ = path;
        below()
    }

    /// A directory was flushed, as a part of flushing a new file or of deleting one.
    fn directory_synced(&self, directory: &Path) {
        _ = directory;
    }
}

/// A slow disk: every flush takes so much longer.
#[derive(Debug, Clone, Copy)]
pub struct Delay(pub Duration);

impl Delay {
    /// What a system lets a thread oversleep is next to nothing of this; what is shorter is not slept.
    const SLEPT: Duration = Duration::from_micros(500);

    /// Takes as long as it says.
    pub fn wait(self) {
        if self.0 >= Self::SLEPT {
            return std::thread::sleep(self.0);
        }
        let start = Instant::now();
        while start.elapsed() < self.0 {
            std::hint::spin_loop();
        }
    }
}

impl Disk for Delay {
    fn sync(&self, file: &dyn Handle) -> io::Result<()> {
        self.wait();
        file.sync()
    }
}
