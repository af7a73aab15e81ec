//! The laws, and the model, run on this engine.

#![allow(clippy::unwrap_used)] // of the helpers: each is an assertion

mod harness;

contract_tests::laws!(crate::harness::Sqlite);

#[test]
fn the_engine_agrees_with_the_model() {
    contract_tests::model::all_seams(&harness::Sqlite);
}
