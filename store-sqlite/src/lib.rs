//! The SQLite engine: one file, in WAL mode, for one machine and any number of its processes.
//!
//! One connection writes, a few read, so a reader never waits for a writer. Each write is one `BEGIN IMMEDIATE`
//! transaction; what was acknowledged survives power loss by default ([`Options::durability`]). A checksum stands
//! beside every record (law ROT-1).
//!
//! After a failed flush the store refuses writes and leaves a marker beside the file (`-flush-failed`). Every store on
//! the file sees it before its next write; the next to open copies the database and its log, verifies the copy and
//! puts it in their place ([`safe_files::recovery`]). A full disk is no failed flush: what did not fit is undone, and
//! there is no marker.
//!
//! A backup is made under a name like `.copy.db.4711-0.new`, flushed and then linked to its own. One that was cut off
//! leaves that file, which nothing reads; the next backup to the same place clears it away.
//!
//! The file and what SQLite lays beside it (`-wal`, `-shm`) are created readable by their owner alone. It must lie on
//! a local disk: locks of network file systems cannot be relied on.
//!
//! What is absent, on purpose: no statement is put together from data, everything is bound; no list counts or skips
//! rows to page; no transaction begins deferred and writes later.

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use store_api::{
    Checkpoint, Definition, Durability, EngineInfo, EngineTx, Error, Identity, NewVersion, Result,
    Transactional, Verification, Version,
};

mod audit;
mod backup;
mod budget;
mod catalog;
mod checkpoint;
mod connection;
mod error;
mod file;
mod frames;
mod log;
mod migrations;
mod pool;
mod recovery;
mod stream;
mod sums;
mod tx;
mod unit;
mod verify;
mod versions;
mod writer;

use pool::Pool;
use tx::Tx;
use writer::Writer;

/// How long a call waits for others when nobody says.
pub const DEFAULT_BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest that a call may be told to wait: SQLite counts milliseconds in 32 bits.
pub const MAX_BUSY_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// How a store is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// How long a call waits for other writers, or for a connection to read on, before it is `Busy`. At most
    /// [`MAX_BUSY_TIMEOUT`].
    pub busy_timeout: Duration,
    /// What an acknowledged write survives: [`Durability::PowerLoss`] or [`Durability::Process`].
    pub durability: Durability,
    /// How many connections read: how many reads can go on at once. At least 1.
    pub readers: usize,
    /// Whether to create the file when there is none.
    pub create: bool,
}

impl Default for Options {
    /// Five seconds, power loss, one reader for each core, created when absent.
    fn default() -> Self {
        Options {
            busy_timeout: DEFAULT_BUSY_TIMEOUT,
            durability: Durability::PowerLoss,
            readers: std::thread::available_parallelism().map_or(1, NonZero::get),
            create: true,
        }
    }
}

impl Options {
    fn check(&self) -> Result<()> {
        if self.durability == Durability::Memory {
            return Err(Error::invalid("durability", "a file survives its process at least"));
        }
        if self.busy_timeout > MAX_BUSY_TIMEOUT {
            let reason = format!("{:?} is more than {MAX_BUSY_TIMEOUT:?}", self.busy_timeout);
            return Err(Error::invalid("busy_timeout", reason));
        }
        if self.readers == 0 {
            return Err(Error::invalid("readers", "is 0, at least 1"));
        }
        Ok(())
    }
}

/// A store in an SQLite file.
pub struct SqliteStore {
    identity: Identity,
    path: PathBuf,
    options: Options,
    // Fields are dropped in this order: readers first, so that the writer's close can end the WAL; the file's own
    // descriptor last, because closing it drops this process's locks on the file.
    readers: Pool,
    writer: Writer,
    _file: file::Held,
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteStore")
            .field("path", &self.path)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl SqliteStore {
    /// Opens the store at `path` with the default [`Options`], creating it when there is none.
    ///
    /// # Errors
    /// As [`SqliteStore::open_with`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, Options::default())
    }

    /// Opens the store at `path`. Several stores, also of several processes, may open and create one file at once.
    ///
    /// # Errors
    /// `NotThisStore` for a file that is no store of ours and for what is no file, `SchemaTooNew` for one of a newer
    /// version of this library, and `Corrupt` for one that is cut off or that a failed flush has damaged, all untouched; `NotFound` when there is none
    /// and it is not to be created; `InvalidInput` for a path that names no file, or options out of range; `Busy`
    /// when others hold it for longer than the timeout; `Unsupported` for a library or a file system that cannot
    /// keep the promises; `Backend`.
    pub fn open_with(path: impl AsRef<Path>, options: Options) -> Result<Self> {
        connection::check_library()?;
        options.check()?;
        let path = safe_files::resolve(path.as_ref())?;
        file::check_length(&path)?;
        let (file, writer) = recovery::open(&path, &options)?;
        Ok(SqliteStore {
            identity: Identity::new(),
            readers: Pool::new(path.clone(), options.clone()),
            writer: Writer::new(writer, path.clone(), options.clone())?,
            path,
            options,
            _file: file,
        })
    }
}

impl Transactional for SqliteStore {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn read<R>(&self, work: impl FnOnce(&dyn EngineTx) -> Result<R>) -> Result<R> {
        self.readers.take()?.snapshot(|tx| work(tx))
    }

    fn read_once<R>(&self, work: impl FnOnce(&dyn EngineTx) -> Result<R>) -> Result<R> {
        let lent = self.readers.take()?;
        work(&Tx::looking(lent.connection()?, &lent))
    }

    fn write<R: Send>(&self, mut work: impl FnMut(&dyn EngineTx) -> Result<R> + Send) -> Result<R> {
        self.writer.write(|tx| work(tx))
    }

    fn write_by_itself<R>(&self, work: impl FnOnce(&dyn EngineTx) -> Result<R>) -> Result<R> {
        self.writer.write_by_itself(|tx| work(tx))
    }

    fn append_version_alone<D: Definition>(&self, version: &NewVersion<D>) -> Result<Arc<Version<D>>> {
        let draft = versions::Draft::check(version)?;
        let seq = self.writer.write(|tx| tx.append(&draft))?;
        Ok(draft.stored(seq))
    }

    fn save_checkpoint_alone(&self, checkpoint: &Checkpoint) -> Result<()> {
        let draft = checkpoint::Draft::check(checkpoint)?;
        self.writer.write(|tx| tx.put_checkpoint(&draft))
    }

    fn info(&self) -> EngineInfo {
        EngineInfo {
            engine: "sqlite".to_owned(),
            version: format!("SQLite {}", rusqlite::version()),
            durability: self.options.durability,
            multi_process: true,
            path: Some(self.path.clone()),
            schema: migrations::SCHEMA,
        }
    }

    fn verify(&self) -> Result<Verification> {
        self.readers.own()?.snapshot(verify::run)
    }

    fn backup(&self, to: &Path) -> Result<()> {
        let lent = self.readers.own()?;
        backup::run(lent.connection()?, to, self.options.busy_timeout)
    }

    fn close(&self) -> Result<()> {
        self.writer.close(|| self.readers.close())
    }
}
