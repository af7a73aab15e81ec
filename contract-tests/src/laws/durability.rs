//! DUR: what was acknowledged is there.

use std::path::PathBuf;
use std::time::Duration;

use store_api::*;

use crate::fixture::*;
use crate::harness::Instance;
use crate::laws::moves;
use crate::process::{Orders, Worker, place_for_workers};
use crate::suite::Suite;

/// How long a close may wait for a snapshot that does not end.
const CLOSE_WAIT: Duration = Duration::from_millis(200);
/// How often a writer is killed.
const KILLS: u32 = 4;
/// How many versions a killed writer has acknowledged at least, in the n-th round: n times this.
const BEFORE_KILL: u32 = 8;
/// More appends than a writer gets to before it is killed.
const ENDLESS: u32 = 1_000_000;

pub fn dur_1_acknowledged_means_there(suite: &Suite<'_>) {
    let durable = suite.facts().durable;
    let info = suite.create().store().info();
    assert_eq!(info.durability != Durability::Memory, durable, "the engine's word against the harness's");
    assert_eq!(info.multi_process, suite.facts().multi_process);
    a_closed_store_is_closed(suite);
    if !durable {
        return suite.exempt("DUR-1", "all but closing", "durable is false");
    }
    what_was_written_is_there_after_reopening(suite);
    what_was_acknowledged_survives_a_kill(suite);
}

fn a_closed_store_is_closed(suite: &Suite<'_>) {
    let instance = suite.harness().create_waiting(CLOSE_WAIT);
    let store = instance.store();
    moves::fill(&*store);
    // While a snapshot runs a close is refused, and the store goes on.
    let closer = instance.store();
    store
        .view(|seams| {
            let close = std::thread::scope(|scope| scope.spawn(|| closer.close()).join().expect("a close"));
            refused(close, ErrorKind::Busy);
            seams.skills().get(&id("a")).map(drop)
        })
        .unwrap();
    store.skills().get(&id("a")).unwrap();
    store.close().unwrap();
    store.close().unwrap();
    let closed = ErrorKind::Closed;
    refused(store.skills().get(&id("a")), closed);
    refused(store.audit().start_run(&run("late", 0)), closed);
    refused(store.transaction(&mut |_| Ok(())), closed);
    refused(store.snapshot(&mut |_| Ok(())), closed);
    refused(store.export(&mut |_| Ok(())), closed);
    refused(store.import(&mut std::iter::empty()), closed);
    refused(store.verify(), closed);
}

fn what_was_written_is_there_after_reopening(suite: &Suite<'_>) {
    let mut instance = suite.create();
    moves::fill(&*instance.store());
    let written = export(&*instance.store());
    // Dropped without a close, and closed first: the same, as often as one likes.
    instance.reopen().unwrap();
    assert_eq!(export(&*instance.store()), written);
    instance.store().close().unwrap();
    instance.reopen().unwrap();
    assert_eq!(export(&*instance.store()), written);
    assert!(instance.store().verify().unwrap().is_sound());

    // Each kind of write alone, each after a reopening of its own; numbers go on.
    let writes: [fn(&dyn Seams) -> Result<()>; 9] = [
        |s| {
            s.skills()
                .update(&id("a"), &mut |doc| {
                    doc.body.push('!');
                    Ok(())
                })
                .map(drop)
        },
        |s| s.agents().append_version(&version("later", agent("a"))).map(drop),
        |s| s.skills().mark_scheduled_run(&id("b"), at(70), Some(at(80))),
        |s| s.agents().delete(&id("b"), Expect::Any),
        |s| s.budgets().add(&charge(&account("new", 60), 5), at(0)).map(drop),
        |s| s.audit().append_event(&id("r2"), &event(12)).map(drop),
        |s| s.audit().finish_run(&id("r2"), &finish(3)),
        |s| s.audit().purge_before(at(1_000), false).map(drop),
        |s| s.checkpoints().delete(&id("r1")),
    ];
    let mut before = written;
    for write in writes {
        write(&*instance.store()).unwrap();
        let after = export(&*instance.store());
        assert_ne!(after, before);
        instance.reopen().unwrap();
        assert_eq!(export(&*instance.store()), after, "an acknowledged write is gone");
        before = after;
    }
}

fn what_was_acknowledged_survives_a_kill(suite: &Suite<'_>) {
    let mut instance = suite.create();
    if place_for_workers(suite, &*instance).is_none() {
        return suite.exempt("DUR-1", "kill -9", "no worker process or no place for one");
    }
    instance.store().skills().save(&skill("shared"), Expect::Absent).unwrap();
    let mut acknowledged: Vec<String> = Vec::new();
    for round in 1..=KILLS {
        // The parent lets go, for engines that one process may have open at a time.
        instance.store().close().unwrap();
        let place = place_for_workers(suite, &*instance).expect("a place").to_owned();
        let orders = Orders { place, name: format!("k{round}"), appends: ENDLESS };
        let mut worker = Worker::start(suite, &orders);
        for _ in 0..round * BEFORE_KILL {
            acknowledged.push(worker.next().expect("a worker that goes on until it is killed"));
        }
        acknowledged.extend(worker.kill());
        instance.reopen().unwrap();
        survived(&*instance, &acknowledged);
    }
}

/// Every acknowledged version is there. The last one of each killed writer may be there without an acknowledgement.
fn survived(instance: &dyn Instance, acknowledged: &[String]) {
    let store = instance.store();
    let versions = versions::<Skill>(&*store, &id("shared"));
    assert!(versions.iter().rev().map(|version| version.seq).eq(1..=versions.len() as u64), "a gap");
    let there: std::collections::BTreeSet<&str> =
        versions.iter().map(|version| version.id.as_str()).collect();
    for id in acknowledged {
        assert!(there.contains(id.as_str()), "{id} was acknowledged and is gone");
    }
    assert!(there.len() - acknowledged.len() <= KILLS as usize, "more is there than was under way");
    let verification = store.verify().unwrap();
    assert!(verification.is_sound(), "{verification:?}");
}

pub fn dur_2_after_a_failed_flush(suite: &Suite<'_>) {
    if !suite.facts().durable {
        return suite.exempt("DUR-2", "all of it", "durable is false: nothing is flushed");
    }
    let mut instance = suite.create();
    if !instance.fail_flushes(false) {
        return suite.exempt("DUR-2", "all of it", "the harness cannot make a flush fail");
    }
    moves::fill(&*instance.store());
    let store = instance.store();
    let acknowledged = export(&*store);
    let laid = files(&*instance);
    instance.fail_flushes(true);
    // The write whose flush failed is in doubt, and says so.
    let failed = refused(store.skills().save(&skill("doubt"), Expect::Absent), ErrorKind::Backend);
    assert_eq!(failed.outcome(), Outcome::InDoubt, "{failed}");
    // From then on the store refuses to write, also when the disk is well again.
    let poisoned = ErrorKind::Poisoned;
    refused(store.audit().start_run(&run("after", 0)), poisoned);
    instance.fail_flushes(false);
    refused(store.audit().start_run(&run("after", 0)), poisoned);
    refused(store.transaction(&mut |seams| seams.checkpoints().save(&checkpoint("after", 1))), poisoned);
    // Nobody else goes on from what it has in memory either, as long as it is open.
    if let Some(second) = instance.place().and_then(|place| suite.harness().open(place, CLOSE_WAIT)) {
        refused(second.map(drop), ErrorKind::Busy);
    }
    drop(store);
    // Reopened it takes writes again. What was acknowledged is there, what was refused is not, and what was in
    // doubt is there or not, from now on for good.
    instance.reopen().unwrap();
    assert_eq!(files(&*instance), laid, "something is left of the failure");
    let rest = |records: Vec<Record>| -> Vec<Record> {
        let doubtful =
            |record: &Record| matches!(record, Record::Skill(skill) if skill.doc.id.as_str() == "doubt");
        records.into_iter().filter(|record| !doubtful(record) && record.type_name() != "counter").collect()
    };
    let found = export(&*instance.store());
    assert_eq!(rest(found.clone()), rest(acknowledged));
    instance.reopen().unwrap();
    assert_eq!(export(&*instance.store()), found, "the store changed its word");
    instance.store().audit().start_run(&run("after", 0)).unwrap();
    instance.reopen().unwrap();
    assert!(instance.store().audit().run(&id("after")).unwrap().is_some());
    assert!(instance.store().verify().unwrap().is_sound());
    // The flush at the end fails: what was acknowledged before is there all the same.
    let acknowledged = export(&*instance.store());
    instance.fail_flushes(true);
    if let Err(failed) = instance.store().close() {
        assert_eq!(failed.kind(), ErrorKind::Backend, "{failed}");
    }
    instance.fail_flushes(false);
    instance.reopen().unwrap();
    assert_eq!(export(&*instance.store()), acknowledged);
    instance.store().audit().start_run(&run("last", 0)).unwrap();
}

/// The files of a store, by name.
fn files(instance: &dyn Instance) -> Vec<PathBuf> {
    let mut files = instance.files();
    files.sort();
    files
}
