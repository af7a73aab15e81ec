//! What a child does until it is killed.

use std::error::Error as StdError;
use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use contract_tests::fixture::{self, records};
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::{Durability, Error, ErrorKind, Result, Seams, Skill, Store, StoreExt};

use super::said::{Ack, Said};
use crate::place;

/// What a child is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Orders {
    pub(super) task: Task,
    /// The store that it works on.
    pub(super) url: String,
    /// Which of all children it is, counted from 1.
    pub(super) process: u64,
    pub(super) seed: u64,
}

/// What there is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Task {
    /// Writes without end, on that many threads.
    Write { threads: u64, durability: Durability },
    /// Acknowledges what it has gathered before it writes it, which no store does: the control.
    Gather,
    /// Opens the store, which makes it or brings it up to date.
    Open,
    /// Reads all records of another store, then imports them.
    Import { from: String },
    /// Copies another store into this one as it reads it.
    Copy { from: String },
    /// Backs this store up to a path.
    Backup { to: String },
}

/// The longest that a child lives. One that is still there then waits for something that never comes.
const LIFE: Duration = Duration::from_secs(60);

/// How many writes the control gathers.
const GATHERED: u64 = 8;

/// Does what its arguments tell.
pub(super) fn main(arguments: &[String]) {
    thread::spawn(|| {
        thread::sleep(LIFE);
        say(&Said::Fault(format!("still at work after {LIFE:?}")));
        std::process::exit(1);
    });
    if let Err(error) = obey(arguments) {
        say(&Said::Fault(error.to_string()));
    }
}

/// Writes a line in one piece. A child that cannot speak has lost its parent, and ends.
fn say(said: &Said) {
    let spoken = serde_json::to_string(said).map_err(io::Error::other).and_then(|mut line| {
        line.push('\n');
        let mut output = io::stdout().lock();
        output.write_all(line.as_bytes())?;
        output.flush()
    });
    if spoken.is_err() {
        std::process::exit(1);
    }
}

fn obey(arguments: &[String]) -> std::result::Result<(), Box<dyn StdError>> {
    let orders: Orders = serde_json::from_str(arguments.first().ok_or("no orders")?)?;
    let open = |url: &str| place::open(url, Durability::PowerLoss);
    match &orders.task {
        Task::Write { threads, durability } => {
            say(&Said::Begins);
            let store = place::open(&orders.url, *durability)?;
            say(&Said::Opened);
            thread::scope(|scope| {
                for number in 0..*threads {
                    let mut writer = Writer::new(&*store, &orders, number);
                    scope.spawn(move || writer.write());
                }
            });
        }
        Task::Gather => {
            say(&Said::Begins);
            let store = open(&orders.url)?;
            say(&Said::Opened);
            gather(&*store, &orders)?;
        }
        Task::Open => {
            say(&Said::Begins);
            let store = open(&orders.url)?;
            say(&Said::Done);
            wait_for_the_end(&*store);
        }
        Task::Import { from } => {
            let records = records(&*open(from)?)?;
            let store = open(&orders.url)?;
            say(&Said::Begins);
            store.import(&mut records.into_iter().map(Ok))?;
            say(&Said::Done);
            wait_for_the_end(&*store);
        }
        Task::Copy { from } => {
            let (from, to) = (open(from)?, open(&orders.url)?);
            say(&Said::Begins);
            store::transfer::copy(&*from, &*to, &mut |_| {})?;
            say(&Said::Done);
            wait_for_the_end(&*to);
        }
        Task::Backup { to } => {
            let store = open(&orders.url)?;
            say(&Said::Begins);
            store.backup(to.as_ref())?;
            say(&Said::Done);
            wait_for_the_end(&*store);
        }
    }
    Ok(())
}

/// Keeps the store open until the kill comes.
fn wait_for_the_end(_store: &dyn Store) {
    thread::sleep(LIFE);
}

/// The version, the event and the charge of one transaction.
fn unit(seams: &dyn Seams, id: &str) -> Result<()> {
    seams.skills().append_version(&fixture::version(id, fixture::skill(SHARED)))?;
    seams.audit().append_event(&fixture::id(SHARED), &event(id))?;
    seams.budgets().add(&fixture::charge(&account(), 1), fixture::at(0))?;
    Ok(())
}

fn gather(store: &dyn Store, orders: &Orders) -> Result<()> {
    for round in 0u64.. {
        let ids: Vec<String> = (0..GATHERED).map(|n| format!("u{}-{round}-{n}", orders.process)).collect();
        for id in &ids {
            say(&Said::Ack(Ack::Unit { id: id.clone() }));
        }
        store.transact(|tx| ids.iter().try_for_each(|id| unit(tx, id)))?;
    }
    Ok(())
}

/// The skill that all append versions to, the run that all append events to.
pub(super) const SHARED: &str = "shared";
/// The skill whose text is a number that all count up.
pub(super) const EDITED: &str = "edited";
/// The skills that are due.
pub(super) const DUE: [&str; 2] = ["due 1", "due 2"];
/// How many events each run has that is written to be purged.
pub(super) const EVENTS: u64 = 3;
/// How many seconds lie between the clocks of one child and the next.
const AGE: i64 = 100_000;

/// The account that all charge.
pub(super) fn account() -> store::Account {
    fixture::account(SHARED, 604_800)
}

fn event(id: &str) -> store::NewEvent {
    store::NewEvent { payload: json!(id), ..fixture::event(0) }
}

/// Puts in a new store what the writers work on.
pub(super) fn prepare(store: &dyn Store) -> Result<()> {
    store.transact(|tx| {
        tx.skills().save(&fixture::skill(SHARED), store::Expect::Absent)?;
        tx.audit().start_run(&fixture::run(SHARED, 0))?;
        let edited = Skill { body: "0".into(), ..fixture::skill(EDITED) };
        tx.skills().save(&edited, store::Expect::Absent)?;
        for id in DUE {
            let schedule = Some(fixture::schedule(Some(fixture::at(0))));
            tx.skills().save(&Skill { schedule, ..fixture::skill(id) }, store::Expect::Absent)?;
        }
        Ok(())
    })
}

/// Writes that many times, of every kind.
pub(super) fn fill(store: &dyn Store, operations: u64) -> Result<()> {
    let mut writer =
        Writer { store, random: fastrand::Rng::with_seed(0), process: 1, name: "1-0".into(), done: 0 };
    (0..operations).try_for_each(|_| writer.operation(&mut |_| {}))
}

/// One thread that writes.
struct Writer<'s> {
    store: &'s dyn Store,
    random: fastrand::Rng,
    process: u64,
    /// What its ids end with, so that nobody else's are the same.
    name: String,
    /// How many operations it has done.
    done: u64,
}

impl<'s> Writer<'s> {
    fn new(store: &'s dyn Store, orders: &Orders, number: u64) -> Self {
        let random = fastrand::Rng::with_seed(orders.seed.wrapping_mul(31).wrapping_add(number));
        Writer {
            store,
            random,
            process: orders.process,
            name: format!("{}-{number}", orders.process),
            done: 0,
        }
    }

    /// Writes, one operation after the other, and acknowledges each when it has returned.
    fn write(&mut self) {
        loop {
            if let Err(error) = self.operation(&mut |ack| say(&Said::Ack(ack))) {
                say(&Said::Fault(error.to_string()));
                std::process::exit(1);
            }
        }
    }

    fn operation(&mut self, acknowledge: &mut dyn FnMut(Ack)) -> Result<()> {
        self.done += 1;
        let id = format!("{}-{}", self.name, self.done);
        let store = self.store;
        let ack = match self.random.u8(..9) {
            0 | 1 => {
                let version = fixture::version(&format!("v{id}"), fixture::skill(SHARED));
                let seq = store.skills().append_version(&version)?.seq;
                Ack::Version { id: format!("v{id}"), seq }
            }
            2 => {
                let seq = store.audit().append_event(&fixture::id(SHARED), &event(&format!("e{id}")))?;
                Ack::Event { id: format!("e{id}"), seq }
            }
            3 => {
                store.transact(|tx| unit(tx, &format!("u{id}")))?;
                Ack::Unit { id: format!("u{id}") }
            }
            4 => {
                let charge = fixture::charge(&account(), 1).with_key(fixture::id(&id));
                Ack::Charge { total: store.budgets().add(&charge, fixture::at(0))?.used.micros() }
            }
            5 => self.edit()?,
            6 => {
                store.checkpoints().save(&fixture::checkpoint(&self.name, self.done))?;
                Ack::Checkpoint { run: self.name.clone(), iteration: self.done }
            }
            7 => return self.claim(acknowledge),
            _ => self.run_and_purge(&format!("r{id}"))?,
        };
        acknowledge(ack);
        Ok(())
    }

    fn edit(&self) -> Result<Ack> {
        let edited = self.store.skills().update(&fixture::id(EDITED), &mut |skill| {
            skill.body = (number(&skill.body)? + 1).to_string();
            Ok(())
        })?;
        Ok(Ack::Edit { number: number(&edited.doc.body)? })
    }

    /// The clock of this child, in seconds: behind those of all later ones.
    fn now(&self) -> i64 {
        i64::try_from(self.process).unwrap_or(i64::MAX / AGE).saturating_mul(AGE)
            + i64::try_from(self.done).unwrap_or(AGE)
    }

    /// Claims what is due and finishes what it got. Another worker whose clock is ahead may take the claim away.
    fn claim(&self, acknowledge: &mut dyn FnMut(Ack)) -> Result<()> {
        let (skills, now) = (self.store.skills(), self.now());
        let worker = fixture::worker(&self.name);
        for claim in skills.claim_due(fixture::at(now), &worker, fixture::seconds(1), 1)? {
            let skill = claim.stored.id.to_string();
            acknowledge(Ack::Claim { skill: skill.clone(), token: claim.lease.token.0, now });
            let next = Some(fixture::at(now + 1));
            match skills.finish_claim(
                &claim.stored.id,
                claim.lease.token,
                fixture::at(now),
                fixture::at(now),
                next,
            ) {
                Ok(()) => acknowledge(Ack::Finish { skill, now }),
                Err(error) if error.kind() == ErrorKind::LeaseLost => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Purges the runs of earlier children, and writes one of its own with its events.
    fn run_and_purge(&self, id: &str) -> Result<Ack> {
        let born = fixture::at(self.now() - i64::try_from(self.done).unwrap_or(AGE));
        self.store.audit().purge_before(born, false)?;
        self.store.transact(|tx| {
            tx.audit().start_run(&fixture::run(id, self.now()))?;
            for number in 0..EVENTS {
                tx.audit().append_event(&fixture::id(id), &fixture::event(number))?;
            }
            tx.audit().finish_run(&fixture::id(id), &fixture::finish(self.now()))
        })?;
        Ok(Ack::Run { id: id.to_owned(), process: self.process })
    }
}

/// The number that a text is.
pub(super) fn number(text: &str) -> Result<u64> {
    text.parse().map_err(|e| Error::backend("reading a number", io::Error::other(format!("{text:?}: {e}"))))
}
