//! The queue under every interleaving that a random scheduler finds in so many tries:
//! `RUSTFLAGS="--cfg shuttle" cargo test -p commit-queue`. `SCHEDULES` sets how many.
#![cfg(shuttle)]

#[allow(clippy::unwrap_used, reason = "a scenario of tests")]
mod common;

fn schedules() -> usize {
    std::env::var("SCHEDULES").map_or(5_000, |text| text.parse().unwrap())
}

#[test]
fn no_schedule_loses_a_write_or_a_wake_up() {
    shuttle::check_random(|| drop(common::run(3, 3, None)), schedules());
}

#[test]
fn no_schedule_does_what_a_writer_has_given_up() {
    let patience = std::time::Duration::from_micros(150);
    shuttle::check_random(move || drop(common::run_within(patience, 0, 3, 3, None)), schedules());
}

#[test]
fn no_schedule_acknowledges_a_flush_that_failed() {
    shuttle::check_random(|| drop(common::run(3, 3, Some(4))), schedules());
}

#[test]
fn no_schedule_with_preemptions_at_the_worst_points_either() {
    shuttle::check_pct(|| drop(common::run(3, 2, None)), schedules(), 3);
}
