//! What each checksum covers: the record's table and key, then every value that must not change unnoticed.

use store_api::budget::{AccountKey, Charged};
use store_api::json::Checksum;
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

fn of(table: &[u8]) -> Checksum {
    Checksum::default().and(table)
}

fn stored(sum: Checksum) -> i64 {
    sum.get().cast_signed()
}

pub(crate) fn counter(value: i64) -> i64 {
    stored(of(b"meta").and(b"counter").and(&value.to_le_bytes()))
}

pub(crate) fn document(kind: Kind, id: &str, revision: i64, doc: &str) -> i64 {
    let key = of(b"definitions.doc").and(&[kind.code()]).and(id.as_bytes());
    stored(key.and(&revision.to_le_bytes()).and(doc.as_bytes()))
}

pub(crate) fn last_seq(kind: Kind, id: &str, last_seq: i64) -> i64 {
    let key = of(b"definitions.last_seq").and(&[kind.code()]).and(id.as_bytes());
    stored(key.and(&last_seq.to_le_bytes()))
}

/// Needs nothing but the key and the new values, so that a mark is one statement that reads nothing.
pub(crate) fn run_state(kind: Kind, id: &str, state: &RunColumns<'_>) -> i64 {
    let key = of(b"definitions.run").and(&[kind.code()]).and(id.as_bytes());
    let times = key.and(&optional(state.next_run_at)).and(&optional(state.last_run_at));
    stored(state.lease.sum(times))
}

pub(crate) fn version(kind: Kind, definition: &str, seq: i64, id: &str, pinned: bool, doc: &str) -> i64 {
    let key = of(b"versions").and(&[kind.code()]).and(definition.as_bytes()).and(&seq.to_le_bytes());
    stored(key.and(id.as_bytes()).and(&[u8::from(pinned)]).and(doc.as_bytes()))
}

fn of_account(table: &[u8], (caller, meter, window): &AccountKey) -> Checksum {
    of(table).and(caller.as_bytes()).and(meter.as_bytes()).and(window.as_bytes())
}

pub(crate) fn account(key: &AccountKey, ledger: &str) -> i64 {
    stored(of_account(b"accounts", key).and(ledger.as_bytes()))
}

pub(crate) fn charge(account: &AccountKey, key: &str, charged: &Charged) -> i64 {
    let key = of_account(b"charges", account).and(key.as_bytes());
    stored(key.and(&charged.amount.micros().to_le_bytes()).and(&charged.expires_at.to_le_bytes()))
}

pub(crate) fn run(id: &str, doc: &str) -> i64 {
    stored(of(b"runs").and(id.as_bytes()).and(doc.as_bytes()))
}

pub(crate) fn event(run: &str, seq: i64, kind: &str, at: i64, payload: &str) -> i64 {
    let key = of(b"events").and(run.as_bytes()).and(&seq.to_le_bytes());
    stored(key.and(kind.as_bytes()).and(&at.to_le_bytes()).and(payload.as_bytes()))
}

pub(crate) fn checkpoint(run: &str, doc: &[u8]) -> i64 {
    stored(of(b"checkpoints.doc").and(run.as_bytes()).and(doc))
}

pub(crate) fn checkpoint_head(run: &str, iteration: i64, lease: &LeaseColumns<'_>) -> i64 {
    stored(lease.sum(of(b"checkpoints.head").and(run.as_bytes()).and(&iteration.to_le_bytes())))
}

/// A number that may be absent: whether it is there, then the number. Put together as one, which stays in registers: of
/// parts written one by one a checksum that reads across them waits for both.
fn optional(value: Option<i64>) -> [u8; 9] {
    let whole = value.map_or(0, |value| 1 | u128::from(value.cast_unsigned()) << 8);
    let mut bytes = [0; 9];
    bytes.copy_from_slice(&whole.to_le_bytes()[..9]);
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

    /// The sum over one more lease: the worker, whose id is never empty, and the two numbers.
    fn sum(&self, sum: Checksum) -> Checksum {
        let worker = self.worker.unwrap_or_default().as_bytes();
        sum.and(worker).and(&optional(self.until)).and(&optional(self.token))
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
