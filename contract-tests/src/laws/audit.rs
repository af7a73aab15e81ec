//! AUD: runs, their events and their families.

use chrono::{DateTime, Utc};
use serde_json::json;
use store_api::audit::MAX_ANCESTORS;
use store_api::*;

use crate::fixture::*;
use crate::suite::Suite;

/// Threads that append events at once.
const THREADS: usize = 4;
/// Events of each thread.
const EVENTS: usize = 20;

fn ids<'a>(runs: impl IntoIterator<Item = &'a std::sync::Arc<Run>>) -> Vec<&'a str> {
    runs.into_iter().map(|run| run.start.id.as_str()).collect()
}

pub fn aud_1_events_are_numbered_without_gap(suite: &Suite<'_>) {
    let instance = suite.create();
    let store = instance.store();
    let audit = store.audit();
    refused(audit.append_event(&id("r"), &event(1)), ErrorKind::NotFound);
    audit.start_run(&run("r", 0)).unwrap();
    audit.start_run(&run("s", 0)).unwrap();
    assert!(list(|page| audit.events(&id("r"), page)).is_empty());
    assert!(list(|page| audit.events(&id("nobody"), page)).is_empty());

    // Numbered by the store, whatever their times say; more than nine, so that an order by text would show.
    for number in 1..=12 {
        let event = NewEvent { at: at(100 - number as i64), ..event(number) };
        assert_eq!(audit.append_event(&id("r"), &event).unwrap(), number);
        let mut bad = event.clone();
        bad.kind = String::new();
        refused_without_trace(&*store, ErrorKind::InvalidInput, || audit.append_event(&id("r"), &bad));
        bad.kind = "k".repeat(MAX_ID_BYTES + 1);
        refused(audit.append_event(&id("r"), &bad), ErrorKind::InvalidInput);
        bad.kind = "nul\0".into();
        refused(audit.append_event(&id("r"), &bad), ErrorKind::InvalidInput);
        bad = NewEvent { at: DateTime::<Utc>::MAX_UTC, ..event };
        refused(audit.append_event(&id("r"), &bad), ErrorKind::InvalidInput);
    }
    let read = list(|page| audit.events(&id("r"), page));
    let numbers: Vec<(u64, u64)> =
        read.iter().map(|event| (event.seq, event.payload["number"].as_u64().unwrap())).collect();
    assert_eq!(numbers, (1..=12).map(|n| (n, n)).collect::<Vec<_>>());
    assert_eq!(audit.append_event(&id("s"), &event(1)).unwrap(), 1, "each run counts for itself");
    // A finished run still takes events: what was late is recorded, too.
    audit.finish_run(&id("r"), &finish(9)).unwrap();
    assert_eq!(audit.append_event(&id("r"), &event(13)).unwrap(), 13);
    // What is undone leaves no gap.
    let undone = store.transaction(&mut |seams| {
        assert_eq!(seams.audit().append_event(&id("r"), &event(14))?, 14);
        Err(Error::invalid("work", "undone"))
    });
    refused(undone, ErrorKind::InvalidInput);
    assert_eq!(audit.append_event(&id("r"), &event(14)).unwrap(), 14);

    // Many threads at once, in one run: each number once, each event once, and a reader never sees a gap.
    audit.start_run(&run("busy", 0)).unwrap();
    let given = race(THREADS, |thread| {
        let append = |number: usize| {
            let event = NewEvent { payload: json!([thread, number]), ..event(0) };
            let seq = store.audit().append_event(&id("busy"), &event).unwrap();
            let seen = list(|page| store.audit().events(&id("busy"), page));
            assert!(seen.iter().map(|event| event.seq).eq(1..=seen.len() as u64), "a gap was seen");
            assert_eq!(seen[seq as usize - 1].content, event, "an acknowledged event is there");
            seq
        };
        (0..EVENTS).map(append).collect::<Vec<_>>()
    });
    assert!(given.iter().all(|seqs| seqs.is_sorted()), "numbers rise for each thread");
    let mut given = given.concat();
    given.sort();
    assert_eq!(given, (1..=(THREADS * EVENTS) as u64).collect::<Vec<_>>());
    assert_eq!(list(|page| audit.events(&id("busy"), page)).len(), THREADS * EVENTS);
}

pub fn aud_2_a_run_finishes_once(suite: &Suite<'_>) {
    let instance = suite.create();
    let store = instance.store();
    let audit = store.audit();
    refused(audit.finish_run(&id("r"), &finish(1)), ErrorKind::NotFound);
    let started = audit.start_run(&run("r", 0)).unwrap();
    assert_eq!((started.status, &started.finish), (RunStatus::Running, &None));
    refused_without_trace(&*store, ErrorKind::AlreadyExists, || audit.start_run(&run("r", 5)));

    let first = Finish {
        output: json!({ "answer": 42 }),
        error: Some("half of it".into()),
        tokens: Tokens { input: 3, output: u64::MAX },
        cost: micros(7),
        ..finish(10)
    };
    audit.finish_run(&id("r"), &first).unwrap();
    let finished = audit.run(&id("r")).unwrap().unwrap();
    assert_eq!((finished.status, finished.finish.as_ref()), (RunStatus::Succeeded, Some(&first)));
    assert_eq!(finished.start, started.start);
    // The same again is accepted and changes nothing; anything else is told who was first.
    let before = export(&*store);
    audit.finish_run(&id("r"), &first).unwrap();
    assert_eq!(export(&*store), before);
    let others = [
        Finish { outcome: RunOutcome::Failed, ..first.clone() },
        Finish { finished_at: at(11), ..first.clone() },
        Finish { cost: micros(8), ..first.clone() },
        Finish { output: json!({ "answer": 42.0 }), ..first.clone() },
        Finish { error: None, ..first.clone() },
    ];
    for other in others {
        refused_without_trace(&*store, ErrorKind::Conflict, || audit.finish_run(&id("r"), &other));
    }
    refused_without_trace(&*store, ErrorKind::AlreadyExists, || audit.start_run(&run("r", 0)));

    // A finish that is not allowed leaves the run running.
    audit.start_run(&run("open", 0)).unwrap();
    let late = Finish { finished_at: DateTime::<Utc>::MAX_UTC, ..finish(0) };
    refused_without_trace(&*store, ErrorKind::InvalidInput, || audit.finish_run(&id("open"), &late));
    let nul = Finish { error: Some("\0".into()), ..finish(0) };
    refused_without_trace(&*store, ErrorKind::InvalidInput, || audit.finish_run(&id("open"), &nul));

    abandoned_runs_are_finished(&*store);
    many_finish_one_run(&*store);
}

fn abandoned_runs_are_finished(store: &dyn Store) {
    let audit = store.audit();
    for (name, started) in [("z", 20), ("a", 30), ("b", 20), ("late", 40)] {
        audit.start_run(&run(name, started)).unwrap();
    }
    audit.finish_run(&id("open"), &finish(1)).unwrap();
    let names = |ids: Vec<RunId>| -> Vec<String> { ids.iter().map(ToString::to_string).collect() };
    // Oldest first, by start and then id, up to the number asked for; none that started at or after the time.
    assert_eq!(names(audit.abandon_stale(at(40), at(50), 2).unwrap()), ["b", "z"]);
    assert_eq!(names(audit.abandon_stale(at(40), at(51), 9).unwrap()), ["a"]);
    assert_eq!(names(audit.abandon_stale(at(40), at(52), 9).unwrap()), [""; 0]);
    let b = audit.run(&id("b")).unwrap().unwrap();
    assert_eq!(b.finish, Some(Finish::new(RunOutcome::Abandoned, at(50))));
    assert_eq!(
        (b.status, audit.run(&id("late")).unwrap().unwrap().status),
        (RunStatus::Abandoned, RunStatus::Running)
    );
    // Who comes back late finds that it was finished for him.
    refused_without_trace(store, ErrorKind::Conflict, || audit.finish_run(&id("b"), &finish(60)));
    let invalid = ErrorKind::InvalidInput;
    let beyond = DateTime::<Utc>::MAX_UTC;
    refused_without_trace(store, invalid, || audit.abandon_stale(at(99), at(99), 0));
    refused_without_trace(store, invalid, || audit.abandon_stale(at(99), at(99), page::MAX_PAGE + 1));
    refused_without_trace(store, invalid, || audit.abandon_stale(beyond, at(99), 1));
    refused_without_trace(store, invalid, || audit.abandon_stale(at(99), beyond, 1));
}

fn many_finish_one_run(store: &dyn Store) {
    store.audit().start_run(&run("raced", 0)).unwrap();
    let won: Vec<usize> = race(THREADS, |thread| {
        // Each finishes in its own way, so only one of them can be the first.
        match store.audit().finish_run(&id("raced"), &finish(thread as i64)) {
            Ok(_) => vec![thread],
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
                vec![]
            }
        }
    })
    .concat();
    assert_eq!(won.len(), 1, "one finish wins");
    let stored = store.audit().run(&id("raced")).unwrap().unwrap();
    assert_eq!(stored.finish, Some(finish(won[0] as i64)));
}

pub fn aud_3_families_and_purges(suite: &Suite<'_>) {
    walks_end(suite);
    long_chains_are_cut(suite);
    purges_keep_what_is_needed(suite);
    purges_of_cyclic_families_end(suite);
}

fn walks_end(suite: &Suite<'_>) {
    let instance = suite.create();
    let store = instance.store();
    let audit = store.audit();
    // A line, a run that is its own parent, cycles of two and three, a tail that leads into a cycle, and a hole.
    let family = [
        ("a", None),
        ("b", Some("a")),
        ("c", Some("b")),
        ("self", Some("self")),
        ("x", Some("y")),
        ("y", Some("x")),
        ("1", Some("2")),
        ("2", Some("3")),
        ("3", Some("1")),
        ("tail", Some("1")),
        ("hole", Some("gone")),
    ];
    for (name, parent) in family {
        let started = NewRun { parent: parent.map(id), ..run(name, 0) };
        audit.start_run(&started).unwrap();
    }
    let ancestors = |of: &str| audit.ancestors(&id(of)).unwrap();
    let cases: [(&str, &[&str]); 9] = [
        ("a", &[]),
        ("c", &["b", "a"]),
        ("self", &[]),
        ("x", &["y"]),
        ("y", &["x"]),
        ("2", &["3", "1"]),
        ("tail", &["1", "2", "3"]),
        ("hole", &[]),
        ("b", &["a"]),
    ];
    for (of, expected) in cases {
        assert_eq!(ids(&ancestors(of)), expected, "the ancestors of {of}");
    }
    refused(audit.ancestors(&id("gone")), ErrorKind::NotFound);
    let children = |of: &str| list(|page| audit.children(&id(of), page));
    assert_eq!(ids(&children("self")), ["self"]);
    assert_eq!(ids(&children("1")), ["tail", "3"]);
    assert_eq!(ids(&children("gone")), ["hole"], "a parent need not be known");
    // A hole that is filled later joins the family.
    audit.start_run(&child("gone", "c", 1)).unwrap();
    assert_eq!(ids(&ancestors("hole")), ["gone", "c", "b", "a"]);
}

fn long_chains_are_cut(suite: &Suite<'_>) {
    let instance = suite.create();
    let store = instance.store();
    let length = MAX_ANCESTORS + 2;
    store
        .transaction(&mut |seams| {
            seams.audit().start_run(&run("0", 0))?;
            (1..length).try_for_each(|n| {
                seams.audit().start_run(&child(&n.to_string(), &(n - 1).to_string(), 0)).map(drop)
            })
        })
        .unwrap();
    let last = length - 1;
    let ancestors = store.audit().ancestors(&id(&last.to_string())).unwrap();
    assert_eq!(ancestors.len(), MAX_ANCESTORS);
    assert_eq!(ancestors[0].id.as_str(), (last - 1).to_string());
    assert_eq!(ancestors[MAX_ANCESTORS - 1].id.as_str(), "1", "the walk ends one short of the root");
    assert_eq!(store.audit().ancestors(&id(&(last - 1).to_string())).unwrap().len(), MAX_ANCESTORS);

    // A purge needs the whole chain, however long it is.
    store
        .transaction(&mut |seams| {
            (0..last).try_for_each(|n| seams.audit().finish_run(&id(&n.to_string()), &finish(1)))
        })
        .unwrap();
    let report = store.audit().purge_before(at(100), false).unwrap();
    assert_eq!(report, PurgeReport { runs: 0, events: 0, kept: last as u64 });
    store.audit().finish_run(&id(&last.to_string()), &finish(2)).unwrap();
    let report = store.audit().purge_before(at(100), false).unwrap();
    assert_eq!(report, PurgeReport { runs: length as u64, events: 0, kept: 0 });
}

fn purges_keep_what_is_needed(suite: &Suite<'_>) {
    let instance = suite.create();
    let store = instance.store();
    let audit = store.audit();
    // root <- middle <- running; an old family of its own; one that finished at the very moment; one later.
    for started in [
        run("root", 0),
        child("middle", "root", 1),
        child("running", "middle", 2),
        child("sibling", "root", 2),
        run("old", 0),
        child("old-child", "old", 0),
        run("edge", 0),
        run("young", 0),
        child("child-of-running", "running", 3),
    ] {
        audit.start_run(&started).unwrap();
        audit.append_event(&started.id, &event(1)).unwrap();
        audit.append_event(&started.id, &event(2)).unwrap();
    }
    for (name, finished) in [
        ("root", 5),
        ("middle", 5),
        ("sibling", 5),
        ("old", 5),
        ("old-child", 6),
        ("edge", 100),
        ("young", 101),
        ("child-of-running", 7),
    ] {
        audit.finish_run(&id(name), &finish(finished)).unwrap();
    }
    let all = || {
        let mut runs: Vec<String> = list(|page| audit.runs(&RunFilter::default(), page))
            .iter()
            .map(|run| run.start.id.to_string())
            .collect();
        runs.sort();
        runs
    };
    // A dry run counts what a wet one does, and touches nothing.
    let before = export(&*store);
    let dry = audit.purge_before(at(100), true).unwrap();
    assert_eq!(dry, PurgeReport { runs: 4, events: 8, kept: 2 });
    assert_eq!(export(&*store), before);
    assert_eq!(audit.purge_before(at(100), false).unwrap(), dry);
    assert_eq!(all(), ["edge", "middle", "root", "running", "young"]);
    assert_eq!(ids(&audit.ancestors(&id("running")).unwrap()), ["middle", "root"]);
    for gone in ["old", "sibling", "child-of-running"] {
        assert!(audit.run(&id(gone)).unwrap().is_none());
        assert!(list(|page| audit.events(&id(gone), page)).is_empty(), "events go with their run");
        refused(audit.append_event(&id(gone), &event(3)), ErrorKind::NotFound);
    }
    assert_eq!(list(|page| audit.events(&id("root"), page)).len(), 2);
    assert!(list(|page| audit.children(&id("running"), page)).is_empty());
    // A second purge finds nothing more; an id that was purged can be used again, from its first event on.
    assert_eq!(audit.purge_before(at(100), false).unwrap(), PurgeReport { runs: 0, events: 0, kept: 2 });
    audit.start_run(&run("old", 50)).unwrap();
    assert_eq!(audit.append_event(&id("old"), &event(1)).unwrap(), 1);
    audit.finish_run(&id("old"), &finish(60)).unwrap();
    audit.finish_run(&id("running"), &finish(60)).unwrap();
    assert_eq!(audit.purge_before(at(101), false).unwrap(), PurgeReport { runs: 5, events: 9, kept: 0 });
    assert_eq!(all(), ["young"]);
    refused_without_trace(&*store, ErrorKind::InvalidInput, || {
        audit.purge_before(DateTime::<Utc>::MAX_UTC, false)
    });
    // A purge that is undone removed nothing.
    let before = export(&*store);
    let undone = store.transaction(&mut |seams| {
        assert_eq!(seams.audit().purge_before(at(1_000), false)?.runs, 1);
        Err(Error::invalid("work", "undone"))
    });
    refused(undone, ErrorKind::InvalidInput);
    assert_eq!(export(&*store), before);
}

fn purges_of_cyclic_families_end(suite: &Suite<'_>) {
    let instance = suite.create();
    let store = instance.store();
    let audit = store.audit();
    // A running run whose ancestors run in a circle, through itself and without it.
    for (name, parent) in [
        ("r", "a"),
        ("a", "b"),
        ("b", "r"),
        ("s", "x"),
        ("x", "y"),
        ("y", "x"),
        ("me", "me"),
        ("self", "self"),
    ] {
        audit.start_run(&child(name, parent, 0)).unwrap();
    }
    for name in ["a", "b", "x", "y", "self"] {
        audit.finish_run(&id(name), &finish(1)).unwrap();
    }
    assert_eq!(audit.purge_before(at(9), true).unwrap(), PurgeReport { runs: 1, events: 0, kept: 4 });
    assert_eq!(audit.purge_before(at(9), false).unwrap(), PurgeReport { runs: 1, events: 0, kept: 4 });
    assert!(audit.run(&id("self")).unwrap().is_none() && audit.run(&id("me")).unwrap().is_some());
    for name in ["r", "s", "me"] {
        audit.finish_run(&id(name), &finish(2)).unwrap();
    }
    assert_eq!(audit.purge_before(at(9), false).unwrap(), PurgeReport { runs: 7, events: 0, kept: 0 });
}
