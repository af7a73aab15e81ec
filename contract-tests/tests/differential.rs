//! The differential test has teeth: a faulty engine beside a right one is told apart from it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use contract_tests::model::differential;
use contract_tests::saboteurs::{Fault, Saboteur};

/// Runs the test on a right engine and the saboteur beside it, and gives what it fails with. The right one comes
/// first: its answers are the ones that the model is asked about, so the model has nothing to complain of.
fn complaint(saboteur: Saboteur) -> Option<String> {
    let run = || differential::run(&[&Saboteur(None), &saboteur], 64, 60, 1);
    let panic = catch_unwind(AssertUnwindSafe(run)).err()?;
    Some(panic.downcast_ref::<String>().cloned().unwrap_or_default())
}

#[test]
fn right_engines_agree() {
    assert_eq!(complaint(Saboteur(None)), None);
}

/// One fault of each seam, of pages, of transactions and of exports.
const FAULTS: [Fault; 8] = [
    Fault::SeqFromNewest,
    Fault::DueNotMoved,
    Fault::WindowOffByOne,
    Fault::LastFinishWins,
    Fault::StaleCheckpointWins,
    Fault::BoundaryDropped,
    Fault::RunLeaksOnError,
    Fault::ChargesNotExported,
];

#[test]
fn a_saboteur_is_told_apart_by_its_answers() {
    for fault in FAULTS {
        let complaint = complaint(Saboteur(Some(fault))).unwrap_or_default();
        let story = fault.story();
        assert!(complaint.contains("the engines disagree"), "{story}: {complaint}");
        assert!(complaint.contains(&format!("  {story}: ")), "{story}: {complaint}");
    }
}
