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

/// What a fuzzer has to offer at least: bytes without any sense in them.
#[test]
fn bytes_stand_for_sequences_that_tell_a_saboteur_apart() {
    let inputs = || {
        (0_u64..50).map(|input| {
            let words = (0..60_u64).map(|n| (input << 32 | n).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            words.flat_map(|word| (word ^ word >> 29).to_le_bytes()).collect::<Vec<u8>>()
        })
    };
    let check = |saboteur: Saboteur| {
        let mut checks =
            inputs().map(|bytes| differential::of_bytes(&[&Saboteur(None), &saboteur], 60, &bytes));
        checks.find_map(Result::err)
    };
    assert_eq!(check(Saboteur(None)), None);
    for fault in [Fault::SeqFromNewest, Fault::DueNotMoved, Fault::WindowOffByOne] {
        let complaint = check(Saboteur(Some(fault))).unwrap_or_default();
        assert!(complaint.starts_with("a sequence fails (page size from "), "{fault:?}: {complaint}");
        assert!(complaint.contains("the engines disagree"), "{fault:?}: {complaint}");
    }
}
