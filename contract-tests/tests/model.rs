//! The model against the tiny engine.

use contract_tests::model;
use contract_tests::saboteurs::Saboteur;

#[test]
fn the_tiny_engine_agrees_with_the_model() {
    model::all_seams(&Saboteur(None));
}
