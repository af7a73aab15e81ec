//! The model on sequences of other lengths and seeds than those of `model_all_seams`, which every engine runs.

use contract_tests::model;
use contract_tests::saboteurs::Saboteur;

#[test]
fn short_sequences_of_many_seeds_agree() {
    for seed in 2..12 {
        model::run(&Saboteur(None), 20, 15, seed);
    }
}

#[test]
fn long_sequences_agree() {
    model::run(&Saboteur(None), 8, 1_000, 12);
}
