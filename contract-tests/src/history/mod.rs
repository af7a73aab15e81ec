//! The concurrent test: threads and processes work on one store, and what each was told is checked against every
//! order in which it could have happened.

pub mod check;

use std::sync::Mutex;
use std::time::Instant;

use store_api::{Error, ErrorKind, Expect, Revision, RunId, SkillId, Store, Usage};

use crate::fixture;
use crate::process::{Orders, Worker, place_for_workers};
use crate::suite::Suite;
use check::{Budget, BudgetStep, Register, RegisterStep, Timed};

/// How many threads write at once, and how many processes.
const WRITERS: usize = 4;

/// How many rounds each thread makes; each round makes one operation of every kind.
const ROUNDS: u64 = 40;

/// The clock of a history, and the operations that were recorded so far.
struct History {
    begin: Instant,
    appends: Mutex<Vec<Timed<u64>>>,
    events: Mutex<Vec<Timed<u64>>>,
    adds: Mutex<Vec<Timed<(u64, u64)>>>,
    /// One log for each account with a limit.
    budgets: Vec<Mutex<Vec<Timed<BudgetStep>>>>,
    register: Mutex<Vec<Timed<RegisterStep>>>,
    holds: Mutex<Vec<Timed<SkillId>>>,
}

impl History {
    fn new() -> Self {
        History {
            begin: Instant::now(),
            appends: Mutex::default(),
            events: Mutex::default(),
            adds: Mutex::default(),
            budgets: (0..ROUNDS).map(|_| Mutex::default()).collect(),
            register: Mutex::default(),
            holds: Mutex::default(),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_nanos()).expect("a test of less than 500 years")
    }

    /// Makes an operation, and records it as what `step` makes of its answer.
    fn record<A, T>(
        &self,
        log: &Mutex<Vec<Timed<T>>>,
        call: impl FnOnce() -> A,
        step: impl FnOnce(&A) -> T,
    ) -> A {
        let called = self.now();
        let answer = call();
        let returned = self.now();
        log.lock().unwrap().push(Timed { called, returned, what: step(&answer) });
        answer
    }
}

fn take<T>(log: Mutex<Vec<T>>) -> Vec<T> {
    log.into_inner().unwrap()
}

/// Threads append versions and events, charge, save and claim at once; what they were told must be explained by
/// some order that agrees with time.
///
/// # Panics
/// When it is not.
pub fn threads(suite: &Suite<'_>) {
    let instance = suite.create();
    let store = instance.store();
    let run: RunId = fixture::id("r");
    store.skills().save(&fixture::skill("shared"), Expect::Absent).unwrap();
    store.audit().start_run(&fixture::run("r", 0)).unwrap();
    let due = fixture::schedule(Some(fixture::at(0)));
    let claimed = fixture::Sample::with_schedule(fixture::skill("claimed"), Some(due));
    store.skills().save(&claimed, Expect::Absent).unwrap();

    let history = History::new();
    fixture::race(WRITERS, |writer| {
        for round in 0..ROUNDS {
            let number = u64::try_from(writer).unwrap() * ROUNDS + round;
            append(&*store, &history, number);
            let event = fixture::event(number);
            history.record(&history.events, || store.audit().append_event(&run, &event).unwrap(), |seq| *seq);
            charge(&*store, &history, number);
            save(&*store, &history, number);
            claim(&*store, &history, number);
        }
    });

    check::numbered(&take(history.appends)).unwrap();
    check::numbered(&take(history.events)).unwrap();
    check::totals(&take(history.adds)).unwrap();
    for account in history.budgets {
        check::linearizable(&Budget { limit: LIMIT }, &take(account)).unwrap();
    }
    check::linearizable(&Register, &take(history.register)).unwrap();
    check::held_once(&take(history.holds)).unwrap();
}

fn append(store: &dyn Store, history: &History, number: u64) {
    let version = fixture::version(&format!("v{number}"), fixture::skill("shared"));
    history.record(
        &history.appends,
        || store.skills().append_version(&version).unwrap(),
        |version| version.seq,
    );
}

/// The limit of each account that has one. Only the moment when an account fills up shows whether its limit holds, so
/// there is one for each round, and a few charges fill it.
const LIMIT: u64 = 8;

/// An add to an account that only grows, and a read or an add and two admissions to one with a limit.
fn charge(store: &dyn Store, history: &History, number: u64) {
    let budgets = store.budgets();
    let amount = 1 + number % 3;
    let now = fixture::at(1);
    let grows = fixture::charge(&fixture::account("grows", 3_600), amount);
    let total = |usage: &Usage| usage.used.micros();
    history.record(&history.adds, || budgets.add(&grows, now).unwrap(), |usage| (amount, total(usage)));

    let round = number % ROUNDS;
    let account = fixture::account(&format!("limited {round}"), 3_600);
    let charge = fixture::charge(&account, amount);
    let log = &history.budgets[usize::try_from(round).unwrap()];
    if number.is_multiple_of(2) {
        let read = || budgets.usage(&account, now).unwrap();
        history.record(log, read, |usage| BudgetStep::Usage(total(usage)));
    } else {
        let add = || budgets.add(&charge, now).unwrap();
        history.record(log, add, |usage| BudgetStep::Add(amount, total(usage)));
    }
    for _ in 0..2 {
        let admit = || budgets.admit(&charge, fixture::micros(LIMIT), now);
        drop(history.record(log, admit, |admitted| match admitted {
            Ok(usage) => BudgetStep::Admit(amount, Ok(total(usage))),
            Err(Error::LimitExceeded { used, .. }) => BudgetStep::Admit(amount, Err(used.micros())),
            Err(error) => panic!("an admission gave {error}"),
        }));
    }
}

/// A read of one definition, and a save of what was read; or a save whatever is there.
fn save(store: &dyn Store, history: &History, number: u64) {
    let skills = store.skills();
    let skill = fixture::skill("register");
    let log = &history.register;
    if number.is_multiple_of(4) {
        let save = || skills.save(&skill, Expect::Any).unwrap();
        history.record(log, save, |revision| RegisterStep::Save(revision.0));
        return;
    }
    let read = || skills.get(&skill.id).unwrap().map_or(0, |stored| stored.revision.0);
    let found = history.record(log, read, |revision| RegisterStep::Read(*revision));
    if found == 0 {
        return;
    }
    let save = || skills.save(&skill, Expect::Revision(Revision(found)));
    drop(history.record(log, save, |saved| match saved {
        Ok(revision) => RegisterStep::SaveOver(found, Some(revision.0)),
        Err(error) if error.kind() == ErrorKind::Conflict => RegisterStep::SaveOver(found, None),
        Err(error) => panic!("a save gave {error}"),
    }));
}

/// Claims what is due, and gives it back. The clock stands still, so no lease lapses.
fn claim(store: &dyn Store, history: &History, number: u64) {
    let worker = fixture::worker(&format!("w{number}"));
    let now = fixture::at(1);
    let claims = store.skills().claim_due(now, &worker, fixture::seconds(60), 1).unwrap();
    for claim in claims {
        let called = history.now();
        let returned = history.now();
        store.skills().release_claim(&claim.stored.id, claim.lease.token, now).unwrap();
        let what = claim.stored.id.clone();
        history.holds.lock().unwrap().push(Timed { called, returned, what });
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
    let history = History::new();
    for number in 0..ROUNDS {
        append(&*store, &history, number);
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
    let own = take(history.appends);
    assert!(own.windows(2).all(|pair| pair[0].what < pair[1].what), "this process appended in order");
}
