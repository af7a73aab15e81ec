//! Schedules: what a host computes about time, and the run state that marks and claims move.

use chrono::{DateTime, Utc};

use crate::json::{Extra, Weigh};
use crate::{Lease, Result, time};

/// When a definition runs.
///
/// The expression and the zone are the host's, opaque to a store: the host computes `next_run_at` from them.
/// `next_run_at`, `last_run_at` and `lease` are the *run state*: an engine keeps them beside the document, in one
/// place, moved by marks and claims; what a host reads is put together by [`assemble`](crate::rules::assemble).
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct Schedule {
    /// The expression, in the host's own syntax.
    pub cron: String,
    /// The zone that the expression is meant in, usually an IANA name; empty for UTC.
    #[serde(default)]
    pub time_zone: String,
    /// When it is due next, or `None` when it is on no due list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_run_at: Option<DateTime<Utc>>,
    /// When it last ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run_at: Option<DateTime<Utc>>,
    /// Who has claimed the occurrence that is due. Only claims set it; what a save says of it is ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

impl Schedule {
    pub(crate) const FIELDS: &'static [&'static str] =
        &["cron", "time_zone", "next_run_at", "last_run_at", "lease"];

    /// A schedule that is due next at `next`.
    pub fn new(cron: impl Into<String>, time_zone: impl Into<String>, next: Option<DateTime<Utc>>) -> Self {
        Schedule { cron: cron.into(), time_zone: time_zone.into(), next_run_at: next, ..Schedule::default() }
    }

    /// The run state, apart from the rest.
    pub fn run_state(&self) -> RunState {
        RunState { next_run_at: self.next_run_at, last_run_at: self.last_run_at, lease: self.lease.clone() }
    }

    /// Puts a run state in.
    pub fn set_run_state(&mut self, state: RunState) {
        let RunState { next_run_at, last_run_at, lease } = state;
        (self.next_run_at, self.last_run_at, self.lease) = (next_run_at, last_run_at, lease);
    }

    /// Whether two schedules say the same time: the run state of one is then good for the other.
    pub fn same_times(&self, other: &Schedule) -> bool {
        self.cron == other.cron && self.time_zone == other.time_zone
    }

    pub(crate) fn weigh(&self, weigh: &mut Weigh) -> Result<()> {
        weigh.text("schedule.cron", &self.cron)?;
        weigh.text("schedule.time_zone", &self.time_zone)?;
        weigh.extra("schedule", &self.extra, Schedule::FIELDS)?;
        time::check("schedule.next_run_at", self.next_run_at)?;
        time::check("schedule.last_run_at", self.last_run_at)?;
        time::check("schedule.lease.until", self.lease.as_ref().map(|lease| lease.until))
    }
}

/// What marks and claims move: kept beside the document, in one place, under a checksum of its own.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct RunState {
    /// When it is due next.
    pub next_run_at: Option<DateTime<Utc>>,
    /// When it last ran.
    pub last_run_at: Option<DateTime<Utc>>,
    /// Who has claimed the occurrence that is due.
    pub lease: Option<Lease>,
}

impl RunState {
    /// After a mark: both times move together and the occurrence's lease ends (law MARK-1).
    pub fn marked(ran_at: DateTime<Utc>, next: Option<DateTime<Utc>>) -> RunState {
        RunState { next_run_at: next, last_run_at: Some(ran_at), lease: None }
    }

    /// After a reschedule: another occurrence is due, so a lease on the old one ends.
    pub fn rescheduled(&self, next: Option<DateTime<Utc>>) -> RunState {
        RunState { next_run_at: next, last_run_at: self.last_run_at, lease: None }
    }

    /// Whether it is on the due list at `now`.
    pub fn is_due(&self, now: DateTime<Utc>) -> bool {
        self.next_run_at.is_some_and(|next| next <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LeaseToken, WorkerId, time::from_nanos};

    fn leased() -> Schedule {
        let lease =
            Lease { worker: WorkerId::new("w").unwrap(), until: from_nanos(99), token: LeaseToken(1) };
        let last_run_at = Some(from_nanos(5));
        Schedule { last_run_at, lease: Some(lease), ..Schedule::new("daily", "UTC", Some(from_nanos(10))) }
    }

    #[test]
    fn a_run_state_is_taken_out_and_put_in() {
        let schedule = leased();
        let mut other = Schedule::new("daily", "UTC", None);
        other.set_run_state(schedule.run_state());
        assert_eq!(other, schedule);
    }

    #[test]
    fn what_is_due_is_due_from_its_time_on() {
        let state = leased().run_state();
        assert!(state.is_due(from_nanos(10)) && state.is_due(from_nanos(11)) && !state.is_due(from_nanos(9)));
        assert!(!RunState::default().is_due(from_nanos(10)));
    }

    #[test]
    fn marks_move_both_times_and_reschedules_one_and_both_end_the_lease() {
        let next = Some(from_nanos(20));
        let marked = RunState { next_run_at: next, last_run_at: Some(from_nanos(11)), lease: None };
        assert_eq!(RunState::marked(from_nanos(11), next), marked);
        let rescheduled = RunState { next_run_at: next, last_run_at: Some(from_nanos(5)), lease: None };
        assert_eq!(leased().run_state().rescheduled(next), rescheduled);
    }

    #[test]
    fn schedules_of_the_same_times_have_both_expression_and_zone_in_common() {
        let schedule = leased();
        assert!(schedule.same_times(&Schedule::new("daily", "UTC", None)));
        assert!(!schedule.same_times(&Schedule::new("hourly", "UTC", None)));
        assert!(!schedule.same_times(&Schedule::new("daily", "", None)));
    }

    #[test]
    fn no_time_is_outside_the_range() {
        let weighed = |schedule: &Schedule| schedule.weigh(&mut Weigh::new());
        assert!(weighed(&leased()).is_ok());
        let far = DateTime::<Utc>::MAX_UTC;
        let mut lease = leased();
        lease.lease.as_mut().unwrap().until = far;
        for schedule in [
            Schedule { next_run_at: Some(far), ..leased() },
            Schedule { last_run_at: Some(far), ..leased() },
            Schedule { cron: "a\0".into(), ..leased() },
            Schedule { time_zone: "a\0".into(), ..leased() },
            lease,
        ] {
            assert!(weighed(&schedule).is_err(), "{schedule:?}");
        }
    }
}
