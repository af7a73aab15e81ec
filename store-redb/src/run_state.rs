//! Run states. One is read with every definition that has a schedule, so its body is made of fields, as keys are: of
//! JSON, its two times alone cost an eighth of reading a due definition.

use chrono::{DateTime, Utc};
use store_api::{Error, Lease, LeaseToken, Result, RunState, WorkerId, time};

use crate::keys::{Fields, Key};
use crate::tables::RUN_STATES;
use crate::tx::Tx;
use crate::value;

impl Tx<'_> {
    /// The run state that stands beside a definition with a schedule.
    pub(crate) fn run_state_of(&self, definition: &[u8]) -> Result<Option<RunState>> {
        self.read(RUN_STATES, definition, |body| {
            decode(body).map_err(|e| Error::corrupt(value::place(RUN_STATES, definition), e.to_string()))
        })
    }

    pub(crate) fn put_run_state(&self, definition: &[u8], state: &RunState) -> Result<()> {
        self.put_body(RUN_STATES, definition, &encode(state)?)
    }
}

fn encode(state: &RunState) -> Result<Key> {
    let nanos = |field, at: Option<DateTime<Utc>>| at.map(|at| time::nanos(field, at)).transpose();
    let times = Key::new()
        .optional_signed(nanos("next_run_at", state.next_run_at)?)
        .optional_signed(nanos("last_run_at", state.last_run_at)?);
    Ok(match &state.lease {
        None => times.optional_text(None),
        Some(lease) => times
            .optional_text(Some(lease.worker.as_str()))
            .signed(time::nanos("lease.until", lease.until)?)
            .unsigned(lease.token.0),
    })
}

fn decode(body: &[u8]) -> Result<RunState> {
    let mut fields = Fields::of(body);
    let next_run_at = fields.optional_signed()?.map(time::from_nanos);
    let last_run_at = fields.optional_signed()?.map(time::from_nanos);
    let lease = match fields.optional_text()? {
        None => None,
        Some(worker) => Some(Lease {
            worker: WorkerId::new(worker)?,
            until: time::from_nanos(fields.signed()?),
            token: LeaseToken(fields.unsigned()?),
        }),
    };
    fields.end()?;
    Ok(RunState { next_run_at, last_run_at, lease })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_run_state_is_read_back_and_nothing_else_is_one(
            next in any::<Option<i64>>(),
            last in any::<Option<i64>>(),
            lease in prop::option::of(("[^\\p{Cc}]{1,20}", any::<i64>(), any::<u64>())),
            at: prop::sample::Index,
        ) {
            let lease = lease.map(|(worker, until, token)| Lease {
                worker: WorkerId::new(worker).unwrap(),
                until: time::from_nanos(until),
                token: LeaseToken(token),
            });
            let state = RunState {
                next_run_at: next.map(time::from_nanos),
                last_run_at: last.map(time::from_nanos),
                lease,
            };
            let body = encode(&state).unwrap();
            prop_assert_eq!(decode(&body).unwrap(), state);
            prop_assert!(decode(&body[..at.index(body.len())]).is_err(), "cut short");
            prop_assert!(decode(&[&body[..], b"x"].concat()).is_err(), "longer");
        }
    }
}
