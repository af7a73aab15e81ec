//! The queue under every interleaving that there is, of a few writers:
//! `RUSTFLAGS="--cfg loom" cargo test --release -p commit-queue --test every_schedule`. Where those are too many, under
//! all in which no more than so many threads are preempted. With `FULL` set, under more of them.
#![cfg(loom)]
#![allow(clippy::unwrap_used, reason = "scenarios of tests")]

mod common;

use std::io::Write as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Whether there is time for more than the usual.
fn is_full() -> bool {
    std::env::var_os("FULL").is_some()
}

/// Goes through all schedules, or all in which no more than so many threads are preempted, and says how many those are.
fn every(preemptions: Option<usize>, scenario: impl Fn() + Sync + Send + 'static) {
    let tried = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&tried);
    let mut model = loom::model::Builder::new();
    model.preemption_bound = preemptions;
    model.check(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        scenario();
    });
    say(tried.load(Ordering::Relaxed));
}

/// Says how many schedules were tried.
#[allow(clippy::explicit_write, reason = "the test runner would keep what is printed for itself")]
fn say(tried: u64) {
    writeln!(std::io::stdout(), "schedules tried: {tried}").unwrap();
}

#[test]
fn no_schedule_of_two_writers_loses_a_write_or_a_wake_up() {
    every(None, || drop(common::run(2, 1, None)));
}

/// Of the numbers five and six the first is refused after it was written, of seven and eight the first panics.
#[test]
fn no_schedule_of_two_writers_undoes_the_other_ones() {
    every(None, || drop(common::run_after(4, 2, 1)));
    every(None, || drop(common::run_after(6, 2, 1)));
}

#[test]
fn no_schedule_of_two_writers_acknowledges_a_flush_that_failed() {
    every(None, || drop(common::run(2, 1, Some(2))));
}

#[test]
fn no_schedule_of_writers_that_come_back_does_either() {
    every(if is_full() { None } else { Some(4) }, || drop(common::run(2, 2, Some(4))));
}

#[test]
fn no_schedule_of_three_writers_does_either() {
    every(Some(if is_full() { 4 } else { 3 }), || drop(common::run(3, 1, None)));
    every(Some(if is_full() { 3 } else { 2 }), || drop(common::run(3, 1, Some(2))));
    every(Some(if is_full() { 3 } else { 2 }), || drop(common::run_after(4, 3, 1)));
}

/// The control: a queue whose writers may miss their wake-up is found out. In a process of its own, because one that
/// unwinds while its job is lent ends.
#[test]
fn a_schedule_finds_a_wake_up_that_is_missed() {
    const CHILD: &str = "MISSES_WAKE_UPS";
    if std::env::var_os(CHILD).is_some() {
        commit_queue::MISSES_WAKE_UPS.store(true, Ordering::SeqCst);
        every(None, || {
            say(1);
            drop(common::run(2, 1, None));
        });
        return;
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    let arguments = ["--exact", "--nocapture", "a_schedule_finds_a_wake_up_that_is_missed"];
    let output = child.args(arguments).env(CHILD, "1").env("RUST_BACKTRACE", "0").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("deadlock; threads"), "{said}");
    say(String::from_utf8_lossy(&output.stdout).matches("schedules tried").count() as u64);
}
