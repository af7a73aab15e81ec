//! The list of the laws, and how one is run: see [`laws!`](crate::laws!) for the tests, [`REGISTRY`] for the list.

use std::fmt;
use std::io::Write;
use std::thread;

use store_api::contract::{self, Law};

use crate::harness::{Facts, Harness, Instance};

/// Calls a macro with the path of each law's check. This is the one list of the suite: the tests and the
/// [`REGISTRY`] are both made from it. A check is named after its law, in lower case with underscores.
#[doc(hidden)]
#[macro_export]
macro_rules! __each_law {
    ($callback:path, $($args:tt)*) => {
        $callback! { $($args)*
            versions::seq_1_numbers_have_no_gap;
            versions::seq_2_newest_first_by_seq;
            versions::seq_3_concurrent_appends;
            versions::seq_4_version_ids_are_taken_once;
            versions::seq_5_snapshots_never_change;
            schedules::mark_1_both_times_move_together;
            schedules::mark_2_nothing_else_is_touched;
            schedules::mark_3_marks_and_edits_both_survive;
            schedules::mark_4_missing_and_finished_schedules;
            schedules::mark_5_each_occurrence_has_one_claimant;
            budgets::win_1_adds_sum_exactly;
            budgets::win_2_the_window_turns_to_the_nanosecond;
            budgets::win_3_reads_write_nothing;
            budgets::win_4_only_amounts_are_charged;
            budgets::win_5_clocks_that_step_back;
            budgets::win_6_limits_holds_and_keys;
            budgets::win_7_sliding_usage_is_the_sum;
            documents::doc_1_what_was_saved_is_read;
            documents::doc_2_names_are_unique;
            documents::doc_3_old_revisions_are_refused;
            audit::aud_1_events_are_numbered_without_gap;
            audit::aud_2_a_run_finishes_once;
            audit::aud_3_families_and_purges;
            checkpoints::ckp_1_checkpoints_never_go_back;
            pages::page_1_pages_joined_are_the_list;
            transactions::txn_1_all_or_nothing;
            transactions::txn_2_failures_stand_alone;
            durability::dur_1_acknowledged_means_there;
            durability::dur_2_after_a_failed_flush;
            opening::open_1_only_its_own_and_untouched;
            opening::open_2_waits_then_busy;
            damage::rot_1_damage_is_reported;
            moves::move_1_export_import_export;
            opening::sec_1_secrets_stay_secret;
        }
    };
}

/// Writes one `#[test]` for each law, for the engine of a harness: `contract_tests::laws!(MyHarness::new());`.
///
/// The expression is evaluated in each test. Use it once in a test binary, or once in each of several modules. It
/// also writes the model-based test, the concurrent tests, and `worker_process`, which is no law: laws about several
/// processes run it in a child process, and by itself it does nothing.
#[macro_export]
macro_rules! laws {
    ($harness:expr) => {
        $crate::__each_law! { $crate::__law_tests, $harness; }

        #[test]
        fn model_all_seams() {
            $crate::model::all_seams(&$harness);
        }

        #[test]
        fn history_threads() {
            $crate::history::threads(&$crate::suite::Suite::new(&$harness));
        }

        #[test]
        fn history_processes() {
            let suite =
                $crate::suite::Suite::new(&$harness).with_worker(concat!(module_path!(), "::worker_process"));
            $crate::history::processes(&suite);
        }

        #[test]
        fn worker_process() {
            $crate::process::work(&$harness);
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __law_tests {
    ($harness:expr; $($file:ident::$law:ident;)*) => {$(
        #[test]
        fn $law() {
            let suite = $crate::suite::Suite::new(&$harness)
                .with_worker(concat!(module_path!(), "::worker_process"));
            $crate::suite::check(stringify!($law), $crate::laws::$file::$law, &suite);
        }
    )*};
}

macro_rules! registry {
    (; $($file:ident::$law:ident;)*) => {
        /// The suite's own list: every law with its check, in the order of the contract.
        pub const REGISTRY: &[Check] =
            &[$(Check { name: stringify!($law), run: crate::laws::$file::$law },)*];
    };
}

__each_law! { registry, ; }

/// The check of one law.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// Its name, which begins with the law's id: `seq_3_concurrent_appends`.
    pub name: &'static str,
    run: fn(&Suite<'_>),
}

impl Check {
    /// The law that it checks.
    ///
    /// # Panics
    /// When the contract has no such law.
    pub fn law(&self) -> Law {
        law_of(self.name)
    }

    /// The check of a law, by the law's id (`SEQ-3`).
    pub fn of(law: &str) -> Option<Check> {
        REGISTRY.iter().copied().find(|check| check.law().id == law)
    }

    /// Checks the engine of a harness, without child processes.
    ///
    /// # Panics
    /// When the engine breaks the law.
    pub fn run(&self, harness: &dyn Harness) {
        check(self.name, self.run, &Suite::new(harness));
    }
}

/// The law whose id a check's name begins with.
fn law_of(name: &str) -> Law {
    let id: Vec<&str> = name.split('_').take(2).collect();
    let id = id.join("-").to_uppercase();
    contract::laws().into_iter().find(|law| law.id == id).unwrap_or_else(|| panic!("no law {id} for {name}"))
}

/// An engine under test: what each law's check is given.
pub struct Suite<'h> {
    harness: &'h dyn Harness,
    worker: Option<&'static str>,
}

impl fmt::Debug for Suite<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Suite({})", self.harness.name())
    }
}

impl<'h> Suite<'h> {
    /// A suite that starts no child processes.
    pub fn new(harness: &'h dyn Harness) -> Self {
        Suite { harness, worker: None }
    }

    /// With the path of the test that is run in child processes.
    #[must_use]
    pub fn with_worker(self, test: &'static str) -> Self {
        Suite { worker: Some(test), ..self }
    }

    pub(crate) fn harness(&self) -> &'h dyn Harness {
        self.harness
    }

    pub(crate) fn facts(&self) -> Facts {
        self.harness.facts()
    }

    pub(crate) fn create(&self) -> Box<dyn Instance> {
        self.harness.create()
    }

    /// The name that the test runner knows the worker by: its path without the crate.
    pub(crate) fn worker(&self) -> Option<&'static str> {
        self.worker.map(|path| path.split_once("::").map_or(path, |(_, test)| test))
    }

    /// Says that a part of a law is not checked, and why: also when the test passes, so past the test runner's
    /// capture.
    pub(crate) fn exempt(&self, law: &str, part: &str, fact: &str) {
        let line = format!("{}: {law} exempt: {part} ({fact})\n", self.harness.name());
        std::io::stderr().write_all(line.as_bytes()).expect("the standard error takes a line");
    }
}

/// Runs the check of a law; when it fails, says which promise was broken.
#[doc(hidden)]
pub fn check(name: &str, run: fn(&Suite<'_>), suite: &Suite<'_>) {
    let _promise = Promise { law: law_of(name), engine: suite.harness.name() };
    run(suite);
}

struct Promise<'a> {
    law: Law,
    engine: &'a str,
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let Law { id, promise } = self.law;
            eprintln!("\n{} breaks {id}: {promise}\n", self.engine);
        }
    }
}
