//! The engines that are tortured: those with a file.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use store::{Durability, Result, Store};

/// An engine with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    Sqlite,
    Redb,
}

impl Engine {
    pub(crate) const ALL: [Engine; 2] = [Engine::Sqlite, Engine::Redb];

    /// Its scheme.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Engine::Sqlite => "sqlite",
            Engine::Redb => "redb",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Engine> {
        Engine::ALL.into_iter().find(|engine| engine.name() == name)
    }

    /// The other one.
    pub(crate) fn other(self) -> Engine {
        match self {
            Engine::Sqlite => Engine::Redb,
            Engine::Redb => Engine::Sqlite,
        }
    }

    /// A store as the first version of it wrote it.
    pub(crate) fn of_schema_1(self) -> &'static [u8] {
        match self {
            Engine::Sqlite => include_bytes!("../../store-sqlite/tests/fixtures/schema-1.db"),
            Engine::Redb => include_bytes!("../../store-redb/tests/fixtures/schema-1.redb"),
        }
    }

    /// Opens the store at a path that is taken to the letter, as no URL can.
    pub(crate) fn open(self, path: &Path, durability: Durability) -> Result<Arc<dyn Store>> {
        Ok(match self {
            Engine::Sqlite => {
                Arc::new(store_sqlite::SqliteStore::open_with(path, sqlite_options(durability))?)
            }
            Engine::Redb => Arc::new(store_redb::RedbStore::open_with(path, redb_options(durability))?),
        })
    }
}

/// How SQLite is opened here: one thread reads.
pub(crate) fn sqlite_options(durability: Durability) -> store_sqlite::Options {
    store_sqlite::Options { durability, busy_timeout: PATIENCE, readers: 1, ..Default::default() }
}

/// How redb is opened here: the stores are small.
pub(crate) fn redb_options(durability: Durability) -> store_redb::Options {
    store_redb::Options { durability, busy_timeout: PATIENCE, cache_size: 8 << 20, ..Default::default() }
}

/// How long a call waits. Nobody is ever in the way for longer, so a `Busy` is a fault.
const PATIENCE: Duration = Duration::from_secs(2);
