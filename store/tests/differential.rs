//! All engines of this build at once: one random sequence of operations, every answer equal.

#![allow(clippy::unwrap_used)] // of the helpers: each is an assertion

use std::sync::Arc;
use std::time::Duration;

use contract_tests::harness::{Facts, Harness, Instance};
use contract_tests::model::differential;
use store::{Durability, OpenOptions, Result, Store, engines, open_with};
use tempfile::TempDir;

/// The stores of one engine, opened as hosts do.
struct Engine {
    scheme: &'static str,
}

impl Harness for Engine {
    fn name(&self) -> &str {
        self.scheme
    }

    fn facts(&self) -> Facts {
        Facts { durable: self.scheme != "memory", ..Facts::MEMORY }
    }

    fn create_waiting(&self, wait: Duration) -> Box<dyn Instance> {
        let directory = tempfile::tempdir().unwrap();
        let url = match self.scheme {
            "memory" => "memory:".to_owned(),
            scheme => format!("{scheme}:{}", directory.path().join("store").display()),
        };
        let store = Some(open(&url, wait).unwrap());
        Box::new(Opened { store, url, wait, _directory: directory })
    }
}

struct Opened {
    /// `None` only while it is opened again.
    store: Option<Arc<dyn Store>>,
    url: String,
    wait: Duration,
    _directory: TempDir,
}

impl Instance for Opened {
    fn store(&self) -> Arc<dyn Store> {
        self.store.clone().unwrap()
    }

    fn reopen(&mut self) -> Result<()> {
        self.store = None;
        self.store = Some(open(&self.url, self.wait)?);
        Ok(())
    }
}

/// Opens a store that does not wait for the disk: what a power loss leaves is not asked here.
fn open(url: &str, wait: Duration) -> Result<Arc<dyn Store>> {
    open_with(url, &OpenOptions::default().busy_timeout(wait).durability(Durability::Process))
}

fn compiled_in() -> Vec<Engine> {
    engines().into_iter().map(|scheme| Engine { scheme }).collect()
}

#[test]
fn all_engines_give_the_same_answers() {
    let all = compiled_in();
    let harnesses: Vec<&dyn Harness> = all.iter().map(|engine| engine as &dyn Harness).collect();
    if harnesses.len() > 1 {
        differential::all_seams(&harnesses);
    }
}
