//! The engines that are tortured: those with a file.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
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

    /// Opens the store at a path that is taken to the letter, as no URL can.
    pub(crate) fn open(self, path: &Path, durability: Durability) -> Result<Arc<dyn Store>> {
        Ok(match self {
            Engine::Sqlite => {
                let options = store_sqlite::Options {
                    busy_timeout: PATIENCE,
                    durability,
                    readers: 1,
                    ..store_sqlite::Options::default()
                };
                Arc::new(store_sqlite::SqliteStore::open_with(path, options)?)
            }
            Engine::Redb => {
                let options = store_redb::Options {
                    busy_timeout: PATIENCE,
                    durability,
                    cache_size: 8 << 20,
                    ..store_redb::Options::default()
                };
                Arc::new(store_redb::RedbStore::open_with(path, options)?)
            }
        })
    }
}

/// How long a call waits. Nobody is ever in the way for longer, so a `Busy` is a fault.
const PATIENCE: Duration = Duration::from_secs(2);

/// The path with a suffix to its name.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}
