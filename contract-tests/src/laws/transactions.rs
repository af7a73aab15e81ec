//! TXN: transactions, snapshots, shared commits, and calls from inside them.

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use send_wrapper::SendWrapper;
use store_api::*;

use crate::fixture::*;
use crate::suite::Suite;

/// How long a call that must not wait for itself may take before it counts as a deadlock.
const AT_ONCE: Duration = Duration::from_secs(20);
/// How long a writer beside a snapshot is waited for.
const BESIDE: Duration = Duration::from_millis(300);
/// Threads in a shared commit.
const THREADS: usize = 6;
/// Calls of each of them.
const CALLS: usize = 15;
/// Transactions beside the readers who look for a torn one.
const ROUNDS: u64 = 20;

/// What a panicking closure of a host says.
const PANIC: &str = "a panic that the law is about";

/// Something in every seam, under names that begin with `name`.
fn write_everywhere(seams: &dyn Seams, name: &str) -> Result<()> {
    seams.skills().save(&skill(name).with_schedule(Some(schedule(Some(at(10))))), Expect::Any)?;
    seams.skills().append_version(&version(&format!("{name}-s"), skill(name)))?;
    seams.skills().mark_scheduled_run(&id(name), at(10), Some(at(20)))?;
    seams.skills().claim_due(at(20), &worker("w"), seconds(60), 1)?;
    seams.agents().publish(&version(&format!("{name}-a"), agent(name)), Expect::Any)?;
    let keyed = charge(&account(name, 60), 5).with_key(id("k"));
    seams.budgets().add(&keyed, at(0))?;
    let hold =
        Reservation { id: id("h"), account: account(name, 60), estimate: micros(1), expires_at: at(50) };
    seams.budgets().reserve(&hold, Amount::MAX, at(0))?;
    seams.audit().start_run(&run(name, 0))?;
    seams.audit().append_event(&id(name), &event(1))?;
    seams.audit().finish_run(&id(name), &finish(1))?;
    seams.checkpoints().save(&checkpoint(name, 1))?;
    seams.checkpoints().claim(&id(name), at(0), &worker("w"), seconds(60)).map(drop)
}

/// Changes and removes what [`write_everywhere`] wrote.
fn change_everywhere(seams: &dyn Seams, name: &str) -> Result<()> {
    let edit = &mut |doc: &mut Skill| {
        doc.name = id("renamed");
        doc.body = "changed".into();
        Ok(())
    };
    seams.skills().update(&id(name), edit)?;
    seams.skills().pin_version(&id(&format!("{name}-s")), true)?;
    seams.skills().reschedule(&id(name), None)?;
    seams.agents().prune_versions(&id(name), 0)?;
    seams.agents().delete(&id(name), Expect::Any)?;
    seams.budgets().settle(&account(name, 60), &id("h"), micros(3), at(1))?;
    seams.budgets().reset(&account(name, 60))?;
    seams.audit().append_event(&id(name), &event(2))?;
    seams.audit().purge_before(at(1_000), false)?;
    seams.audit().abandon_stale(at(1_000), at(1_000), 9)?;
    seams.checkpoints().save(&checkpoint(name, 9))?;
    seams.checkpoints().delete(&id(name))
}

/// Runs `work`, which panics with [`PANIC`], and gives the panic back quietly.
fn panicking(work: impl FnOnce()) {
    let panic = panic::catch_unwind(AssertUnwindSafe(work)).expect_err("it panics");
    assert_eq!(panic.downcast_ref::<&str>(), Some(&PANIC), "the host's own panic comes through");
}

fn throw() -> ! {
    // Without the hook, which would print a story about something that is meant to happen.
    panic::resume_unwind(Box::new(PANIC))
}

pub fn txn_1_all_or_nothing(suite: &Suite<'_>) {
    nothing_is_left_of_what_fails(suite);
    a_snapshot_sees_one_moment(suite);
    nobody_sees_half_a_transaction(suite);
}

fn nothing_is_left_of_what_fails(suite: &Suite<'_>) {
    let mut instance = suite.create();
    let store = instance.store();
    write_everywhere(&*store, "old").unwrap();
    let before = export(&*store);
    let doomed = || Error::Unsupported { operation: "the host gives up".into() };
    let all = |seams: &dyn Seams| -> Result<()> {
        change_everywhere(seams, "old")?;
        write_everywhere(seams, "new")
    };
    let gave_up = store.transaction(&mut |seams| all(seams).and(Err(doomed())));
    refused(gave_up, ErrorKind::Unsupported);
    assert_eq!(export(&*store), before, "an error left a trace");
    panicking(|| {
        drop(store.transaction(&mut |seams| {
            all(seams)?;
            throw()
        }));
    });
    assert_eq!(export(&*store), before, "a panic left a trace");
    panicking(|| drop(store.skills().update(&id("old"), &mut |_| throw())));
    assert_eq!(export(&*store), before, "a panic in an edit left a trace");
    // A panic in one edit that the work survives: it cannot be known what it left half done, so nothing is kept.
    let survived = store.transaction(&mut |seams| {
        seams.audit().start_run(&run("beside", 0))?;
        panicking(|| drop(seams.skills().update(&id("old"), &mut |_| throw())));
        Ok(())
    });
    assert!(survived.is_err(), "a transaction that panicked half way committed");
    assert_eq!(export(&*store), before);
    panicking(|| {
        drop(store.snapshot(&mut |_| throw()));
    });

    // What failed left no lock behind, nor a number used up; the same work goes through now, whole.
    store.transaction(&mut |seams| all(seams)).unwrap();
    assert!(
        store.skills().get(&id("new")).unwrap().is_some()
            && store.agents().get(&id("old")).unwrap().is_none()
    );
    let whole = export(&*store);
    let other = suite.create();
    write_everywhere(&*other.store(), "old").unwrap();
    other.store().transaction(&mut |seams| all(seams)).unwrap();
    assert_eq!(export(&*other.store()), whole, "what failed before left a trace in what came after");
    if suite.facts().durable {
        drop(store);
        instance.reopen().unwrap();
        assert_eq!(export(&*instance.store()), whole);
    }
}

fn a_snapshot_sees_one_moment(suite: &Suite<'_>) {
    let instance = suite.create();
    let store = instance.store();
    write_everywhere(&*store, "old").unwrap();
    let mut writer = None;
    store
        .view(|seams| {
            let before = glance(seams);
            let store = instance.store();
            writer = Some(beside(move || {
                store.transaction(&mut |seams| {
                    change_everywhere(seams, "old")?;
                    write_everywhere(seams, "new")
                })
            }));
            assert_eq!(glance(seams), before, "a snapshot moved");
            Ok(())
        })
        .unwrap();
    writer.expect("a writer").join().expect("a writer").unwrap();
    assert!(store.skills().get(&id("new")).unwrap().is_some());

    // So does an export: what is written while it runs is not in it.
    let before = export(&*store);
    let mut records = Vec::new();
    let mut writer = None;
    store
        .export(&mut |record| {
            writer.get_or_insert_with(|| {
                let store = instance.store();
                beside(move || write_everywhere(&*store, "during"))
            });
            records.push(record);
            Ok(())
        })
        .unwrap();
    assert_eq!(records, before);
    writer.expect("a writer").join().expect("a writer").unwrap();
    assert!(store.skills().get(&id("during")).unwrap().is_some());
    // The sink's error ends it.
    let mut seen = 0;
    let full = store.export(&mut |_| {
        seen += 1;
        if seen == 3 { Err(Error::Unsupported { operation: "a full disk".into() }) } else { Ok(()) }
    });
    refused(full, ErrorKind::Unsupported);
    assert_eq!(seen, 3);
}

/// Starts a writer beside an open snapshot, and gives it the time to be done. An engine may also let it wait until
/// the snapshot is over: it must not be seen, and it must get its turn.
fn beside(write: impl FnOnce() -> Result<()> + Send + 'static) -> thread::JoinHandle<Result<()>> {
    let (done, wait) = mpsc::channel::<()>();
    let writer = thread::spawn(move || {
        let result = write();
        drop(done);
        result
    });
    // Ends early when the writer drops its end.
    wait.recv_timeout(BESIDE).expect_err("nothing is ever sent");
    writer
}

/// One look at each seam.
fn glance(seams: &dyn Seams) -> String {
    let definitions = DefinitionFilter::default();
    let budgets = seams.budgets();
    let look = (
        list(|page| seams.skills().list(&definitions, page)),
        versions::<Skill>(seams, &id("old")),
        list(|page| seams.agents().list(&definitions, page)),
        list(|page| budgets.accounts(at(1), page)),
        list(|page| seams.audit().runs(&RunFilter::default(), page)),
        list(|page| seams.audit().events(&id("old"), page)),
        list(|page| seams.checkpoints().interrupted(page)),
    );
    format!("{look:?}")
}

/// Each transaction raises one number in all five seams; a reader never sees them differ.
fn nobody_sees_half_a_transaction(suite: &Suite<'_>) {
    let instance = suite.create();
    let store = instance.store();
    store
        .transaction(&mut |seams| {
            seams.skills().save(&skill("n"), Expect::Any)?;
            seams.agents().save(&agent("n"), Expect::Any)?;
            seams.audit().start_run(&run("n", 0))?;
            seams.checkpoints().save(&checkpoint("n", 0))
        })
        .unwrap();
    let account = account("n", 1_000);
    let raise = |seams: &dyn Seams| -> Result<u64> {
        let number = seams.audit().append_event(&id("n"), &event(0))?;
        let body = number.to_string();
        seams.skills().save(&Skill { body: body.clone(), ..skill("n") }, Expect::Any)?;
        seams.agents().save(&Agent { prompt: body, ..agent("n") }, Expect::Any)?;
        seams.budgets().add(&charge(&account, 1), at(0))?;
        seams.checkpoints().save(&checkpoint("n", number))?;
        Ok(number)
    };
    let numbers = |seams: &dyn Seams| -> Result<[u64; 5]> {
        let number = |text: &str| text.parse().unwrap_or(0);
        Ok([
            list(|page| seams.audit().events(&id("n"), page)).len() as u64,
            number(&seams.skills().get(&id("n"))?.expect("a skill").body),
            number(&seams.agents().get(&id("n"))?.expect("an agent").prompt),
            seams.budgets().usage(&account, at(1))?.used.micros(),
            seams.checkpoints().load(&id("n"))?.expect("a checkpoint").iteration,
        ])
    };
    let done = AtomicBool::new(false);
    race(4, |thread| {
        if thread < 2 {
            for round in 0..ROUNDS {
                // Every third one is undone at its end.
                let undone = || if round % 3 == 2 { Err(Error::ReadOnly) } else { Ok(()) };
                let kept = store.transact(|seams| raise(seams).and_then(|n| undone().map(|()| n)));
                assert_eq!(kept.is_err(), round % 3 == 2);
            }
            done.store(true, Ordering::Release);
            return;
        }
        let mut last = 0;
        while !done.load(Ordering::Acquire) {
            let seen = store.view(numbers).unwrap();
            assert!(seen.iter().all(|number| *number == seen[0]), "half a transaction was seen: {seen:?}");
            assert!(seen[0] >= last, "time ran backwards");
            last = seen[0];
        }
    });
    let kept = 2 * (0..ROUNDS).filter(|round| round % 3 != 2).count() as u64;
    assert_eq!(store.view(numbers).unwrap(), [kept; 5]);
}

pub fn txn_2_failures_stand_alone(suite: &Suite<'_>) {
    refusals_let_the_work_go_on(suite);
    other_errors_doom(suite);
    snapshots_are_read_only(suite);
    nested_calls_are_found_out(suite);
    failures_in_a_shared_commit_stand_alone(suite);
}

fn refusals_let_the_work_go_on(suite: &Suite<'_>) {
    let instance = suite.create();
    let store = instance.store();
    write_everywhere(&*store, "a").unwrap();
    store
        .transaction(&mut |seams| {
            let limit = Amount::ZERO;
            refused(seams.skills().save(&skill("a"), Expect::Absent), ErrorKind::AlreadyExists);
            refused(seams.agents().save(&agent("b"), Expect::Revision(Revision(1))), ErrorKind::NotFound);
            seams.checkpoints().save(&checkpoint("kept", 1))?;
            refused(seams.checkpoints().save(&checkpoint("a", 0)), ErrorKind::Conflict);
            refused(seams.audit().abandon_stale(at(0), at(0), 0), ErrorKind::InvalidInput);
            refused(
                seams.budgets().admit(&charge(&account("x", 9), 1), limit, at(0)),
                ErrorKind::LimitExceeded,
            );
            let late = seams.checkpoints().release_claim(&id("a"), LeaseToken(9_999), at(0));
            refused(late, ErrorKind::LeaseLost);
            let own = seams.skills().update(&id("a"), &mut |doc| {
                doc.body = "half".into();
                Err(Error::LimitExceeded { used: Amount::MAX, limit: Amount::ZERO })
            });
            refused(own, ErrorKind::LimitExceeded);
            seams.audit().start_run(&run("kept", 0)).map(drop)
        })
        .unwrap();
    assert_eq!(store.skills().get(&id("a")).unwrap().unwrap().body, "");
    assert!(store.audit().run(&id("kept")).unwrap().is_some());
    assert!(store.checkpoints().load(&id("kept")).unwrap().is_some());
    // The work's own refusal at the end undoes all of it, as any error of its does.
    let before = export(&*store);
    let end = store.transaction(&mut |seams| {
        seams.audit().start_run(&run("undone", 0))?;
        seams.skills().save(&skill("a"), Expect::Absent).map(drop)
    });
    refused(end, ErrorKind::AlreadyExists);
    assert_eq!(export(&*store), before);
}

/// After an error that is no refusal nothing goes on: later calls and the commit give that error.
fn other_errors_doom(suite: &Suite<'_>) {
    let instance = suite.create();
    let store = instance.store();
    write_everywhere(&*store, "a").unwrap();
    let before = export(&*store);
    let dooms = [
        Error::Busy { waited: Duration::ZERO, holder: "the host's own lock".into() },
        Error::Unsupported { operation: "something of the host's".into() },
        Error::corrupt("something", "of the host's"),
        Error::backend("a call of the host's", std::io::Error::other("it failed")),
        Error::Closed,
    ];
    for doom in dooms {
        let kind = doom.kind();
        let result = store.transaction(&mut |seams| {
            seams.audit().start_run(&run("b", 0))?;
            refused(seams.skills().update(&id("a"), &mut |_| Err(doom.clone())), kind);
            // Swallowed, and gone on with: in every seam, reads as well as writes.
            refused(seams.audit().start_run(&run("c", 0)), kind);
            refused(seams.skills().get(&id("a")), kind);
            refused(seams.agents().save(&agent("c"), Expect::Any), kind);
            refused(seams.budgets().usage(&account("a", 60), at(0)), kind);
            refused(seams.checkpoints().load(&id("a")), kind);
            Ok(())
        });
        refused(result, kind);
        assert_eq!(export(&*store), before, "a doomed transaction committed");
        // Alone, the edit's error comes back as it is, and the store is as good as before.
        refused(store.skills().update(&id("a"), &mut |_| Err(doom.clone())), kind);
        assert_eq!(export(&*store), before);
    }
    store.audit().start_run(&run("b", 0)).unwrap();
}

fn snapshots_are_read_only(suite: &Suite<'_>) {
    let instance = suite.create();
    let store = instance.store();
    write_everywhere(&*store, "a").unwrap();
    let before = export(&*store);
    let writes: [fn(&dyn Seams) -> Result<()>; 8] = [
        |s| s.skills().save(&skill("b"), Expect::Any).map(drop),
        |s| s.skills().mark_scheduled_run(&id("a"), at(0), None),
        |s| s.skills().claim_due(at(0), &worker("w"), seconds(1), 1).map(drop),
        |s| s.agents().prune_versions(&id("a"), 0).map(drop),
        |s| s.budgets().add(&charge(&account("a", 60), 0), at(0)).map(drop),
        |s| s.audit().purge_before(at(0), true).map(drop),
        |s| s.audit().append_event(&id("a"), &event(1)).map(drop),
        |s| s.checkpoints().delete(&id("a")),
    ];
    for write in writes {
        let result = store.snapshot(&mut |seams| {
            seams.skills().get(&id("a"))?;
            refused(write(seams), ErrorKind::ReadOnly);
            refused(seams.skills().get(&id("a")), ErrorKind::ReadOnly);
            Ok(())
        });
        refused(result, ErrorKind::ReadOnly);
    }
    assert_eq!(export(&*store), before);
    // A refusal of a read dooms nothing.
    let walk = store.view(|seams| {
        refused(seams.audit().ancestors(&id("nobody")), ErrorKind::NotFound);
        seams.audit().ancestors(&id("a"))
    });
    assert!(walk.unwrap().is_empty());
}

/// Runs `work` on a thread of its own and fails when it is not done soon: a deadlock must not hang the suite.
fn at_once(what: &str, work: impl FnOnce() + Send + 'static) {
    let (done, wait) = mpsc::channel::<()>();
    let thread = thread::spawn(move || {
        work();
        drop(done);
    });
    match wait.recv_timeout(AT_ONCE) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{what} waits for itself"),
        _ => thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic)),
    }
}

fn nested_calls_are_found_out(suite: &Suite<'_>) {
    type Call = fn(&dyn Store) -> Result<()>;
    let calls: [(&str, Call); 9] = [
        ("a read", |s| s.skills().get(&id("a")).map(drop)),
        ("a write", |s| s.audit().start_run(&run("nested", 0)).map(drop)),
        ("a transaction", |s| s.transaction(&mut |_| Ok(()))),
        ("a snapshot", |s| s.snapshot(&mut |_| Ok(()))),
        ("an export", |s| s.export(&mut |_| Ok(()))),
        ("an import", |s| s.import(&mut std::iter::empty()).map(drop)),
        ("a verification", |s| s.verify().map(drop)),
        ("a backup", |s| s.backup(std::path::Path::new("nested-backup-that-is-never-made"))),
        ("a close", |s| s.close()),
    ];
    let instance = suite.create();
    write_everywhere(&*instance.store(), "a").unwrap();
    for (what, call) in calls {
        let store = instance.store();
        at_once(what, move || nested(&store, what, call));
    }
    let store = instance.store();
    assert!(store.audit().run(&id("nested")).unwrap().is_none());

    // Seams of the transaction itself, called from inside an edit, are nested calls too.
    at_once("a call of the open transaction from inside an edit", move || {
        let result = store.transaction(&mut |seams| {
            // An edit may run on another writer's thread, so without the wrapper this does not even compile.
            let inner = SendWrapper::new(seams);
            seams
                .skills()
                .update(&id("a"), &mut |_| inner.audit().start_run(&run("nested", 0)).map(drop))
                .map(drop)
        });
        refused(result, ErrorKind::Nested);
        assert!(store.audit().run(&id("nested")).unwrap().is_none());
    });
    // Another store, and this store from another thread, are not nested.
    let (store, other) = (instance.store(), suite.create());
    let answers = store.view(|_| {
        other.store().audit().start_run(&run("r", 0))?;
        let reader = store.clone();
        thread::spawn(move || reader.audit().run(&id("a"))).join().expect("a reader")
    });
    assert!(answers.unwrap().is_some());
}

/// Makes one call from inside everything that runs a closure of the host's.
fn nested(store: &Arc<dyn Store>, what: &str, call: fn(&dyn Store) -> Result<()>) {
    let before = export(&**store);
    let inside = |place: &str, result: Result<()>| {
        let kind = result.as_ref().map_err(Error::kind).err();
        assert_eq!(kind, Some(ErrorKind::Nested), "{what} inside {place} gave {result:?}");
        result
    };
    let enclose: [(&str, Result<()>); 5] = [
        ("a transaction", store.transaction(&mut |_| inside("a transaction", call(&**store)))),
        ("a snapshot", store.snapshot(&mut |_| inside("a snapshot", call(&**store)))),
        ("an edit", store.skills().update(&id("a"), &mut |_| inside("an edit", call(&**store))).map(drop)),
        ("an export", store.export(&mut |_| inside("an export", call(&**store)))),
        (
            "an edit in a transaction",
            store.transaction(&mut |seams| {
                let edit = &mut |_: &mut Agent| inside("an edit in a transaction", call(&**store));
                seams.agents().update(&id("a"), edit).map(drop)
            }),
        ),
    ];
    for (place, result) in enclose {
        refused(result, ErrorKind::Nested);
        assert_eq!(export(&**store), before, "{what} inside {place} left a trace");
    }
    // A nested call whose error the work swallows leaves the transaction as it was.
    store.transaction(&mut |_| inside("a transaction", call(&**store)).or(Ok(()))).unwrap();
    // The records of an import come from the host, so they are inside as well.
    let mut records = std::iter::once_with(|| inside("an import", call(&**store)).map(|()| unreachable!()));
    let result = store.import(&mut records);
    assert!(matches!(result.map_err(|e| e.kind()), Err(ErrorKind::Nested | ErrorKind::Conflict)));
}

/// Many threads at once, so that commits are shared: some calls are refused, some are doomed, some panic, some call
/// the store from inside. Each fails alone, and what was acknowledged beside it is there.
fn failures_in_a_shared_commit_stand_alone(suite: &Suite<'_>) {
    let mut instance = suite.create();
    let store = instance.store();
    store.skills().save(&skill("shared"), Expect::Absent).unwrap();
    let acknowledged = race(THREADS, |thread| {
        let mut acknowledged = Vec::new();
        for call in 0..CALLS {
            let name = format!("{thread}-{call}");
            let start = |seams: &dyn Seams| seams.audit().start_run(&run(&name, 0)).map(drop);
            match (thread + call) % 6 {
                0 => refused(store.skills().save(&skill("shared"), Expect::Absent), ErrorKind::AlreadyExists),
                1 => panicking_call(&*store, &start),
                2 => {
                    let doomed = store.transaction(&mut |seams| start(seams).and(Err(Error::ReadOnly)));
                    refused(doomed, ErrorKind::ReadOnly)
                }
                3 => {
                    let nested = store.transaction(&mut |seams| {
                        start(seams)?;
                        store.audit().start_run(&run("nested", 0)).map(drop)
                    });
                    refused(nested, ErrorKind::Nested)
                }
                _ => {
                    store.transaction(&mut |seams| start(seams)).unwrap();
                    store.skills().append_version(&version(&name, skill("shared"))).unwrap();
                    acknowledged.push(name);
                    continue;
                }
            };
        }
        acknowledged
    });
    let mut acknowledged = acknowledged.concat();
    acknowledged.sort();
    let check = |store: &dyn Store| {
        let runs = list(|page| store.audit().runs(&RunFilter::default(), page));
        let mut runs: Vec<String> = runs.iter().map(|run| run.start.id.to_string()).collect();
        runs.sort();
        assert_eq!(runs, acknowledged, "exactly what was acknowledged is there");
        let versions = versions::<Skill>(store, &id("shared"));
        assert!(versions.iter().rev().map(|version| version.seq).eq(1..=acknowledged.len() as u64));
        assert!(store.verify().unwrap().is_sound());
    };
    check(&*store);
    if suite.facts().durable {
        drop(store);
        instance.reopen().unwrap();
        check(&*instance.store());
    }
}

fn panicking_call(store: &dyn Store, start: &(dyn Fn(&dyn Seams) -> Result<()> + Sync)) -> Error {
    panicking(|| {
        drop(store.transaction(&mut |seams| {
            start(seams)?;
            throw()
        }));
    });
    Error::ReadOnly
}
