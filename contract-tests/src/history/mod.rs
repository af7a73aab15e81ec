//! The concurrent test: threads and processes work on one store, and what each was told is checked against every
//! order in which it could have happened.

pub mod check;

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use store_api::{Error, ErrorKind, Expect, Result, Revision, RunId, Skill, SkillId, Store, Usage};

use crate::fixture::{self, Sample};
use crate::process::{Orders, Worker, place_for_workers};
use crate::suite::Suite;
use check::{Budget, BudgetStep, Register, RegisterStep, Timed};

/// How many threads write at once, and how many processes.
const WRITERS: usize = 4;

/// How many rounds each writer makes; each round makes one operation of every kind.
const ROUNDS: u64 = 40;

/// A clock that all writers of a history have in common, in nanoseconds. It only goes forward.
pub type Clock = dyn Fn() -> u64 + Sync;

/// A clock for the threads of one process.
fn clock() -> impl Fn() -> u64 + Sync {
    let begin = Instant::now();
    move || u64::try_from(begin.elapsed().as_nanos()).expect("a test of less than 500 years")
}

/// The operations that were recorded: of one writer, or of several together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    appends: Vec<Timed<u64>>,
    events: Vec<Timed<u64>>,
    adds: Vec<Timed<(u64, u64)>>,
    edits: Vec<Timed<u64>>,
    /// One for each account with a limit, of which each round has one.
    budgets: Vec<Vec<Timed<BudgetStep>>>,
    register: Vec<Timed<RegisterStep>>,
    holds: Vec<Timed<SkillId>>,
    /// Claims that were lost before their lease lapsed.
    claims_lost: u64,
    /// Operations whose answers are checked when they come, and by what they must not do to others.
    others: u64,
}

impl Log {
    /// How many operations there are.
    pub fn operations(&self) -> u64 {
        let in_order = self.appends.len() + self.events.len() + self.adds.len() + self.edits.len();
        let searched = self.budgets.iter().map(Vec::len).sum::<usize>() + self.register.len();
        self.others + (in_order + searched) as u64
    }

    /// Takes another writer's operations in.
    pub fn join(&mut self, mut other: Log) {
        self.appends.append(&mut other.appends);
        self.events.append(&mut other.events);
        self.adds.append(&mut other.adds);
        self.edits.append(&mut other.edits);
        self.budgets.resize_with(self.budgets.len().max(other.budgets.len()), Vec::new);
        self.budgets.iter_mut().zip(&mut other.budgets).for_each(|(own, other)| own.append(other));
        self.register.append(&mut other.register);
        self.holds.append(&mut other.holds);
        self.claims_lost += other.claims_lost;
        self.others += other.others;
    }

    /// Whether some order that agrees with time explains every answer. The log is of all writers of a store.
    ///
    /// # Errors
    /// What no order explains.
    pub fn check(&self) -> std::result::Result<(), String> {
        check::numbered(&self.appends).map_err(|fault| format!("appends of versions: {fault}"))?;
        check::numbered(&self.events).map_err(|fault| format!("appends of events: {fault}"))?;
        check::numbered(&self.edits).map_err(|fault| format!("edits beside marks: {fault}"))?;
        check::totals(&self.adds).map_err(|fault| format!("adds: {fault}"))?;
        for account in &self.budgets {
            let explained = check::linearizable(&Budget { limit: LIMIT }, account);
            explained.map_err(|fault| format!("an account with a limit: {fault}"))?;
        }
        let explained = check::linearizable(&Register, &self.register);
        explained.map_err(|fault| format!("reads and saves: {fault}"))?;
        check::held_once(&self.holds).map_err(|fault| format!("claims: {fault}"))?;
        match self.claims_lost {
            0 => Ok(()),
            lost => Err(format!("claims: {lost} were lost before their lease lapsed")),
        }
    }
}

/// Threads append versions and events, charge, save, edit, mark and claim at once; what they were told must be
/// explained by some order that agrees with time.
///
/// # Panics
/// When it is not.
pub fn threads(suite: &Suite<'_>) {
    let instance = suite.create();
    record(&*instance.store(), WRITERS, ROUNDS).check().unwrap();
}

/// What that many threads, each with so many rounds, are told by a new store.
///
/// # Panics
/// When the store refuses what no store may refuse.
pub fn record(store: &dyn Store, writers: usize, rounds: u64) -> Log {
    prepare(store).unwrap();
    let clock = clock();
    let logs = fixture::race(writers, |writer| write(store, u64::try_from(writer).unwrap(), rounds, &clock));
    logs.into_iter().fold(Log::default(), |mut all, log| {
        all.join(log);
        all
    })
}

/// Puts into a new store what the writers work on.
///
/// # Errors
/// What the store gives.
pub fn prepare(store: &dyn Store) -> Result<()> {
    store.skills().save(&fixture::skill("shared"), Expect::Absent)?;
    store.audit().start_run(&fixture::run("r", 0))?;
    for (id, due) in [("claimed", fixture::at(0)), ("marked", later(0))] {
        let skill = fixture::skill(id).with_schedule(Some(fixture::schedule(Some(due))));
        store.skills().save(&Skill { body: "0".into(), ..skill }, Expect::Absent)?;
    }
    Ok(())
}

/// A time at which claims do not look, that many nanoseconds later.
fn later(nanos: u64) -> DateTime<Utc> {
    fixture::at(1_000_000) + Duration::from_nanos(nanos)
}

/// What one writer is told, in so many rounds. Writers are numbered from 0; others write at the same time.
///
/// # Panics
/// When the store refuses what no store may refuse.
pub fn write(store: &dyn Store, writer: u64, rounds: u64, clock: &Clock) -> Log {
    let mut writer = Writer { store, clock, number: writer * rounds, round: 0, log: Log::default() };
    for _ in 0..rounds {
        writer.append();
        writer.append_event();
        writer.charge();
        writer.save();
        writer.edit_and_mark();
        writer.claim();
        writer.number += 1;
        writer.round += 1;
    }
    writer.log
}

/// The limit of each account that has one. Only the moment when an account fills up shows whether its limit holds, so
/// there is one for each round, and a few charges fill it.
const LIMIT: u64 = 8;

struct Writer<'a> {
    store: &'a dyn Store,
    clock: &'a Clock,
    /// The round's number among those of all writers.
    number: u64,
    round: usize,
    log: Log,
}

impl Writer<'_> {
    /// Makes an operation, and records it as what `step` makes of its answer.
    fn record<A, T>(
        &mut self,
        log: impl FnOnce(&mut Log) -> &mut Vec<Timed<T>>,
        call: impl FnOnce() -> A,
        step: impl FnOnce(&A) -> T,
    ) -> A {
        let called = (self.clock)();
        let answer = call();
        let returned = (self.clock)();
        log(&mut self.log).push(Timed { called, returned, what: step(&answer) });
        answer
    }

    fn append(&mut self) {
        let version = fixture::version(&format!("v{}", self.number), fixture::skill("shared"));
        let store = self.store;
        let append = || store.skills().append_version(&version).unwrap();
        self.record(|log| &mut log.appends, append, |version| version.seq);
    }

    fn append_event(&mut self) {
        let (run, event): (RunId, _) = (fixture::id("r"), fixture::event(self.number));
        let store = self.store;
        self.record(|log| &mut log.events, || store.audit().append_event(&run, &event).unwrap(), |seq| *seq);
    }

    /// An add to an account that only grows, and a read or an add and two admissions to one with a limit.
    fn charge(&mut self) {
        let budgets = self.store.budgets();
        let amount = 1 + self.number % 3;
        let now = fixture::at(1);
        let grows = fixture::charge(&fixture::account("grows", 3_600), amount);
        let total = |usage: &Usage| usage.used.micros();
        let add = || budgets.add(&grows, now).unwrap();
        self.record(|log| &mut log.adds, add, |usage| (amount, total(usage)));

        let round = self.round;
        self.log.budgets.resize_with(round + 1, Vec::new);
        let account = fixture::account(&format!("limited {round}"), 3_600);
        let charge = fixture::charge(&account, amount);
        if self.number.is_multiple_of(2) {
            let read = || budgets.usage(&account, now).unwrap();
            self.record(|log| &mut log.budgets[round], read, |usage| BudgetStep::Usage(total(usage)));
        } else {
            let add = || budgets.add(&charge, now).unwrap();
            self.record(|log| &mut log.budgets[round], add, |usage| BudgetStep::Add(amount, total(usage)));
        }
        for _ in 0..2 {
            let admit = || budgets.admit(&charge, fixture::micros(LIMIT), now);
            drop(self.record(
                |log| &mut log.budgets[round],
                admit,
                |admitted| match admitted {
                    Ok(usage) => BudgetStep::Admit(amount, Ok(total(usage))),
                    Err(Error::LimitExceeded { used, .. }) => BudgetStep::Admit(amount, Err(used.micros())),
                    Err(error) => panic!("an admission gave {error}"),
                },
            ));
        }
    }

    /// A read of one definition, and a save of what was read; or a save whatever is there.
    fn save(&mut self) {
        let skills = self.store.skills();
        let skill = fixture::skill("register");
        if self.number.is_multiple_of(4) {
            let save = || skills.save(&skill, Expect::Any).unwrap();
            self.record(|log| &mut log.register, save, |revision| RegisterStep::Save(revision.0));
            return;
        }
        let read = || skills.get(&skill.id).unwrap().map_or(0, |stored| stored.revision.0);
        let found = self.record(|log| &mut log.register, read, |revision| RegisterStep::Read(*revision));
        if found == 0 {
            return;
        }
        let save = || skills.save(&skill, Expect::Revision(Revision(found)));
        drop(self.record(
            |log| &mut log.register,
            save,
            |saved| match saved {
                Ok(revision) => RegisterStep::SaveOver(found, Some(revision.0)),
                Err(error) if error.kind() == ErrorKind::Conflict => RegisterStep::SaveOver(found, None),
                Err(error) => panic!("a save gave {error}"),
            },
        ));
    }

    /// An edit that counts up the number that a text is, and a mark of the same definition, which must not undo an
    /// edit.
    fn edit_and_mark(&mut self) {
        let skills = self.store.skills();
        let id: SkillId = fixture::id("marked");
        let number = |skill: &Skill| skill.body.parse::<u64>().expect("a number");
        let edit = || {
            let counted = skills.update(&id, &mut |skill| {
                skill.body = (number(skill) + 1).to_string();
                Ok(())
            });
            number(&counted.unwrap().doc)
        };
        self.record(|log| &mut log.edits, edit, |number| *number);
        let ran_at = later(self.number);
        skills.mark_scheduled_run(&id, ran_at, Some(ran_at)).unwrap();
        self.log.others += 1;
    }

    /// Claims what is due, and gives it back. The clock stands still, so no lease lapses.
    fn claim(&mut self) {
        let worker = fixture::worker(&format!("w{}", self.number));
        let now = fixture::at(1);
        let skills = self.store.skills();
        let claims = skills.claim_due(now, &worker, fixture::seconds(60), 1).unwrap();
        self.log.others += 1;
        for claim in claims {
            let called = (self.clock)();
            let returned = (self.clock)();
            match skills.release_claim(&claim.stored.id, claim.lease.token, now) {
                Err(error) if error.kind() == ErrorKind::LeaseLost => self.log.claims_lost += 1,
                released => released.unwrap(),
            }
            self.log.others += 1;
            self.log.holds.push(Timed { called, returned, what: claim.stored.id.clone() });
        }
    }
}

/// Processes and the threads of this one append versions to one definition: the numbers are 1 to the last, each
/// acknowledged version is there, those of one process rise in the order that it appended them, and those of this
/// process agree with time.
///
/// # Panics
/// When they do not.
pub fn processes(suite: &Suite<'_>) {
    let instance = suite.create();
    let place = place_for_workers(suite, &*instance).filter(|_| suite.facts().multi_process);
    let Some(place) = place else {
        return suite.exempt("the concurrent test", "several processes", "one process at a time can open it");
    };
    let store = instance.store();
    store.skills().save(&fixture::skill("shared"), Expect::Absent).unwrap();
    let start = |worker: usize| {
        let orders = Orders {
            place: place.to_owned(),
            name: format!("p{worker}"),
            appends: u32::try_from(ROUNDS).unwrap(),
        };
        Worker::start(suite, &orders)
    };
    let workers: Vec<Worker> = (0..WRITERS).map(start).collect();
    let clock = clock();
    let mut own = Writer { store: &*store, clock: &clock, number: 0, round: 0, log: Log::default() };
    for number in 0..ROUNDS {
        own.number = number;
        own.append();
    }
    let acknowledged: Vec<Vec<String>> = workers.into_iter().map(Worker::finish).collect();

    let versions = fixture::versions::<store_api::Skill>(&*store, &fixture::id("shared"));
    let mut seqs: Vec<u64> = versions.iter().map(|version| version.seq).collect();
    seqs.reverse();
    let all = u64::try_from(WRITERS + 1).unwrap() * ROUNDS;
    assert_eq!(seqs, (1..=all).collect::<Vec<u64>>());
    let seq_of = |id: &String| {
        let found = versions.iter().find(|version| version.id.as_str() == id);
        found.unwrap_or_else(|| panic!("{id} was acknowledged and is not there")).seq
    };
    for of_one in &acknowledged {
        let seqs: Vec<u64> = of_one.iter().map(seq_of).collect();
        assert!(seqs.windows(2).all(|pair| pair[0] < pair[1]), "one process appended in order: {seqs:?}");
    }
    let own: Vec<u64> = own.log.appends.iter().map(|append| append.what).collect();
    assert!(own.is_sorted(), "this process appended in order: {own:?}");
}
