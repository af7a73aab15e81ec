//! What a file of an older schema needs: done when it is opened, in one transaction.

use std::sync::Arc;

use redb::Database;
use store_api::{Error, Result, RunState};

use crate::SCHEMA;
use crate::error::Edge;
use crate::open::{Mark, begin, mark_key};
use crate::tables::{META, RUN_STATES};
use crate::tx::{Tx, decode};
use crate::value;

/// Brings a database of `schema`, which is not too new, to the one of this version.
///
/// # Errors
/// `Corrupt`, `Backend`. The database is as it was then, or in doubt.
pub(crate) fn run(edge: &Arc<Edge>, database: &Database, schema: u32) -> Result<()> {
    if schema == SCHEMA {
        return Ok(());
    }
    let writing = begin(edge, database)?;
    writing.operate(|operation| {
        let tx = Tx::on(operation);
        run_states_as_fields(&tx)?;
        tx.put_record(META, &mark_key(), &Mark::current())
    })?;
    writing.commit()
}

/// From schema 1 to 2: run states were JSON. One that is damaged stays as it is, to be found when it is read: the rest
/// of the store can be opened.
fn run_states_as_fields(tx: &Tx<'_>) -> Result<()> {
    let state = |key: &[u8], stored: &[u8]| {
        decode::<RunState>(RUN_STATES, key, value::open(RUN_STATES, key, stored)?)
    };
    tx.raw(RUN_STATES, |entries| {
        entries.iter().try_for_each(|(key, stored)| match state(key, stored) {
            Ok(state) => tx.put_run_state(key, &state),
            Err(Error::Corrupt { .. }) => Ok(()),
            Err(other) => Err(other),
        })
    })
}
