//! Run audit: what ran, for whom, what happened in it, what it used up.

use std::collections::HashSet;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::{Entity, Error, Page, PageRequest, Result, RunId, SkillId};

mod event;
mod run;
mod summary;
#[cfg(test)]
mod tests;

pub use event::{Event, NewEvent};
pub use run::{Finish, NewRun, Run, RunOutcome, RunStatus, Tokens};
pub use summary::{GroupBy, RunFilter, SummaryRow, Summing};

/// How many ancestors a walk gives at most. A deeper chain ends there.
pub const MAX_ANCESTORS: usize = 1_000;

/// What a purge removed, or would remove.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct PurgeReport {
    /// How many runs.
    pub runs: u64,
    /// How many events of theirs.
    pub events: u64,
    /// How many runs are old enough and stay, because a running one needs them.
    pub kept: u64,
}

/// Run audit: runs, their events, their family, what they used up.
///
/// Object-safe; a store and a transaction on it both give one.
pub trait AuditStore {
    /// Records that a run started.
    ///
    /// # Guarantees
    /// DOC-1, TXN-1.
    /// # Errors
    /// `AlreadyExists` when the id is taken; `InvalidInput` naming the field.
    fn start_run(&self, run: &NewRun) -> Result<Arc<Run>>;

    /// Records how a run ended; what was recorded at its start stays as it is. The first finish wins; the same finish
    /// again is accepted and changes nothing.
    ///
    /// # Guarantees
    /// AUD-2.
    /// # Errors
    /// `NotFound`; `Conflict` when it was finished otherwise; `InvalidInput` naming the field.
    fn finish_run(&self, id: &RunId, finish: &Finish) -> Result<()>;

    /// Records an event of a run, running or finished, and gives its number in the run.
    ///
    /// # Guarantees
    /// AUD-1.
    /// # Errors
    /// `NotFound` when there is no such run; `InvalidInput` naming the field.
    fn append_event(&self, run: &RunId, event: &NewEvent) -> Result<u64>;

    /// The run with this id.
    ///
    /// # Guarantees
    /// DOC-1, ROT-1.
    /// # Errors
    /// None of its own.
    fn run(&self, id: &RunId) -> Result<Option<Arc<Run>>>;

    /// The events of a run; none when there is no such run.
    ///
    /// # Order
    /// By seq, oldest first.
    /// # Guarantees
    /// AUD-1, PAGE-1, ROT-1.
    /// # Errors
    /// `InvalidInput` for a cursor of another list.
    fn events(&self, run: &RunId, page: &PageRequest) -> Result<Page<Arc<Event>>>;

    /// The runs that match.
    ///
    /// # Order
    /// Newest first: by `started_at`, then id, both descending.
    /// # Guarantees
    /// PAGE-1, ROT-1.
    /// # Errors
    /// `InvalidInput` for a cursor of another list.
    fn runs(&self, filter: &RunFilter, page: &PageRequest) -> Result<Page<Arc<Run>>>;

    /// The runs whose parent is this run.
    ///
    /// # Order
    /// Newest first, as [`runs`](AuditStore::runs).
    /// # Guarantees
    /// PAGE-1.
    /// # Errors
    /// `InvalidInput` for a cursor of another list.
    fn children(&self, id: &RunId, page: &PageRequest) -> Result<Page<Arc<Run>>>;

    /// The run's parent, its parent, and so on, as far as they are known; at most [`MAX_ANCESTORS`]. A run that the
    /// walk has seen, the run itself included, ends it.
    ///
    /// # Order
    /// Nearest first.
    /// # Guarantees
    /// AUD-3.
    /// # Errors
    /// `NotFound` when there is no such run.
    fn ancestors(&self, id: &RunId) -> Result<Vec<Arc<Run>>>;

    /// The newest run of each of these skills; skills without a run are left out. At most
    /// [`MAX_PAGE`](crate::page::MAX_PAGE) skills.
    ///
    /// # Order
    /// As the skills are given, each once.
    /// # Guarantees
    /// PAGE-1 (newest is first in the order of [`runs`](AuditStore::runs)).
    /// # Errors
    /// `InvalidInput` for too many skills.
    fn last_run_of(&self, skills: &[SkillId]) -> Result<Vec<Arc<Run>>>;

    /// The runs that match, counted and summed up by group.
    ///
    /// # Order
    /// By group, by bytes, the row without a group first.
    /// # Guarantees
    /// PAGE-1, ROT-1.
    /// # Errors
    /// `InvalidInput` for a cursor of another list.
    fn summary(&self, filter: &RunFilter, group_by: GroupBy, page: &PageRequest) -> Result<Page<SummaryRow>>;

    /// Finishes up to `max` running runs that started before `before` as [`RunOutcome::Abandoned`] at `now`; gives
    /// their ids.
    ///
    /// # Order
    /// Oldest first: by `started_at`, then id.
    /// # Guarantees
    /// AUD-2.
    /// # Errors
    /// `InvalidInput` for a `max` of zero or above [`MAX_PAGE`](crate::page::MAX_PAGE), or a time outside the range.
    fn abandon_stale(&self, before: DateTime<Utc>, now: DateTime<Utc>, max: usize) -> Result<Vec<RunId>>;

    /// Removes the runs that finished before `before`, with their events; with `dry_run` it only counts them. A
    /// running run stays, and so do all its known ancestors.
    ///
    /// # Guarantees
    /// AUD-3, TXN-1.
    /// # Errors
    /// `InvalidInput` for a time outside the range.
    fn purge_before(&self, before: DateTime<Utc>, dry_run: bool) -> Result<PurgeReport>;
}

/// Walks from a run's parent upwards: the rule behind [`AuditStore::ancestors`].
///
/// # Errors
/// `NotFound` when the run itself is not known; whatever `get` gives.
pub fn ancestors(
    id: &RunId,
    mut get: impl FnMut(&RunId) -> Result<Option<Arc<Run>>>,
) -> Result<Vec<Arc<Run>>> {
    let first = get(id)?.ok_or_else(|| Error::not_found(Entity::Run, id.as_str()))?;
    let mut seen = HashSet::from([id.clone()]);
    let mut found = Vec::new();
    let mut next = first.parent.clone();
    while let Some(parent) = next.take() {
        if found.len() == MAX_ANCESTORS || !seen.insert(parent.clone()) {
            break;
        }
        if let Some(run) = get(&parent)? {
            next = run.parent.clone();
            found.push(run);
        }
    }
    Ok(found)
}

/// All runs that running runs need: their ancestors, however far up, each looked up once. The rule behind
/// [`AuditStore::purge_before`], which removes none of them.
///
/// # Errors
/// Whatever `get` gives.
pub fn needed(
    running: impl IntoIterator<Item = Arc<Run>>,
    mut get: impl FnMut(&RunId) -> Result<Option<Arc<Run>>>,
) -> Result<HashSet<RunId>> {
    let mut needed = HashSet::new();
    for run in running {
        let mut next = run.parent.clone();
        while let Some(parent) = next.take() {
            if !needed.insert(parent.clone()) {
                break;
            }
            next = get(&parent)?.and_then(|run| run.parent.clone());
        }
    }
    Ok(needed)
}

/// Whether a sweep of runs that started before `before` abandons this run.
pub fn is_stale(run: &Run, before: DateTime<Utc>) -> bool {
    run.status == RunStatus::Running && run.started_at < before
}

/// Whether a purge may remove this run, unless a running one needs it.
pub fn is_purgeable(run: &Run, before: DateTime<Utc>) -> bool {
    run.finish.as_ref().is_some_and(|finish| finish.finished_at < before)
}
