//! What a child says on its output, a line each. It says that something is done only after the call returned.

use serde::{Deserialize, Serialize};

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Said {
    /// It is about to do what it was told.
    Begins,
    /// It has opened its store.
    Opened,
    /// A write was acknowledged.
    Ack(Ack),
    /// All that it was told is done.
    Done,
    /// The store did what it must not.
    Fault(String),
}

/// An acknowledged write, with what it was told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Ack {
    Version {
        id: String,
        seq: u64,
    },
    Event {
        id: String,
        seq: u64,
    },
    /// A version, an event and a charge in one transaction.
    Unit {
        id: String,
    },
    /// What was used after a charge of 1.
    Charge {
        total: u64,
    },
    /// The number that an edit brought up to this.
    Edit {
        number: u64,
    },
    Checkpoint {
        run: String,
        iteration: u64,
    },
    Claim {
        skill: String,
        token: u64,
        now: i64,
    },
    Finish {
        skill: String,
        now: i64,
    },
    /// A run with its events, written by the process of this number. Later processes purge it.
    Run {
        id: String,
        process: u64,
    },
}
