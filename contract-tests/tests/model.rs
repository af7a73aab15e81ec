//! The model against the tiny engine.

use contract_tests::harness::*;
use contract_tests::{model, tiny::TinyStore};
use std::sync::Arc;
struct H;
struct I(Arc<dyn store_api::Store>);
impl Harness for H {
    fn create(&self) -> Box<dyn Instance> {
        Box::new(I(Arc::new(TinyStore::default())))
    }
}
impl Instance for I {
    fn store(&self) -> Arc<dyn store_api::Store> {
        self.0.clone()
    }
    fn reopen(&mut self) -> store_api::Result<()> {
        Ok(())
    }
}

#[test]
fn the_tiny_engine_agrees_with_the_model() {
    model::all_seams(&H);
}
