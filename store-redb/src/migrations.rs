//! What a file of an older schema needs: done when it is opened, in one transaction.

use std::sync::Arc;

use redb::Database;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use store_api::{Error, Lease, Result, RunState};

use crate::SCHEMA;
use crate::checkpoint::Head;
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
        if schema < 3 {
            iterations_with_checkpoints(&tx, operation)?;
        }
        claims_of_the_claimed(&tx, operation)?;
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
    struct HeadBeside {
        iteration: u64,
        lease: Option<Lease>,
    }
    #[derive(Deserialize)]
    struct Document {
        iteration: u64,
    }
    tx.raw(CHECKPOINTS, |entries| {
        entries.iter().try_for_each(|(key, stored)| {
            let head = sound(tx.record::<HeadBeside>(CHECKPOINT_CLAIMS, key))?.flatten();
            let document = sound(value::open(CHECKPOINTS, key, stored))?;
            let iteration = match (head, document) {
                (Some(head), _) => Some(head.iteration),
                (None, Some(document)) => {
                    sound(decode::<Document>(CHECKPOINTS, key, document))?.map(|document| document.iteration)
                }
                (None, None) => None,
            };
            let Some(iteration) = iteration else { return Ok(()) };
            let sealed = value::seal(CHECKPOINTS, key, &iteration.to_be_bytes());
            put_behind(tx, kv, key, &sealed, value::split(stored), document.is_some())
        })
    })?;
    each(tx, CHECKPOINT_CLAIMS, |key, head: HeadBeside| tx.put_record(CHECKPOINT_CLAIMS, key, &head.lease))
}

/// From schema 3 to 4: there was a claim beside every checkpoint, null where nobody had it, and the head did not say
/// whether there is to be one. What is damaged of either stays so.
fn claims_of_the_claimed(tx: &Tx<'_>, kv: &dyn Kv) -> Result<()> {
    const SEALED_ITERATION: usize = value::HEADER + size_of::<u64>();
    tx.raw(CHECKPOINTS, |entries| {
        entries.iter().try_for_each(|(key, stored)| {
            let is_whole = sound(value::open(CHECKPOINTS, key, stored))?.is_some();
            let (sum, body) = value::split(stored);
            let Some((sealed, doc)) = body.split_at_checked(SEALED_ITERATION) else { return Ok(()) };
            let iteration = sound(value::open(CHECKPOINTS, key, sealed))?.and_then(<[u8]>::first_chunk);
            let Some(iteration) = iteration else { return Ok(()) };
            let claim = sound(tx.record::<Option<Lease>>(CHECKPOINT_CLAIMS, key))?;
            let claimed = claim != Some(Some(None));
            if !claimed {
                tx.delete(CHECKPOINT_CLAIMS, key)?;
            }
            let head = Head { iteration: u64::from_be_bytes(*iteration), claimed };
            put_behind(tx, kv, key, &head.sealed(key), (sum, doc), is_whole)
        })
    })
}

/// Stores a checkpoint with another head before its document. One that is not whole keeps the checksum that it did not
/// keep before.
fn put_behind(
    tx: &Tx<'_>,
    kv: &dyn Kv,
    key: &[u8],
    head: &[u8],
    (sum, doc): (&[u8], &[u8]),
    is_whole: bool,
) -> Result<()> {
    let body = [head, doc].concat();
    if is_whole {
        tx.put_body(CHECKPOINTS, key, &body)
    } else {
        kv.put(CHECKPOINTS, key, &[sum, &body].concat())
    }
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
