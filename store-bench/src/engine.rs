//! The engines: how a store of ours and the bare database beside it are opened.

use std::path::Path;
use std::sync::Arc;

use fault_disk::{Delay, Disk, sqlite::Mount};
use serde::{Deserialize, Serialize};
use store_memory::MemoryStore;
use store_redb::{Options, RedbStore};
use store_sqlite::SqliteStore;

use crate::bare;
use crate::subject::{Ours, Result, Subject};

/// An engine that can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Engine {
    Sqlite,
    Redb,
    Memory,
}

/// Whose work is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Ours,
    Bare,
}

impl Who {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Who::Ours => "ours",
            Who::Bare => "bare",
        }
    }
}

impl Engine {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Engine::Sqlite => "sqlite",
            Engine::Redb => "redb",
            Engine::Memory => "memory",
        }
    }

    /// Whether a write waits for a disk.
    pub(crate) fn is_durable(self) -> bool {
        self != Engine::Memory
    }

    /// Opens the store in `directory` with `disk` below it, creating it when there is none. One in memory is new.
    pub(crate) fn open(self, who: Who, directory: &Path, disk: Option<Delay>) -> Result<Box<dyn Subject>> {
        let file = directory.join(format!("{}.{}", who.as_str(), self.as_str()));
        Ok(match (self, who) {
            (Engine::Sqlite, Who::Ours) => Box::new(Ours(Arc::new(SqliteStore::open(file)?))),
            (Engine::Sqlite, Who::Bare) => Box::new(bare::sqlite::Sqlite::open(&file)?),
            (Engine::Redb, who) => return open_redb(who, &file, disk),
            (Engine::Memory, Who::Ours) => Box::new(Ours(Arc::new(MemoryStore::default()))),
            (Engine::Memory, Who::Bare) => Box::new(bare::memory::Memory::default()),
        })
    }
}

fn open_redb(who: Who, file: &Path, disk: Option<Delay>) -> Result<Box<dyn Subject>> {
    let options = Options::default();
    let cache = options.cache_size;
    let over = |path: &Path, file, delay| fault_disk::redb::over(path, file, Arc::new(delay));
    Ok(match (who, disk) {
        (Who::Ours, None) => Box::new(Ours(Arc::new(RedbStore::open_with(file, options)?))),
        (Who::Ours, Some(delay)) => {
            let store = RedbStore::open_over(file, options, move |path, file| over(path, file, delay))?;
            Box::new(Ours(Arc::new(store)))
        }
        (Who::Bare, None) => Box::new(bare::redb::Redb::open(file, cache, |file| file)?),
        (Who::Bare, Some(delay)) => {
            Box::new(bare::redb::Redb::open(file, cache, |backend| over(file, backend, delay))?)
        }
    })
}

/// Puts a disk below every SQLite database in `directory`, as long as the mount is kept.
pub(crate) fn mount(directory: &Path, disk: Option<Delay>) -> Result<Option<Mount>> {
    let disk = disk.map(|delay| Arc::new(delay) as Arc<dyn Disk>);
    Ok(disk.map(|disk| fault_disk::sqlite::mount(directory, disk)).transpose()?)
}
