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
mod bookkeeping;
mod budget;
mod catalog;
mod checkpoint;
mod error;
mod file;
mod index;
mod keys;
mod kv;
mod migrations;
mod open;
mod recovery;
mod run_state;
mod storage;
mod stream;
mod tables;
mod tx;
mod value;
mod verify;
mod versions;
mod writer;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use commit_queue::Queue;
use redb::StorageBackend;
use redb::backends::FileBackend;
use safe_files::{exists, resolve};
use store_api::{
    Durability, EngineInfo, EngineTx, Entity, Error, Identity, Result, Transactional, Verification,
};

use crate::kv::Writing;
use crate::tx::Tx;
use crate::writer::Held;

/// The version of the layout that this version writes, and the newest that it reads.
pub const SCHEMA: u32 = 4;

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
pub struct RedbStore {
    identity: Identity,
    path: PathBuf,
    options: Options,
    /// How the database of a backup is made in its file: on a storage like this store's.
    new_database: Box<backup::NewDatabase>,
    /// The writers of this store, in line for its database.
    queue: Queue<Held>,
}

impl fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbStore")
            .field("path", &self.path)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
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
        Self::open_over(path, options, |_, file| file)
    }

    /// Opens the store with a storage of the caller's between redb and the file: for tests that make it fail. A
    /// storage passes on every call that it does not mean to change, locks included. `over` is told the path of the
    /// file: the store's, the temporary one when the store is created before that, and those of backups.
    ///
    /// # Errors
    /// As [`open_with`](RedbStore::open_with).
    #[doc(hidden)]
    pub fn open_over<B: StorageBackend>(
        path: impl AsRef<Path>,
        options: Options,
        over: impl Fn(&Path, FileBackend) -> B + Send + Sync + 'static,
    ) -> Result<Self> {
        options.check()?;
        let path = resolve(path.as_ref())?;
        let database = open::open(&path, &options, &over)?;
        let held = Held::new(database, options.busy_timeout);
        let queue = Queue::new(held, options.busy_timeout);
        let new_database: Box<backup::NewDatabase> =
            Box::new(move |edge, staged| open::new_database(edge, staged, &over));
        Ok(RedbStore { identity: Identity::new(), path, options, new_database, queue })
    }

    fn operate<R>(&self, writing: &Writing, work: impl FnOnce(&dyn EngineTx) -> Result<R>) -> Result<R> {
        let done = writing.operate(|operation| work(&Tx::on(operation)));
        done.map_err(|error| self.queue.engine().in_doubt(error))
    }
}

impl Transactional for RedbStore {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn read<R>(&self, work: impl FnOnce(&dyn EngineTx) -> Result<R>) -> Result<R> {
        let held = self.queue.engine();
        let database = held.database()?;
        work(&Tx::on(&held.snapshot(&database)?))
    }

    fn write<R: Send>(&self, mut work: impl FnMut(&dyn EngineTx) -> Result<R> + Send) -> Result<R> {
        self.queue.write(|writing| self.operate(writing, &mut work))
    }

    fn write_by_itself<R>(&self, work: impl FnOnce(&dyn EngineTx) -> Result<R>) -> Result<R> {
        self.queue.write_by_itself(|writing| self.operate(writing, work))
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
        let held = self.queue.engine();
        let (_database, snapshot) = self.queue.alone(|_| {
            let database = held.database()?;
            verify::check_file(&self.path, &mut found)?;
            let snapshot = held.snapshot(&database)?;
            Ok((database, snapshot))
        })?;
        verify::check_records(&Tx::on(&snapshot), &mut found)?;
        Ok(found)
    }

    fn backup(&self, to: &Path) -> Result<()> {
        let to = resolve(to)?;
        for taken in [to.clone(), safe_files::recovery::marker(&to)] {
            if exists(&taken)? {
                return Err(Error::already_exists(Entity::File, "path", taken.display().to_string()));
            }
        }
        let held = self.queue.engine();
        let database = held.database()?;
        backup::copy(&Tx::on(&held.snapshot(&database)?), &to, &*self.new_database)
    }

    fn close(&self) -> Result<()> {
        self.queue.alone(Held::close)
    }
}

impl Drop for RedbStore {
    fn drop(&mut self) {
        // Nobody is left to hear of a failure; `close` is there for those who want to.
        drop(Transactional::close(self));
    }
}
