//! The suite has teeth: each saboteur fails the law that it breaks, and the wrapper that saboteurs are made with,
//! without a fault, keeps all of them.

#![allow(clippy::expect_used)] // in a test, also in its helpers, each is an assertion

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use contract_tests::saboteurs::{Fault, RACES, Saboteur, WITHOUT_SABOTEUR};
use contract_tests::suite::{Check, REGISTRY, Suite};
use contract_tests::{history, laws, model};
use store_api::contract;

/// Makes one test for each saboteur, and the list of them.
macro_rules! saboteurs {
    ($($test:ident = $fault:ident;)*) => {
        $(
            #[test]
            fn $test() {
                is_caught(Fault::$fault);
            }
        )*

        const TESTED: &[(&str, Fault)] = &[$((stringify!($test), Fault::$fault),)*];
    };
}

saboteurs! {
    caught_seq_1_seq_from_newest = SeqFromNewest;
    caught_seq_1_read_error_swallowed = ReadErrorSwallowed;
    caught_seq_2_versions_by_time = VersionsByTime;
    caught_seq_3_unguarded_max = UnguardedMax;
    caught_seq_4_version_id_swallowed = VersionIdSwallowed;
    caught_seq_5_snapshot_follows_save = SnapshotFollowsSave;
    caught_mark_1_due_not_moved = DueNotMoved;
    caught_mark_1_last_run_forgotten = LastRunForgotten;
    caught_mark_2_mark_touches_revision = MarkTouchesRevision;
    caught_mark_2_mark_drops_unknown = MarkDropsUnknown;
    caught_mark_3_mark_is_get_change_save = MarkIsGetChangeSave;
    caught_mark_4_mark_of_nothing = MarkOfNothing;
    caught_mark_5_claim_not_stored = ClaimNotStored;
    caught_mark_5_late_holder_accepted = LateHolderAccepted;
    caught_mark_5_lease_end_off_by_one = LeaseEndOffByOne;
    caught_win_1_add_is_get_change_put = AddIsGetChangePut;
    caught_win_2_window_off_by_one = WindowOffByOne;
    caught_win_3_last_window_reported = LastWindowReported;
    caught_win_4_overflow_saturates = OverflowSaturates;
    caught_win_5_window_in_the_past = WindowInThePast;
    caught_win_6_limit_checked_early = LimitCheckedEarly;
    caught_win_6_key_charged_twice = KeyChargedTwice;
    caught_win_6_hold_never_lapses = HoldNeverLapses;
    caught_win_7_bucket_dropped_early = BucketDroppedEarly;
    caught_doc_1_unknown_dropped = UnknownDropped;
    caught_doc_1_nanos_truncated = NanosTruncated;
    caught_doc_1_body_trimmed = BodyTrimmed;
    caught_doc_2_old_name_kept = OldNameKept;
    caught_doc_3_stale_save_wins = StaleSaveWins;
    caught_doc_3_revision_reused = RevisionReused;
    caught_aud_1_event_seq_from_old_count = EventSeqFromOldCount;
    caught_aud_2_last_finish_wins = LastFinishWins;
    caught_aud_3_parent_purged = ParentPurged;
    caught_aud_3_cycle_walked = CycleWalked;
    caught_ckp_1_stale_checkpoint_wins = StaleCheckpointWins;
    caught_ckp_1_deleted_still_interrupted = DeletedStillInterrupted;
    caught_page_1_pages_unsorted = PagesUnsorted;
    caught_page_1_boundary_dropped = BoundaryDropped;
    caught_txn_1_run_leaks_on_error = RunLeaksOnError;
    caught_txn_1_run_leaks_on_panic = RunLeaksOnPanic;
    caught_txn_1_snapshot_sees_later = SnapshotSeesLater;
    caught_txn_2_refused_edit_stored = RefusedEditStored;
    caught_txn_2_doomed_commits = DoomedCommits;
    caught_txn_2_nested_waits = NestedWaits;
    caught_dur_1_last_commit_forgotten = LastCommitForgotten;
    caught_dur_2_flush_failure_forgotten = FlushFailureForgotten;
    caught_open_1_open_takes_number = OpenTakesNumber;
    caught_open_2_does_not_wait = DoesNotWait;
    caught_rot_1_damage_returned = DamageReturned;
    caught_move_1_last_seq_not_exported = LastSeqNotExported;
    caught_move_1_charges_not_exported = ChargesNotExported;
    caught_sec_1_file_for_everybody = FileForEverybody;
}

/// Runs the law that the fault breaks; it must fail. What it prints is captured with the test that passes.
fn is_caught(fault: Fault) {
    let check = Check::of(fault.law()).expect("a law with a check");
    let kept = catch_unwind(AssertUnwindSafe(|| check.run(&Saboteur(Some(fault)))));
    assert!(kept.is_err(), "{} does not catch an engine that {}", fault.law(), fault.story());
}

mod right {
    //! The wrapper without a fault.
    use super::*;

    laws!(Saboteur(None));
}

#[test]
fn every_fault_has_its_test() {
    for fault in Fault::ALL {
        let id = fault.law().replace('-', "_").to_lowercase();
        let (test, _) = TESTED.iter().find(|(_, tested)| tested == fault).expect("a test of each fault");
        assert!(test.starts_with(&format!("caught_{id}_")), "{test} is named after another law");
    }
}

#[test]
fn every_law_has_a_saboteur_or_a_reason() {
    let sabotaged: BTreeSet<&str> = Fault::ALL.iter().map(|fault| fault.law()).collect();
    let excused: BTreeSet<&str> = WITHOUT_SABOTEUR.iter().map(|(law, _)| *law).collect();
    assert!(sabotaged.is_disjoint(&excused), "a law has both");
    for law in contract::laws() {
        assert!(sabotaged.contains(law.id) || excused.contains(law.id), "{} has neither", law.id);
    }
    assert_eq!(
        sabotaged.len() + excused.len(),
        contract::laws().len(),
        "a law that the contract does not have"
    );
    assert_eq!(REGISTRY.len(), contract::laws().len());
}

/// One fault of each seam and of transactions, and those that cost the model the most sequences to find. It does not
/// find the faults that are races only: it has one thread.
const FOR_THE_MODEL: [Fault; 12] = [
    Fault::SeqFromNewest,
    Fault::SnapshotFollowsSave,
    Fault::DueNotMoved,
    Fault::LeaseEndOffByOne,
    Fault::WindowOffByOne,
    Fault::KeyChargedTwice,
    Fault::OldNameKept,
    Fault::ParentPurged,
    Fault::StaleCheckpointWins,
    Fault::BoundaryDropped,
    Fault::RefusedEditStored,
    Fault::LastSeqNotExported,
];

#[test]
fn the_model_catches_saboteurs_too() {
    for fault in FOR_THE_MODEL {
        let run = || model::run(&Saboteur(Some(fault)), model::CASES, model::OPERATIONS, 1);
        assert!(catch_unwind(AssertUnwindSafe(run)).is_err(), "the model does not catch {fault:?}");
    }
}

#[test]
fn the_concurrent_test_catches_races() {
    for fault in RACES {
        let saboteur = Saboteur(Some(fault));
        let run = || history::threads(&Suite::new(&saboteur));
        assert!(catch_unwind(AssertUnwindSafe(run)).is_err(), "the concurrent test does not catch {fault:?}");
    }
}
