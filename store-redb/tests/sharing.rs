//! Commits that several writers share: what fails in one fails alone, unless it breaks the transaction.

#![allow(clippy::unwrap_used)] // of the helpers: each is an assertion

mod harness;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use harness::fault::Switch;
use store_api::*;
use store_redb::{Options, RedbStore};

/// Long enough for a thread to get in line behind the one before.
const IN_LINE: Duration = Duration::from_millis(20);
/// How many operations share a commit.
const OPERATIONS: u64 = 24;

fn at(nanos: u64) -> chrono::DateTime<chrono::Utc> {
    time::from_nanos(nanos.cast_signed())
}

fn ana() -> PrincipalId {
    PrincipalId::new("ana").unwrap()
}

fn agent(id: &str) -> Agent {
    let mut agent = Agent::new(AgentId::new(id).unwrap(), ana(), Name::new(id).unwrap());
    agent.tags = [Tag::new(id).unwrap()].into();
    agent.schedule = Some(Schedule::new("daily", "UTC", Some(at(10))));
    agent
}

fn account() -> Account {
    Account::new(ana(), MeterName::new("usd").unwrap(), Window::default())
}

fn run_id(number: u64) -> RunId {
    RunId::new(format!("run {number}")).unwrap()
}

/// Writes something to every seam: things of its own, and things that other operations change too.
fn write(seams: &dyn Seams, number: u64) -> Result<Revision> {
    let id = format!("agent {number}");
    let version = VersionId::new(&id)?;
    seams.agents().publish(&NewVersion::new(version, agent(&id), ana(), at(1)), Expect::Absent)?;
    let shared = seams.agents().update(&AgentId::new("shared")?, &mut |agent| {
        agent.prompt.push_str(&id);
        agent.tags = [Tag::new(&id)?].into();
        Ok(())
    })?;
    seams.agents().mark_scheduled_run(&AgentId::new("shared")?, at(number), Some(at(100 + number)))?;
    let charge = Charge::new(account(), Amount::from_units(1)?).with_key(IdempotencyKey::new(&id)?);
    seams.budgets().add(&charge, at(30))?;
    seams.audit().start_run(&NewRun::new(run_id(number), ana(), at(number)))?;
    let event = NewEvent { kind: "k".into(), at: at(2), payload: id.as_str().into() };
    seams.audit().append_event(&run_id(0), &event)?;
    seams.checkpoints().save(&Checkpoint::new(run_id(0), number, id.as_str().into(), at(3)))?;
    Ok(shared.revision)
}

/// Removes what others count on.
fn remove(seams: &dyn Seams) -> Result<()> {
    seams.agents().delete(&AgentId::new("shared")?, Expect::Any)?;
    seams.agents().save(&agent("shared"), Expect::Absent)?;
    seams.budgets().reset(&account())?;
    seams.audit().finish_run(&run_id(0), &Finish::new(RunOutcome::Failed, at(99)))?;
    seams.audit().purge_before(at(1_000), false)?;
    seams.checkpoints().delete(&run_id(0))?;
    seams.audit().start_run(&NewRun::new(run_id(0), ana(), at(0))).map(drop)
}

/// How an operation ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Good,
    Refused,
    Failing,
    Panicking,
}

fn fate(number: u64) -> Fate {
    match number % 12 {
        4 => Fate::Refused,
        8 => Fate::Failing,
        0 => Fate::Panicking,
        _ => Fate::Good,
    }
}

/// Gives the revision of the agent that all of them change: who came later has a higher one.
fn operation(store: &RedbStore, number: u64) -> Result<Revision> {
    store.transact(|seams| {
        if fate(number) != Fate::Good {
            remove(seams)?;
        }
        let revision = write(seams, number)?;
        match fate(number) {
            Fate::Good => Ok(revision),
            Fate::Refused => seams.agents().save(&agent("shared"), Expect::Absent),
            Fate::Failing => Err(Error::ReadOnly),
            Fate::Panicking => resume_unwind(Box::new(number)),
        }
    })
}

fn prepared(path: &Path, switch: &Switch) -> RedbStore {
    let store = RedbStore::open_over(path, Options::default(), switch.beneath()).unwrap();
    store.agents().save(&agent("shared"), Expect::Absent).unwrap();
    write(&store, 0).unwrap();
    // Room for what the operations write, because a file that has to grow is flushed before the commit.
    let room = Checkpoint::new(run_id(9_999), 1, "x".repeat(1 << 20).into(), at(3));
    store.checkpoints().save(&room).unwrap();
    store.checkpoints().delete(&room.run).unwrap();
    store
}

/// Runs operations so that they share one commit, in the order of their numbers: the first one that comes keeps the
/// turn until all are in line. On a busy machine one may be late, so a test asks whether they did, or tries again.
fn share<R: Send>(
    store: &RedbStore,
    numbers: impl Iterator<Item = u64>,
    operation: impl Fn(u64) -> R + Sync,
) -> Vec<R> {
    thread::scope(|scope| {
        let (entered, inside) = channel();
        let (go, wait) = channel::<()>();
        let first = scope.spawn(move || {
            let mut hold = Some((entered, wait)); // the first time that it is run
            store.transact(move |_| {
                if let Some((entered, wait)) = hold.take() {
                    entered.send(()).unwrap();
                    wait.recv().unwrap();
                }
                Ok(())
            })
        });
        inside.recv().unwrap();
        let queue = |number| {
            let operation = &operation;
            let thread = scope.spawn(move || operation(number));
            thread::sleep(IN_LINE);
            thread
        };
        let threads: Vec<_> = numbers.map(queue).collect();
        go.send(()).unwrap();
        // What the first one hears depends on the others.
        drop(first.join().unwrap());
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Tries again, a few times and each time with a new file, until all shared one commit.
fn until_shared(attempt: impl Fn(&Path, &Switch) -> bool) {
    let attempt = |_| {
        let directory = tempfile::tempdir().unwrap();
        attempt(&directory.path().join("shared.redb"), &Switch::default())
    };
    assert!((0..10).any(attempt), "writers that wait share no commit");
}

fn export(store: &RedbStore) -> Vec<Record> {
    let mut records = Vec::new();
    let mut keep = |record| {
        records.push(record);
        Ok(())
    };
    store.export(&mut keep).unwrap();
    records
}

/// What a store holds in which only the good operations ran, each in a commit of its own.
fn good_alone() -> Vec<Record> {
    let directory = tempfile::tempdir().unwrap();
    let store = prepared(&directory.path().join("alone.redb"), &Switch::default());
    for number in (1..=OPERATIONS).filter(|number| fate(*number) == Fate::Good) {
        operation(&store, number).unwrap();
    }
    export(&store)
}

#[test]
fn who_is_refused_or_fails_or_panics_does_so_alone() {
    let expected = good_alone();
    until_shared(|path, switch| {
        let store = prepared(path, switch);
        let (flushes, acknowledged) = (switch.flushes(), Mutex::new(Vec::new()));
        share(&store, 1..=OPERATIONS, |number| {
            let done = catch_unwind(AssertUnwindSafe(|| operation(&store, number)));
            match fate(number) {
                Fate::Good => {
                    let version = done.unwrap().unwrap();
                    acknowledged.lock().unwrap().push((version, number));
                    let own = store.audit().run(&run_id(number)).unwrap();
                    assert!(own.is_some(), "its writer reads it at once");
                }
                Fate::Refused => assert_eq!(done.unwrap().unwrap_err().kind(), ErrorKind::AlreadyExists),
                Fate::Failing => assert_eq!(done.unwrap().unwrap_err().kind(), ErrorKind::ReadOnly),
                Fate::Panicking => assert_eq!(done.unwrap_err().downcast_ref(), Some(&number), "its own"),
            }
        });
        let commits = (switch.flushes() - flushes) / 2;
        assert!(Store::verify(&store).unwrap().is_sound());
        let left = export(&store);
        drop(store);
        assert!(export(&RedbStore::open(path).unwrap()) == left);
        let mut acknowledged = acknowledged.into_inner().unwrap();
        acknowledged.sort();
        let in_order = acknowledged.is_sorted_by_key(|(_, number)| *number);
        assert!(!in_order || left == expected, "as if only the good ones had run");
        // Whoever fails half way ends a commit.
        commits == OPERATIONS / 4 && in_order
    });
}

/// Also who was refused is told of the flush that failed: what it was refused for may not be there.
#[test]
fn a_failed_flush_is_told_to_all_who_shared_it_and_ends_writing() {
    for last in [3, 4, 8, 12] {
        let shared = || [1, 2, last].into_iter();
        until_shared(|path, switch| {
            let store = prepared(path, switch);
            let before = export(&store);
            switch.fail(true);
            let late = share(&store, shared(), |number| {
                let done = catch_unwind(AssertUnwindSafe(|| operation(&store, number)));
                if matches!(done, Ok(Err(Error::Poisoned { .. }))) {
                    return true;
                }
                match fate(number) {
                    Fate::Good | Fate::Refused => {
                        assert_eq!(done.unwrap().unwrap_err().outcome(), Outcome::InDoubt);
                    }
                    Fate::Failing => assert_eq!(done.unwrap().unwrap_err().kind(), ErrorKind::ReadOnly),
                    Fate::Panicking => assert_eq!(done.unwrap_err().downcast_ref(), Some(&number), "its own"),
                }
                false
            });
            switch.fail(false);
            assert_eq!(operation(&store, 1).unwrap_err().kind(), ErrorKind::Poisoned);
            drop(store);
            if late.contains(&true) {
                return false;
            }
            let store = RedbStore::open(path).unwrap();
            let all = || shared().all(|number| fate(number) != Fate::Good || has_run(&store, number));
            assert!(export(&store) == before || all(), "all of the commit or nothing");
            assert!(Store::verify(&store).unwrap().is_sound());
            true
        });
    }
}

fn has_run(store: &RedbStore, number: u64) -> bool {
    store.audit().run(&run_id(number)).unwrap().is_some()
}

/// A full disk breaks redb's transaction, and no other can be begun.
#[test]
fn an_operation_that_breaks_the_transaction_takes_its_batch_along() {
    until_shared(|path, switch| {
        let store = prepared(path, switch);
        let before = export(&store);
        switch.full(true);
        let results = share(&store, 1..=3, |number| {
            let state = "x".repeat(if number == 2 { 8 << 20 } else { 10 });
            store.checkpoints().save(&Checkpoint::new(run_id(0), number, state.into(), at(3)))
        });
        if results[0].is_ok() {
            return false;
        }
        let kinds: Vec<ErrorKind> =
            results.iter().map(|result| result.as_ref().unwrap_err().kind()).collect();
        assert_eq!(kinds, [ErrorKind::Poisoned, ErrorKind::Backend, ErrorKind::Poisoned]);
        switch.full(false);
        assert!(export(&store) == before);
        drop(store);
        let store = RedbStore::open(path).unwrap();
        assert!(export(&store) == before);
        assert!(Store::verify(&store).unwrap().is_sound());
        true
    });
}
