//! What a host might do to a store, from a seed: calls over all seams, and the state that each of them leads to.
//!
//! The states come from the engine in memory, so that what an engine with a file holds after a crash is compared
//! with something that has no file.

use contract_tests::fixture::{
    account, agent, at, charge, checkpoint, event, finish, id, micros, records, run, skill,
};
use fastrand::Rng;
use serde_json::json;
use store::transfer::{self, Digests};
use store::{
    Agent, Charge, Checkpoint, Error, Expect, Finish, NewEvent, NewRun, NewVersion, Reservation, Result,
    RunId, Seams, Skill, SkillId, Store, StoreExt,
};
use store_memory::MemoryStore;

/// One atomic call of a host, or several in one transaction.
#[derive(Debug, Clone)]
pub(crate) enum Call {
    SaveSkill(Skill),
    SaveAgent(Agent),
    Append(NewVersion<Skill>),
    Publish(NewVersion<Skill>),
    Mark(SkillId, i64),
    Add(Charge),
    Reserve(Reservation),
    Settle(Reservation),
    Start(NewRun),
    Event(RunId, NewEvent),
    Finish(RunId, Finish),
    Checkpoint(Checkpoint),
    /// Removes the checkpoint of a finished run.
    Forget(RunId),
    /// Removes the runs that finished before that second.
    Purge(i64),
    Delete(SkillId),
    /// Several in one transaction.
    All(Vec<Call>),
    /// A copy of another store into this one, which is empty: what these calls lead to.
    Copy(Vec<Call>),
    /// An import of the same.
    Import(Vec<Call>),
    /// Several, each by itself, and the power may go between them.
    Pieces(Vec<Call>),
}

impl Call {
    /// Makes the call.
    pub(crate) fn make(&self, store: &dyn Store) -> Result<()> {
        match self {
            Call::All(_) => store.transact(|seams| self.on(seams)),
            Call::Copy(calls) => transfer::copy(&led_to(calls)?, store, &mut |_| {}).map(drop),
            Call::Import(calls) => {
                let records = records(&led_to(calls)?)?;
                store.import(&mut records.into_iter().map(Ok)).map(drop)
            }
            Call::Pieces(calls) => calls.iter().try_for_each(|call| call.make(store)),
            call => call.on(store),
        }
    }

    /// Makes the call in a transaction, unless it is one that has to be made of a store.
    pub(crate) fn on(&self, seams: &dyn Seams) -> Result<()> {
        match self {
            Call::SaveSkill(doc) => seams.skills().save(doc, Expect::Any).map(drop),
            Call::SaveAgent(doc) => seams.agents().save(doc, Expect::Any).map(drop),
            Call::Append(version) => seams.skills().append_version(version).map(drop),
            Call::Publish(version) => seams.skills().publish(version, Expect::Any).map(drop),
            Call::Mark(skill, second) => {
                seams.skills().mark_scheduled_run(skill, at(*second), Some(at(second + 300)))
            }
            Call::Add(charge) => seams.budgets().add(charge, at(0)).map(drop),
            Call::Reserve(hold) => seams.budgets().reserve(hold, micros(1_000_000_000), at(0)).map(drop),
            Call::Settle(hold) => {
                seams.budgets().settle(&hold.account, &hold.id, hold.estimate, at(1)).map(drop)
            }
            Call::Start(run) => seams.audit().start_run(run).map(drop),
            Call::Event(run, event) => seams.audit().append_event(run, event).map(drop),
            Call::Finish(run, finish) => seams.audit().finish_run(run, finish),
            Call::Checkpoint(checkpoint) => seams.checkpoints().save(checkpoint),
            Call::Forget(run) => seams.checkpoints().delete(run),
            Call::Purge(second) => seams.audit().purge_before(at(*second), false).map(drop),
            Call::Delete(skill) => seams.skills().delete(skill, Expect::Any),
            Call::All(calls) => calls.iter().try_for_each(|call| call.on(seams)),
            Call::Copy(_) | Call::Import(_) | Call::Pieces(_) => {
                Err(Error::Unsupported { operation: "several transactions in one".into() })
            }
        }
    }
}

/// The store that calls lead to.
fn led_to(calls: &[Call]) -> Result<MemoryStore> {
    let store = MemoryStore::default();
    calls.iter().try_for_each(|call| call.make(&store))?;
    Ok(store)
}

/// Makes calls that a store grants, one after the other.
#[derive(Debug)]
pub(crate) struct Host {
    rng: Rng,
    /// What goes before every id, so that two hosts on one store do not meet.
    prefix: &'static str,
    made: u32,
    skills: Vec<u32>,
    /// Runs that have not ended, with the last iteration that was checkpointed.
    running: Vec<(u32, u64)>,
    /// Runs that have ended, the same way.
    finished: Vec<(u32, u64)>,
    holds: Vec<Reservation>,
}

impl Host {
    pub(crate) fn new(rng: Rng, prefix: &'static str) -> Self {
        Host { rng, prefix, made: 0, skills: vec![], running: vec![], finished: vec![], holds: vec![] }
    }

    /// The next calls.
    pub(crate) fn calls(&mut self, count: usize) -> Vec<Call> {
        (0..count).map(|_| self.call()).collect()
    }

    /// Calls that each write a run with its events and its checkpoint, which ends at its number in seconds or, one in
    /// four, goes on.
    pub(crate) fn runs(&mut self, count: u32) -> Vec<Call> {
        (1..=count).map(|number| self.whole_run(number)).collect()
    }

    fn whole_run(&mut self, number: u32) -> Call {
        let name = self.name(number);
        let mut calls = vec![Call::Start(run(&name, 0))];
        calls.extend((0..self.rng.u64(1..5)).map(|number| Call::Event(id(&name), event(number))));
        self.running.push((number, 0));
        calls.push(self.checkpoint(self.running.len() - 1));
        if self.rng.u8(0..4) > 0 {
            calls.push(Call::Finish(id(&name), finish(i64::from(number))));
        }
        Call::All(calls)
    }

    /// The next one.
    pub(crate) fn call(&mut self) -> Call {
        match self.rng.u8(0..10) {
            0 => {
                let count = self.rng.usize(2..5);
                Call::All((0..count).map(|_| self.single()).collect())
            }
            _ => self.single(),
        }
    }

    fn number(&mut self) -> u32 {
        self.made += 1;
        self.made
    }

    fn name(&self, number: u32) -> String {
        format!("{}{number}", self.prefix)
    }

    /// Text of up to a few pages.
    fn text(&mut self) -> String {
        let length = match self.rng.u8(0..8) {
            0 => self.rng.usize(5_000..20_000),
            _ => self.rng.usize(0..2_500),
        };
        std::iter::repeat_with(|| self.rng.alphanumeric()).take(length).collect()
    }

    fn single(&mut self) -> Call {
        let any_skill = self.rng.choice(&self.skills).copied();
        let any_run = (!self.running.is_empty()).then(|| self.rng.usize(0..self.running.len()));
        match (self.rng.u8(0..16), any_skill, any_run) {
            (0..=2, Some(skill), _) => Call::Append(self.version(skill)),
            (3, Some(skill), _) => Call::Publish(self.version(skill)),
            (4 | 5, Some(skill), _) => Call::Mark(id(&self.name(skill)), self.rng.i64(0..100_000)),
            (6, Some(skill), _) if self.skills.len() > 2 => {
                self.skills.retain(|other| *other != skill);
                Call::Delete(id(&self.name(skill)))
            }
            (7 | 8, _, Some(run)) => {
                let number = self.rng.u64(..);
                Call::Event(id(&self.name(self.running[run].0)), event(number))
            }
            (9 | 10, _, Some(run)) => self.checkpoint(run),
            (11, _, Some(run)) => {
                let run = self.running.swap_remove(run);
                self.finished.push(run);
                Call::Finish(id(&self.name(run.0)), finish(self.rng.i64(10..1_000)))
            }
            (12, _, _) => Call::Add(self.charge()),
            (13, _, _) => self.hold_or_settle(),
            (14, _, _) if !self.finished.is_empty() => self.clean_up(),
            (15, _, _) => {
                let number = self.number();
                Call::SaveAgent(Agent { prompt: self.text(), ..agent(&self.name(number)) })
            }
            (even, _, _) if even % 2 == 0 => {
                let number = self.number();
                self.running.push((number, 0));
                Call::Start(run(&self.name(number), self.rng.i64(0..10)))
            }
            _ => {
                let number = self.number();
                self.skills.push(number);
                Call::SaveSkill(self.skill(number))
            }
        }
    }

    fn skill(&mut self, number: u32) -> Skill {
        let schedule = contract_tests::fixture::schedule(Some(at(self.rng.i64(0..1_000))));
        Skill { body: self.text(), schedule: Some(schedule), ..skill(&self.name(number)) }
    }

    fn version(&mut self, skill: u32) -> NewVersion<Skill> {
        let (number, snapshot) = (self.number(), self.skill(skill));
        contract_tests::fixture::version(&self.name(number), snapshot)
    }

    fn checkpoint(&mut self, run: usize) -> Call {
        let (number, iteration) = &mut self.running[run];
        *iteration += 1;
        let (number, iteration) = (*number, *iteration);
        let state = json!({ "messages": self.text() });
        Call::Checkpoint(Checkpoint { state, ..checkpoint(&self.name(number), iteration) })
    }

    fn charge(&mut self) -> Charge {
        let (account, number) = (account(self.prefix, 60), self.number());
        charge(&account, self.rng.u64(1..1_000)).with_key(id(&self.name(number)))
    }

    fn hold_or_settle(&mut self) -> Call {
        match self.holds.pop() {
            Some(hold) => Call::Settle(hold),
            None => {
                let number = self.number();
                let hold = Reservation {
                    id: id(&self.name(number)),
                    account: account(self.prefix, 3600),
                    estimate: micros(self.rng.u64(1..1_000)),
                    expires_at: at(1_000),
                };
                self.holds.push(hold.clone());
                Call::Reserve(hold)
            }
        }
    }

    fn clean_up(&mut self) -> Call {
        match self.finished.pop() {
            Some((run, iterations)) if iterations > 0 => Call::Forget(id(&self.name(run))),
            _ => {
                self.finished.clear();
                Call::Purge(self.rng.i64(10..1_000))
            }
        }
    }
}

/// The states that calls lead through: the one before the first, and one after each.
///
/// # Errors
/// When one of the calls is refused: those of a [`Host`] are not.
pub(crate) fn states(before: Option<&dyn Store>, calls: &[Call]) -> Result<Vec<Digests>> {
    let model = MemoryStore::default();
    if let Some(before) = before {
        transfer::copy(before, &model, &mut |_| {})?;
    }
    let mut states = vec![digests(&model)?];
    for call in calls {
        call.make(&model)?;
        states.push(digests(&model)?);
    }
    Ok(states)
}

/// All that a store holds, in brief.
pub(crate) fn digests(store: &dyn Store) -> Result<Digests> {
    transfer::digests(store, &mut |_| {})
}
