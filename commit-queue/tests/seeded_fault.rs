//! The control of `schedules.rs`: a queue whose writers may miss their wake-up is found out. In a binary of its own,
//! because the fault is the whole process's.
#![cfg(shuttle)]

#[allow(clippy::unwrap_used, reason = "a scenario of tests")]
mod common;

use std::sync::atomic::Ordering;

#[test]
#[should_panic(expected = "deadlock")]
fn a_schedule_finds_a_wake_up_that_is_missed() {
    commit_queue::MISSES_WAKE_UPS.store(true, Ordering::SeqCst);
    let schedules = std::env::var("SCHEDULES").map_or(5_000, |text| text.parse().unwrap());
    shuttle::check_random(|| drop(common::run(3, 3, None)), schedules);
}
