//! The audit.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use store_api::*;

use super::{RunRow, State, Time, Tx, check_times, page};

/// The order of lists of runs: newest first, by start, then id.
type NewestFirst = Reverse<(Time, RunId)>;

fn newest_first(run: &Arc<Run>) -> (NewestFirst, Arc<Run>) {
    (Reverse((run.started_at, run.id.clone())), Arc::clone(run))
}

impl State {
    fn run(&self, id: &RunId) -> Option<Arc<Run>> {
        self.runs.get(id).map(|row| Arc::clone(&row.run))
    }

    fn all_runs(&self) -> impl Iterator<Item = &Arc<Run>> {
        self.runs.values().map(|row| &row.run)
    }

    fn running(&self) -> impl Iterator<Item = &Arc<Run>> {
        self.all_runs().filter(|run| run.status == RunStatus::Running)
    }

    pub(super) fn run_row(&mut self, id: &RunId) -> Result<&mut RunRow> {
        self.runs.get_mut(id).ok_or_else(|| Error::not_found(Entity::Run, id.as_str()))
    }

    fn finish(&mut self, id: &RunId, finish: &Finish) -> Result<()> {
        let row = self.run_row(id)?;
        if let Some(finished) = row.run.finished(finish)? {
            row.run = Arc::new(finished);
        }
        Ok(())
    }
}

impl AuditStore for Tx {
    fn start_run(&self, run: &NewRun) -> Result<Arc<Run>> {
        run.validate()?;
        let mut state = self.change();
        if state.runs.contains_key(&run.id) {
            return Err(Error::already_exists(Entity::Run, "id", run.id.as_str()));
        }
        let started = Arc::new(Run::started(run.clone()));
        state.runs.insert(run.id.clone(), RunRow { run: Arc::clone(&started), events: Vec::new() });
        Ok(started)
    }

    fn finish_run(&self, id: &RunId, finish: &Finish) -> Result<()> {
        finish.validate()?;
        self.change().finish(id, finish)
    }

    fn append_event(&self, run: &RunId, event: &NewEvent) -> Result<u64> {
        event.validate()?;
        let mut state = self.change();
        let events = &mut state.run_row(run)?.events;
        let seq = rules::next_seq(events.len() as u64)?;
        events.push(Arc::new(Event { run: run.clone(), seq, content: event.clone() }));
        Ok(seq)
    }

    fn run(&self, id: &RunId) -> Result<Option<Arc<Run>>> {
        Ok(self.look().run(id))
    }

    fn events(&self, run: &RunId, request: &PageRequest) -> Result<Page<Arc<Event>>> {
        let after = request.position(List::Events)?;
        let state = self.look();
        let events = state.runs.get(run).map(|row| &row.events).into_iter().flatten();
        page(List::Events, request, after, events.map(|event| (event.seq, Arc::clone(event))))
    }

    fn runs(&self, filter: &RunFilter, request: &PageRequest) -> Result<Page<Arc<Run>>> {
        let after = request.position(List::Runs)?;
        filter.validate()?;
        let state = self.look();
        let found = state.all_runs().filter(|run| filter.matches(run));
        page(List::Runs, request, after, found.map(newest_first))
    }

    fn children(&self, id: &RunId, request: &PageRequest) -> Result<Page<Arc<Run>>> {
        let after = request.position(List::Children)?;
        let state = self.look();
        let found = state.all_runs().filter(|run| run.parent.as_ref() == Some(id));
        page(List::Children, request, after, found.map(newest_first))
    }

    fn ancestors(&self, id: &RunId) -> Result<Vec<Arc<Run>>> {
        let state = self.look();
        audit::ancestors(id, |id| Ok(state.run(id)))
    }

    fn last_run_of(&self, skills: &[SkillId]) -> Result<Vec<Arc<Run>>> {
        let skills = rules::distinct("skills", skills)?;
        let state = self.look();
        let mut newest: HashMap<&SkillId, &Arc<Run>> = HashMap::new();
        for run in state.all_runs() {
            if let Some(skill) = &run.skill {
                let best = newest.entry(skill).or_insert(run);
                *best = std::cmp::max_by_key(*best, run, |run| (run.started_at, run.id.clone()));
            }
        }
        Ok(skills.iter().filter_map(|skill| newest.get(skill).map(|run| Arc::clone(run))).collect())
    }

    fn summary(
        &self,
        filter: &RunFilter,
        group_by: GroupBy,
        request: &PageRequest,
    ) -> Result<Page<SummaryRow>> {
        let mut summing = audit::Summing::new(filter, group_by);
        filter.validate()?;
        self.look().all_runs().for_each(|run| summing.add(run));
        summing.page(request)
    }

    fn abandon_stale(&self, before: Time, now: Time, max: usize) -> Result<Vec<RunId>> {
        rules::check_max(max)?;
        check_times(&[("before", Some(before)), ("now", Some(now))])?;
        let mut state = self.change();
        let stale = state.running().filter(|run| run.started_at < before);
        let mut stale: Vec<(Time, RunId)> = stale.map(|run| (run.started_at, run.id.clone())).collect();
        stale.sort();
        stale.truncate(max);
        let ids: Vec<RunId> = stale.into_iter().map(|(_, id)| id).collect();
        for id in &ids {
            state.finish(id, &Finish::new(RunOutcome::Abandoned, now))?;
        }
        Ok(ids)
    }

    fn purge_before(&self, before: Time, dry_run: bool) -> Result<PurgeReport> {
        check_times(&[("before", Some(before))])?;
        let mut state = self.change();
        let needed = audit::needed(state.running().cloned(), |id| Ok(state.run(id)))?;
        let old = state.runs.iter().filter(|(_, row)| audit::is_purgeable(&row.run, before));
        let (kept, gone): (Vec<_>, Vec<_>) = old.partition(|(id, _)| needed.contains(*id));
        let report = PurgeReport {
            runs: gone.len() as u64,
            events: gone.iter().map(|(_, row)| row.events.len() as u64).sum(),
            kept: kept.len() as u64,
        };
        if !dry_run {
            state.runs.retain(|id, row| !audit::is_purgeable(&row.run, before) || needed.contains(id));
        }
        Ok(report)
    }
}
