//! The audit in the model: runs with their finish and their events.

use std::collections::{BTreeMap, BTreeSet};

use store_api::{
    Amount, Entity, Event, Finish, GroupBy, NewEvent, NewRun, PurgeReport, Run, RunFilter, RunOutcome,
    RunStatus, SummaryRow, Tokens,
};

use super::pool::is_flawed;
use super::world::{Answer, Nanos, Refusal, Time, World, check_max, check_times, nanos};

#[derive(Debug, Clone)]
pub(super) struct RunModel {
    start: NewRun,
    pub(super) finish: Option<Finish>,
    events: Vec<NewEvent>,
}

impl RunModel {
    fn status(&self) -> RunStatus {
        match self.finish.as_ref().map(|finish| finish.outcome) {
            None => RunStatus::Running,
            Some(RunOutcome::Succeeded) => RunStatus::Succeeded,
            Some(RunOutcome::Failed) => RunStatus::Failed,
            Some(RunOutcome::Cancelled) => RunStatus::Cancelled,
            Some(RunOutcome::Abandoned) => RunStatus::Abandoned,
        }
    }

    pub(super) fn shown(&self) -> Run {
        Run { status: self.status(), finish: self.finish.clone(), start: self.start.clone() }
    }

    fn parent(&self) -> Option<&str> {
        self.start.parent.as_ref().map(|parent| parent.as_str())
    }

    pub(super) fn edges(&self, edges: &mut Vec<Nanos>) {
        edges.push(nanos(self.start.started_at).unwrap());
        edges.extend(self.finish.iter().map(|finish| nanos(finish.finished_at).unwrap()));
    }
}

fn missing(id: &str) -> Refusal {
    Refusal::NotFound(Entity::Run, id.to_owned())
}

pub(super) fn start(world: &mut World, run: &NewRun) -> Answer<Run> {
    nanos(run.started_at)?;
    if is_flawed(&run.extra) {
        return Err(Refusal::InvalidInput);
    }
    if world.runs.contains_key(run.id.as_str()) {
        return Err(Refusal::AlreadyExists(Entity::Run, "id"));
    }
    let started = RunModel { start: run.clone(), finish: None, events: Vec::new() };
    let shown = started.shown();
    world.runs.insert(run.id.to_string(), started);
    Ok(shown)
}

pub(super) fn finish(world: &mut World, id: &str, finish: &Finish) -> Answer<()> {
    nanos(finish.finished_at)?;
    let run = world.runs.get_mut(id).ok_or_else(|| missing(id))?;
    if *run.finish.get_or_insert_with(|| finish.clone()) != *finish {
        return Err(Refusal::Conflict(Entity::Run, id.to_owned()));
    }
    Ok(())
}

pub(super) fn append(world: &mut World, id: &str, event: &NewEvent) -> Answer<u64> {
    nanos(event.at)?;
    let run = world.runs.get_mut(id).ok_or_else(|| missing(id))?;
    run.events.push(event.clone());
    Ok(run.events.len() as u64)
}

pub(super) fn events(world: &World, id: &str) -> Vec<Event> {
    let Some(run) = world.runs.get(id) else { return Vec::new() };
    let numbered = run.events.iter().zip(1..);
    numbered.map(|(event, seq)| Event { run: run.start.id.clone(), seq, content: event.clone() }).collect()
}

pub(super) fn ancestors(world: &World, id: &str) -> Answer<Vec<Run>> {
    let mut found: Vec<Run> = Vec::new();
    let mut at = world.runs.get(id).ok_or_else(|| missing(id))?;
    while let Some(parent) = at.parent() {
        let seen = parent == id || found.iter().any(|run| run.id.as_str() == parent);
        match world.runs.get(parent) {
            Some(run) if !seen => at = run,
            _ => break,
        }
        found.push(at.shown());
    }
    Ok(found)
}

/// The runs that are wanted, newest first.
pub(super) fn runs(world: &World, wanted: impl Fn(&Run) -> bool) -> Vec<Run> {
    let mut runs: Vec<Run> = world.runs.values().map(RunModel::shown).filter(|run| wanted(run)).collect();
    runs.sort_by(|one, other| (one.started_at, one.id.as_str()).cmp(&(other.started_at, other.id.as_str())));
    runs.reverse();
    runs
}

/// Whether a run is on the list that the filter describes.
pub(super) fn matches(filter: &RunFilter, run: &Run) -> bool {
    let mut fits = true;
    if let Some(skill) = &filter.skill {
        fits &= run.skill.as_ref().is_some_and(|other| other == skill);
    }
    if let Some(agent) = &filter.agent {
        fits &= run.agent.as_ref().is_some_and(|other| other == agent);
    }
    if let Some(caller) = &filter.caller {
        fits &= run.caller == *caller;
    }
    if let Some(channel) = &filter.channel {
        fits &= run.channel.as_ref().is_some_and(|other| other == channel);
    }
    if let Some(status) = filter.status {
        fits &= run.status == status;
    }
    if let Some(from) = filter.from {
        fits &= from <= run.started_at;
    }
    if let Some(to) = filter.to {
        fits &= run.started_at < to;
    }
    fits && (run.parent.is_none() || !filter.top_level)
}

pub(super) fn last_run_of(world: &World, skills: &[&str]) -> Vec<Run> {
    let mut found: Vec<Run> = Vec::new();
    for skill in skills {
        let is_of = |run: &Run| run.skill.as_ref().is_some_and(|other| other.as_str() == *skill);
        if !found.iter().any(is_of) {
            found.extend(runs(world, is_of).into_iter().next());
        }
    }
    found
}

pub(super) fn summary(world: &World, filter: &RunFilter, by: GroupBy) -> Vec<SummaryRow> {
    let mut groups: BTreeMap<Option<String>, Vec<Run>> = BTreeMap::new();
    for run in runs(world, |run| matches(filter, run)) {
        let group = match by {
            GroupBy::Nothing => None,
            GroupBy::Skill => run.skill.as_ref().map(|id| id.to_string()),
            GroupBy::Agent => run.agent.as_ref().map(|id| id.to_string()),
            GroupBy::Caller => Some(run.caller.to_string()),
            GroupBy::Channel => run.channel.as_ref().map(|id| id.to_string()),
            GroupBy::Status => Some(format!("{:?}", run.status).to_lowercase()),
            GroupBy::Day => Some(run.started_at.format("%Y-%m-%d").to_string()),
        };
        groups.entry(group).or_default().push(run);
    }
    groups.into_iter().map(|(group, runs)| sum(group, &runs)).collect()
}

fn sum(group: Option<String>, runs: &[Run]) -> SummaryRow {
    use RunStatus::{Abandoned, Cancelled, Failed, Running, Succeeded};
    let finished = || runs.iter().filter_map(|run| Some((run, run.finish.as_ref()?)));
    let total = |of: &dyn Fn(&Finish) -> u64| {
        finished().map(|(_, finish)| u128::from(of(finish))).sum::<u128>().min(u64::MAX.into())
    };
    let took = |(run, finish): (&Run, &Finish)| {
        (nanos(finish.finished_at).unwrap() - nanos(run.started_at).unwrap()).max(0)
    };
    let cost = total(&|finish| finish.cost.micros()).min(9_223_372_036_854_775_807);
    let number = |n: u128| u64::try_from(n).unwrap();
    SummaryRow {
        group,
        runs: runs.len() as u64,
        by_status: [Running, Succeeded, Failed, Cancelled, Abandoned]
            .map(|status| (status, runs.iter().filter(|run| run.status == status).count() as u64))
            .into(),
        duration_nanos: u64::try_from(finished().map(took).sum::<Nanos>()).unwrap(),
        tokens: Tokens {
            input: number(total(&|finish| finish.tokens.input)),
            output: number(total(&|finish| finish.tokens.output)),
        },
        cost: Amount::from_micros(number(cost)).unwrap(),
    }
}

pub(super) fn abandon(world: &mut World, before: Time, now: Time, max: usize) -> Answer<Vec<String>> {
    check_max(max)?;
    check_times(&[Some(before), Some(now)])?;
    let stale = runs(world, |run| run.finish.is_none() && run.started_at < before);
    let ids: Vec<String> = stale.iter().rev().take(max).map(|run| run.id.to_string()).collect();
    for id in &ids {
        finish(world, id, &Finish::new(RunOutcome::Abandoned, now)).unwrap();
    }
    Ok(ids)
}

pub(super) fn purge(world: &mut World, before: Time, dry_run: bool) -> Answer<PurgeReport> {
    nanos(before)?;
    // What a running run needs: parents of those that are needed, until there are no more.
    let mut needed: BTreeSet<String> =
        world.runs.iter().filter(|(_, run)| run.finish.is_none()).map(|(id, _)| id.clone()).collect();
    loop {
        let parents: BTreeSet<String> = needed
            .iter()
            .filter_map(|id| world.runs.get(id)?.parent().map(str::to_owned))
            .filter(|parent| !needed.contains(parent))
            .collect();
        if parents.is_empty() {
            break;
        }
        needed.extend(parents);
    }
    let mut report = PurgeReport::default();
    let mut gone = Vec::new();
    for (id, run) in &world.runs {
        match &run.finish {
            Some(finish) if finish.finished_at < before && needed.contains(id) => report.kept += 1,
            Some(finish) if finish.finished_at < before => {
                report.runs += 1;
                report.events += run.events.len() as u64;
                gone.push(id.clone());
            }
            _ => {}
        }
    }
    if !dry_run {
        gone.iter().for_each(|id| drop(world.runs.remove(id)));
    }
    Ok(report)
}
