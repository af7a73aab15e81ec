//! The laws of the contract on the in-process engine.

use std::sync::Arc;
use std::time::Duration;

use contract_tests::harness::{Facts, Harness, Instance};
use store_api::{Result, Store};
use store_memory::{MemoryStore, Options};

struct Memory;

struct Open {
    store: Arc<MemoryStore>,
    options: Options,
}

impl Harness for Memory {
    fn name(&self) -> &str {
        "memory"
    }

    fn facts(&self) -> Facts {
        Facts::MEMORY
    }

    fn create_waiting(&self, wait: Duration) -> Box<dyn Instance> {
        let options = Options { busy_timeout: wait };
        Box::new(Open { store: Arc::new(MemoryStore::new(options)), options })
    }
}

impl Instance for Open {
    fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    fn reopen(&mut self) -> Result<()> {
        self.store = Arc::new(MemoryStore::new(self.options));
        Ok(())
    }
}

contract_tests::laws!(Memory);
