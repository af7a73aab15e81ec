//! The engines: how a store of ours and the bare database beside it are opened.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use store_memory::MemoryStore;
use store_redb::RedbStore;
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Who {
    Ours,
    Bare,
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

    /// Opens the store in `directory`, creating it when there is none. One in memory is always new.
    pub(crate) fn open(self, who: Who, directory: &Path) -> Result<Box<dyn Subject>> {
        let file = |who: &str| directory.join(format!("{who}.{}", self.as_str()));
        Ok(match (self, who) {
            (Engine::Sqlite, Who::Ours) => Box::new(Ours(Arc::new(SqliteStore::open(file("ours"))?))),
            (Engine::Redb, Who::Ours) => Box::new(Ours(Arc::new(RedbStore::open(file("ours"))?))),
            (Engine::Memory, Who::Ours) => Box::new(Ours(Arc::new(MemoryStore::default()))),
            (Engine::Sqlite, Who::Bare) => Box::new(bare::sqlite::Sqlite::open(&file("bare"))?),
            (Engine::Redb, Who::Bare) => Box::new(bare::redb::Redb::open(&file("bare"))?),
            (Engine::Memory, Who::Bare) => Box::new(bare::memory::Memory::default()),
        })
    }
}
