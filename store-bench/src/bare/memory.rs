//! Maps and vectors behind one lock, by hand.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use parking_lot::RwLock;
use store_api::budget::{AccountKey, Charging};
use store_api::{
    Amount, Charge, Checkpoint, Event, Finish, Lease, LeaseToken, Ledger, Name, NewEvent, NewRun, NewVersion,
    PrincipalId, Record, Run, RunId, Schedule, Skill, SkillId, SummaryRow, Version, WorkerId, time,
};

use crate::subject::{Claimed, Position, Result, Settlement, Subject, Versions};

#[derive(Default)]
struct State {
    counter: u64,
    skills: HashMap<SkillId, Arc<Skill>>,
    names: HashMap<(PrincipalId, Name), SkillId>,
    due: BTreeSet<(DateTime<Utc>, SkillId)>,
    versions: HashMap<SkillId, Vec<Arc<Version<Skill>>>>,
    accounts: HashMap<AccountKey, Ledger>,
    runs: HashMap<RunId, Arc<Run>>,
    runs_of: HashMap<SkillId, BTreeSet<(DateTime<Utc>, RunId)>>,
    events: HashMap<RunId, Vec<Event>>,
    checkpoints: HashMap<RunId, Arc<Checkpoint>>,
}

/// A readers-writer lock around it all.
#[derive(Default)]
pub(crate) struct Memory(RwLock<State>);

impl State {
    fn append_version(&mut self, content: NewVersion<Skill>) -> Result<u64> {
        let history = self.versions.get_mut(&content.snapshot.id).ok_or("no such skill")?;
        let seq = history.last().map_or(0, |last| last.seq) + 1;
        history.push(Arc::new(Version { seq, content }));
        Ok(seq)
    }

    fn load(&mut self, record: Record) -> Result<()> {
        match record {
            Record::Counter(counter) => self.counter = counter.last,
            Record::Skill(record) => {
                let skill = record.doc;
                self.names.insert((skill.owner.clone(), skill.name.clone()), skill.id.clone());
                if let Some(next) = skill.schedule.as_ref().and_then(|schedule| schedule.next_run_at) {
                    self.due.insert((next, skill.id.clone()));
                }
                self.versions.insert(skill.id.clone(), Vec::new());
                self.skills.insert(skill.id.clone(), skill);
            }
            Record::SkillVersion(version) => {
                let history = self.versions.get_mut(&version.snapshot.id).ok_or("no such skill")?;
                history.push(Arc::new(version));
            }
            Record::Account(record) => {
                self.accounts.insert(record.account.key(), record.ledger);
            }
            Record::Run(run) => self.put_run(run)?,
            Record::Event(event) => self.events.get_mut(&event.run).ok_or("no such run")?.push(event),
            Record::Checkpoint(record) => {
                self.checkpoints.insert(record.checkpoint.run.clone(), record.checkpoint);
            }
            other => return Err(format!("no map for a {}", other.type_name()).into()),
        }
        Ok(())
    }

    fn put_run(&mut self, run: Run) -> Result<()> {
        if let Some(skill) = &run.skill {
            let runs = self.runs_of.entry(skill.clone()).or_default();
            runs.insert((run.started_at, run.id.clone()));
        }
        self.events.insert(run.id.clone(), Vec::new());
        match self.runs.insert(run.id.clone(), Arc::new(run)) {
            None => Ok(()),
            Some(_) => Err("the run's id is taken".into()),
        }
    }

    fn schedule(&mut self, id: &SkillId) -> Result<&mut Schedule> {
        let skill = Arc::make_mut(self.skills.get_mut(id).ok_or("no such skill")?);
        Ok(skill.schedule.as_mut().ok_or("no schedule")?)
    }

    fn mark(&mut self, id: &SkillId, ran_at: DateTime<Utc>, next: DateTime<Utc>) -> Result<()> {
        let schedule = self.schedule(id)?;
        schedule.last_run_at = Some(ran_at);
        schedule.lease = None;
        let was = schedule.next_run_at.replace(next);
        if let Some(was) = was {
            self.due.remove(&(was, id.clone()));
        }
        self.due.insert((next, id.clone()));
        Ok(())
    }

    fn charge(&mut self, charge: &Charge, limit: Option<Amount>, now: DateTime<Utc>) -> Result<Amount> {
        let ledger = self.accounts.entry(charge.account.key()).or_default();
        match ledger.charge(&charge.account.meter.window, charge.amount, None, limit, now)? {
            Charging::Made { usage, .. } | Charging::Replayed(usage) => Ok(usage.used),
        }
    }

    fn finish(&mut self, run: &RunId, finish: &Finish) -> Result<()> {
        let run = Arc::make_mut(self.runs.get_mut(run).ok_or("no such run")?);
        run.status = finish.outcome.into();
        match run.finish.replace(finish.clone()) {
            None => Ok(()),
            Some(_) => Err("the run was finished before".into()),
        }
    }
}

impl Subject for Memory {
    fn load(&self, records: &mut (dyn Iterator<Item = Record> + Send)) -> Result<()> {
        let mut state = self.0.write();
        for record in records {
            state.load(record)?;
        }
        Ok(())
    }

    fn prepare(&self, runs: &[(NewRun, Checkpoint)]) -> Result<()> {
        let state = &mut *self.0.write();
        runs.iter().try_for_each(|(run, checkpoint)| {
            state.put_run(Run::started(run.clone()))?;
            state.checkpoints.insert(run.id.clone(), Arc::new(checkpoint.clone()));
            Ok(())
        })
    }

    fn append_version(&self, version: &NewVersion<Skill>) -> Result<u64> {
        let content = version.clone();
        self.0.write().append_version(content)
    }

    fn append_versions(&self, versions: &[NewVersion<Skill>]) -> Result<u64> {
        let mut state = self.0.write();
        versions.iter().try_fold(0, |_, version| state.append_version(version.clone()))
    }

    fn mark(&self, id: &SkillId, ran_at: DateTime<Utc>, next: DateTime<Utc>) -> Result<()> {
        self.0.write().mark(id, ran_at, next)
    }

    fn charge(&self, charge: &Charge, limit: Option<Amount>, now: DateTime<Utc>) -> Result<Amount> {
        self.0.write().charge(charge, limit, now)
    }

    fn start_run(&self, run: &NewRun) -> Result<()> {
        let run = Run::started(run.clone());
        self.0.write().put_run(run)
    }

    fn append_event(&self, run: &RunId, event: &NewEvent) -> Result<u64> {
        let content = event.clone();
        let mut state = self.0.write();
        let events = state.events.get_mut(run).ok_or("no such run")?;
        let seq = events.len() as u64 + 1;
        events.push(Event { run: run.clone(), seq, content });
        Ok(seq)
    }

    fn finish_run(&self, run: &RunId, finish: &Finish) -> Result<()> {
        self.0.write().finish(run, finish)
    }

    fn settle(&self, of: &Settlement) -> Result<()> {
        let state = &mut *self.0.write();
        let now = of.finish.finished_at;
        state.finish(&of.run, &of.finish)?;
        state.charge(&of.charge, None, now)?;
        state.mark(&of.skill, now, of.next)?;
        state.checkpoints.remove(&of.run).ok_or("no such checkpoint")?;
        Ok(())
    }

    fn save_checkpoint(&self, checkpoint: &Checkpoint) -> Result<()> {
        let new = Arc::new(checkpoint.clone());
        let mut state = self.0.write();
        let stored = state.checkpoints.get(&checkpoint.run);
        if stored.is_some_and(|stored| stored.iteration > checkpoint.iteration) {
            return Err("a newer checkpoint is stored".into());
        }
        state.checkpoints.insert(checkpoint.run.clone(), new);
        Ok(())
    }

    fn claim(&self, now: DateTime<Utc>, worker: &WorkerId, lease: Duration) -> Result<Option<Claimed>> {
        let until = time::after("until", now, lease)?;
        let state = &mut *self.0.write();
        let is_free = |id: &SkillId| {
            let lease = state.skills.get(id).and_then(|skill| skill.schedule.as_ref()?.lease.as_ref());
            lease.is_none_or(|lease| lease.until <= now)
        };
        let due = state.due.iter().take_while(|(at, _)| *at <= now);
        let Some(id) = due.map(|(_, id)| id).find(|id| is_free(id)).cloned() else { return Ok(None) };
        state.counter += 1;
        let token = LeaseToken(state.counter);
        state.schedule(&id)?.lease = Some(Lease { worker: worker.clone(), until, token });
        let skill = state.skills.get(&id).ok_or("no such skill")?.clone();
        Ok(Some(Claimed { skill, token }))
    }

    fn finish_claim(&self, claimed: &Claimed, now: DateTime<Utc>, next: DateTime<Utc>) -> Result<()> {
        let mut state = self.0.write();
        let id = &claimed.skill.id;
        let lease = state.schedule(id)?.lease.as_ref();
        if !lease.is_some_and(|lease| lease.token == claimed.token && lease.until > now) {
            return Err("the lease is lost".into());
        }
        state.mark(id, now, next)
    }

    fn get(&self, id: &SkillId) -> Result<Arc<Skill>> {
        Ok(self.0.read().skills.get(id).ok_or("no such skill")?.clone())
    }

    fn by_name(&self, owner: &PrincipalId, name: &Name) -> Result<Arc<Skill>> {
        let key = (owner.clone(), name.clone());
        let state = self.0.read();
        let id = state.names.get(&key).ok_or("no skill of that name")?;
        Ok(state.skills.get(id).ok_or("no such skill")?.clone())
    }

    fn versions(&self, id: &SkillId, limit: usize, after: Option<&Position>) -> Result<Versions> {
        let state = self.0.read();
        let history = state.versions.get(id).ok_or("no such skill")?;
        let end = match after {
            None => history.len(),
            Some(Position::Before(seq)) => history.partition_point(|version| version.seq < *seq),
            Some(Position::Cursor(_)) => return Err("a position of another list".into()),
        };
        let start = end.saturating_sub(limit);
        let found: Vec<_> = history[start..end].iter().rev().cloned().collect();
        let next = found.last().map(|version| Position::Before(version.seq)).filter(|_| start > 0);
        Ok((found, next))
    }

    fn due(&self, now: DateTime<Utc>, limit: usize) -> Result<Vec<Arc<Skill>>> {
        let state = self.0.read();
        let due = state.due.iter().take_while(|(at, _)| *at <= now).take(limit);
        due.map(|(_, id)| Ok(state.skills.get(id).ok_or("no such skill")?.clone())).collect()
    }

    fn ancestors(&self, id: &RunId) -> Result<Vec<Arc<Run>>> {
        let state = self.0.read();
        let mut next = state.runs.get(id).ok_or("no such run")?.parent.as_ref();
        let mut found = Vec::new();
        while let Some(run) = next.and_then(|parent| state.runs.get(parent)) {
            found.push(run.clone());
            next = run.parent.as_ref();
        }
        Ok(found)
    }

    fn last_runs(&self, skills: &[SkillId]) -> Result<Vec<Arc<Run>>> {
        let state = self.0.read();
        let newest = skills.iter().filter_map(|skill| state.runs_of.get(skill)?.last());
        newest.map(|(_, id)| Ok(state.runs.get(id).ok_or("no such run")?.clone())).collect()
    }

    fn summary(&self) -> Result<Vec<SummaryRow>> {
        let state = self.0.read();
        let mut groups: BTreeMap<Option<&SkillId>, SummaryRow> = BTreeMap::new();
        for run in state.runs.values() {
            let row = groups.entry(run.skill.as_ref()).or_default();
            row.runs += 1;
            *row.by_status.entry(run.status).or_default() += 1;
            let (Some(finish), Some(length)) = (&run.finish, run.duration()) else { continue };
            row.duration_nanos += u64::try_from(length.as_nanos())?;
            row.tokens.input += finish.tokens.input;
            row.tokens.output += finish.tokens.output;
            row.cost = row.cost.saturating_add(finish.cost);
        }
        let named = groups
            .into_iter()
            .map(|(group, row)| SummaryRow { group: group.map(ToString::to_string), ..row });
        Ok(named.take(store_api::page::MAX_PAGE).collect())
    }
}
