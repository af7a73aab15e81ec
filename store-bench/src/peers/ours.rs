//! Our side of a comparison with a peer: the same documents, in a new store for each round.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use serde_json::{Value, json};
use store_api::{Expect, RunId, Store};
use store_redb::RedbStore;
use store_sqlite::SqliteStore;

use crate::data::{self, DOCUMENT_BYTES};
use crate::engine::Engine;
use crate::measure::{self, Op, Plan, Tally};
use crate::subject::Result;

const CHECKPOINT_BYTES: usize = 16 * 1024;

/// What is done.
#[derive(Debug, Clone, Copy)]
pub(super) enum Work {
    AppendVersion,
    Mark,
    StartRun,
    AppendEvent,
    SaveCheckpoint,
}

impl Work {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Work::AppendVersion => "append-version",
            Work::Mark => "mark",
            Work::StartRun => "start-run",
            Work::AppendEvent => "append-event",
            Work::SaveCheckpoint => "checkpoint-16k",
        }
    }

    /// The operation of one client.
    fn op(self, store: &dyn Store, client: usize) -> Result<Op<'_>> {
        let of = u64::try_from(client)?;
        let run = run_of(client)?;
        Ok(match self {
            Work::AppendVersion => {
                let mut version = data::version(0, of, DOCUMENT_BYTES)?;
                Box::new(move |n| {
                    version.id = data::version_id(n)?;
                    store.skills().append_version(&version)?;
                    Ok(())
                })
            }
            Work::Mark => {
                let id = data::skill_id(of)?;
                Box::new(move |n| {
                    Ok(store.skills().mark_scheduled_run(&id, data::at(n), Some(data::at(n + 3_600)))?)
                })
            }
            Work::StartRun => {
                let mut new = data::run(run, 0, of)?;
                Box::new(move |n| {
                    new.id = data::run_id(n)?;
                    store.audit().start_run(&new)?;
                    Ok(())
                })
            }
            Work::AppendEvent => {
                let event = data::event(of);
                Box::new(move |_| {
                    store.audit().append_event(&run, &event)?;
                    Ok(())
                })
            }
            Work::SaveCheckpoint => {
                let mut checkpoint = data::checkpoint(run, 0, CHECKPOINT_BYTES);
                Box::new(move |n| {
                    checkpoint.iteration = n;
                    Ok(store.checkpoints().save(&checkpoint)?)
                })
            }
        })
    }
}

/// The run that each client has from the beginning: after all that are started meanwhile.
fn run_of(client: usize) -> Result<RunId> {
    data::run_id(9_000_000_000 + u64::try_from(client)?)
}

/// What peers store, as JSON.
pub(super) fn documents() -> Result<Value> {
    Ok(json!({
        "version": data::version(0, 0, DOCUMENT_BYTES)?,
        "event": data::event(0),
        "checkpoint": data::checkpoint(run_of(0)?, 0, CHECKPOINT_BYTES).state,
        "run": data::run(run_of(0)?, 0, 0)?,
    }))
}

fn open(engine: Engine, directory: &Path) -> Result<Arc<dyn Store>> {
    Ok(match engine {
        Engine::Sqlite => Arc::new(SqliteStore::open(directory.join("ours.db"))?),
        Engine::Redb => Arc::new(RedbStore::open(directory.join("ours.redb"))?),
        Engine::Memory => return Err("the memory engine is not durable, so no peer compares with it".into()),
    })
}

/// What decides about durability, as the store says it.
pub(super) fn settings(engine: Engine) -> Result<BTreeMap<String, String>> {
    let directory = tempfile::tempdir()?;
    let info = open(engine, directory.path())?.info();
    let durability = serde_json::to_value(info.durability)?;
    let durability = durability.as_str().unwrap_or_default().to_owned();
    Ok([("durability".to_owned(), durability), ("version".to_owned(), info.version)].into())
}

/// Measures one round in a new store, in which each client has a skill and a run of its own.
pub(super) fn round(
    engine: Engine,
    work: Work,
    clients: usize,
    length: Duration,
    within: &Path,
) -> Result<Tally> {
    let directory = super::stage(within)?;
    let store = open(engine, directory.path())?;
    for client in 0..clients {
        store.skills().save(&data::skill(u64::try_from(client)?, DOCUMENT_BYTES)?, Expect::Absent)?;
        store.audit().start_run(&data::run(run_of(client)?, 0, 0)?)?;
    }
    let next = AtomicU64::new(0);
    let make = |client| work.op(&*store, client);
    let plan = Plan { clients, length, batch: 1, end: u64::MAX };
    measure::run(&Plan { length: length / 10, ..plan }, &next, &make)?;
    let tally = measure::run(&plan, &next, &make)?;
    store.close()?;
    Ok(tally)
}
