//! Which runs are meant, and what they come to together.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::{Run, RunStatus, Tokens};
use crate::{AgentId, Amount, ChannelId, List, Page, PageRequest, PrincipalId, Result, SkillId, time};

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
        let after: Option<Option<String>> = request.position(List::Summary)?;
        let rows =
            self.rows.into_iter().filter(|(group, _)| after.as_ref().is_none_or(|after| group > after));
        let rows = rows.take(request.limit() + 1).collect();
        Ok(Page::cut(List::Summary, request, rows, |(group, _): &(Option<String>, _)| group.clone())?
            .map(|(_, row)| row))
    }
}
