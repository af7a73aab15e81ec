//! MOVE: a store's whole contents as a stream of records, out of one store and into another.

use std::collections::BTreeMap;

use store_api::*;

use crate::fixture::*;
use crate::suite::Suite;

/// A store with at least two of everything, and all that makes a record special.
pub fn fill(store: &dyn Store) {
    store.transaction(&mut fill_definitions).unwrap();
    store.transaction(&mut fill_rest).unwrap();
}

fn fill_definitions(seams: &dyn Seams) -> Result<()> {
    fn both<D: Sample>(seams: &dyn Seams) -> Result<()> {
        let catalog = D::catalog(seams);
        for name in ["b", "a", "ü"] {
            let mut doc = D::sample(name).with_schedule(Some(schedule(Some(at(10)))));
            doc.extra_mut().insert("x".into(), serde_json::json!({ "f": 0.1, "big": u64::MAX }));
            *doc.text_mut() = format!("text of {name}");
            for number in 1..=12 {
                let kind = D::KIND.entity();
                catalog.publish(&version(&format!("{kind}-{name}-{number}"), doc.clone()), Expect::Any)?;
            }
        }
        let (a, b) = (D::sample("a"), D::sample("b"));
        catalog.mark_scheduled_run(a.id(), at(10), Some(at(20)))?;
        catalog.claim_due(at(30), &worker("w"), seconds(60), 2)?;
        // Gaps: pruned versions, all of them gone, a pin, a definition without any, a deleted one.
        catalog.pin_version(&id(&format!("{}-a-2", D::KIND.entity())), true)?;
        catalog.prune_versions(a.id(), 3)?;
        catalog.prune_versions(b.id(), 0)?;
        catalog.save(&D::sample("plain"), Expect::Absent)?;
        catalog.save(&D::sample("gone"), Expect::Absent)?;
        catalog.delete(D::sample("gone").id(), Expect::Any)
    }
    both::<Skill>(seams)?;
    both::<Agent>(seams)?;
    let webhook = DigestKey::new("k", [9; 32])?.digest(&Secret::new("a-secret-of-many-bytes")?);
    let hooked = Agent { webhook: Some(webhook), channel_filter: [id("c")].into(), ..agent("hooked") };
    seams.agents().save(&hooked, Expect::Absent).map(drop)
}

fn fill_rest(seams: &dyn Seams) -> Result<()> {
    for window in ["rollover:7d", "sliding:100s/10"] {
        let account = Account::new(id("caller"), id("usd"), window.parse()?);
        for number in 0..3 {
            let name = format!("k{number}");
            seams.budgets().add(&charge(&account, 5).with_key(id(&name)), at(number * 15))?;
            let hold = |name: &str| Reservation {
                id: id(name),
                account: account.clone(),
                estimate: micros(2),
                expires_at: at(500),
            };
            seams.budgets().reserve(&hold(&name), Amount::MAX, at(number * 15))?;
        }
        seams.budgets().settle(&account, &id("k1"), micros(1), at(31))?;
    }
    for name in ["r2", "r1", "r10"] {
        seams.audit().start_run(&child(name, "r1", 1))?;
        (1..=11).try_for_each(|number| seams.audit().append_event(&id(name), &event(number)).map(drop))?;
        seams.checkpoints().save(&checkpoint(name, 3))?;
    }
    seams.audit().finish_run(&id("r1"), &Finish { tokens: Tokens { input: 1, output: 2 }, ..finish(9) })?;
    seams.audit().start_run(&run("empty", 5))?;
    seams.checkpoints().claim(&id("r10"), at(0), &worker("w"), seconds(60)).map(drop)
}

fn import(store: &dyn Store, records: &[Record]) -> Result<ImportReport> {
    store.import(&mut records.iter().cloned().map(Ok))
}

pub fn move_1_export_import_export(suite: &Suite<'_>) {
    let source = suite.create();
    let store = source.store();
    assert_eq!(
        export(&*store),
        [Record::Counter(Counter { last: 0 })],
        "the counter, also of an empty store"
    );
    fill(&*store);
    let records = export(&*store);
    the_order_is_the_documented_one(&records);
    assert_eq!(export(&*store), records, "an export changes nothing");

    // Into a second store, through JSON as a file would hold it: the same records, in the same order.
    let target = suite.create();
    let lines: Vec<String> = records.iter().map(|record| json::encode(record).unwrap()).collect();
    let read = |line: &String| json::parse_as::<Record>("record", line);
    let report = target.store().import(&mut lines.iter().map(read)).unwrap();
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for record in &records {
        *counts.entry(record.type_name().to_owned()).or_default() += 1;
    }
    assert_eq!((report.records.clone(), report.total()), (counts, records.len() as u64));
    assert_eq!(export(&*target.store()), records);
    assert!(target.store().verify().unwrap().is_sound());
    they_go_on_alike(&*store, &*target.store());

    imports_need_an_empty_store(suite, &records);
    damaged_streams_are_refused(suite, &records);
    let mut target = suite.create();
    import(&*target.store(), &records).unwrap();
    if suite.facts().durable {
        target.reopen().unwrap();
        assert_eq!(export(&*target.store()), records);
    }
}

fn the_order_is_the_documented_one(records: &[Record]) {
    let at = |record: &Record| match record {
        Record::Counter(_) => (0, String::new(), 0),
        Record::Skill(r) => (1, r.doc.id.to_string(), 0),
        Record::SkillVersion(v) => (1, v.snapshot.id.to_string(), v.seq),
        Record::Agent(r) => (2, r.doc.id.to_string(), 0),
        Record::AgentVersion(v) => (2, v.snapshot.id.to_string(), v.seq),
        Record::Account(r) => (3, r.account.to_string(), 0),
        Record::Charge(r) => (3, r.account.to_string(), 1),
        Record::Run(r) => (4, r.start.id.to_string(), 0),
        Record::Event(e) => (4, e.run.to_string(), e.seq),
        Record::Checkpoint(r) => (5, r.checkpoint.run.to_string(), 0),
        other => panic!("a record that this test does not know: {other:?}"),
    };
    assert!(records.is_sorted_by_key(at), "records out of order");
    let types: std::collections::BTreeSet<_> = records.iter().map(Record::type_name).collect();
    assert_eq!(types.len(), 10, "the sample has every type in it");
}

/// What a host does next comes to the same in both: numbers go on where they were, names and keys are known.
fn they_go_on_alike(one: &dyn Store, two: &dyn Store) {
    let go_on = |store: &dyn Store| {
        let account = Account::new(id("caller"), id("usd"), "rollover:7d".parse().unwrap());
        let taken = store.skills().save(&skill("new").named("owner", "a"), Expect::Absent);
        (
            store.skills().append_version(&version("next-a", skill("a"))).unwrap().seq,
            store.agents().append_version(&version("next-b", agent("b"))).unwrap().seq,
            store.agents().save(&agent("next"), Expect::Absent).unwrap(),
            refused(taken, ErrorKind::AlreadyExists).to_string(),
            store.budgets().add(&charge(&account, 5).with_key(id("k0")), at(40)).unwrap(),
            store.audit().append_event(&id("r1"), &event(0)).unwrap(),
            store.skills().due(at(1_000), &whole()).unwrap(),
            store.agents().by_channel(&id("c"), &whole()).unwrap(),
            store.checkpoints().interrupted(&whole()).unwrap(),
        )
    };
    assert_eq!(go_on(one), go_on(two));
    assert_eq!(export(one), export(two));
}

fn imports_need_an_empty_store(suite: &Suite<'_>, records: &[Record]) {
    let somethings: [fn(&dyn Seams) -> Result<()>; 5] = [
        |s| s.skills().save(&skill("z"), Expect::Any).map(drop),
        |s| s.agents().save(&agent("z"), Expect::Any).map(drop),
        |s| s.budgets().add(&charge(&account("z", 9), 0), at(0)).map(drop),
        |s| s.audit().start_run(&run("z", 0)).map(drop),
        |s| s.checkpoints().save(&checkpoint("z", 0)),
    ];
    for something in somethings {
        let target = suite.create();
        something(&*target.store()).unwrap();
        refused_without_trace(&*target.store(), ErrorKind::Conflict, || import(&*target.store(), records));
    }
    // A store that was emptied is empty, whatever its counter says; the stream's counter is taken.
    let target = suite.create();
    target.store().skills().save(&skill("z"), Expect::Any).unwrap();
    target.store().skills().delete(&id("z"), Expect::Any).unwrap();
    import(&*target.store(), records).unwrap();
    assert_eq!(export(&*target.store()), records);
}

/// Dropped, swapped, doubled and altered records: refused, each of them, and the target is as empty as before.
fn damaged_streams_are_refused(suite: &Suite<'_>, records: &[Record]) {
    let target = suite.create();
    let store = target.store();
    let refuse = |what: &str, records: &[Record]| match import(&*store, records) {
        Err(Error::InvalidInput { .. } | Error::AlreadyExists { .. }) => {
            assert_eq!(export(&*store).len(), 1, "{what} left something behind");
        }
        other => panic!("{what}: a refusal was expected, not {other:?}"),
    };
    refuse("nothing at all", &[]);
    refuse("no counter", &records[1..]);
    let spot = |of: &str| records.iter().position(|record| record.type_name() == of).expect("one of each");
    let first_of = [
        "skill",
        "skill_version",
        "agent",
        "agent_version",
        "account",
        "charge",
        "run",
        "event",
        "checkpoint",
    ];
    for of in first_of {
        let at = spot(of);
        let mut doubled = records.to_vec();
        doubled.insert(at, records[at].clone());
        refuse(&format!("{of}, doubled"), &doubled);
        let mut swapped = records.to_vec();
        swapped.swap(at, at - 1);
        refuse(&format!("{of}, swapped with the one before"), &swapped);
        let mut late = records.to_vec();
        let moved = late.remove(at);
        if at + 1 < records.len() && of != "checkpoint" {
            late.push(moved);
            refuse(&format!("{of}, moved to the end"), &late);
        }
    }
    // A child without its parent, and an event that leaves a gap.
    for parent in ["skill", "agent", "account", "run"] {
        let mut dropped = records.to_vec();
        let children = dropped.iter().enumerate().position(|(at, record)| {
            record.type_name() == parent && dropped.get(at + 1).is_some_and(|next| next.type_name() != parent)
        });
        dropped.remove(children.expect("a parent with children"));
        refuse(&format!("{parent}, dropped"), &dropped);
    }
    let mut gap = records.to_vec();
    gap.remove(spot("event"));
    refuse("the first event, dropped", &gap);
    altered(records, &mut |what, records| refuse(what, records));
    // An error of the iterator, after much was stored already, undoes it all.
    let failing = || Error::backend("reading the file", std::io::Error::other("it was cut off"));
    let mut cut_off = records.iter().cloned().map(Ok).chain(std::iter::once_with(|| Err(failing())));
    refused(store.import(&mut cut_off), ErrorKind::Backend);
    assert_eq!(export(&*store).len(), 1, "a stream that was cut off left something behind");
    // And what is right still goes in.
    import(&*store, records).unwrap();
}

/// Records that no store could hold, or that contradict each other.
fn altered(records: &[Record], refuse: &mut dyn FnMut(&str, &[Record])) {
    let mut alter = |what: &str, of: &str, nth: usize, change: &mut dyn FnMut(&mut Record)| {
        let mut altered = records.to_vec();
        change(altered.iter_mut().filter(|r| r.type_name() == of).nth(nth).expect("a record"));
        assert_ne!(altered, records, "{what} altered nothing");
        refuse(what, &altered);
    };
    alter("a counter that has not come so far", "counter", 0, &mut |record| {
        *record = Record::Counter(Counter { last: 1 });
    });
    alter("a revision that was never given", "skill", 0, &mut |record| {
        let Record::Skill(skill) = record else { unreachable!() };
        skill.revision = Revision(1_000_000);
    });
    alter("a last seq below a version's", "skill", 0, &mut |record| {
        let Record::Skill(skill) = record else { unreachable!() };
        skill.last_seq = 1;
    });
    alter("a name that is taken", "skill", 1, &mut |record| {
        let Record::Skill(skill) = record else { unreachable!() };
        std::sync::Arc::make_mut(&mut skill.doc).name = id("a");
    });
    alter("a version id that is taken", "skill_version", 1, &mut |record| {
        let Record::SkillVersion(version) = record else { unreachable!() };
        version.content.id = id("skill-a-2");
    });
    alter("a version id that the other kind has", "agent_version", 0, &mut |record| {
        let Record::AgentVersion(version) = record else { unreachable!() };
        version.content.id = id("skill-a-2");
    });
    alter("a webhook that is taken", "agent", 0, &mut |record| {
        let Record::Agent(agent) = record else { unreachable!() };
        let key = DigestKey::new("k", [9; 32]).unwrap();
        let webhook = key.digest(&Secret::new("a-secret-of-many-bytes").unwrap());
        std::sync::Arc::make_mut(&mut agent.doc).webhook = Some(webhook);
    });
    alter("text with U+0000", "agent", 0, &mut |record| {
        let Record::Agent(agent) = record else { unreachable!() };
        std::sync::Arc::make_mut(&mut agent.doc).prompt.push('\0');
    });
    alter("an event of another run", "event", 0, &mut |record| {
        let Record::Event(event) = record else { unreachable!() };
        event.run = id("somebody");
    });
    alter("an event's number", "event", 3, &mut |record| {
        let Record::Event(event) = record else { unreachable!() };
        event.seq += 1;
    });
    alter("a status that its finish does not go with", "run", 1, &mut |record| {
        let Record::Run(run) = record else { unreachable!() };
        run.status = RunStatus::Abandoned;
    });
    alter("a lease whose token was never given", "checkpoint", 0, &mut |record| {
        let Record::Checkpoint(checkpoint) = record else { unreachable!() };
        let lease = Lease { worker: worker("w"), until: at(1), token: LeaseToken(1_000_000) };
        checkpoint.lease = Some(lease);
    });
    alter("an iteration beyond the range", "checkpoint", 0, &mut |record| {
        let Record::Checkpoint(checkpoint) = record else { unreachable!() };
        std::sync::Arc::make_mut(&mut checkpoint.checkpoint).iteration = u64::MAX;
    });
}
