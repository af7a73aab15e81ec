//! The redb engine: one file, pure Rust, one process at a time.
//!
//! ```
//! use store_api::*;
//!
//! # fn main() -> Result<()> {
//! # let directory = tempfile::tempdir().map_err(|e| Error::backend("making a directory", e))?;
//! # let path = directory.path().join("agents.redb");
//! let store = store_redb::RedbStore::open(&path)?;
//! let skill = Skill::new(SkillId::new("s")?, PrincipalId::new("ana")?, Name::new("report")?);
//! store.skills().save(&skill, Expect::Absent)?;
//! Store::close(&store)
//! # }
//! ```
//!
//! Every call of redb goes through one edge (`error.rs`), keys are encoded in one module (`keys.rs`), and the seams
//! are written once, on four verbs over a table (`kv.rs`), for snapshots and write transactions alike.
//!
#![doc = include_str!("../docs/format.md")]

mod audit;
mod backup;
mod budget;
mod catalog;
mod checkpoint;
mod error;
mod file;
mod index;
mod keys;
mod kv;
mod open;
mod storage;
mod stream;
mod tables;
mod tx;
mod value;
mod verify;
mod versions;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::{MappedRwLockReadGuard, Mutex, MutexGuard, RwLock, RwLockReadGuard};
use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase, StorageBackend};
use store_api::{Durability, EngineInfo, EngineTx, Error, Identity, Result, Transactional, Verification};

use crate::error::{Edge, busy};
use crate::kv::Reading;
use crate::tx::Tx;

/// The version of the layout that this version writes, and the newest that it reads.
pub const SCHEMA: u32 = 1;

/// How long a call waits unless it is told otherwise.
pub const DEFAULT_BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How a store is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// How long a call waits for whoever is in its way (another opener of the file, another writer, a `close`)
    /// before it is `Busy`.
    pub busy_timeout: Duration,
    /// What an acknowledged write survives: [`Durability::PowerLoss`], or [`Durability::Process`], with which no
    /// commit waits for the disk.
    pub durability: Durability,
    /// How many bytes of pages are kept in memory, at most.
    pub cache_size: usize,
    /// Whether to read and check the whole file first. A plain open trusts a file that was closed in order, and
    /// [`verify`](store_api::Store::verify) checks it later.
    pub check_integrity: bool,
    /// Whether to create the file when there is none.
    pub create: bool,
}

impl Default for Options {
    /// Five seconds, power loss, 256 MiB, unchecked, created when absent.
    fn default() -> Self {
        Options {
            busy_timeout: DEFAULT_BUSY_TIMEOUT,
            durability: Durability::PowerLoss,
            cache_size: 256 << 20,
            check_integrity: false,
            create: true,
        }
    }
}

impl Options {
    fn check(&self) -> Result<()> {
        if self.durability == Durability::Memory {
            return Err(Error::invalid("durability", "a file survives its process at least"));
        }
        Ok(())
    }

    fn flushes(&self) -> bool {
        self.durability == Durability::PowerLoss
    }
}

/// A store in a redb file. All its methods are those of [`Store`](store_api::Store).
#[derive(Debug)]
pub struct RedbStore {
    identity: Identity,
    path: PathBuf,
    options: Options,
    edge: Edge,
    /// `None` once the store is closed. Locked for reading by every transaction, for as long as it runs.
    database: RwLock<Option<Database>>,
    /// The turn to write. redb would make a second writer wait without end.
    turn: Mutex<()>,
}

impl RedbStore {
    /// Opens the store at `path`, or creates it, with the default [`Options`].
    ///
    /// # Guarantees
    /// OPEN-1, OPEN-2, SEC-1.
    /// # Errors
    /// `Busy` while another store, here or in another process, has the file open; `NotThisStore` for another
    /// program's file, a link or a directory; `SchemaTooNew`; `Corrupt` where damage shows; `Backend`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, Options::default())
    }

    /// Opens the store at `path`, or creates it.
    ///
    /// # Guarantees
    /// As [`open`](RedbStore::open).
    /// # Errors
    /// As [`open`](RedbStore::open); `NotFound` when there is no file and none is to be created; `InvalidInput` for
    /// options that cannot be kept.
    pub fn open_with(path: impl AsRef<Path>, options: Options) -> Result<Self> {
        Self::open_over(path, options, |file| file)
    }

    /// Opens the store with a storage of the caller's between redb and the file: for tests that make it fail. A
    /// storage passes on every call that it does not mean to change, locks included.
    ///
    /// # Errors
    /// As [`open_with`](RedbStore::open_with).
    #[doc(hidden)]
    pub fn open_over<B: StorageBackend>(
        path: impl AsRef<Path>,
        options: Options,
        over: impl Fn(FileBackend) -> B,
    ) -> Result<Self> {
        options.check()?;
        let path = file::resolve(path.as_ref())?;
        let database = open::open(&path, &options, over)?;
        Ok(RedbStore {
            identity: Identity::new(),
            path,
            options,
            edge: Edge::default(),
            database: RwLock::new(Some(database)),
            turn: Mutex::new(()),
        })
    }

    /// The open database, kept open until the guard is dropped.
    fn database(&self) -> Result<MappedRwLockReadGuard<'_, Database>> {
        let wait = self.options.busy_timeout;
        let database =
            self.database.try_read_for(wait).ok_or_else(|| busy(wait, "the store is being closed"))?;
        RwLockReadGuard::try_map(database, Option::as_ref).map_err(|_| Error::Closed)
    }

    /// The turn to write, kept until the guard is dropped.
    fn turn(&self) -> Result<MutexGuard<'_, ()>> {
        let wait = self.options.busy_timeout;
        self.turn.try_lock_for(wait).ok_or_else(|| busy(wait, "another writer in this process"))
    }

    fn snapshot(&self, database: &Database) -> Result<Reading<'_>> {
        let tx = self.edge.call("beginning a snapshot", || database.begin_read())?;
        Ok(Reading { tx, edge: &self.edge })
    }
}

impl Transactional for RedbStore {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn read<R>(&self, work: impl FnOnce(&dyn EngineTx) -> Result<R>) -> Result<R> {
        let database = self.database()?;
        work(&Tx::on(&self.snapshot(&database)?))
    }

    fn write<R>(&self, work: impl FnOnce(&dyn EngineTx) -> Result<R>) -> Result<R> {
        let database = self.database()?;
        let _turn = self.turn()?;
        self.edge.check_writable()?;
        let writing = open::begin(&self.edge, &database)?;
        // The panic of a host is held until redb has undone the transaction, because redb panicking in its turn
        // would end the process.
        match catch_unwind(AssertUnwindSafe(|| work(&Tx::on(&writing)))) {
            Ok(Ok(result)) => writing.commit().map(|()| result),
            Ok(Err(error)) => {
                writing.abort();
                Err(self.edge.in_doubt(error))
            }
            Err(panic) => {
                writing.abort();
                resume_unwind(panic)
            }
        }
    }

    fn info(&self) -> EngineInfo {
        EngineInfo {
            engine: "redb".into(),
            version: "redb 4.6.0".into(),
            durability: self.options.durability,
            multi_process: false,
            path: Some(self.path.clone()),
            schema: SCHEMA,
        }
    }

    fn verify(&self) -> Result<Verification> {
        let mut found = Verification::default();
        let database = self.database()?;
        let turn = self.turn()?;
        verify::check_file(&self.path, &mut found)?;
        let snapshot = self.snapshot(&database)?;
        drop(turn);
        verify::check_records(&Tx::on(&snapshot), &mut found)?;
        Ok(found)
    }

    fn backup(&self, to: &Path) -> Result<()> {
        let to = file::resolve(to)?;
        if to.symlink_metadata().is_ok() {
            return Err(file::taken(&to));
        }
        let database = self.database()?;
        backup::copy(&Tx::on(&self.snapshot(&database)?), &to)
    }

    fn close(&self) -> Result<()> {
        let wait = self.options.busy_timeout;
        let running = || busy(wait, "transactions or snapshots that still run");
        let database = self.database.try_write_for(wait).ok_or_else(running)?.take();
        database.map_or(Ok(()), |database| self.edge.call("closing", || database.close()))
    }
}

impl Drop for RedbStore {
    fn drop(&mut self) {
        // Nobody is left to hear of a failure; `close` is there for those who want to.
        drop(Transactional::close(self));
    }
}
