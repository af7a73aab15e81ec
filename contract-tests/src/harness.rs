//! Placeholder by "model" until the real harness is here: overwrite it.
use std::sync::Arc;
use store_api::{Result, Store};
pub trait Harness: Sync {
    fn create(&self) -> Box<dyn Instance>;
}
pub trait Instance {
    fn store(&self) -> Arc<dyn Store>;
    fn reopen(&mut self) -> Result<()>;
}
