//! How the suite makes stores of this engine.

#![allow(dead_code)] // each test binary uses a part

pub(crate) mod fault;
pub(crate) mod rot;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use contract_tests::harness::{Facts, Harness, Instance, Stranger};
use redb::{Database, TableDefinition};
use store_api::json::checksum;
use store_api::{ErrorKind, Result, Store};
use store_redb::{Options, RedbStore};
use tempfile::TempDir;

use fault::Switch;

pub(crate) const META: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("meta");

pub(crate) struct Redb;

impl Harness for Redb {
    fn name(&self) -> &str {
        "redb"
    }

    fn facts(&self) -> Facts {
        Facts { durable: true, multi_process: false, file: true }
    }

    fn create_waiting(&self, wait: Duration) -> Box<dyn Instance> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.redb");
        let switch = Switch::default();
        let store = Some(open(&path, wait, &switch).unwrap());
        Box::new(Opened { store, path, wait, switch, _directory: directory })
    }

    fn open(&self, place: &Path, wait: Duration) -> Option<Result<Arc<dyn Store>>> {
        Some(open(place, wait, &Switch::default()).map(|store| store as Arc<dyn Store>))
    }

    fn strangers(&self, dir: &Path) -> Vec<Stranger> {
        let newer = dir.join("newer.redb");
        store(&newer);
        mark(&newer, r#"{"application":"agst","schema":1000,"and":"more"}"#);
        let other = dir.join("other.redb");
        store(&other);
        mark(&other, r#"{"application":"another","schema":1}"#);
        let foreign = dir.join("foreign.redb");
        drop(Database::create(&foreign).unwrap());
        let cut = dir.join("cut.redb");
        store(&cut);
        std::fs::OpenOptions::new().write(true).open(&cut).unwrap().set_len(60).unwrap();
        vec![
            Stranger { what: "a newer schema".into(), place: newer, refused_as: ErrorKind::SchemaTooNew },
            Stranger {
                what: "another program's mark".into(),
                place: other,
                refused_as: ErrorKind::NotThisStore,
            },
            Stranger {
                what: "another program's".into(),
                place: foreign,
                refused_as: ErrorKind::NotThisStore,
            },
            Stranger { what: "cut off in its header".into(), place: cut, refused_as: ErrorKind::Corrupt },
        ]
    }
}

fn open(path: &Path, wait: Duration, switch: &Switch) -> Result<Arc<RedbStore>> {
    let options = Options { busy_timeout: wait, ..Options::default() };
    RedbStore::open_over(path, options, switch.beneath()).map(Arc::new)
}

/// Makes an empty store and closes it.
pub(crate) fn store(path: &Path) {
    Store::close(&RedbStore::open(path).unwrap()).unwrap();
}

/// Writes another mark into a store, with the checksum that belongs to it.
pub(crate) fn mark(path: &Path, json: &str) {
    let key: &[u8] = b"mark\0\0";
    let sum = checksum(&[b"meta", key, json.as_bytes()]).to_be_bytes();
    let raw = Database::open(path).unwrap();
    let tx = raw.begin_write().unwrap();
    tx.open_table(META).unwrap().insert(key, [&sum, json.as_bytes()].concat().as_slice()).unwrap();
    tx.commit().unwrap();
    raw.close().unwrap();
}

struct Opened {
    /// `None` only while it is opened again.
    store: Option<Arc<RedbStore>>,
    path: PathBuf,
    wait: Duration,
    switch: Switch,
    _directory: TempDir,
}

impl Instance for Opened {
    fn store(&self) -> Arc<dyn Store> {
        self.store.clone().unwrap()
    }

    fn reopen(&mut self) -> Result<()> {
        self.store = None;
        self.store = Some(open(&self.path, self.wait, &self.switch)?);
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
        Store::close(&*store).unwrap();
        drop(store);
        rot::flip(&self.path, seed);
        Some(open(&self.path, self.wait, &self.switch).map(|store| self.store = Some(store)))
    }

    fn fail_flushes(&mut self, fail: bool) -> bool {
        self.switch.fail(fail);
        true
    }
}
