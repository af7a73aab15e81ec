//! What each checksum covers: the record's table and key, then every value that must not change unnoticed.

use store_api::budget::{AccountKey, Charged};
use store_api::json::checksum;
use store_api::{Error, Kind, Lease, Result, RunState, time};

/// Compares a stored checksum with the one of what was read.
///
/// # Errors
/// `Corrupt` naming `what` (law ROT-1).
pub(crate) fn check(what: impl FnOnce() -> String, stored: i64, found: i64) -> Result<()> {
    if stored == found {
        return Ok(());
    }
    Err(Error::corrupt(what(), format!("checksum {found:016x}, stored {stored:016x}")))
}

fn sum(parts: &[&[u8]]) -> i64 {
    checksum(parts).cast_signed()
}

pub(crate) fn counter(value: i64) -> i64 {
    sum(&[b"meta", b"counter", &value.to_le_bytes()])
}

pub(crate) fn document(kind: Kind, id: &str, revision: i64, doc: &str) -> i64 {
    sum(&[b"definitions.doc", &[kind.code()], id.as_bytes(), &revision.to_le_bytes(), doc.as_bytes()])
}

pub(crate) fn last_seq(kind: Kind, id: &str, last_seq: i64) -> i64 {
    sum(&[b"definitions.last_seq", &[kind.code()], id.as_bytes(), &last_seq.to_le_bytes()])
}

/// Needs nothing but the key and the new values, so that a mark is one statement that reads nothing.
pub(crate) fn run_state(kind: Kind, id: &str, state: &RunColumns<'_>) -> i64 {
    let (worker, until, token) = state.lease.parts();
    sum(&[
        b"definitions.run",
        &[kind.code()],
        id.as_bytes(),
        &optional(state.next_run_at),
        &optional(state.last_run_at),
        worker,
        &until,
        &token,
    ])
}

pub(crate) fn version(kind: Kind, definition: &str, seq: i64, id: &str, pinned: bool, doc: &str) -> i64 {
    sum(&[
        b"versions",
        &[kind.code()],
        definition.as_bytes(),
        &seq.to_le_bytes(),
        id.as_bytes(),
        &[u8::from(pinned)],
        doc.as_bytes(),
    ])
}

pub(crate) fn account((caller, meter, window): &AccountKey, ledger: &str) -> i64 {
    sum(&[b"accounts", caller.as_bytes(), meter.as_bytes(), window.as_bytes(), ledger.as_bytes()])
}

pub(crate) fn charge((caller, meter, window): &AccountKey, key: &str, charged: &Charged) -> i64 {
    sum(&[
        b"charges",
        caller.as_bytes(),
        meter.as_bytes(),
        window.as_bytes(),
        key.as_bytes(),
        &charged.amount.micros().to_le_bytes(),
        &charged.expires_at.to_le_bytes(),
    ])
}

pub(crate) fn run(id: &str, doc: &str) -> i64 {
    sum(&[b"runs", id.as_bytes(), doc.as_bytes()])
}

pub(crate) fn event(run: &str, seq: i64, kind: &str, at: i64, payload: &str) -> i64 {
    sum(&[
        b"events",
        run.as_bytes(),
        &seq.to_le_bytes(),
        kind.as_bytes(),
        &at.to_le_bytes(),
        payload.as_bytes(),
    ])
}

pub(crate) fn checkpoint(run: &str, doc: &str) -> i64 {
    sum(&[b"checkpoints.doc", run.as_bytes(), doc.as_bytes()])
}

pub(crate) fn checkpoint_head(run: &str, iteration: i64, lease: &LeaseColumns<'_>) -> i64 {
    let (worker, until, token) = lease.parts();
    sum(&[b"checkpoints.head", run.as_bytes(), &iteration.to_le_bytes(), worker, &until, &token])
}

/// A number that may be absent: whether it is there, then the number.
fn optional(value: Option<i64>) -> [u8; 9] {
    let mut bytes = [0; 9];
    if let Some(value) = value {
        bytes[0] = 1;
        bytes[1..].copy_from_slice(&value.to_le_bytes());
    }
    bytes
}

/// A lease as it stands in columns. Either all three are there or none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LeaseColumns<'a> {
    pub(crate) worker: Option<&'a str>,
    pub(crate) until: Option<i64>,
    pub(crate) token: Option<i64>,
}

impl<'a> LeaseColumns<'a> {
    pub(crate) fn of(lease: Option<&'a Lease>) -> Result<Self> {
        let Some(lease) = lease else { return Ok(LeaseColumns::default()) };
        Ok(LeaseColumns {
            worker: Some(lease.worker.as_str()),
            until: Some(time::nanos("lease.until", lease.until)?),
            token: Some(lease.token.0.cast_signed()),
        })
    }

    pub(crate) fn lease(&self, what: impl FnOnce() -> String) -> Result<Option<Lease>> {
        match (self.worker, self.until, self.token) {
            (None, None, None) => Ok(None),
            (Some(worker), Some(until), Some(token)) => {
                let worker = store_api::WorkerId::new(worker).map_err(|e| damaged(what, &e))?;
                let token = store_api::LeaseToken(token.cast_unsigned());
                Ok(Some(Lease { worker, until: time::from_nanos(until), token }))
            }
            _ => Err(Error::corrupt(what(), "half a lease")),
        }
    }

    /// The worker, whose id is never empty, and the two numbers.
    fn parts(&self) -> (&'a [u8], [u8; 9], [u8; 9]) {
        (self.worker.unwrap_or_default().as_bytes(), optional(self.until), optional(self.token))
    }
}

/// The run state of a schedule as it stands in columns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RunColumns<'a> {
    pub(crate) next_run_at: Option<i64>,
    pub(crate) last_run_at: Option<i64>,
    pub(crate) lease: LeaseColumns<'a>,
}

impl<'a> RunColumns<'a> {
    pub(crate) fn of(state: &'a RunState) -> Result<Self> {
        Ok(RunColumns {
            next_run_at: state.next_run_at.map(|at| time::nanos("next_run_at", at)).transpose()?,
            last_run_at: state.last_run_at.map(|at| time::nanos("last_run_at", at)).transpose()?,
            lease: LeaseColumns::of(state.lease.as_ref())?,
        })
    }

    pub(crate) fn state(&self, what: impl FnOnce() -> String) -> Result<RunState> {
        Ok(RunState {
            next_run_at: self.next_run_at.map(time::from_nanos),
            last_run_at: self.last_run_at.map(time::from_nanos),
            lease: self.lease.lease(what)?,
        })
    }
}

/// A stored value that no rule would have let in.
pub(crate) fn damaged(what: impl FnOnce() -> String, error: &Error) -> Error {
    Error::corrupt(what(), error.to_string())
}
