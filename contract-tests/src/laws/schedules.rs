//! MARK: schedules, marks and claims.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use store_api::*;

use crate::fixture::*;
use crate::suite::Suite;

/// Workers that race for the same occurrences, in MARK-5.
const WORKERS: usize = 4;
/// Due occurrences that they race for.
const OCCURRENCES: usize = 24;
/// Marks, and edits, that race each other in MARK-3.
const ROUNDS: usize = 20;

/// A scheduled document whose every level has a field that no version of this library knows.
fn scheduled<D: Sample>(id: &str, next: Option<DateTime<Utc>>) -> D {
    let mut schedule = schedule(next);
    schedule.extra.insert("jitter".into(), json!({ "max": 0.1, "list": [1, null, "x"] }));
    let mut doc = D::sample(id).with_schedule(Some(schedule));
    doc.extra_mut().insert("model".into(), json!({ "name": "m", "options": { "top_p": 0.3 } }));
    *doc.text_mut() = "text".into();
    doc
}

/// The ids on the due list at `now`.
fn due<D: Sample>(seams: &dyn Seams, now: DateTime<Utc>) -> Vec<String> {
    list(|page| D::catalog(seams).due(now, page))
        .iter()
        .map(|stored| stored.id().as_ref().to_owned())
        .collect()
}

fn read<D: Sample>(seams: &dyn Seams, id: &D::Id) -> Stored<D> {
    D::catalog(seams).get(id).unwrap().expect("a stored definition")
}

fn run_state<D: Sample>(seams: &dyn Seams, id: &D::Id) -> RunState {
    read::<D>(seams, id).schedule().expect("a schedule").run_state()
}

pub fn mark_1_both_times_move_together(suite: &Suite<'_>) {
    both_times_move_together::<Skill>(suite);
    both_times_move_together::<Agent>(suite);
    readers_see_no_half_mark(suite);
}

fn both_times_move_together<D: Sample>(suite: &Suite<'_>) {
    let instance = suite.create();
    let store = instance.store();
    let catalog = D::catalog(&*store);
    let doc: D = scheduled("a", Some(at(10)));
    catalog.save(&doc, Expect::Absent).unwrap();
    catalog.save(&scheduled("b", Some(at(15))), Expect::Absent).unwrap();
    catalog.save(&scheduled("c", None), Expect::Absent).unwrap();
    catalog.save(&D::sample("d"), Expect::Absent).unwrap();

    // Due at its time, to the nanosecond, and from then on.
    let just_before = at_nanos(9_999_999_999);
    assert_eq!(due::<D>(&*store, just_before), [""; 0]);
    assert_eq!(due::<D>(&*store, at(10)), ["a"]);
    assert_eq!(due::<D>(&*store, at(15)), ["a", "b"]);

    // Each way of moving moves what is read and what is listed, both at once.
    let expect = |next: Option<i64>, last: Option<i64>| {
        let state = RunState { next_run_at: next.map(at), last_run_at: last.map(at), lease: None };
        assert_eq!(run_state::<D>(&*store, doc.id()), state);
        let listed = due::<D>(&*store, at(1_000));
        assert_eq!(listed.contains(&"a".to_owned()), next.is_some());
        for stored in list(|page| catalog.due(at(1_000), page)) {
            assert_eq!(stored, read::<D>(&*store, stored.id()), "the due list shows what a read shows");
        }
    };
    catalog.mark_scheduled_run(doc.id(), at(11), Some(at(20))).unwrap();
    expect(Some(20), Some(11));
    assert_eq!(due::<D>(&*store, at(19)), ["b"]);
    assert_eq!(due::<D>(&*store, at(20)), ["b", "a"], "in the order of their times");
    // A mark may move back in time: the host's clock is the host's.
    catalog.mark_scheduled_run(doc.id(), at(3), Some(at(5))).unwrap();
    expect(Some(5), Some(3));
    assert_eq!(due::<D>(&*store, at(15)), ["a", "b"]);
    catalog.reschedule(doc.id(), Some(at(30))).unwrap();
    expect(Some(30), Some(3));
    let claim = catalog.claim_due(at(30), &worker("w"), seconds(60), 5).unwrap();
    let claim = claim.iter().find(|claim| claim.stored.id() == doc.id()).expect("it was due");
    assert_eq!(claim.due_at, at(30));
    catalog.finish_claim(doc.id(), claim.lease.token, at(31), at(30), Some(at(40))).unwrap();
    expect(Some(40), Some(30));

    // A transaction that fails takes the mark back, in the document and on the list.
    let undone = store.transaction(&mut |seams| {
        D::catalog(seams).mark_scheduled_run(doc.id(), at(41), None)?;
        assert_eq!(due::<D>(seams, at(40)), ["b"]);
        Err(Error::invalid("work", "undone"))
    });
    refused(undone, ErrorKind::InvalidInput);
    expect(Some(40), Some(30));

    // To the nanosecond, and at both ends of time.
    for nanos in [i64::MIN, -1, 0, 1, i64::MAX] {
        let time = time::from_nanos(nanos);
        catalog.mark_scheduled_run(doc.id(), time, Some(time)).unwrap();
        let state = RunState { next_run_at: Some(time), last_run_at: Some(time), lease: None };
        assert_eq!(run_state::<D>(&*store, doc.id()), state);
        assert!(due::<D>(&*store, time).contains(&"a".to_owned()));
    }
    let beyond = DateTime::<Utc>::MAX_UTC;
    let invalid = ErrorKind::InvalidInput;
    refused_without_trace(&*store, invalid, || catalog.mark_scheduled_run(doc.id(), beyond, None));
    refused_without_trace(&*store, invalid, || catalog.mark_scheduled_run(doc.id(), at(1), Some(beyond)));
    refused_without_trace(&*store, invalid, || catalog.reschedule(doc.id(), Some(beyond)));
    refused(catalog.due(beyond, &whole()), invalid);
}

/// Readers beside a marker never see one time moved and the other not, nor a list that disagrees with a read.
fn readers_see_no_half_mark(suite: &Suite<'_>) {
    let instance = suite.create();
    let store = instance.store();
    store.skills().save(&scheduled("a", Some(at(1))), Expect::Absent).unwrap();
    store.skills().mark_scheduled_run(&id("a"), at(0), Some(at(1))).unwrap();
    race(3, |thread| {
        for round in 1..=ROUNDS as i64 {
            if thread == 0 {
                store.skills().mark_scheduled_run(&id("a"), at(round), Some(at(round + 1))).unwrap();
                continue;
            }
            let (state, listed) = store
                .view(|seams| {
                    let listed = seams.skills().due(at(1_000), &whole())?;
                    Ok((run_state::<Skill>(seams, &id("a")), listed.items))
                })
                .unwrap();
            let (last, next) = (state.last_run_at.unwrap(), state.next_run_at.unwrap());
            assert_eq!(next, last + seconds(1), "half a mark was seen");
            assert_eq!(listed.len(), 1);
            assert_eq!(listed[0].schedule.as_ref().unwrap().run_state(), state);
        }
    });
}

pub fn mark_2_nothing_else_is_touched(suite: &Suite<'_>) {
    nothing_else_is_touched::<Skill>(suite);
    nothing_else_is_touched::<Agent>(suite);
}

fn nothing_else_is_touched<D: Sample>(suite: &Suite<'_>) {
    let instance = suite.create();
    let store = instance.store();
    let catalog = D::catalog(&*store);
    let doc: D = scheduled("a", Some(at(10)));
    catalog.save(&doc, Expect::Absent).unwrap();
    catalog.save(&scheduled("b", Some(at(1_000))), Expect::Absent).unwrap();
    catalog.append_version(&version("v", doc.clone())).unwrap();

    // The whole JSON of everything, but for the run state of `a` and the counter that lease tokens come from.
    let rest = || {
        let mut records: Vec<Value> =
            export(&*store).iter().map(|record| serde_json::to_value(record).unwrap()).collect();
        records.retain(|record| record["type"] != "counter");
        for record in &mut records {
            let doc = &mut record["record"]["doc"];
            if doc["id"] == "a" {
                let schedule = doc["schedule"].as_object_mut().expect("a schedule");
                for field in ["next_run_at", "last_run_at", "lease"] {
                    schedule.remove(field);
                }
            }
        }
        records
    };
    let before = rest();
    assert_eq!(before[0]["record"]["doc"]["schedule"]["jitter"]["max"], 0.1);
    let step = |what: &str, call: &dyn Fn() -> Result<()>| {
        let other = run_state::<D>(&*store, D::sample("b").id());
        call().unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(rest(), before, "{what} touched something else");
        assert_eq!(run_state::<D>(&*store, D::sample("b").id()), other);
    };
    let claim = |now: i64| {
        let mut claims = catalog.claim_due(at(now), &worker("w"), seconds(5), 1).unwrap();
        assert_eq!(claims.len(), 1);
        claims.remove(0).lease.token
    };
    let id = doc.id();
    step("a mark", &|| catalog.mark_scheduled_run(id, at(10), Some(at(20))));
    step("a reschedule", &|| catalog.reschedule(id, Some(at(25))));
    step("a claim", &|| catalog.claim_due(at(25), &worker("w"), seconds(5), 1).map(drop));
    let token = claim(30);
    step("a renewal", &|| catalog.renew_claim(id, token, at(31), seconds(9)).map(drop));
    step("a release", &|| catalog.release_claim(id, token, at(32)));
    let token = claim(33);
    step("a finished claim", &|| catalog.finish_claim(id, token, at(34), at(33), Some(at(50))));
    step("a mark that ends the schedule", &|| catalog.mark_scheduled_run(id, at(50), None));

    // The schedule says the same time as before, so an edit with the first revision still is good: marks and
    // claims are no edits.
    let stored = read::<D>(&*store, id);
    catalog.save(&stored.doc, Expect::Revision(stored.revision)).unwrap();
    let last = RunState { next_run_at: None, last_run_at: Some(at(50)), lease: None };
    assert_eq!(run_state::<D>(&*store, id), last);
}

pub fn mark_3_marks_and_edits_both_survive(suite: &Suite<'_>) {
    a_stale_copy_does_not_undo_a_mark::<Skill>(suite);
    a_stale_copy_does_not_undo_a_mark::<Agent>(suite);
    marks_race_edits(suite);
}

fn a_stale_copy_does_not_undo_a_mark<D: Sample>(suite: &Suite<'_>) {
    let instance = suite.create();
    let store = instance.store();
    let catalog = D::catalog(&*store);
    let doc: D = scheduled("a", Some(at(10)));
    let revision = catalog.save(&doc, Expect::Absent).unwrap();
    let mut copy = D::clone(&read::<D>(&*store, doc.id()).doc);
    let id = doc.id();

    // A person edits while the schedule fires: the save is not refused, and the mark stays.
    catalog.mark_scheduled_run(id, at(10), Some(at(20))).unwrap();
    *copy.text_mut() = "edited".into();
    let revision = {
        let saved = catalog.save(&copy, Expect::Revision(revision)).unwrap();
        assert!(saved > revision);
        saved
    };
    let marked = RunState { next_run_at: Some(at(20)), last_run_at: Some(at(10)), lease: None };
    assert_eq!(run_state::<D>(&*store, id), marked);
    assert_eq!(due::<D>(&*store, at(19)), [""; 0]);
    assert_eq!(read::<D>(&*store, id).doc.as_ref().clone().text_mut(), "edited");

    // So do a claim, through a save, an update, a publish and a restore.
    let claim = catalog.claim_due(at(20), &worker("w"), seconds(60), 1).unwrap().remove(0);
    let claimed = RunState { lease: Some(claim.lease.clone()), ..marked };
    catalog.append_version(&version("v0", copy.clone())).unwrap();
    catalog.save(&copy, Expect::Revision(revision)).unwrap();
    assert_eq!(run_state::<D>(&*store, id), claimed);
    let updated = catalog
        .update(id, &mut |doc| {
            // What an edit says of the run state is ignored, as in a save.
            doc.schedule_mut().unwrap().set_run_state(RunState::default());
            *doc.text_mut() = "again".into();
            Ok(())
        })
        .unwrap();
    assert_eq!(updated.schedule().unwrap().run_state(), claimed);
    catalog.publish(&version("v1", copy.clone()), Expect::Any).unwrap();
    assert_eq!(run_state::<D>(&*store, id), claimed);
    catalog.restore(&crate::fixture::id("v0"), Expect::Any).unwrap();
    assert_eq!(run_state::<D>(&*store, id), claimed);
    catalog.finish_claim(id, claim.lease.token, at(21), at(20), Some(at(30))).unwrap();

    // Other times are a new schedule: its next run is taken, the lease ends, the last run is remembered.
    catalog.claim_due(at(30), &worker("w"), seconds(60), 1).unwrap();
    let mut schedule = schedule(Some(at(70)));
    schedule.cron = "@hourly".into();
    let changed = copy.clone().with_schedule(Some(schedule));
    catalog.save(&changed, Expect::Any).unwrap();
    let state = RunState { next_run_at: Some(at(70)), last_run_at: Some(at(20)), lease: None };
    assert_eq!(run_state::<D>(&*store, id), state);
    assert_eq!(due::<D>(&*store, at(69)), [""; 0]);
    assert_eq!(due::<D>(&*store, at(70)), ["a"]);

    // Without a schedule there is no run state; a schedule that comes later brings its own.
    catalog.save(&copy.clone().with_schedule(None), Expect::Any).unwrap();
    assert_eq!(due::<D>(&*store, at(1_000)), [""; 0]);
    let again = Schedule { last_run_at: Some(at(1)), ..crate::fixture::schedule(Some(at(80))) };
    catalog.save(&copy.with_schedule(Some(again)), Expect::Any).unwrap();
    let state = RunState { next_run_at: Some(at(80)), last_run_at: Some(at(1)), lease: None };
    assert_eq!(run_state::<D>(&*store, id), state);
}

fn marks_race_edits(suite: &Suite<'_>) {
    let instance = suite.create();
    let store = instance.store();
    let mut doc: Skill = scheduled("a", Some(at(0)));
    doc.body.clear();
    store.skills().save(&doc, Expect::Absent).unwrap();
    race(3, |thread| {
        for round in 0..ROUNDS as i64 {
            match thread {
                0 => store.skills().mark_scheduled_run(&id("a"), at(round), Some(at(round + 1))).unwrap(),
                1 => {
                    let edit = |doc: &mut Skill| {
                        doc.body.push('u');
                        Ok(())
                    };
                    store.skills().update(&id("a"), &mut { edit }).unwrap();
                }
                // A person who reads, edits and saves loses to other edits only, never to a mark.
                _ => save_by_hand(&*store),
            }
        }
    });
    let read = read::<Skill>(&*store, &id("a"));
    let state = read.schedule.as_ref().unwrap().run_state();
    assert_eq!(state.last_run_at, Some(at(ROUNDS as i64 - 1)), "the last mark survived");
    assert_eq!(state.next_run_at, Some(at(ROUNDS as i64)));
    let count = |letter| read.body.chars().filter(|c| *c == letter).count();
    assert_eq!((count('u'), count('s')), (ROUNDS, ROUNDS), "every edit survived");
    assert_eq!(due::<Skill>(&*store, at(ROUNDS as i64 - 1)), [""; 0]);

    // Marks alone beside a save with the revision that was read: it is never refused.
    race(2, |thread| {
        for round in 0..ROUNDS as i64 {
            if thread == 0 {
                store.skills().mark_scheduled_run(&id("a"), at(round), Some(at(round + 1))).unwrap();
            } else {
                let stored = self::read::<Skill>(&*store, &id("a"));
                store.skills().save(&stored.doc, Expect::Revision(stored.revision)).unwrap();
            }
        }
    });
    assert_eq!(run_state::<Skill>(&*store, &id("a")).next_run_at, Some(at(ROUNDS as i64)));
}

fn save_by_hand(store: &dyn Store) {
    loop {
        let stored = read::<Skill>(store, &id("a"));
        let mut doc = Skill::clone(&stored.doc);
        doc.body.push('s');
        match store.skills().save(&doc, Expect::Revision(stored.revision)) {
            Ok(_) => return,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
        }
    }
}

pub fn mark_4_missing_and_finished_schedules(suite: &Suite<'_>) {
    missing_and_finished_schedules::<Skill>(suite);
    missing_and_finished_schedules::<Agent>(suite);
}

fn missing_and_finished_schedules<D: Sample>(suite: &Suite<'_>) {
    let instance = suite.create();
    let store = instance.store();
    let catalog = D::catalog(&*store);
    let (doc, plain): (D, D) = (scheduled("a", Some(at(10))), D::sample("plain"));
    catalog.save(&doc, Expect::Absent).unwrap();
    catalog.save(&plain, Expect::Absent).unwrap();
    let missing = D::sample("missing");
    for (doc, what) in [(&missing, D::KIND.entity()), (&plain, Entity::Schedule)] {
        let not_found = |work: &dyn Fn() -> Result<()>| {
            let before = export(&*store);
            match work() {
                Err(Error::NotFound { what: found, id }) => {
                    assert_eq!((found, id.as_str()), (what, doc.id().as_ref()));
                }
                other => panic!("NotFound was expected, not {other:?}"),
            }
            assert_eq!(export(&*store), before, "a refusal changed something");
        };
        let id = doc.id();
        not_found(&|| catalog.mark_scheduled_run(id, at(10), Some(at(20))));
        not_found(&|| catalog.mark_scheduled_run(id, at(10), None));
        not_found(&|| catalog.reschedule(id, Some(at(20))));
        not_found(&|| catalog.finish_claim(id, LeaseToken(1), at(1), at(1), None));
        not_found(&|| catalog.renew_claim(id, LeaseToken(1), at(1), seconds(1)).map(drop));
        not_found(&|| catalog.release_claim(id, LeaseToken(1), at(1)));
    }

    // No next time: on no due list at any time, not claimable, and still there.
    catalog.mark_scheduled_run(doc.id(), at(10), None).unwrap();
    let end = time::from_nanos(i64::MAX);
    assert_eq!(due::<D>(&*store, end), [""; 0]);
    assert!(catalog.claim_due(at(1_000), &worker("w"), seconds(1), 10).unwrap().is_empty());
    let state = RunState { next_run_at: None, last_run_at: Some(at(10)), lease: None };
    assert_eq!(run_state::<D>(&*store, doc.id()), state);
    // Marked again it keeps off the list; rescheduled it comes back.
    catalog.mark_scheduled_run(doc.id(), at(11), None).unwrap();
    assert_eq!(due::<D>(&*store, end), [""; 0]);
    catalog.reschedule(doc.id(), Some(at(12))).unwrap();
    assert_eq!(due::<D>(&*store, at(12)), ["a"]);
    catalog.reschedule(doc.id(), None).unwrap();
    assert_eq!(due::<D>(&*store, end), [""; 0]);
    catalog.reschedule(doc.id(), Some(at(12))).unwrap();
    catalog.delete(doc.id(), Expect::Any).unwrap();
    assert_eq!(due::<D>(&*store, end), [""; 0], "what is deleted is not due");
}

pub fn mark_5_each_occurrence_has_one_claimant(suite: &Suite<'_>) {
    claims_hold_and_lapse::<Skill>(suite);
    claims_hold_and_lapse::<Agent>(suite);
    claims_end_with_their_occurrence(suite);
    workers_race(suite);
}

fn claims_hold_and_lapse<D: Sample>(suite: &Suite<'_>) {
    let instance = suite.create();
    let store = instance.store();
    let catalog = D::catalog(&*store);
    for (id, next) in [("c", 10), ("b", 10), ("a", 30), ("d", 5)] {
        catalog.save(&scheduled(id, Some(at(next))), Expect::Absent).unwrap();
    }
    let claim = |now: DateTime<Utc>, who: &str, max: usize| {
        catalog.claim_due(now, &worker(who), seconds(60), max).unwrap()
    };
    let ids = |claims: &[Claim<D>]| -> Vec<String> {
        claims.iter().map(|claim| claim.stored.id().as_ref().to_owned()).collect()
    };
    assert!(claim(at_nanos(4_999_999_999), "w", 9).is_empty());

    // By next_run_at, then id; at most as many as were asked for; each with a token of its own.
    let first = claim(at(20), "w1", 2);
    assert_eq!(ids(&first), ["d", "b"]);
    assert_eq!((first[0].due_at, first[1].due_at), (at(5), at(10)));
    assert!(first[0].lease.token < first[1].lease.token);
    for claim in &first {
        assert_eq!((claim.lease.worker.as_str(), claim.lease.until), ("w1", at(80)));
        assert_eq!(claim.stored.schedule().unwrap().lease.as_ref(), Some(&claim.lease));
        assert_eq!(read::<D>(&*store, claim.stored.id()), claim.stored, "the claim shows what a read shows");
    }
    let second = claim(at(20), "w2", 9);
    assert_eq!(ids(&second), ["c"], "what is claimed is not claimed again, not even by the same worker");
    assert!(claim(at(20), "w1", 9).is_empty());
    assert_eq!(due::<D>(&*store, at(20)), ["d", "b", "c"], "what is claimed stays due until it has run");

    // A stranger's token, a wrong one, and one of another definition are LeaseLost and change nothing.
    let (d, token) = (first[0].stored.id().clone(), first[0].lease.token);
    let lost = ErrorKind::LeaseLost;
    for wrong in [first[1].lease.token, LeaseToken(token.0 + 1_000), LeaseToken(0)] {
        refused_without_trace(&*store, lost, || catalog.finish_claim(&d, wrong, at(21), at(20), None));
        refused_without_trace(&*store, lost, || catalog.renew_claim(&d, wrong, at(21), seconds(60)));
        refused_without_trace(&*store, lost, || catalog.release_claim(&d, wrong, at(21)));
    }

    // A renewal never shortens; it is good until the last nanosecond, and lost at the end.
    assert_eq!(catalog.renew_claim(&d, token, at(21), seconds(1)).unwrap().until, at(80));
    let renewed = catalog.renew_claim(&d, token, at_nanos(79_999_999_999), seconds(60)).unwrap();
    assert_eq!((renewed.token, renewed.until), (token, at_nanos(139_999_999_999)));
    assert_eq!(run_state::<D>(&*store, &d).lease, Some(renewed));
    let lapse = at_nanos(139_999_999_999);
    refused_without_trace(&*store, lost, || catalog.renew_claim(&d, token, lapse, seconds(60)));
    refused_without_trace(&*store, lost, || catalog.finish_claim(&d, token, lapse, at(20), None));
    refused_without_trace(&*store, lost, || catalog.release_claim(&d, token, lapse));

    // A lapsed one is claimable again, with a new token, and the late holder stays out.
    assert!(!ids(&claim(at_nanos(139_999_999_998), "w3", 9)).contains(&"d".to_owned()));
    let again = claim(lapse, "w3", 9);
    let again = again.iter().find(|claim| *claim.stored.id() == d).expect("it lapsed");
    assert!(again.lease.token > token);
    refused_without_trace(&*store, lost, || catalog.finish_claim(&d, token, at(140), at(20), None));
    // Given back it is claimable at once; the token that gave it back is spent.
    catalog.release_claim(&d, again.lease.token, at(141)).unwrap();
    refused_without_trace(&*store, lost, || catalog.release_claim(&d, again.lease.token, at(141)));
    assert_eq!(run_state::<D>(&*store, &d).lease, None);
    let last = claim(at(141), "w4", 1).remove(0);
    assert_eq!(*last.stored.id(), d);
    catalog.finish_claim(&d, last.lease.token, at(142), at(141), Some(at(500))).unwrap();
    refused_without_trace(&*store, lost, || {
        catalog.finish_claim(&d, last.lease.token, at(142), at(141), Some(at(500)))
    });

    let invalid = ErrorKind::InvalidInput;
    let bad = |lease, max| refused(catalog.claim_due(at(1), &worker("w"), lease, max), invalid);
    bad(seconds(0), 1);
    bad(lease::MAX_LEASE + seconds(1), 1);
    bad(seconds(1), 0);
    bad(seconds(1), page::MAX_PAGE + 1);
    refused(catalog.claim_due(DateTime::<Utc>::MAX_UTC, &worker("w"), seconds(1), 1), invalid);
}

/// A lease is on an occurrence: when the host moves the schedule, the holder is late.
fn claims_end_with_their_occurrence(suite: &Suite<'_>) {
    type Move = (&'static str, fn(&dyn Seams) -> Result<()>);
    let moves: [Move; 5] = [
        ("a mark", |s| s.skills().mark_scheduled_run(&id("a"), at(11), Some(at(12)))),
        ("a reschedule", |s| s.skills().reschedule(&id("a"), Some(at(12)))),
        ("a save with other times", |s| {
            let times = Schedule::new("@daily", "", Some(at(12)));
            s.skills().save(&skill("a").with_schedule(Some(times)), Expect::Any).map(drop)
        }),
        ("a save without a schedule, and one with", |s| {
            s.skills().save(&skill("a"), Expect::Any)?;
            s.skills().save(&scheduled("a", Some(at(12))), Expect::Any).map(drop)
        }),
        ("a deletion, and the same id again", |s| {
            s.skills().delete(&id("a"), Expect::Any)?;
            s.skills().save(&scheduled("a", Some(at(12))), Expect::Absent).map(drop)
        }),
    ];
    for (what, go) in moves {
        let instance = suite.create();
        let store = instance.store();
        let skills = store.skills();
        skills.save(&scheduled("a", Some(at(10))), Expect::Absent).unwrap();
        let token = skills.claim_due(at(10), &worker("w"), seconds(60), 1).unwrap()[0].lease.token;
        go(&*store).unwrap();
        let late = skills.finish_claim(&id("a"), token, at(13), at(13), None);
        assert_eq!(late.map_err(|error| error.kind()), Err(ErrorKind::LeaseLost), "after {what}");
        let next = skills.claim_due(at(13), &worker("w2"), seconds(60), 1).unwrap();
        assert_eq!(next.len(), 1, "after {what} the new occurrence is claimable");
        assert!(next[0].lease.token > token, "a token came back after {what}");
    }
}

fn workers_race(suite: &Suite<'_>) {
    let instance = suite.create();
    let store = instance.store();
    let save = |number: usize| {
        let doc = scheduled(&format!("s{number:02}"), Some(at(number as i64)));
        store.skills().save(&doc, Expect::Absent).map(drop)
    };
    (0..OCCURRENCES).try_for_each(save).unwrap();
    // Each worker claims in small bites until nothing is left; some finish, some let go or let it lapse.
    let claimed = race(WORKERS, |number| {
        let mut won = Vec::new();
        loop {
            let claims = store.skills().claim_due(at(100), &worker(&format!("w{number}")), seconds(60), 2);
            let claims = claims.unwrap();
            if claims.is_empty() {
                return won;
            }
            for claim in claims {
                if number % 2 == 0 {
                    let (id, token) = (claim.stored.doc.id.clone(), claim.lease.token);
                    store.skills().finish_claim(&id, token, at(101), at(100), Some(at(1_000))).unwrap();
                }
                won.push((claim.stored.doc.id.clone(), claim.lease.token));
            }
        }
    });
    let all: Vec<(SkillId, LeaseToken)> = claimed.concat();
    let distinct = |count: usize, what: &str| assert_eq!(count, OCCURRENCES, "{what}");
    distinct(all.len(), "each occurrence was claimed by exactly one worker");
    distinct(all.iter().map(|(id, _)| id).collect::<std::collections::BTreeSet<_>>().len(), "no two of one");
    distinct(
        all.iter().map(|(_, token)| token).collect::<std::collections::HashSet<_>>().len(),
        "own tokens",
    );

    // What was not finished lapses, and is claimed by exactly one again.
    let unfinished: usize = claimed.iter().skip(1).step_by(2).map(Vec::len).sum();
    let again = race(WORKERS, |number| {
        let who = worker(&format!("late{number}"));
        store.skills().claim_due(at(160), &who, seconds(60), OCCURRENCES).unwrap().len()
    });
    assert_eq!(again.iter().sum::<usize>(), unfinished);
}
