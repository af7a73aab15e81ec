//! The suite on the tiny engine: the laws hold there, so a failure elsewhere is the engine's.

use std::sync::Arc;
use std::time::Duration;

use contract_tests::harness::{Facts, Harness, Instance};
use contract_tests::tiny::TinyStore;
use store_api::{Result, Store};

struct Tiny;

struct TinyInstance {
    store: Arc<TinyStore>,
    wait: Duration,
}

impl Harness for Tiny {
    fn name(&self) -> &str {
        "tiny"
    }

    fn facts(&self) -> Facts {
        Facts::MEMORY
    }

    fn create_waiting(&self, wait: Duration) -> Box<dyn Instance> {
        Box::new(TinyInstance { store: Arc::new(TinyStore::new(wait)), wait })
    }
}

impl Instance for TinyInstance {
    fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    fn reopen(&mut self) -> Result<()> {
        self.store = Arc::new(TinyStore::new(self.wait));
        Ok(())
    }
}

contract_tests::laws!(Tiny);
