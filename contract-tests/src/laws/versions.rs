//! SEQ: version numbers.

use std::collections::BTreeSet;

use store_api::*;

use crate::fixture::*;
use crate::process::{Orders, Worker, place_for_workers};
use crate::suite::Suite;

/// Threads that append at once.
const THREADS: usize = 4;
/// Appends of each thread.
const APPENDS: usize = 25;
/// Processes that append at once.
const PROCESSES: u32 = 4;
/// Appends of each process.
const PROCESS_APPENDS: u32 = 25;

fn seqs<D: Sample>(seams: &dyn Seams, id: &D::Id) -> Vec<u64> {
    versions::<D>(seams, id).iter().map(|version| version.seq).collect()
}

pub fn seq_1_numbers_have_no_gap(suite: &Suite<'_>) {
    numbers_have_no_gap::<Skill>(suite);
    numbers_have_no_gap::<Agent>(suite);
}

fn numbers_have_no_gap<D: Sample>(suite: &Suite<'_>) {
    let instance = suite.create();
    let store = instance.store();
    let catalog = D::catalog(&*store);
    let (doc, other) = (D::sample("a"), D::sample("b"));
    let append = |number: &str| catalog.append_version(&version(number, doc.clone())).unwrap().seq;
    refused(catalog.append_version(&version("v0", doc.clone())), ErrorKind::NotFound);
    catalog.save(&doc, Expect::Absent).unwrap();
    catalog.save(&other, Expect::Absent).unwrap();
    assert_eq!([append("v1"), append("v2"), append("v3")], [1, 2, 3]);

    // Each definition counts for itself, and a refused append takes no number.
    assert_eq!(catalog.append_version(&version("w1", other.clone())).unwrap().seq, 1);
    refused(catalog.append_version(&version("w1", doc.clone())), ErrorKind::AlreadyExists);
    let mut bad = version("v4", doc.clone());
    bad.label = "\0".into();
    refused(catalog.append_version(&bad), ErrorKind::InvalidInput);
    assert_eq!(append("v4"), 4);

    // Pruning brings no number back, not even when nothing is left.
    assert_eq!(catalog.prune_versions(doc.id(), 1).unwrap(), 3);
    assert_eq!((append("v5"), seqs::<D>(&*store, doc.id())), (5, vec![5, 4]));
    assert_eq!(catalog.prune_versions(doc.id(), 0).unwrap(), 2);
    assert_eq!((append("v6"), seqs::<D>(&*store, doc.id())), (6, vec![6]));

    // A pinned version stays, and stands in the way of no number.
    catalog.pin_version(&id("v6"), true).unwrap();
    assert_eq!((append("v7"), append("v8")), (7, 8));
    assert_eq!(catalog.prune_versions(doc.id(), 1).unwrap(), 1);
    assert_eq!(seqs::<D>(&*store, doc.id()), [8, 6]);
    catalog.pin_version(&id("v6"), false).unwrap();
    assert_eq!(catalog.prune_versions(doc.id(), 1).unwrap(), 1);
    assert_eq!(seqs::<D>(&*store, doc.id()), [8]);
    refused(catalog.prune_versions(D::sample("nobody").id(), 1), ErrorKind::NotFound);
    refused(catalog.pin_version(&id("v6"), true), ErrorKind::NotFound);

    // Publishing counts with appending, also inside a transaction; one that is undone takes no number.
    assert_eq!(catalog.publish(&version("v9", doc.clone()), Expect::Any).unwrap().version.seq, 9);
    let undone = store.transaction(&mut |seams| {
        assert_eq!(D::catalog(seams).append_version(&version("v10", doc.clone()))?.seq, 10);
        Err(Error::invalid("work", "undone"))
    });
    refused(undone, ErrorKind::InvalidInput);
    assert_eq!(append("v10"), 10);

    // A definition that is deleted takes its versions along; made again it starts at 1, as another revision.
    let revision = catalog.get(doc.id()).unwrap().unwrap().revision;
    catalog.delete(doc.id(), Expect::Any).unwrap();
    assert_eq!(seqs::<D>(&*store, doc.id()), [0; 0]);
    assert!(catalog.version(&id("v10")).unwrap().is_none());
    refused(catalog.append_version(&version("v11", doc.clone())), ErrorKind::NotFound);
    let again = catalog.publish(&version("v10", doc.clone()), Expect::Absent).unwrap();
    assert_eq!(again.version.seq, 1);
    assert!(again.revision > revision, "a revision came back");
    assert_eq!(seqs::<D>(&*store, other.id()), [1], "another definition's versions are its own");
}

pub fn seq_2_newest_first_by_seq(suite: &Suite<'_>) {
    let instance = suite.create();
    let store = instance.store();
    let skills = store.skills();
    skills.save(&skill("a"), Expect::Absent).unwrap();
    // Times that fall, repeat and jump; ids whose order is not the order of the appends.
    let appends = [("m", 50), ("z", 40), ("a", 40), ("k", 90), ("b", -7)];
    for (name, saved_at) in appends {
        let mut new = version(name, skill("a"));
        new.saved_at = at(saved_at);
        skills.append_version(&new).unwrap();
        let latest = skills.latest(&id("a")).unwrap().unwrap();
        assert_eq!((latest.id.as_str(), latest.saved_at), (name, at(saved_at)));
    }
    let listed = versions::<Skill>(&*store, &id("a"));
    let listed: Vec<&str> = listed.iter().map(|version| version.id.as_str()).collect();
    assert_eq!(listed, ["b", "k", "a", "z", "m"]);
    skills.prune_versions(&id("a"), 2).unwrap();
    assert_eq!(seqs::<Skill>(&*store, &id("a")), [5, 4]);
    assert!(skills.latest(&id("nobody")).unwrap().is_none());
    assert!(versions::<Skill>(&*store, &id("nobody")).is_empty());

    // More than nine, so that an order by text would show.
    for number in 0..8 {
        skills.append_version(&version(&format!("n{number}"), skill("a"))).unwrap();
    }
    assert_eq!(seqs::<Skill>(&*store, &id("a")), [13, 12, 11, 10, 9, 8, 7, 6, 5, 4]);
}

pub fn seq_3_concurrent_appends(suite: &Suite<'_>) {
    appends_by_threads(suite);
    if suite.facts().multi_process {
        appends_by_processes(suite);
    } else {
        suite.exempt("SEQ-3", "appends by several processes", "multi_process is false");
    }
}

/// Asserts that the skill `shared` has exactly the versions that were acknowledged, numbered from 1 without a gap.
fn assert_all_there(store: &dyn Store, acknowledged: impl IntoIterator<Item = String>) {
    let acknowledged: BTreeSet<String> = acknowledged.into_iter().collect();
    let listed = versions::<Skill>(store, &id("shared"));
    let numbers: Vec<u64> = listed.iter().rev().map(|version| version.seq).collect();
    assert_eq!(numbers, (1..=acknowledged.len() as u64).collect::<Vec<_>>());
    let ids: BTreeSet<String> = listed.iter().map(|version| version.id.to_string()).collect();
    assert_eq!(ids, acknowledged);
}

fn appends_by_threads(suite: &Suite<'_>) {
    let instance = suite.create();
    let store = instance.store();
    store.skills().save(&skill("shared"), Expect::Absent).unwrap();
    let acknowledged = race(THREADS, |thread| {
        let append = |number| {
            let name = format!("{thread}-{number}");
            // Single appends, publishes and appends in a transaction meet.
            let new = version(&name, skill("shared"));
            let seq = match number % 3 {
                0 => store.skills().append_version(&new).unwrap().seq,
                1 => store.skills().publish(&new, Expect::Any).unwrap().version.seq,
                _ => store.transact(|seams| Ok(seams.skills().append_version(&new)?.seq)).unwrap(),
            };
            let found = store.skills().version(&id(&name)).unwrap().expect("it was acknowledged");
            assert_eq!(found.seq, seq, "the acknowledged number is the stored one");
            (seq, name)
        };
        let appended: Vec<(u64, String)> = (0..APPENDS).map(append).collect();
        assert!(appended.is_sorted_by(|(a, _), (b, _)| a < b), "numbers rise for each thread");
        appended
    });
    let acknowledged: Vec<(u64, String)> = acknowledged.into_iter().flatten().collect();
    let numbers: BTreeSet<u64> = acknowledged.iter().map(|(seq, _)| *seq).collect();
    assert_eq!(numbers, (1..=(THREADS * APPENDS) as u64).collect(), "each number was given once");
    assert_all_there(&*store, acknowledged.into_iter().map(|(_, name)| name));
}

fn appends_by_processes(suite: &Suite<'_>) {
    let instance = suite.create();
    let Some(place) = place_for_workers(suite, &*instance) else {
        return suite.exempt(
            "SEQ-3",
            "appends by several processes",
            "no worker process or no place for one",
        );
    };
    instance.store().skills().save(&skill("shared"), Expect::Absent).unwrap();
    let orders = |number: u32| Orders {
        place: place.to_owned(),
        name: format!("p{number}"),
        appends: PROCESS_APPENDS,
    };
    let workers: Vec<Worker> = (0..PROCESSES).map(|number| Worker::start(suite, &orders(number))).collect();
    let acknowledged: Vec<String> = workers.into_iter().flat_map(Worker::finish).collect();
    assert_eq!(acknowledged.len(), (PROCESSES * PROCESS_APPENDS) as usize);
    assert_all_there(&*instance.store(), acknowledged);
}

pub fn seq_4_version_ids_are_taken_once(suite: &Suite<'_>) {
    let instance = suite.create();
    let store = instance.store();
    let (skills, agents) = (store.skills(), store.agents());
    for doc in ["a", "b"] {
        skills.save(&skill(doc), Expect::Absent).unwrap();
        agents.save(&agent(doc), Expect::Absent).unwrap();
    }
    skills.append_version(&version("v", skill("a"))).unwrap();
    let taken = ErrorKind::AlreadyExists;
    let other = Skill { body: "other".into(), ..skill("a") };

    // Of the same definition, with the same content, with another content, of another definition, of another kind.
    refused_without_trace(&*store, taken, || skills.append_version(&version("v", skill("a"))));
    refused_without_trace(&*store, taken, || skills.append_version(&version("v", other.clone())));
    refused_without_trace(&*store, taken, || skills.append_version(&version("v", skill("b"))));
    refused_without_trace(&*store, taken, || agents.append_version(&version("v", agent("a"))));
    // A publish changes neither the document nor the versions.
    refused_without_trace(&*store, taken, || skills.publish(&version("v", other.clone()), Expect::Any));
    refused_without_trace(&*store, taken, || skills.publish(&version("v", skill("c")), Expect::Absent));
    refused_without_trace(&*store, taken, || agents.publish(&version("v", agent("b")), Expect::Any));
    // What is not there is told apart from what is taken.
    refused_without_trace(&*store, ErrorKind::NotFound, || skills.append_version(&version("v", skill("c"))));
    assert!(agents.version(&id("v")).unwrap().is_none(), "a version is found among its own kind only");

    // Inside a transaction the refusal changes nothing, and the rest goes on.
    store
        .transaction(&mut |seams| {
            refused(seams.skills().append_version(&version("v", other.clone())), taken);
            seams.skills().append_version(&version("w", other.clone())).map(drop)
        })
        .unwrap();
    assert_eq!(seqs::<Skill>(&*store, &id("a")), [2, 1]);
    assert_eq!(skills.version(&id("v")).unwrap().unwrap().snapshot, skill("a"));

    // An id whose version is gone is free again; ids that differ in case are two.
    skills.append_version(&version("V", skill("b"))).unwrap();
    skills.delete(&id("a"), Expect::Any).unwrap();
    agents.append_version(&version("v", agent("a"))).unwrap();
}

pub fn seq_5_snapshots_never_change(suite: &Suite<'_>) {
    snapshots_never_change::<Skill>(suite);
    snapshots_never_change::<Agent>(suite);
}

fn snapshots_never_change<D: Sample>(suite: &Suite<'_>) {
    let mut instance = suite.create();
    let store = instance.store();
    let catalog = D::catalog(&*store);
    let mut doc = D::sample("a").with_schedule(Some(schedule(Some(at(10)))));
    *doc.text_mut() = "first".into();
    doc.extra_mut().insert("unknown".into(), serde_json::json!({ "deep": [1, 2.5, null] }));
    catalog.save(&doc, Expect::Absent).unwrap();
    let first = catalog.append_version(&version("v1", doc.clone())).unwrap();
    assert_eq!(first.snapshot, rules::without_run_state(&doc).into_owned(), "run state is left out");

    // Everything that can happen to the definition happens.
    catalog.mark_scheduled_run(doc.id(), at(10), Some(at(20))).unwrap();
    let claim = catalog.claim_due(at(20), &worker("w"), seconds(5), 1).unwrap().remove(0);
    catalog.finish_claim(doc.id(), claim.lease.token, at(21), at(21), None).unwrap();
    catalog
        .update(doc.id(), &mut |doc| {
            *doc.text_mut() = "second".into();
            Ok(())
        })
        .unwrap();
    let second = catalog.get(doc.id()).unwrap().unwrap();
    catalog.append_version(&version("v2", D::clone(&second.doc))).unwrap();
    catalog.pin_version(&id("v1"), true).unwrap();
    catalog.prune_versions(doc.id(), 1).unwrap();
    let pinned =
        Version { content: NewVersion { pinned: true, ..first.content.clone() }, ..(*first).clone() };
    let read = |of: &str| catalog.version(&id(of)).unwrap().unwrap();
    assert_eq!(*read("v1"), pinned, "a pin changes nothing else");
    assert_eq!(*versions::<D>(&*store, doc.id())[1], pinned);

    // A restore copies the snapshot into the document and leaves the version as it was; run state stays.
    let restored = catalog.restore(&id("v1"), Expect::Revision(second.revision)).unwrap();
    assert!(restored.revision > second.revision);
    assert_eq!(restored, catalog.get(doc.id()).unwrap().unwrap());
    let state = RunState { next_run_at: None, last_run_at: Some(at(21)), lease: None };
    assert_eq!(*restored.doc, rules::assemble(first.snapshot.clone(), state));
    assert_eq!(*read("v1"), pinned);
    assert_eq!(seqs::<D>(&*store, doc.id()), [2, 1], "a restore appends nothing");
    refused(catalog.restore(&id("nothing"), Expect::Any), ErrorKind::NotFound);
    refused(catalog.restore(&id("v1"), Expect::Revision(second.revision)), ErrorKind::Conflict);
    refused(catalog.restore(&id("v1"), Expect::Absent), ErrorKind::AlreadyExists);

    if suite.facts().durable {
        drop(store);
        instance.reopen().unwrap();
        let store = instance.store();
        assert_eq!(*D::catalog(&*store).version(&id("v1")).unwrap().unwrap(), pinned);
    }
}
