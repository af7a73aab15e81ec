//! Run audit.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use store_api::*;

use crate::page::{self, check_times, page};
use crate::state::Tx;
use crate::table::{Grouped, Hashed, Ordered, Undo};

/// The order of runs: by start in nanoseconds, then by id. `None` stands before every id, and only in the bounds of
/// a range.
pub(crate) type Started = (i64, Option<RunId>);

/// The tables of the audit.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    pub(crate) by_id: Hashed<RunId, Arc<Run>>,
    pub(crate) by_start: Ordered<Started, Arc<Run>>,
    pub(crate) running: Ordered<Started, Arc<Run>>,
    pub(crate) by_skill: Grouped<SkillId, Started, ()>,
    pub(crate) by_parent: Grouped<RunId, Started, ()>,
    pub(crate) events: Grouped<RunId, u64, Arc<Event>>,
}

/// Where a run stands in the ordered tables.
fn started(run: &Run) -> Result<Started> {
    Ok((time::nanos("started_at", run.started_at)?, Some(run.id.clone())))
}

fn not_found(id: &RunId) -> Error {
    Error::not_found(Entity::Run, id.as_str())
}

impl Audit {
    pub(crate) fn each_table(&mut self, act: &mut dyn FnMut(&mut dyn Undo)) {
        let Audit { by_id, by_start, running, by_skill, by_parent, events } = self;
        act(by_id);
        act(by_start);
        act(running);
        act(by_skill);
        act(by_parent);
        act(events);
    }

    fn get(&self, id: &RunId) -> Result<Option<Arc<Run>>> {
        Ok(self.by_id.get(id).cloned())
    }

    /// Stores a run in the place of itself, or as a new one, with everything that is derived from it.
    pub(crate) fn set(&mut self, run: &Arc<Run>) -> Result<()> {
        let at = started(run)?;
        if let Some(skill) = &run.skill {
            self.by_skill.set((skill.clone(), at.clone()), ());
        }
        if let Some(parent) = &run.parent {
            self.by_parent.set((parent.clone(), at.clone()), ());
        }
        if run.status == RunStatus::Running {
            self.running.set(at.clone(), Arc::clone(run));
        } else {
            self.running.unset(&at);
        }
        self.by_start.set(at, Arc::clone(run));
        self.by_id.set(run.id.clone(), Arc::clone(run));
        Ok(())
    }

    /// Removes a run with its events.
    fn remove(&mut self, run: &Run) -> Result<()> {
        let at = started(run)?;
        for seq in 1..=self.last_event(&run.id) {
            self.events.unset(&(run.id.clone(), seq));
        }
        if let Some(skill) = &run.skill {
            self.by_skill.unset(&(skill.clone(), at.clone()));
        }
        if let Some(parent) = &run.parent {
            self.by_parent.unset(&(parent.clone(), at.clone()));
        }
        self.running.unset(&at);
        self.by_start.unset(&at);
        self.by_id.unset(&run.id);
        Ok(())
    }

    /// The number of a run's last event, which is how many it has; zero for none.
    fn last_event(&self, run: &RunId) -> u64 {
        self.events.group(run).keys().next_back().copied().unwrap_or_default()
    }

    fn finish(&mut self, id: &RunId, finish: &Finish) -> Result<()> {
        let run = self.by_id.get(id).ok_or_else(|| not_found(id))?;
        run.finished(finish)?.map_or(Ok(()), |finished| self.set(&Arc::new(finished)))
    }

    /// The runs of an index that stands beside the records.
    fn newest_of<'a>(
        &'a self,
        index: &'a BTreeMap<Started, ()>,
        before: Option<Started>,
    ) -> impl Iterator<Item = (&'a Started, &'a Arc<Run>)> {
        let run = |started: &'a Started| self.by_id.get(started.1.as_ref()?);
        page::before(index, before).filter_map(move |(at, ())| Some((at, run(at)?)))
    }

    /// The runs that match, newest first, before a position. Skill, status `running` and the times narrow what is
    /// looked at; the rest of the filter skips.
    fn matching<'a>(
        &'a self,
        filter: &'a RunFilter,
        position: Option<Started>,
    ) -> Result<impl Iterator<Item = (&'a Started, &'a Arc<Run>)>> {
        let nanos =
            |field, time: Option<DateTime<Utc>>| time.map(|time| time::nanos(field, time)).transpose();
        let from = nanos("from", filter.from)?.unwrap_or(i64::MIN);
        let to = nanos("to", filter.to)?.map(|to| (to, None));
        let before = [position, to].into_iter().flatten().min();
        let candidates: Box<dyn Iterator<Item = (&Started, &Arc<Run>)>> = match &filter.skill {
            _ if filter.status == Some(RunStatus::Running) => Box::new(page::before(&self.running, before)),
            Some(skill) => Box::new(self.newest_of(self.by_skill.group(skill), before)),
            None => Box::new(page::before(&self.by_start, before)),
        };
        Ok(candidates.take_while(move |((at, _), _)| *at >= from).filter(|(_, run)| filter.matches(run)))
    }
}

impl AuditStore for Tx<'_> {
    fn start_run(&self, run: &NewRun) -> Result<Arc<Run>> {
        run.validate()?;
        let audit = &mut self.change()?.audit;
        if audit.by_id.contains_key(&run.id) {
            return Err(Error::already_exists(Entity::Run, "id", run.id.as_str()));
        }
        let run = Arc::new(Run::started(run.clone()));
        audit.set(&run)?;
        Ok(run)
    }

    fn finish_run(&self, id: &RunId, finish: &Finish) -> Result<()> {
        finish.validate()?;
        self.change()?.audit.finish(id, finish)
    }

    fn append_event(&self, run: &RunId, event: &NewEvent) -> Result<u64> {
        event.validate()?;
        let audit = &mut self.change()?.audit;
        if !audit.by_id.contains_key(run) {
            return Err(not_found(run));
        }
        let seq = rules::next_seq(audit.last_event(run))?;
        let event = Event { run: run.clone(), seq, content: event.clone() };
        audit.events.set((run.clone(), seq), Arc::new(event));
        Ok(seq)
    }

    fn run(&self, id: &RunId) -> Result<Option<Arc<Run>>> {
        self.look().audit.get(id)
    }

    fn events(&self, run: &RunId, request: &PageRequest) -> Result<Page<Arc<Event>>> {
        let position = request.position(List::Events)?;
        page(List::Events, request, page::after(self.look().audit.events.group(run), position))
    }

    fn runs(&self, filter: &RunFilter, request: &PageRequest) -> Result<Page<Arc<Run>>> {
        let position = request.position(List::Runs)?;
        filter.validate()?;
        page(List::Runs, request, self.look().audit.matching(filter, position)?)
    }

    fn children(&self, id: &RunId, request: &PageRequest) -> Result<Page<Arc<Run>>> {
        let position = request.position(List::Children)?;
        let audit = &self.look().audit;
        page(List::Children, request, audit.newest_of(audit.by_parent.group(id), position))
    }

    fn ancestors(&self, id: &RunId) -> Result<Vec<Arc<Run>>> {
        let state = self.look();
        audit::ancestors(id, |id| state.audit.get(id))
    }

    fn last_run_of(&self, skills: &[SkillId]) -> Result<Vec<Arc<Run>>> {
        let skills = rules::distinct("skills", skills)?;
        let audit = &self.look().audit;
        let newest = |skill| audit.newest_of(audit.by_skill.group(skill), None).next();
        Ok(skills.iter().filter_map(newest).map(|(_, run)| Arc::clone(run)).collect())
    }

    fn summary(
        &self,
        filter: &RunFilter,
        group_by: GroupBy,
        request: &PageRequest,
    ) -> Result<Page<SummaryRow>> {
        request.position::<Option<String>>(List::Summary)?;
        filter.validate()?;
        let mut summing = audit::Summing::new(filter, group_by);
        self.look().audit.matching(filter, None)?.for_each(|(_, run)| summing.add(run));
        summing.page(request)
    }

    fn abandon_stale(&self, before: DateTime<Utc>, now: DateTime<Utc>, max: usize) -> Result<Vec<RunId>> {
        rules::check_max(max)?;
        let first_to_stay = time::nanos("before", before)?;
        let abandoned = Finish::new(RunOutcome::Abandoned, now);
        check_times([("now", Some(now))])?;
        let audit = &mut self.change()?.audit;
        let stale = audit.running.iter().take_while(|((at, _), _)| *at < first_to_stay);
        let stale: Vec<RunId> = stale.take(max).map(|(_, run)| run.id.clone()).collect();
        stale.iter().try_for_each(|id| audit.finish(id, &abandoned).map(drop))?;
        Ok(stale)
    }

    fn purge_before(&self, before: DateTime<Utc>, dry_run: bool) -> Result<PurgeReport> {
        check_times([("before", Some(before))])?;
        let audit = &mut self.change()?.audit;
        let needed = audit::needed(audit.running.values().cloned(), |id| audit.get(id))?;
        let old = audit.by_id.values().filter(|run| audit::is_purgeable(run, before)).cloned();
        let (kept, gone): (Vec<_>, Vec<_>) = old.partition(|run| needed.contains(&run.id));
        let report = PurgeReport {
            runs: gone.len() as u64,
            events: gone.iter().map(|run| audit.last_event(&run.id)).sum(),
            kept: kept.len() as u64,
        };
        if !dry_run {
            gone.iter().try_for_each(|run| audit.remove(run))?;
        }
        Ok(report)
    }
}
