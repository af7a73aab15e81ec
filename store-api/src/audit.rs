//! Run audit: what ran, for whom, what happened in it, what it used up.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::json::{Extra, Weigh};
use crate::{
    AgentId, Amount, ChannelId, Entity, Error, Page, PageRequest, PrincipalId, Result, RunId, SkillId, time,
};

/// How many ancestors a walk gives at most. A deeper chain ends there.
pub const MAX_ANCESTORS: usize = 1_000;

/// A run to record.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct NewRun {
    /// Its id, chosen by the host.
    pub id: RunId,
    /// The run that started it. It need not be known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<RunId>,
    /// The skill that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skill: Option<SkillId>,
    /// The agent that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentId>,
    /// Who pays for it.
    pub caller: PrincipalId,
    /// The channel that it came through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<ChannelId>,
    /// When it started, by the host's clock.
    pub started_at: DateTime<Utc>,
    /// What it was given.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub input: Value,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

impl NewRun {
    /// The fields of a [`Run`] as they stand in JSON.
    pub(crate) const FIELDS: &'static [&'static str] =
        &["id", "parent", "skill", "agent", "caller", "channel", "started_at", "input", "status", "finish"];

    /// A run with the least that it needs.
    pub fn new(id: RunId, caller: PrincipalId, started_at: DateTime<Utc>) -> Self {
        NewRun {
            id,
            parent: None,
            skill: None,
            agent: None,
            caller,
            channel: None,
            started_at,
            input: Value::Null,
            extra: Extra::new(),
        }
    }

    /// Checks sizes, depth and times.
    ///
    /// # Errors
    /// `InvalidInput` naming the field.
    pub fn validate(&self) -> Result<()> {
        time::nanos("started_at", self.started_at)?;
        let mut weigh = Weigh::new();
        weigh.value("input", &self.input)?;
        weigh.extra("extra", &self.extra, Self::FIELDS)
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunOutcome {
    /// It did what it should.
    Succeeded,
    /// It did not.
    Failed,
    /// Somebody stopped it.
    Cancelled,
    /// Nobody finished it; [`AuditStore::abandon_stale`] did.
    Abandoned,
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // the outcomes are documented in `RunOutcome`
pub enum RunStatus {
    /// Started and not finished.
    Running,
    Succeeded,
    Failed,
    Cancelled,
    Abandoned,
}

impl From<RunOutcome> for RunStatus {
    fn from(outcome: RunOutcome) -> Self {
        match outcome {
            RunOutcome::Succeeded => RunStatus::Succeeded,
            RunOutcome::Failed => RunStatus::Failed,
            RunOutcome::Cancelled => RunStatus::Cancelled,
            RunOutcome::Abandoned => RunStatus::Abandoned,
        }
    }
}

impl RunStatus {
    /// All of them.
    pub const ALL: [RunStatus; 5] = [
        RunStatus::Running,
        RunStatus::Succeeded,
        RunStatus::Failed,
        RunStatus::Cancelled,
        RunStatus::Abandoned,
    ];

    /// The status as JSON and indexes spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            RunStatus::Running => "running",
            RunStatus::Succeeded => "succeeded",
            RunStatus::Failed => "failed",
            RunStatus::Cancelled => "cancelled",
            RunStatus::Abandoned => "abandoned",
        }
    }
}

impl fmt::Display for RunStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for RunStatus {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        RunStatus::ALL.into_iter().find(|status| status.as_str() == text).ok_or_else(|| {
            let names = RunStatus::ALL.map(RunStatus::as_str).join(", ");
            Error::invalid("status", format!("{text:?} is none of {names}"))
        })
    }
}

/// Tokens of a model, in and out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Tokens {
    /// Read by the model.
    pub input: u64,
    /// Written by the model.
    pub output: u64,
}

/// How a run ended and what it used up.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Finish {
    /// How it ended.
    pub outcome: RunOutcome,
    /// When, by the host's clock.
    pub finished_at: DateTime<Utc>,
    /// What it gave.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub output: Value,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The tokens that it used.
    #[serde(default)]
    pub tokens: Tokens,
    /// What it cost.
    #[serde(default)]
    pub cost: Amount,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

impl Finish {
    pub(crate) const FIELDS: &'static [&'static str] =
        &["outcome", "finished_at", "output", "error", "tokens", "cost"];

    /// A finish with the least that it needs.
    pub fn new(outcome: RunOutcome, finished_at: DateTime<Utc>) -> Self {
        Finish {
            outcome,
            finished_at,
            output: Value::Null,
            error: None,
            tokens: Tokens::default(),
            cost: Amount::ZERO,
            extra: Extra::new(),
        }
    }

    /// Checks sizes, depth and times.
    ///
    /// # Errors
    /// `InvalidInput` naming the field.
    pub fn validate(&self) -> Result<()> {
        time::nanos("finished_at", self.finished_at)?;
        let mut weigh = Weigh::new();
        weigh.value("output", &self.output)?;
        weigh.text("error", self.error.as_deref().unwrap_or_default())?;
        weigh.extra("extra", &self.extra, Self::FIELDS)
    }
}

/// A recorded run.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(from = "FlatRun")]
pub struct Run {
    /// Where it stands; `running` exactly while there is no `finish`.
    pub status: RunStatus,
    /// How it ended, once it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish: Option<Finish>,
    /// What was recorded when it started.
    #[serde(flatten)]
    pub start: NewRun,
}

/// A run as it stands in JSON: what is read into a flattened part, serde reads twice.
#[derive(serde::Deserialize)]
struct FlatRun {
    status: RunStatus,
    #[serde(default)]
    finish: Option<Finish>,
    id: RunId,
    #[serde(default)]
    parent: Option<RunId>,
    #[serde(default)]
    skill: Option<SkillId>,
    #[serde(default)]
    agent: Option<AgentId>,
    caller: PrincipalId,
    #[serde(default)]
    channel: Option<ChannelId>,
    started_at: DateTime<Utc>,
    #[serde(default)]
    input: Value,
    #[serde(flatten)]
    extra: Extra,
}

impl From<FlatRun> for Run {
    fn from(flat: FlatRun) -> Run {
        let FlatRun { status, finish, id, parent, skill, agent, caller, channel, started_at, input, extra } =
            flat;
        let start = NewRun { id, parent, skill, agent, caller, channel, started_at, input, extra };
        Run { status, finish, start }
    }
}

impl std::ops::Deref for Run {
    type Target = NewRun;
    fn deref(&self) -> &NewRun {
        &self.start
    }
}

impl Run {
    /// A run that has just started.
    pub fn started(start: NewRun) -> Run {
        Run { status: RunStatus::Running, finish: None, start }
    }

    /// This run, finished; or `None` when it was finished so before.
    ///
    /// # Errors
    /// `Conflict` when it was finished otherwise (law AUD-2).
    pub fn finished(&self, finish: &Finish) -> Result<Option<Run>> {
        match &self.finish {
            None => Ok(Some(Run {
                status: finish.outcome.into(),
                finish: Some(finish.clone()),
                start: self.start.clone(),
            })),
            Some(first) if first == finish => Ok(None),
            Some(first) => {
                let status = RunStatus::from(first.outcome);
                Err(Error::conflict(
                    Entity::Run,
                    self.start.id.as_str(),
                    format!("finished as {status} at {}", first.finished_at),
                ))
            }
        }
    }

    /// How long it took, once it has finished; zero when the clock stepped back meanwhile.
    pub fn duration(&self) -> Option<std::time::Duration> {
        let finish = self.finish.as_ref()?;
        Some((finish.finished_at - self.start.started_at).to_std().unwrap_or_default())
    }
}

/// Something that happened in a run, to record.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct NewEvent {
    /// What kind of thing, in the host's own words.
    pub kind: String,
    /// When, by the host's clock. The order of events does not depend on it.
    pub at: DateTime<Utc>,
    /// What it was.
    #[serde(default)]
    pub payload: Value,
}

impl NewEvent {
    /// Checks sizes, depth and times.
    ///
    /// # Errors
    /// `InvalidInput` naming the field.
    pub fn validate(&self) -> Result<()> {
        time::nanos("at", self.at)?;
        let mut weigh = Weigh::new();
        if self.kind.is_empty() || self.kind.len() > crate::MAX_ID_BYTES {
            return Err(Error::invalid("kind", format!("is not 1 to {} bytes long", crate::MAX_ID_BYTES)));
        }
        weigh.text("kind", &self.kind)?;
        weigh.value("payload", &self.payload)
    }
}

/// A recorded event.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(from = "FlatEvent")]
pub struct Event {
    /// The run that it happened in.
    pub run: RunId,
    /// Its number in the run: 1, 2, 3 … (law AUD-1).
    pub seq: u64,
    /// What was recorded.
    #[serde(flatten)]
    pub content: NewEvent,
}

/// An event as it stands in JSON: what is read into a flattened part, serde reads twice.
#[derive(serde::Deserialize)]
struct FlatEvent {
    run: RunId,
    seq: u64,
    kind: String,
    at: DateTime<Utc>,
    #[serde(default)]
    payload: Value,
}

impl From<FlatEvent> for Event {
    fn from(FlatEvent { run, seq, kind, at, payload }: FlatEvent) -> Event {
        Event { run, seq, content: NewEvent { kind, at, payload } }
    }
}

impl std::ops::Deref for Event {
    type Target = NewEvent;
    fn deref(&self) -> &NewEvent {
        &self.content
    }
}

/// Which runs to list or sum up. Every field that is set must match.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunFilter {
    /// Only those of this skill.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skill: Option<SkillId>,
    /// Only those of this agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentId>,
    /// Only those that this caller pays for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller: Option<PrincipalId>,
    /// Only those that came through this channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<ChannelId>,
    /// Only those that stand so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<RunStatus>,
    /// Only those that started at or after this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<DateTime<Utc>>,
    /// Only those that started before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<DateTime<Utc>>,
    /// Only those without a parent.
    pub top_level: bool,
}

impl RunFilter {
    /// Checks the times.
    ///
    /// # Errors
    /// `InvalidInput` for a time outside the range.
    pub fn validate(&self) -> Result<()> {
        time::check("from", self.from)?;
        time::check("to", self.to)
    }

    /// The rule: an engine may narrow by its indexes, but this decides.
    pub fn matches(&self, run: &Run) -> bool {
        fn same<T: PartialEq>(wanted: &Option<T>, found: &Option<T>) -> bool {
            wanted.is_none() || wanted == found
        }
        same(&self.skill, &run.skill)
            && same(&self.agent, &run.agent)
            && same(&self.channel, &run.channel)
            && self.caller.as_ref().is_none_or(|caller| *caller == run.caller)
            && self.status.is_none_or(|status| status == run.status)
            && self.from.is_none_or(|from| run.started_at >= from)
            && self.to.is_none_or(|to| run.started_at < to)
            && !(self.top_level && run.parent.is_some())
    }
}

/// What a summary is grouped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupBy {
    /// One row for all runs.
    #[default]
    Nothing,
    /// One row for each skill, and one for runs without.
    Skill,
    /// One row for each agent, and one for runs without.
    Agent,
    /// One row for each caller.
    Caller,
    /// One row for each channel, and one for runs without.
    Channel,
    /// One row for each status.
    Status,
    /// One row for each UTC day that runs started on (`2026-01-31`).
    Day,
}

impl GroupBy {
    /// The group that a run belongs to.
    pub fn group(self, run: &Run) -> Option<String> {
        match self {
            GroupBy::Nothing => None,
            GroupBy::Skill => run.skill.as_ref().map(ToString::to_string),
            GroupBy::Agent => run.agent.as_ref().map(ToString::to_string),
            GroupBy::Caller => Some(run.caller.to_string()),
            GroupBy::Channel => run.channel.as_ref().map(ToString::to_string),
            GroupBy::Status => Some(run.status.to_string()),
            GroupBy::Day => Some(run.started_at.date_naive().to_string()),
        }
    }
}

/// One row of a summary. Sums stop at the largest number that their type holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct SummaryRow {
    /// The group, or `None` for all runs, or for those without what is grouped by.
    pub group: Option<String>,
    /// How many runs.
    pub runs: u64,
    /// How many of them stand so, by status; none is left out for being zero.
    pub by_status: BTreeMap<RunStatus, u64>,
    /// How long the finished ones took, together, in nanoseconds.
    pub duration_nanos: u64,
    /// The tokens that the finished ones used.
    pub tokens: Tokens,
    /// What the finished ones cost.
    pub cost: Amount,
}

/// Sums runs up by group: an engine hands it every run that may match.
#[derive(Debug)]
pub struct Summing<'a> {
    filter: &'a RunFilter,
    group_by: GroupBy,
    rows: BTreeMap<Option<String>, SummaryRow>,
}

impl<'a> Summing<'a> {
    /// Nothing summed yet.
    pub fn new(filter: &'a RunFilter, group_by: GroupBy) -> Self {
        Summing { filter, group_by, rows: BTreeMap::new() }
    }

    /// Adds a run, if it matches.
    pub fn add(&mut self, run: &Run) {
        if !self.filter.matches(run) {
            return;
        }
        let group = self.group_by.group(run);
        let row = self.rows.entry(group).or_insert_with_key(|group| SummaryRow {
            group: group.clone(),
            by_status: RunStatus::ALL.map(|status| (status, 0)).into(),
            ..SummaryRow::default()
        });
        row.runs += 1;
        *row.by_status.entry(run.status).or_default() += 1;
        if let (Some(finish), Some(took)) = (&run.finish, run.duration()) {
            let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
            row.duration_nanos = row.duration_nanos.saturating_add(nanos);
            row.tokens.input = row.tokens.input.saturating_add(finish.tokens.input);
            row.tokens.output = row.tokens.output.saturating_add(finish.tokens.output);
            row.cost = row.cost.saturating_add(finish.cost);
        }
    }

    /// The page of rows that was asked for.
    ///
    /// # Errors
    /// `InvalidInput` for a cursor of another list.
    pub fn page(self, request: &PageRequest) -> Result<Page<SummaryRow>> {
        let after: Option<Option<String>> = request.position(crate::List::Summary)?;
        let rows =
            self.rows.into_iter().filter(|(group, _)| after.as_ref().is_none_or(|after| group > after));
        let rows = rows.take(request.limit() + 1).collect();
        Ok(Page::cut(crate::List::Summary, request, rows, |(group, _): &(Option<String>, _)| group.clone())?
            .map(|(_, row)| row))
    }
}

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

    /// Records how a run ended. The first finish wins; the same finish again is accepted and changes nothing.
    ///
    /// # Guarantees
    /// AUD-2.
    /// # Errors
    /// `NotFound`; `Conflict` when it was finished otherwise; `InvalidInput` naming the field.
    fn finish_run(&self, id: &RunId, finish: &Finish) -> Result<Arc<Run>>;

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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::time::from_nanos;

    fn run(id: &str, parent: Option<&str>) -> Run {
        let mut start = NewRun::new(RunId::new(id).unwrap(), PrincipalId::new("c").unwrap(), from_nanos(5));
        start.parent = parent.map(|parent| RunId::new(parent).unwrap());
        Run::started(start)
    }

    type Family = HashMap<RunId, Arc<Run>>;

    fn family(runs: &[(&str, Option<&str>)]) -> Family {
        runs.iter().map(|(id, parent)| (RunId::new(id).unwrap(), Arc::new(run(id, *parent)))).collect()
    }

    fn names(family: &Family, of: &str) -> Vec<String> {
        let found = ancestors(&RunId::new(of).unwrap(), |id| Ok(family.get(id).cloned())).unwrap();
        found.iter().map(|run| run.id.to_string()).collect()
    }

    #[test]
    fn walks_end_at_roots_holes_and_cycles() {
        let family = family(&[
            ("a", None),
            ("b", Some("a")),
            ("c", Some("b")),
            ("self", Some("self")),
            ("x", Some("y")),
            ("y", Some("z")),
            ("z", Some("x")),
            ("hole", Some("gone")),
        ]);
        assert_eq!(names(&family, "c"), ["b", "a"]);
        assert_eq!(names(&family, "self"), [""; 0]);
        assert_eq!(names(&family, "x"), ["y", "z"]);
        assert_eq!(names(&family, "hole"), [""; 0]);
        assert!(ancestors(&RunId::new("gone").unwrap(), |_| Ok(None)).is_err());
    }

    #[test]
    fn what_running_runs_need_is_found_through_cycles() {
        let family = family(&[("a", None), ("b", Some("a")), ("x", Some("y")), ("y", Some("x"))]);
        let running = ["b", "x"].map(|id| family[&RunId::new(id).unwrap()].clone());
        let found = needed(running, |id| Ok(family.get(id).cloned())).unwrap();
        let mut found: Vec<_> = found.iter().map(|id| id.as_str()).collect();
        found.sort_unstable();
        assert_eq!(found, ["a", "x", "y"]);
    }

    #[test]
    fn the_first_finish_wins_and_the_same_again_is_accepted() {
        let finish = Finish::new(RunOutcome::Succeeded, from_nanos(9));
        let done = run("r", None).finished(&finish).unwrap().unwrap();
        assert_eq!((done.status, done.duration().unwrap().as_nanos()), (RunStatus::Succeeded, 4));
        assert_eq!(done.finished(&finish).unwrap(), None);
        let other = Finish { cost: Amount::from_units(1).unwrap(), ..finish };
        assert_eq!(done.finished(&other).unwrap_err().kind(), crate::ErrorKind::Conflict);
        let early = Finish::new(RunOutcome::Failed, from_nanos(1));
        assert!(run("r", None).finished(&early).unwrap().unwrap().duration().unwrap().is_zero());
    }

    #[test]
    fn a_status_is_its_name() {
        for status in RunStatus::ALL {
            assert_eq!(status.to_string().parse::<RunStatus>().unwrap(), status);
            assert_eq!(serde_json::to_value(status).unwrap(), status.to_string());
        }
        assert!("gone".parse::<RunStatus>().unwrap_err().to_string().contains("running, succeeded"));
    }

    #[test]
    fn the_kind_of_an_event_has_a_length() {
        let event = |length| NewEvent { kind: "k".repeat(length), at: from_nanos(0), payload: Value::Null };
        assert!([1, crate::MAX_ID_BYTES].map(|length| event(length).validate().is_ok()) == [true; 2]);
        assert!([0, crate::MAX_ID_BYTES + 1].map(|length| event(length).validate().is_err()) == [true; 2]);
    }

    #[test]
    fn a_filter_has_times_that_can_be_stored() {
        let out_of_range = Some(DateTime::<Utc>::MAX_UTC);
        assert!(RunFilter::default().validate().is_ok());
        assert!(RunFilter { from: out_of_range, ..Default::default() }.validate().is_err());
        assert!(RunFilter { to: out_of_range, ..Default::default() }.validate().is_err());
    }

    #[test]
    fn every_field_of_a_filter_narrows() {
        let mut full = run("r", Some("p"));
        full.start.skill = Some(SkillId::new("s").unwrap());
        full.start.agent = Some(AgentId::new("a").unwrap());
        full.start.channel = Some(ChannelId::new("ch").unwrap());
        let matching = RunFilter {
            skill: full.skill.clone(),
            agent: full.agent.clone(),
            caller: Some(full.caller.clone()),
            channel: full.channel.clone(),
            status: Some(RunStatus::Running),
            from: Some(from_nanos(5)),
            to: Some(from_nanos(6)),
            top_level: false,
        };
        assert!(matching.matches(&full));
        let narrower: [fn(&mut RunFilter); 8] = [
            |f| f.skill = Some(SkillId::new("x").unwrap()),
            |f| f.agent = Some(AgentId::new("x").unwrap()),
            |f| f.caller = Some(PrincipalId::new("x").unwrap()),
            |f| f.channel = Some(ChannelId::new("x").unwrap()),
            |f| f.status = Some(RunStatus::Failed),
            |f| f.from = Some(from_nanos(6)),
            |f| f.to = Some(from_nanos(5)),
            |f| f.top_level = true,
        ];
        for narrow in narrower {
            let mut filter = matching.clone();
            narrow(&mut filter);
            assert!(!filter.matches(&full), "{filter:?}");
        }
    }

    #[test]
    fn summaries_count_by_group_and_page_in_order() {
        let finish = Finish {
            cost: Amount::from_units(2).unwrap(),
            tokens: Tokens { input: 3, output: u64::MAX },
            ..Finish::new(RunOutcome::Succeeded, from_nanos(8))
        };
        let filter = RunFilter::default();
        let mut summing = Summing::new(&filter, GroupBy::Skill);
        for skill in [None, Some("b"), Some("a"), Some("b")] {
            let mut one = run("r", None);
            one.start.skill = skill.map(|skill| SkillId::new(skill).unwrap());
            summing.add(&if skill == Some("b") { one.finished(&finish).unwrap().unwrap() } else { one });
        }
        let page = summing.page(&PageRequest::default()).unwrap();
        let groups: Vec<_> = page.items.iter().map(|row| row.group.as_deref()).collect();
        assert_eq!(groups, [None, Some("a"), Some("b")]);
        let b = &page.items[2];
        assert_eq!((b.runs, b.by_status[&RunStatus::Succeeded], b.by_status[&RunStatus::Running]), (2, 2, 0));
        assert_eq!((b.duration_nanos, b.tokens.input, b.tokens.output), (6, 6, u64::MAX));
        assert_eq!(b.cost, Amount::from_units(4).unwrap());
    }

    #[test]
    fn who_is_stale_is_running_and_started_before() {
        let running = run("r", None);
        assert!(is_stale(&running, from_nanos(6)) && !is_stale(&running, from_nanos(5)));
        let finish = Finish::new(RunOutcome::Succeeded, from_nanos(5));
        assert!(!is_stale(&running.finished(&finish).unwrap().unwrap(), from_nanos(6)));
    }
}
