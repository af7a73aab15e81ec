//! Families, finishes, filters, sums.

use std::collections::HashMap;

use serde_json::Value;

use super::*;
use crate::time::from_nanos;
use crate::{AgentId, Amount, ChannelId, PrincipalId, json};

fn run(id: &str, parent: Option<&str>) -> Run {
    let mut start = NewRun::new(RunId::new(id).unwrap(), PrincipalId::new("c").unwrap(), from_nanos(5));
    start.parent = parent.map(|parent| RunId::new(parent).unwrap());
    Run::started(start)
}

type Family = HashMap<RunId, Arc<Run>>;

fn family(runs: &[(&str, Option<&str>)]) -> Family {
    runs.iter().map(|(id, parent)| (RunId::new(id).unwrap(), Arc::new(run(id, *parent)))).collect()
}

fn names(family: &Family, of: &str) -> Vec<String> {
    let found = ancestors(&RunId::new(of).unwrap(), |id| Ok(family.get(id).cloned())).unwrap();
    found.iter().map(|run| run.id.to_string()).collect()
}

#[test]
fn walks_end_at_roots_holes_and_cycles() {
    let family = family(&[
        ("a", None),
        ("b", Some("a")),
        ("c", Some("b")),
        ("self", Some("self")),
        ("x", Some("y")),
        ("y", Some("z")),
        ("z", Some("x")),
        ("hole", Some("gone")),
    ]);
    assert_eq!(names(&family, "c"), ["b", "a"]);
    assert_eq!(names(&family, "self"), [""; 0]);
    assert_eq!(names(&family, "x"), ["y", "z"]);
    assert_eq!(names(&family, "hole"), [""; 0]);
    assert!(ancestors(&RunId::new("gone").unwrap(), |_| Ok(None)).is_err());
}

#[test]
fn what_running_runs_need_is_found_through_cycles() {
    let family = family(&[("a", None), ("b", Some("a")), ("x", Some("y")), ("y", Some("x"))]);
    let running = ["b", "x"].map(|id| family[&RunId::new(id).unwrap()].clone());
    let found = needed(running, |id| Ok(family.get(id).cloned())).unwrap();
    let mut found: Vec<_> = found.iter().map(|id| id.as_str()).collect();
    found.sort_unstable();
    assert_eq!(found, ["a", "x", "y"]);
}

#[test]
fn the_first_finish_wins_and_the_same_again_is_accepted() {
    let finish = Finish::new(RunOutcome::Succeeded, from_nanos(9));
    let done = run("r", None).finished(&finish).unwrap().unwrap();
    assert_eq!((done.status, done.duration().unwrap().as_nanos()), (RunStatus::Succeeded, 4));
    assert_eq!(done.finished(&finish).unwrap(), None);
    let other = Finish { cost: Amount::from_units(1).unwrap(), ..finish };
    assert_eq!(done.finished(&other).unwrap_err().kind(), crate::ErrorKind::Conflict);
    let early = Finish::new(RunOutcome::Failed, from_nanos(1));
    assert!(run("r", None).finished(&early).unwrap().unwrap().duration().unwrap().is_zero());
}

/// Whatever is in a run and its end, the document is the one that encoding the finished run would give.
#[test]
fn a_document_is_finished_without_being_read() {
    let what = || "runs/r".to_owned();
    let extra = || serde_json::json!({ "status ": "running", "x": [1.5, null] }).as_object().unwrap().clone();
    let mut start = run("r\"}{", Some("p")).start;
    start.input = serde_json::json!({ "finish": "{\"status\":\"running\"," });
    start.extra = extra();
    let run = Run::started(start);
    for outcome in [RunOutcome::Succeeded, RunOutcome::Failed, RunOutcome::Cancelled, RunOutcome::Abandoned] {
        let output = serde_json::json!("done");
        let finish = Finish {
            output,
            error: Some("\"".into()),
            extra: extra(),
            ..Finish::new(outcome, from_nanos(9))
        };
        let finished = run.finished(&finish).unwrap().unwrap();
        let made = Run::finished_document(what, &json::encode(&run).unwrap(), &finish).unwrap().unwrap();
        assert_eq!(made, json::encode(&finished).unwrap());
        assert!(
            json::encode(&run).unwrap().starts_with(r#"{"status":"running","#),
            "else each would be read"
        );
        // Once it has ended, or when somebody else wrote it, it is read.
        assert_eq!(Run::finished_document(what, &made, &finish).unwrap(), None);
        let otherwise = Finish { error: None, ..finish.clone() };
        let error = Run::finished_document(what, &made, &otherwise).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Conflict);
        let spaced = json::encode(&run).unwrap().replacen(':', ": ", 1);
        assert_eq!(Run::finished_document(what, &spaced, &finish).unwrap(), Some(made));
    }
    let error =
        Run::finished_document(what, "{}", &Finish::new(RunOutcome::Failed, from_nanos(9))).unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Corrupt);
}

#[test]
fn a_status_is_its_name() {
    for status in RunStatus::ALL {
        assert_eq!(status.to_string().parse::<RunStatus>().unwrap(), status);
        assert_eq!(serde_json::to_value(status).unwrap(), status.to_string());
    }
    assert!("gone".parse::<RunStatus>().unwrap_err().to_string().contains("running, succeeded"));
}

#[test]
fn the_kind_of_an_event_has_a_length() {
    let event = |length| NewEvent { kind: "k".repeat(length), at: from_nanos(0), payload: Value::Null };
    assert!([1, crate::MAX_ID_BYTES].map(|length| event(length).validate().is_ok()) == [true; 2]);
    assert!([0, crate::MAX_ID_BYTES + 1].map(|length| event(length).validate().is_err()) == [true; 2]);
}

#[test]
fn a_filter_has_times_that_can_be_stored() {
    let out_of_range = Some(DateTime::<Utc>::MAX_UTC);
    assert!(RunFilter::default().validate().is_ok());
    assert!(RunFilter { from: out_of_range, ..Default::default() }.validate().is_err());
    assert!(RunFilter { to: out_of_range, ..Default::default() }.validate().is_err());
}

#[test]
fn every_field_of_a_filter_narrows() {
    let mut full = run("r", Some("p"));
    full.start.skill = Some(SkillId::new("s").unwrap());
    full.start.agent = Some(AgentId::new("a").unwrap());
    full.start.channel = Some(ChannelId::new("ch").unwrap());
    let matching = RunFilter {
        skill: full.skill.clone(),
        agent: full.agent.clone(),
        caller: Some(full.caller.clone()),
        channel: full.channel.clone(),
        status: Some(RunStatus::Running),
        from: Some(from_nanos(5)),
        to: Some(from_nanos(6)),
        top_level: false,
    };
    assert!(matching.matches(&full));
    let narrower: [fn(&mut RunFilter); 8] = [
        |f| f.skill = Some(SkillId::new("x").unwrap()),
        |f| f.agent = Some(AgentId::new("x").unwrap()),
        |f| f.caller = Some(PrincipalId::new("x").unwrap()),
        |f| f.channel = Some(ChannelId::new("x").unwrap()),
        |f| f.status = Some(RunStatus::Failed),
        |f| f.from = Some(from_nanos(6)),
        |f| f.to = Some(from_nanos(5)),
        |f| f.top_level = true,
    ];
    for narrow in narrower {
        let mut filter = matching.clone();
        narrow(&mut filter);
        assert!(!filter.matches(&full), "{filter:?}");
    }
}

#[test]
fn summaries_count_by_group_and_page_in_order() {
    let finish = Finish {
        cost: Amount::from_units(2).unwrap(),
        tokens: Tokens { input: 3, output: u64::MAX },
        ..Finish::new(RunOutcome::Succeeded, from_nanos(8))
    };
    let filter = RunFilter::default();
    let mut summing = Summing::new(&filter, GroupBy::Skill);
    for skill in [None, Some("b"), Some("a"), Some("b")] {
        let mut one = run("r", None);
        one.start.skill = skill.map(|skill| SkillId::new(skill).unwrap());
        summing.add(&if skill == Some("b") { one.finished(&finish).unwrap().unwrap() } else { one });
    }
    let page = summing.page(&PageRequest::default()).unwrap();
    let groups: Vec<_> = page.items.iter().map(|row| row.group.as_deref()).collect();
    assert_eq!(groups, [None, Some("a"), Some("b")]);
    let b = &page.items[2];
    assert_eq!((b.runs, b.by_status[&RunStatus::Succeeded], b.by_status[&RunStatus::Running]), (2, 2, 0));
    assert_eq!((b.duration_nanos, b.tokens.input, b.tokens.output), (6, 6, u64::MAX));
    assert_eq!(b.cost, Amount::from_units(4).unwrap());
}

#[test]
fn who_is_stale_is_running_and_started_before() {
    let running = run("r", None);
    assert!(is_stale(&running, from_nanos(6)) && !is_stale(&running, from_nanos(5)));
    let finish = Finish::new(RunOutcome::Succeeded, from_nanos(5));
    assert!(!is_stale(&running.finished(&finish).unwrap().unwrap(), from_nanos(6)));
}
