//! The model: what a store should hold, in the plainest form that the contract can be said in. It shares the
//! record types with `store-api` and none of its rules: each rule is written here a second time, another way, with
//! its own constants, so that a mistake in either shows.

use std::collections::BTreeMap;

use chrono::{DateTime, Timelike, Utc};
use store_api::{Agent, Definition, Entity, Error, ErrorKind, Skill};

use super::audit::RunModel;
use super::budget::AccountModel;
use super::catalog::Shelf;
use super::checkpoint::CheckpointModel;
use super::op::{Expected, Token, When};

pub(super) type Time = DateTime<Utc>;

/// Nanoseconds: the model counts in `i128`, so that nothing overflows.
pub(super) type Nanos = i128;

/// When sequences begin: no round number in any unit.
pub(super) const BEGIN: i64 = 1_700_000_000_123_456_789;

/// Everything.
#[derive(Clone)]
pub(super) struct World {
    pub(super) clock: i64,
    /// The last revision or token that was given.
    pub(super) counter: u64,
    pub(super) skills: Shelf<Skill>,
    pub(super) agents: Shelf<Agent>,
    pub(super) accounts: BTreeMap<[&'static str; 3], AccountModel>,
    pub(super) runs: BTreeMap<String, RunModel>,
    pub(super) checkpoints: BTreeMap<String, CheckpointModel>,
}

/// An error as the model foresees it: the kind, and the details that every engine must agree on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    NotFound(Entity, String),
    AlreadyExists(Entity, &'static str),
    Conflict(Entity, String),
    InvalidInput,
    LeaseLost(Entity, String),
    LimitExceeded { used: u64, limit: u64 },
    Other(ErrorKind),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        match error {
            Error::NotFound { what, id } => Refusal::NotFound(what, id),
            Error::AlreadyExists { what, field, .. } => Refusal::AlreadyExists(what, field),
            Error::Conflict { what, id, .. } => Refusal::Conflict(what, id),
            Error::InvalidInput { .. } => Refusal::InvalidInput,
            Error::LeaseLost { what, id } => Refusal::LeaseLost(what, id),
            Error::LimitExceeded { used, limit } => {
                Refusal::LimitExceeded { used: used.micros(), limit: limit.micros() }
            }
            other => Refusal::Other(other.kind()),
        }
    }
}

/// What the model answers.
pub(super) type Answer<T> = Result<T, Refusal>;

/// The time in nanoseconds, if a store takes it.
pub(super) fn nanos(time: Time) -> Answer<Nanos> {
    if time.nanosecond() > 999_999_999 {
        return Err(Refusal::InvalidInput);
    }
    let nanos = Nanos::from(time.timestamp()) * 1_000_000_000 + Nanos::from(time.nanosecond());
    let fits = (-(1 << 63)..(1 << 63)).contains(&nanos);
    if fits { Ok(nanos) } else { Err(Refusal::InvalidInput) }
}

pub(super) fn check_times(times: &[Option<Time>]) -> Answer<()> {
    times.iter().flatten().try_for_each(|time| nanos(*time).map(drop))
}

pub(super) fn time(nanos: Nanos) -> Time {
    DateTime::from_timestamp_nanos(i64::try_from(nanos).unwrap())
}

/// How many records one claim may take.
pub(super) fn check_max(max: usize) -> Answer<()> {
    if max == 0 || max > 1000 { Err(Refusal::InvalidInput) } else { Ok(()) }
}

impl World {
    pub(super) fn new() -> Self {
        World {
            clock: BEGIN,
            counter: 0,
            skills: Shelf::default(),
            agents: Shelf::default(),
            accounts: BTreeMap::new(),
            runs: BTreeMap::new(),
            checkpoints: BTreeMap::new(),
        }
    }

    /// The next revision or token.
    pub(super) fn number(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// All moments at which an answer may change.
    fn edges(&self) -> Vec<Nanos> {
        let mut edges = Vec::new();
        self.skills.edges(&mut edges);
        self.agents.edges(&mut edges);
        self.accounts.values().for_each(|account| account.edges(&mut edges));
        self.runs.values().for_each(|run| run.edges(&mut edges));
        self.checkpoints.values().for_each(|checkpoint| checkpoint.edges(&mut edges));
        edges.sort_unstable();
        edges.dedup();
        edges
    }

    pub(super) fn when(&self, when: When) -> Time {
        match when {
            When::Now => time(Nanos::from(self.clock)),
            When::Near(by) => time(Nanos::from(self.clock + by)),
            When::Edge(index, by) => {
                let edges = self.edges();
                let edge = edges.get(usize::from(index) % edges.len().max(1));
                time(edge.copied().unwrap_or(Nanos::from(self.clock)) + Nanos::from(by))
            }
            When::Leap => "2016-12-31T23:59:60.5Z".parse().unwrap(),
            When::TooLate => "2262-04-11T23:47:16.854775808Z".parse().unwrap(),
        }
    }

    pub(super) fn maybe(&self, when: Option<When>) -> Option<Time> {
        when.map(|when| self.when(when))
    }

    /// A number that was given to some record at some time; also zero, and one that was not given yet.
    pub(super) fn old_number(&self, index: u8) -> u64 {
        u64::from(index) % (self.counter + 2)
    }

    pub(super) fn token(&self, token: Token, current: Option<u64>) -> store_api::LeaseToken {
        store_api::LeaseToken(match token {
            Token::Current => current.unwrap_or(0),
            Token::Old(index) => self.old_number(index),
        })
    }

    pub(super) fn expect(&self, expected: Expected, current: Option<u64>) -> store_api::Expect {
        use store_api::{Expect, Revision};
        match expected {
            Expected::Any => Expect::Any,
            Expected::Absent => Expect::Absent,
            Expected::Current => current.map_or(Expect::Any, |revision| Expect::Revision(Revision(revision))),
            Expected::Old(index) => Expect::Revision(Revision(self.old_number(index))),
        }
    }
}

/// Leases in the model: worker, end and token.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) worker: store_api::WorkerId,
    pub(super) until: Nanos,
    pub(super) token: u64,
}

impl Held {
    pub(super) fn shown(&self) -> store_api::Lease {
        store_api::Lease {
            worker: self.worker.clone(),
            until: time(self.until),
            token: store_api::LeaseToken(self.token),
        }
    }

    /// Whether the lease is over at `now`: at its end, it is.
    pub(super) fn over(&self, now: Nanos) -> bool {
        self.until <= now
    }
}

/// When a lease that is taken at `now` ends. A week is the longest.
pub(super) fn lease_end(now: Time, length: std::time::Duration) -> Answer<Nanos> {
    let length = Nanos::try_from(length.as_nanos()).unwrap();
    if length == 0 || length > 604_800_000_000_000 {
        return Err(Refusal::InvalidInput);
    }
    let end = nanos(now)? + length;
    if end >= 1 << 63 { Err(Refusal::InvalidInput) } else { Ok(end) }
}

/// The lease that this token holds at `now`.
pub(super) fn held(lease: Option<&Held>, token: u64, now: Nanos, what: Entity, id: &str) -> Answer<Held> {
    match lease {
        Some(lease) if lease.token == token && !lease.over(now) => Ok(lease.clone()),
        _ => Err(Refusal::LeaseLost(what, id.to_owned())),
    }
}

/// A kind of definition, and where the world keeps it.
pub(super) trait Shelved: Definition {
    const WHAT: Entity;
    fn shelf(world: &World) -> &Shelf<Self>;
    fn shelf_mut(world: &mut World) -> &mut Shelf<Self>;
    fn make(world: &World, doc: &super::op::Doc) -> Self;
    /// What a store refuses to take.
    fn is_flawed(&self) -> bool;
    fn set_body(&mut self, body: String);
    fn set_id(&mut self, id: u8);
    fn set_name(&mut self, name: store_api::Name);
    fn set_schedule(&mut self, schedule: Option<store_api::Schedule>);
}
