//! Engines on a simulated disk: everything that they do to files is written down, and fails when it is told to.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fault_disk::sqlite::Mount;
use fault_disk::{Below, Disk, Handle, Log};
use parking_lot::Mutex;
use safe_files::{Step, Watching};
use store::{Durability, Result, Store};
use store_redb::RedbStore;
use store_sqlite::SqliteStore;

use crate::engines::{Engine, redb_options, sqlite_options};

/// An engine whose files in one directory lie on a simulated disk.
pub(crate) struct Machine {
    engine: Engine,
    durability: Durability,
    directory: PathBuf,
    disk: Arc<FaultyDisk>,
    _mount: Mount,
    _steps: Watching,
}

impl Machine {
    /// A machine whose disk holds what is in `directory`, which has no symbolic link in its path.
    pub(crate) fn new(
        engine: Engine,
        durability: Durability,
        directory: &Path,
        log: Log,
    ) -> io::Result<Machine> {
        log.find_all(directory)?;
        let disk = Arc::new(FaultyDisk { log, fault: Mutex::default() });
        let watcher = Arc::clone(&disk);
        Ok(Machine {
            engine,
            durability,
            directory: directory.to_owned(),
            _mount: fault_disk::sqlite::mount(directory, disk.clone())?,
            _steps: safe_files::watch(directory, move |step, take| watcher.step(step, take)),
            disk,
        })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Opens the store of that name.
    pub(crate) fn open(&self, name: &str) -> Result<Arc<dyn Store>> {
        let path = self.path(name);
        Ok(match self.engine {
            Engine::Sqlite => Arc::new(SqliteStore::open_with(path, sqlite_options(self.durability))?),
            Engine::Redb => {
                let disk = Arc::clone(&self.disk);
                let over = move |path: &Path, file| fault_disk::redb::over(path, file, disk.clone());
                Arc::new(RedbStore::open_over(path, redb_options(self.durability), over)?)
            }
        })
    }

    pub(crate) fn log(&self) -> &Log {
        &self.disk.log
    }

    pub(crate) fn disk(&self) -> &FaultyDisk {
        &self.disk
    }
}

/// What goes wrong with an operation, and with those after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// That one operation fails.
    Once,
    /// It fails, and so does every later one.
    Sticky,
    /// There is no room for what it writes, nor for what later ones write.
    Full,
    /// If it writes, only a part is written, and it fails.
    Short,
    /// If it flushes, it fails, and what was to be flushed never reaches the disk.
    Flush,
}

/// A disk that writes down what happens to it, and fails when it is told to.
#[derive(Debug)]
pub(crate) struct FaultyDisk {
    log: Log,
    fault: Mutex<Pending>,
}

#[derive(Debug, Default)]
struct Pending {
    /// What is going to go wrong, and after how many more operations that it concerns.
    fault: Option<(Fault, u64)>,
    /// Whether it has gone wrong.
    struck: bool,
}

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Read,
    /// Writes, makes longer, or creates.
    Grow,
    Flush,
    /// Anything else: names, lengths.
    Other,
}

impl Fault {
    fn concerns(self, operation: Operation) -> bool {
        match self {
            Fault::Once | Fault::Sticky => true,
            Fault::Full | Fault::Short => operation == Operation::Grow,
            Fault::Flush => operation == Operation::Flush,
        }
    }

    fn lasts(self) -> bool {
        matches!(self, Fault::Sticky | Fault::Full)
    }

    fn error(self) -> io::Error {
        match self {
            Fault::Full => io::ErrorKind::StorageFull.into(),
            _ => io::Error::other("the disk failed as it was told to"),
        }
    }
}

impl FaultyDisk {
    /// Lets something go wrong after that many more operations that it concerns.
    pub(crate) fn arm(&self, fault: Fault, after: u64) {
        *self.fault.lock() = Pending { fault: Some((fault, after)), struck: false };
    }

    /// Lets nothing go wrong any more. Says whether something has.
    pub(crate) fn disarm(&self) -> bool {
        std::mem::take(&mut *self.fault.lock()).struck
    }

    /// What goes wrong with this operation.
    fn strike(&self, operation: Operation) -> Option<Fault> {
        let mut pending = self.fault.lock();
        let (fault, left) = pending.fault.filter(|(fault, _)| fault.concerns(operation))?;
        if left > 0 {
            pending.fault = Some((fault, left - 1));
            return None;
        }
        pending.struck = true;
        if !fault.lasts() {
            pending.fault = None;
        }
        Some(fault)
    }

    fn pass(&self, operation: Operation) -> io::Result<()> {
        self.strike(operation).map_or(Ok(()), |fault| Err(fault.error()))
    }

    /// One of the steps that engines take by themselves.
    fn step(&self, step: &Step<'_>, take: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        let operation = match step {
            Step::Create(_) => Operation::Grow,
            Step::Sync(_) | Step::SyncDirectory(_) => Operation::Flush,
            Step::Link { .. } | Step::Rename { .. } | Step::Remove(_) => Operation::Other,
        };
        if let Some(fault) = self.strike(operation) {
            if let (Fault::Flush, Step::Sync(path)) = (fault, step) {
                self.log.forgot(path);
            }
            return Err(fault.error());
        }
        take()?;
        match *step {
            Step::Create(path) => self.log.created(path),
            Step::Sync(path) => return self.log.synced(path),
            Step::Link { from, to } => self.log.linked(from, to),
            Step::Rename { from, to } => self.log.renamed(from, to),
            Step::Remove(path) => self.log.removed(path),
            Step::SyncDirectory(directory) => self.log.directory_synced(directory),
        }
        Ok(())
    }
}

impl Disk for FaultyDisk {
    fn open(&self, path: &Path, below: Below<'_>) -> io::Result<()> {
        self.pass(Operation::Other)?;
        self.log.open(path, below)
    }

    fn read(&self, file: &dyn Handle, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.pass(Operation::Read)?;
        self.log.read(file, offset, out)
    }

    fn write(&self, file: &dyn Handle, offset: u64, data: &[u8]) -> io::Result<()> {
        let Some(fault) = self.strike(Operation::Grow) else { return self.log.write(file, offset, data) };
        if fault == Fault::Short {
            self.log.write(file, offset, &data[..data.len() / 2])?;
        }
        Err(fault.error())
    }

    fn set_len(&self, file: &dyn Handle, len: u64) -> io::Result<()> {
        self.pass(Operation::Grow)?;
        self.log.set_len(file, len)
    }

    fn sync(&self, file: &dyn Handle) -> io::Result<()> {
        let Some(fault) = self.strike(Operation::Flush) else { return self.log.sync(file) };
        if fault == Fault::Flush {
            self.log.forgot(file.path());
        }
        Err(fault.error())
    }

    fn delete(&self, path: &Path, below: Below<'_>) -> io::Result<()> {
        self.pass(Operation::Other)?;
        self.log.delete(path, below)
    }

    fn directory_synced(&self, directory: &Path) {
        self.log.directory_synced(directory);
    }
}
