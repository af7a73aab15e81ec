//! How the suite makes stores of this engine.

pub(crate) mod fault;
pub(crate) mod rot;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use contract_tests::harness::{Facts, Harness, Instance, Stranger};
use store_api::{ErrorKind, Result, Store};
use store_sqlite::{Options, SqliteStore};
use tempfile::TempDir;

pub(crate) struct Sqlite;

impl Harness for Sqlite {
    fn name(&self) -> &str {
        "sqlite"
    }

    fn facts(&self) -> Facts {
        Facts { durable: true, multi_process: true, file: true }
    }

    fn create_waiting(&self, wait: Duration) -> Box<dyn Instance> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.db");
        let disk = fault::Disk::below(directory.path());
        let store = Some(open(&path, wait).unwrap());
        Box::new(Opened { store, path, wait, disk, _directory: directory })
    }

    fn open(&self, place: &Path, wait: Duration) -> Option<Result<Arc<dyn Store>>> {
        Some(open(place, wait).map(|store| store as Arc<dyn Store>))
    }

    fn strangers(&self, dir: &Path) -> Vec<Stranger> {
        let header = |name: &str, pragma: &str| {
            let place = dir.join(name);
            drop(SqliteStore::open(&place).unwrap());
            let raw = rusqlite::Connection::open(&place).unwrap();
            raw.execute_batch("PRAGMA journal_mode = DELETE").unwrap();
            raw.execute_batch(pragma).unwrap();
            place
        };
        let newer = header("newer.db", "PRAGMA user_version = 1000");
        let other = header("other.db", "PRAGMA application_id = 7");
        let cut = header("cut.db", "PRAGMA user_version = 1");
        std::fs::OpenOptions::new().write(true).open(&cut).unwrap().set_len(60).unwrap();
        vec![
            Stranger { what: "a newer schema".into(), place: newer, refused_as: ErrorKind::SchemaTooNew },
            Stranger { what: "another program's".into(), place: other, refused_as: ErrorKind::NotThisStore },
            Stranger { what: "cut off in its header".into(), place: cut, refused_as: ErrorKind::Corrupt },
        ]
    }
}

fn open(path: &Path, wait: Duration) -> Result<Arc<SqliteStore>> {
    let options = Options { busy_timeout: wait, ..Options::default() };
    SqliteStore::open_with(path, options).map(Arc::new)
}

struct Opened {
    /// `None` only while it is opened again.
    store: Option<Arc<SqliteStore>>,
    path: PathBuf,
    wait: Duration,
    disk: fault::Disk,
    _directory: TempDir,
}

impl Instance for Opened {
    fn store(&self) -> Arc<dyn Store> {
        self.store.clone().unwrap()
    }

    fn reopen(&mut self) -> Result<()> {
        self.store = None;
        self.store = Some(open(&self.path, self.wait)?);
        Ok(())
    }

    fn place(&self) -> Option<&Path> {
        Some(&self.path)
    }

    fn files(&self) -> Vec<PathBuf> {
        let directory = self.path.parent().unwrap();
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    fn rot(&mut self, seed: u64) -> Option<Result<()>> {
        let store = self.store.take().unwrap();
        store.close().unwrap();
        drop(store);
        rot::flip(&self.path, seed);
        Some(open(&self.path, self.wait).map(|store| self.store = Some(store)))
    }

    fn fail_flushes(&mut self, fail: bool) -> bool {
        self.disk.fail_flushes(fail);
        true
    }
}
