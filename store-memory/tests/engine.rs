//! What is this engine's own: its lock, its undo, and what it says of itself.

#![allow(clippy::unwrap_used)] // in a test, also in its helpers, each is an assertion

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use store_api::{
    Account, Agent, AgentId, Amount, ChannelId, Charge, Checkpoint, DigestKey, Durability, Error, ErrorKind,
    Expect, Finish, IdempotencyKey, MeterName, Name, NewEvent, NewRun, NewVersion, PrincipalId, Record,
    Result, RunId, RunOutcome, Schedule, Seams, Secret, Skill, SkillId, Store, Tag, VersionId, Window,
    WorkerId, time,
};
use store_memory::{MemoryStore, Options};

fn impatient() -> MemoryStore {
    MemoryStore::new(Options { busy_timeout: Duration::from_millis(30) })
}

fn owner() -> PrincipalId {
    PrincipalId::new("o").unwrap()
}

fn skill(id: &str) -> Skill {
    let mut skill = Skill::new(SkillId::new(id).unwrap(), owner(), Name::new(id).unwrap());
    skill.tags.insert(Tag::new("t").unwrap());
    skill.schedule = Some(Schedule::new("@daily", "", Some(time::from_nanos(5))));
    skill
}

fn agent(id: &str) -> Agent {
    let mut agent = Agent::new(AgentId::new(id).unwrap(), owner(), Name::new(id).unwrap());
    agent.channel_filter.insert(ChannelId::new("c").unwrap());
    let key = DigestKey::new("k", [7; 32]).unwrap();
    agent.webhook = Some(key.digest(&Secret::new(format!("the secret of agent {id}")).unwrap()));
    agent
}

/// Writes to every table there is, with ids that end in `n`.
fn write_everywhere(seams: &dyn Seams, n: u8) -> Result<()> {
    let now = time::from_nanos(10);
    let (skill, agent) = (skill(&format!("s{n}")), agent(&format!("a{n}")));
    seams.skills().save(&skill, Expect::Any)?;
    seams.agents().save(&agent, Expect::Any)?;
    for v in 0..3 {
        let id = VersionId::new(format!("{n}-{v}"))?;
        seams.skills().append_version(&NewVersion::new(id, skill.clone(), owner(), now))?;
    }
    seams.skills().prune_versions(&skill.id, 2)?;
    let account = Account::new(owner(), MeterName::new(format!("m{n}"))?, Window::default());
    let charge = Charge::new(account, Amount::from_units(1)?).with_key(IdempotencyKey::new("k")?);
    seams.budgets().add(&charge, now)?;
    let mut run = NewRun::new(RunId::new(format!("r{n}"))?, owner(), now);
    run.skill = Some(skill.id.clone());
    run.parent = Some(RunId::new("unknown")?);
    seams.audit().start_run(&run)?;
    let event = NewEvent { kind: "k".into(), at: now, payload: serde_json::json!({"n": n}) };
    seams.audit().append_event(&run.id, &event)?;
    seams.checkpoints().save(&Checkpoint::new(run.id, 1, serde_json::json!(n), now))
}

/// Changes and removes what `write_everywhere(_, 0)` wrote.
fn change_everywhere(seams: &dyn Seams) -> Result<()> {
    let (now, lease) = (time::from_nanos(20), Duration::from_secs(1));
    let worker = WorkerId::new("w")?;
    seams.skills().claim_due(now, &worker, lease, 10)?;
    seams.skills().mark_scheduled_run(&SkillId::new("s0")?, now, Some(time::from_nanos(99)))?;
    seams.skills().pin_version(&VersionId::new("0-2")?, true)?;
    seams.skills().delete(&SkillId::new("s0")?, Expect::Any)?;
    seams.agents().update(&AgentId::new("a0")?, &mut |agent| {
        agent.name = Name::new("renamed")?;
        agent.channel_filter.clear();
        agent.webhook = None;
        Ok(())
    })?;
    seams.budgets().reset(&Account::new(owner(), MeterName::new("m0")?, Window::default()))?;
    seams.checkpoints().claim_interrupted(now, &worker, lease, 10)?;
    seams.checkpoints().delete(&RunId::new("r0")?)?;
    let run = RunId::new("r0")?;
    seams.audit().finish_run(&run, &Finish::new(RunOutcome::Succeeded, now))?;
    let report = seams.audit().purge_before(time::from_nanos(21), false)?;
    assert_eq!((report.runs, report.events), (1, 1));
    Ok(())
}

fn export(store: &MemoryStore) -> Vec<Record> {
    let mut records = Vec::new();
    store
        .export(&mut |record| {
            records.push(record);
            Ok(())
        })
        .unwrap();
    records
}

#[track_caller]
fn assert_sound(store: &MemoryStore) {
    let found = Store::verify(store).unwrap();
    assert!(found.is_sound(), "{found:?}");
    assert_eq!(found.records, export(store).len() as u64);
}

#[test]
fn a_transaction_that_fails_or_panics_leaves_no_trace_in_any_table() {
    let store = MemoryStore::default();
    store.transaction(&mut |seams| write_everywhere(seams, 0)).unwrap();
    assert_sound(&store);
    let before = export(&store);

    let failed = store.transaction(&mut |seams| {
        write_everywhere(seams, 1)?;
        change_everywhere(seams)?;
        Err(Error::Unsupported { operation: "this test".into() })
    });
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(export(&store), before);
    assert_sound(&store);

    let panicked = catch_unwind(AssertUnwindSafe(|| {
        store.transaction(&mut |seams| {
            write_everywhere(seams, 1)?;
            change_everywhere(seams)?;
            panic!("in the work of a transaction")
        })
    }));
    panicked.unwrap_err();
    assert_eq!(export(&store), before);
    assert_sound(&store);

    store
        .transaction(&mut |seams| write_everywhere(seams, 1).and_then(|()| change_everywhere(seams)))
        .unwrap();
    assert_ne!(export(&store), before);
    assert_sound(&store);
}

#[test]
fn an_edit_that_panics_leaves_no_trace_and_frees_the_lock() {
    let store = impatient();
    store.skills().save(&skill("s"), Expect::Any).unwrap();
    let before = export(&store);
    let edit = || store.skills().update(&skill("s").id, &mut |_| panic!("in an edit"));
    catch_unwind(AssertUnwindSafe(edit)).unwrap_err();
    assert_eq!(export(&store), before);
    store.skills().save(&skill("s"), Expect::Any).unwrap();
}

#[test]
fn an_export_and_an_import_that_fail_leave_no_trace_and_free_the_lock() {
    let (store, copy) = (impatient(), impatient());
    write_everywhere(&store, 0).unwrap();
    let refuse = |_| Err(Error::Unsupported { operation: "this sink".into() });
    assert_eq!(store.export(&mut { refuse }).unwrap_err().kind(), ErrorKind::Unsupported);
    let mut cut_off = export(&store).into_iter().map(Ok).chain([Err(Error::Closed)]);
    assert_eq!(copy.import(&mut cut_off).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(export(&copy).len(), 1, "the counter alone");
    copy.import(&mut export(&store).into_iter().map(Ok)).unwrap();
    assert_eq!(export(&copy), export(&store));
    assert_sound(&copy);
}

/// Runs `check` while another thread is inside `occupy`, which it leaves when it is told to.
fn while_occupied(
    occupy: impl FnOnce(&mut (dyn FnMut() -> Result<()> + Send)) -> Result<()> + Send,
    check: impl FnOnce(),
) {
    let ((inside, entered), (leave, left)) = (mpsc::channel(), mpsc::channel());
    thread::scope(|scope| {
        let occupied = scope.spawn(move || {
            occupy(&mut move || {
                inside.send(()).unwrap();
                left.recv().unwrap();
                Ok(())
            })
        });
        entered.recv().unwrap();
        // Dropped also when `check` panics, so the other thread ends in any case.
        let leave = leave;
        check();
        leave.send(()).unwrap();
        occupied.join().unwrap().unwrap();
    });
}

#[test]
fn others_are_busy_while_a_transaction_runs_and_are_served_after_it() {
    let store = impatient();
    while_occupied(
        |wait| store.transaction(&mut |_| wait()),
        || {
            let read = store.skills().get(&skill("s").id).unwrap_err();
            let write = store.skills().save(&skill("s"), Expect::Any).unwrap_err();
            for error in [read, write, Store::close(&store).unwrap_err()] {
                assert!(matches!(error, Error::Busy { waited, .. } if waited == Duration::from_millis(30)));
                assert!(error.is_retryable());
            }
        },
    );
    store.skills().save(&skill("s"), Expect::Any).unwrap();
}

#[test]
fn readers_read_while_a_snapshot_is_open_and_writers_are_busy() {
    let store = impatient();
    store.skills().save(&skill("s"), Expect::Any).unwrap();
    while_occupied(
        |wait| store.snapshot(&mut |_| wait()),
        || {
            thread::scope(|scope| {
                let readers: Vec<_> =
                    (0..20).map(|_| scope.spawn(|| store.skills().get(&skill("s").id))).collect();
                for reader in readers {
                    assert!(reader.join().unwrap().unwrap().is_some());
                }
            });
            let write = store.skills().save(&skill("t"), Expect::Any);
            assert_eq!(write.unwrap_err().kind(), ErrorKind::Busy);
            assert_eq!(Store::close(&store).unwrap_err().kind(), ErrorKind::Busy);
        },
    );
    store.skills().save(&skill("t"), Expect::Any).unwrap();
}

#[test]
fn calls_from_inside_are_nested_at_once() {
    let store = MemoryStore::default();
    store
        .transaction(&mut |_| {
            assert_eq!(store.skills().get(&skill("s").id).unwrap_err().kind(), ErrorKind::Nested);
            assert_eq!(Store::close(&store).unwrap_err().kind(), ErrorKind::Nested);
            Ok(())
        })
        .unwrap();
}

#[test]
fn many_writers_and_readers_lose_nothing() {
    let store = MemoryStore::default();
    store.skills().save(&skill("s"), Expect::Any).unwrap();
    thread::scope(|scope| {
        for writer in 0..4 {
            let store = &store;
            scope.spawn(move || {
                for n in 0..100 {
                    let id = VersionId::new(format!("{writer}-{n}")).unwrap();
                    let version = NewVersion::new(id, skill("s"), owner(), time::from_nanos(0));
                    store.skills().append_version(&version).unwrap();
                    assert!(store.skills().latest(&version.snapshot.id).unwrap().is_some());
                }
            });
        }
    });
    assert_eq!(store.skills().latest(&skill("s").id).unwrap().unwrap().seq, 400);
    assert_sound(&store);
}

#[test]
fn a_closed_store_says_so() {
    let store = MemoryStore::default();
    write_everywhere(&store, 0).unwrap();
    Store::close(&store).unwrap();
    Store::close(&store).unwrap();
    assert_eq!(store.skills().get(&skill("s0").id).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(store.skills().save(&skill("s"), Expect::Any).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(Store::verify(&store).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(Store::info(&store).engine, "memory");
}

#[test]
fn it_says_what_it_is() {
    let store = MemoryStore::default();
    let info = Store::info(&store);
    assert_eq!(
        (info.durability, info.multi_process, info.path, info.schema),
        (Durability::Memory, false, None, 1)
    );
    let backup = Store::backup(&store, std::path::Path::new("nowhere"));
    assert_eq!(backup.unwrap_err().kind(), ErrorKind::Unsupported);
}
