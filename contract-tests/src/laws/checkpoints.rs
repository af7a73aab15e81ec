//! CKP: checkpoints and the claims on them.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde_json::json;
use store_api::*;

use crate::fixture::*;
use crate::suite::Suite;

/// Workers that race for checkpoints.
const WORKERS: usize = 4;
/// Checkpoints that they race for.
const CHECKPOINTS: usize = 24;

pub fn ckp_1_checkpoints_never_go_back(suite: &Suite<'_>) {
    saves(suite);
    claims(suite);
    writers_race(suite);
    workers_race(suite);
}

fn interrupted(store: &dyn Store) -> Vec<String> {
    list(|page| store.checkpoints().interrupted(page)).iter().map(|i| i.checkpoint.run.to_string()).collect()
}

fn saves(suite: &Suite<'_>) {
    let instance = suite.create();
    let store = instance.store();
    let checkpoints = store.checkpoints();
    assert!(checkpoints.load(&id("r")).unwrap().is_none() && interrupted(&*store).is_empty());
    refused(checkpoints.delete(&id("r")), ErrorKind::NotFound);
    checkpoints.save(&checkpoint("r", 5)).unwrap();
    for stale in [4, 0] {
        refused_without_trace(&*store, ErrorKind::Conflict, || checkpoints.save(&checkpoint("r", stale)));
    }
    // The same iteration replaces, whatever its time says; a higher one does.
    let same = Checkpoint { state: json!("again"), updated_at: at(-9), ..checkpoint("r", 5) };
    checkpoints.save(&same).unwrap();
    assert_eq!(*checkpoints.load(&id("r")).unwrap().unwrap(), same);
    let most = Checkpoint { meta: serde_json::Map::new(), ..checkpoint("r", i64::MAX as u64) };
    checkpoints.save(&most).unwrap();
    let invalid = ErrorKind::InvalidInput;
    refused_without_trace(&*store, invalid, || checkpoints.save(&checkpoint("r", i64::MAX as u64 + 1)));
    refused_without_trace(&*store, invalid, || checkpoints.save(&checkpoint("new", u64::MAX)));
    let late = Checkpoint { updated_at: DateTime::<Utc>::MAX_UTC, ..checkpoint("r", i64::MAX as u64) };
    refused_without_trace(&*store, invalid, || checkpoints.save(&late));

    // Interrupted is what was saved and not deleted, in order of the runs; the audit has no say in it.
    for run in ["b", "a", "ü", "B"] {
        checkpoints.save(&checkpoint(run, 1)).unwrap();
    }
    assert_eq!(interrupted(&*store), ["B", "a", "b", "r", "ü"]);
    checkpoints.delete(&id("a")).unwrap();
    refused_without_trace(&*store, ErrorKind::NotFound, || checkpoints.delete(&id("a")));
    assert_eq!(interrupted(&*store), ["B", "b", "r", "ü"]);
    assert!(checkpoints.load(&id("a")).unwrap().is_none());
    // Deleted is forgotten: the run may begin from the start again.
    checkpoints.delete(&id("r")).unwrap();
    checkpoints.save(&checkpoint("r", 0)).unwrap();
}

fn claims(suite: &Suite<'_>) {
    let instance = suite.create();
    let store = instance.store();
    let checkpoints = store.checkpoints();
    let (w1, w2) = (worker("w1"), worker("w2"));
    for run in ["c", "a", "b"] {
        checkpoints.save(&checkpoint(run, 3)).unwrap();
    }
    refused_without_trace(&*store, ErrorKind::NotFound, || {
        checkpoints.claim(&id("x"), at(0), &w1, seconds(9))
    });
    let lease = checkpoints.claim(&id("b"), at(0), &w1, seconds(60)).unwrap();
    assert_eq!((&lease.worker, lease.until), (&w1, at(60)));
    // Nobody else holds it before its end, the same worker included.
    for who in [&w1, &w2] {
        let again = || checkpoints.claim(&id("b"), at_nanos(59_999_999_999), who, seconds(9));
        refused_without_trace(&*store, ErrorKind::Conflict, again);
        // One engine said who holds it, the others only that somebody does: random sequences on all at once told.
        assert!(again().unwrap_err().to_string().contains("w1 holds it until"));
    }
    let found = checkpoints.claim_interrupted(at(1), &w2, seconds(60), 1).unwrap();
    assert_eq!((found.len(), found[0].checkpoint.run.as_str()), (1, "a"));
    let rest = checkpoints.claim_interrupted(at(1), &w2, seconds(60), 9).unwrap();
    assert_eq!((rest.len(), rest[0].checkpoint.run.as_str()), (1, "c"));
    assert!(checkpoints.claim_interrupted(at(1), &w1, seconds(60), 9).unwrap().is_empty());
    let tokens: BTreeSet<u64> =
        [&found[0], &rest[0]].iter().map(|i| i.lease.as_ref().unwrap().token.0).collect();
    assert!(tokens.len() == 2 && !tokens.contains(&lease.token.0), "each claim has its own token");
    // What is claimed is still listed, with who holds it.
    let listed = list(|page| checkpoints.interrupted(page));
    assert_eq!(listed[0], found[0]);
    assert_eq!((listed.len(), listed[1].lease.as_ref()), (3, Some(&lease)));

    // A save keeps the claim; a stale save is refused whoever holds it.
    checkpoints.save(&checkpoint("b", 4)).unwrap();
    refused_without_trace(&*store, ErrorKind::Conflict, || checkpoints.save(&checkpoint("b", 3)));
    let renewed = checkpoints.renew_claim(&id("b"), lease.token, at(30), seconds(60)).unwrap();
    assert_eq!((renewed.token, renewed.until), (lease.token, at(90)));
    assert_eq!(checkpoints.renew_claim(&id("b"), lease.token, at(31), seconds(1)).unwrap().until, at(90));
    let lost = ErrorKind::LeaseLost;
    for (run, token, now) in
        [("b", LeaseToken(lease.token.0 + 1_000), 31), ("a", lease.token, 31), ("b", lease.token, 90)]
    {
        let (run, now) = (id(run), at(now));
        refused_without_trace(&*store, lost, || checkpoints.renew_claim(&run, token, now, seconds(9)));
        refused_without_trace(&*store, lost, || checkpoints.release_claim(&run, token, now));
    }
    let token = lease.token;
    let missing = id("x");
    refused(checkpoints.renew_claim(&missing, token, at(31), seconds(9)), ErrorKind::NotFound);
    refused(checkpoints.release_claim(&missing, token, at(31)), ErrorKind::NotFound);
    // Lapsed it is claimable, at its end and not before; the late holder stays out.
    let next = checkpoints.claim(&id("b"), at(90), &w2, seconds(60)).unwrap();
    assert!(next.token > token);
    refused_without_trace(&*store, lost, || checkpoints.renew_claim(&id("b"), token, at(91), seconds(9)));
    // Given back it is claimable at once, and the token is spent.
    checkpoints.release_claim(&id("b"), next.token, at(91)).unwrap();
    refused_without_trace(&*store, lost, || checkpoints.release_claim(&id("b"), next.token, at(91)));
    assert_eq!(checkpoints.claim(&id("b"), at(91), &w1, seconds(9)).unwrap().worker, w1);
    // A deletion ends the claim; a checkpoint that comes later is free.
    checkpoints.delete(&id("b")).unwrap();
    checkpoints.save(&checkpoint("b", 0)).unwrap();
    checkpoints.claim(&id("b"), at(92), &w2, seconds(9)).unwrap();

    let invalid = ErrorKind::InvalidInput;
    for lease in [seconds(0), lease::MAX_LEASE + seconds(1)] {
        refused(checkpoints.claim(&id("b"), at(0), &w1, lease), invalid);
        refused(checkpoints.claim_interrupted(at(0), &w1, lease, 1), invalid);
        refused(checkpoints.renew_claim(&id("b"), token, at(0), lease), invalid);
    }
    for max in [0, page::MAX_PAGE + 1] {
        refused(checkpoints.claim_interrupted(at(0), &w1, seconds(1), max), invalid);
    }
    refused(checkpoints.claim(&id("b"), DateTime::<Utc>::MAX_UTC, &w1, seconds(1)), invalid);
}

/// Writers of different iterations, some of them late: the highest wins.
fn writers_race(suite: &Suite<'_>) {
    let instance = suite.create();
    let store = instance.store();
    race(WORKERS, |writer| {
        let mut last = 0;
        for step in 0..15_u64 {
            // Each jumps ahead in its own rhythm, so saves are often stale.
            let iteration = step * (1 + writer as u64);
            match store.checkpoints().save(&checkpoint("r", iteration)) {
                Ok(()) => {}
                Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
            }
            let stored = store.checkpoints().load(&id("r")).unwrap().unwrap();
            assert!(stored.iteration >= iteration.max(last), "a checkpoint went back");
            assert_eq!(stored.state["iteration"], stored.iteration, "a mixture of two");
            last = stored.iteration;
        }
    });
    assert_eq!(store.checkpoints().load(&id("r")).unwrap().unwrap().iteration, 14 * WORKERS as u64);
}

fn workers_race(suite: &Suite<'_>) {
    let instance = suite.create();
    let store = instance.store();
    for number in 0..CHECKPOINTS {
        store.checkpoints().save(&checkpoint(&format!("r{number:02}"), 1)).unwrap();
    }
    let won = race(WORKERS, |number| {
        let who = worker(&format!("w{number}"));
        let mut won: Vec<String> = Vec::new();
        // One by one, from both ends, and in bites.
        for at_number in 0..CHECKPOINTS / 3 {
            let run = id(&format!("r{:02}", CHECKPOINTS - 1 - at_number));
            match store.checkpoints().claim(&run, at(0), &who, seconds(60)) {
                Ok(_) => won.push(run.to_string()),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
            }
        }
        loop {
            let claims = store.checkpoints().claim_interrupted(at(0), &who, seconds(60), 2).unwrap();
            if claims.is_empty() {
                return won;
            }
            won.extend(claims.iter().map(|claim| claim.checkpoint.run.to_string()));
        }
    })
    .concat();
    assert_eq!(won.len(), CHECKPOINTS, "two hosts hold one run");
    assert_eq!(won.into_iter().collect::<BTreeSet<_>>().len(), CHECKPOINTS);
}
