//! What a file of an older schema needs: done when it is opened, in one transaction.

use std::sync::Arc;

use redb::Database;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use store_api::{Error, Lease, Result, RunState};

use crate::SCHEMA;
use crate::checkpoint;
use crate::error::Edge;
use crate::kv::Kv;
use crate::open::{Mark, begin, mark_key};
use crate::tables::{CHECKPOINT_CLAIMS, CHECKPOINTS, META, RUN_STATES, Table};
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
        if schema < 2 {
            run_states_as_fields(&tx)?;
        }
        iterations_with_checkpoints(&tx, operation)?;
        tx.put_record(META, &mark_key(), &Mark::current())
    })?;
    writing.commit()
}

/// From schema 1 to 2: run states were JSON.
fn run_states_as_fields(tx: &Tx<'_>) -> Result<()> {
    each(tx, RUN_STATES, |key, state: RunState| tx.put_run_state(key, &state))
}

/// From schema 2 to 3: how far a checkpoint is stood with the claim on it, and stands before the document now. What is
/// damaged of one stays so, and what is sound of it stays sound.
fn iterations_with_checkpoints(tx: &Tx<'_>, kv: &dyn Kv) -> Result<()> {
    #[derive(Deserialize)]
    struct Head {
        iteration: u64,
        lease: Option<Lease>,
    }
    #[derive(Deserialize)]
    struct Document {
        iteration: u64,
    }
    tx.raw(CHECKPOINTS, |entries| {
        entries.iter().try_for_each(|(key, stored)| {
            let head = sound(tx.record::<Head>(CHECKPOINT_CLAIMS, key))?.flatten();
            let document = sound(value::open(CHECKPOINTS, key, stored))?;
            let iteration = match (head, document) {
                (Some(head), _) => Some(head.iteration),
                (None, Some(document)) => {
                    sound(decode::<Document>(CHECKPOINTS, key, document))?.map(|document| document.iteration)
                }
                (None, None) => None,
            };
            let Some(iteration) = iteration else { return Ok(()) };
            let (sum, body) = value::split(stored);
            let body = [&checkpoint::sealed_iteration(key, iteration), body].concat();
            match document {
                Some(_) => tx.put_body(CHECKPOINTS, key, &body),
                // With the checksum that it did not keep before.
                None => kv.put(CHECKPOINTS, key, &[sum, &body].concat()),
            }
        })
    })?;
    each(tx, CHECKPOINT_CLAIMS, |key, head: Head| tx.put_claim(key, head.lease.as_ref()))
}

/// Gives `put` each record of a table as older schemas have it. One that is damaged stays as it is, to be found when
/// it is read: the rest of the store can be opened.
fn each<T: DeserializeOwned>(tx: &Tx<'_>, table: Table, put: impl Fn(&[u8], T) -> Result<()>) -> Result<()> {
    let read = |key: &[u8], stored: &[u8]| decode(table, key, value::open(table, key, stored)?);
    tx.raw(table, |entries| {
        entries
            .iter()
            .try_for_each(|(key, stored)| sound(read(key, stored))?.map_or(Ok(()), |record| put(key, record)))
    })
}

/// What was read, or nothing when it is damaged.
fn sound<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(Error::Corrupt { .. }) => Ok(None),
        Err(other) => Err(other),
    }
}
