//! What is asked of a snapshot, decoded.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use redb::{ReadTransaction, ReadableTable};
use store_api::{
    Finish, Name, NewRun, PrincipalId, Run, RunId, RunState, RunStatus, Skill, SkillId, SummaryRow, Version,
    time,
};

use super::tables::*;
use crate::subject::{Position, Result, Versions};

pub(super) fn skill(
    skills: &impl ReadableTable<&'static str, &'static [u8]>,
    times: &impl ReadableTable<&'static str, Times>,
    id: &str,
) -> Result<Arc<Skill>> {
    let mut skill: Skill = serde_json::from_slice(skills.get(id)?.ok_or("no such skill")?.value())?;
    if let (Some(schedule), Some(times)) = (&mut skill.schedule, times.get(id)?) {
        let (next, last) = times.value();
        schedule.set_run_state(RunState {
            next_run_at: next.map(time::from_nanos),
            last_run_at: last.map(time::from_nanos),
            lease: None,
        });
    }
    Ok(Arc::new(skill))
}

pub(super) fn skill_by_id(tx: &ReadTransaction, id: &str) -> Result<Arc<Skill>> {
    skill(&tx.open_table(SKILLS)?, &tx.open_table(TIMES)?, id)
}

pub(super) fn skill_by_name(tx: &ReadTransaction, owner: &PrincipalId, name: &Name) -> Result<Arc<Skill>> {
    let id = tx.open_table(NAMES)?.get((owner.as_str(), name.as_str()))?.ok_or("no skill of that name")?;
    skill_by_id(tx, id.value())
}

pub(super) fn versions(
    tx: &ReadTransaction,
    id: &SkillId,
    limit: usize,
    after: Option<&Position>,
) -> Result<Versions> {
    let before = match after {
        None => u64::MAX,
        Some(Position::Before(seq)) => *seq,
        Some(Position::Cursor(_)) => return Err("a position of another list".into()),
    };
    let (id, versions) = (id.as_str(), tx.open_table(VERSIONS)?);
    let mut found = Vec::with_capacity(limit);
    for entry in versions.range((id, 0)..(id, before))?.rev().take(limit) {
        let (key, doc) = entry?;
        let content = serde_json::from_slice(doc.value())?;
        found.push(Arc::new(Version { seq: key.value().1, content }));
    }
    let last = found.last().map(|version| Position::Before(version.seq));
    let next = last.filter(|_| found.len() == limit);
    Ok((found, next))
}

pub(super) fn due(tx: &ReadTransaction, now: DateTime<Utc>, limit: usize) -> Result<Vec<Arc<Skill>>> {
    let (due, skills, times) = (tx.open_table(DUE)?, tx.open_table(SKILLS)?, tx.open_table(TIMES)?);
    let end = time::nanos("now", now)? + 1;
    let due = due.range(..(end, ""))?.take(limit);
    due.map(|entry| skill(&skills, &times, entry?.0.value().1)).collect()
}

/// The tables that a run is put together from.
struct Runs {
    runs: redb::ReadOnlyTable<&'static str, (i64, &'static [u8])>,
    finishes: redb::ReadOnlyTable<&'static str, &'static [u8]>,
}

impl Runs {
    fn of(tx: &ReadTransaction) -> Result<Self> {
        Ok(Runs { runs: tx.open_table(RUNS)?, finishes: tx.open_table(FINISHES)? })
    }

    fn get(&self, id: &str) -> Result<Option<Arc<Run>>> {
        let Some(found) = self.runs.get(id)? else { return Ok(None) };
        let start: NewRun = serde_json::from_slice(found.value().1)?;
        let finish = self.finishes.get(id)?.map(|doc| serde_json::from_slice::<Finish>(doc.value()));
        let finish = finish.transpose()?;
        let status = finish.as_ref().map_or(RunStatus::Running, |finish| finish.outcome.into());
        Ok(Some(Arc::new(Run { status, finish, start })))
    }
}

pub(super) fn ancestors(tx: &ReadTransaction, id: &RunId) -> Result<Vec<Arc<Run>>> {
    let runs = Runs::of(tx)?;
    let mut next = runs.get(id.as_str())?.ok_or("no such run")?.parent.clone();
    let mut found = Vec::new();
    while let Some(parent) = next.take() {
        let Some(run) = runs.get(parent.as_str())? else { break };
        next = run.parent.clone();
        found.push(run);
    }
    Ok(found)
}

pub(super) fn last_runs(tx: &ReadTransaction, skills: &[SkillId]) -> Result<Vec<Arc<Run>>> {
    let (runs, lists) = (Runs::of(tx)?, tx.open_table(RUN_LISTS)?);
    let mut found = Vec::with_capacity(skills.len());
    for skill in skills {
        let of_skill = (BY_SKILL, skill.as_str(), i64::MIN, "")..(BY_SKILL, skill.as_str(), i64::MAX, "");
        if let Some(entry) = lists.range(of_skill)?.next_back() {
            found.extend(runs.get(entry?.0.value().3)?);
        }
    }
    Ok(found)
}

/// The fields that are summed up.
#[derive(serde::Deserialize)]
struct Start<'a> {
    #[serde(borrow)]
    skill: Option<&'a str>,
}

pub(super) fn summary(tx: &ReadTransaction) -> Result<Vec<SummaryRow>> {
    let (runs, finishes) = (tx.open_table(RUNS)?, tx.open_table(FINISHES)?);
    // Both tables are in the order of the ids, so they are walked beside each other.
    let mut finishes = finishes.iter()?.peekable();
    let mut groups: BTreeMap<Option<String>, SummaryRow> = BTreeMap::new();
    for entry in runs.iter()? {
        let (id, run) = entry?;
        let (started_at, doc) = run.value();
        let skill = serde_json::from_slice::<Start<'_>>(doc)?.skill.map(str::to_owned);
        let row = groups.entry(skill).or_default();
        row.runs += 1;
        let own = finishes.next_if(|entry| entry.as_ref().map_or(true, |(of, _)| of.value() == id.value()));
        let Some((_, finish)) = own.transpose()? else {
            *row.by_status.entry(RunStatus::Running).or_default() += 1;
            continue;
        };
        let finish: Finish = serde_json::from_slice(finish.value())?;
        *row.by_status.entry(finish.outcome.into()).or_default() += 1;
        row.duration_nanos += time::nanos("finished_at", finish.finished_at)?.abs_diff(started_at);
        row.tokens.input += finish.tokens.input;
        row.tokens.output += finish.tokens.output;
        row.cost = row.cost.saturating_add(finish.cost);
    }
    let named = groups.into_iter().map(|(group, row)| SummaryRow { group, ..row });
    Ok(named.take(store_api::page::MAX_PAGE).collect())
}
