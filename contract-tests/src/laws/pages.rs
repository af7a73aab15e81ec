//! PAGE: every list there is, in pages.

use std::fmt::Debug;

use chrono::{DateTime, Utc};
use serde::Serialize;
use store_api::*;

use crate::fixture::*;
use crate::suite::Suite;

/// The page sizes that each list is read in.
const SIZES: [usize; 4] = [1, 2, 7, 1_000];

/// Ids whose order by bytes is neither that of their letters nor that of a locale.
const IDS: [&str; 12] = ["a", "B", "b", "a b", "a/b", "aa", "Z", "é", "e\u{301}", "10", "9", "\u{10FFFD}"];

/// Reads one list and says it in JSON, so that all lists can be checked in one way.
type Fetch<'a> = Box<dyn Fn(&dyn Seams, &PageRequest) -> Result<Page<serde_json::Value>> + 'a>;

/// A list under test: its name, and how a page of it is read.
struct Case<'a> {
    name: String,
    fetch: Fetch<'a>,
}

fn case<'a, T: Serialize>(
    name: impl Into<String>,
    fetch: impl Fn(&dyn Seams, &PageRequest) -> Result<Page<T>> + 'a,
) -> Case<'a> {
    let json = |item: T| serde_json::to_value(item).expect("an item is JSON");
    Case { name: name.into(), fetch: Box::new(move |seams, page| Ok(fetch(seams, page)?.map(json))) }
}

pub fn page_1_pages_joined_are_the_list(suite: &Suite<'_>) {
    let instance = suite.create();
    let store = instance.store();
    fill(&*store);
    let cases = cases();
    for case in &cases {
        let whole = read_all(case, &*store, 1_000);
        assert!(whole.len() > 2, "{} has too little in it to be cut", case.name);
        for size in SIZES {
            assert_eq!(read_all(case, &*store, size), whole, "{} in pages of {size}", case.name);
        }
    }
    lists_have_their_order(&*store);
    cursors_belong_to_their_list(&*store, &cases);
    store
        .snapshot(&mut |seams| {
            for case in &cases {
                let whole = read_all(case, seams, 1_000);
                assert_eq!(read_all(case, seams, 2), whole, "{} inside a snapshot", case.name);
            }
            Ok(())
        })
        .unwrap();
    drop(store);
    inserts_neither_repeat_nor_drop(suite);
    last_runs_are_the_newest(suite);
}

/// All items of a list; each page holds as many as were asked for, but for the last.
fn read_all(case: &Case<'_>, seams: &dyn Seams, size: usize) -> Vec<serde_json::Value> {
    let mut items = Vec::new();
    let mut request = PageRequest::first(size).unwrap();
    loop {
        let page = (case.fetch)(seams, &request).unwrap();
        assert!(page.items.len() <= size, "{}: more than was asked for", case.name);
        items.extend(page.items.iter().cloned());
        assert!(items.len() < 10_000, "{}: the pages do not end", case.name);
        let Some(next) = page.next else { return items };
        assert_eq!(page.items.len(), size, "{}: a page that is not the last is full", case.name);
        // A cursor survives being sent away and coming back as text.
        request = PageRequest::first(size).unwrap().after(next.to_string().parse().unwrap());
    }
}

/// Something of everything, so that each list and each filter has items to skip and items to give.
fn fill(store: &dyn Store) {
    store.transaction(&mut fill_definitions).unwrap();
    store.transaction(&mut fill_runs).unwrap();
    store.transaction(&mut fill_accounts).unwrap();
}

fn fill_definitions(seams: &dyn Seams) -> Result<()> {
    for (number, name) in IDS.iter().enumerate() {
        fn dress<D: Sample>(seams: &dyn Seams, name: &str, number: usize) -> Result<D> {
            let mut doc =
                D::sample(name).named(if number.is_multiple_of(3) { "owner" } else { "other" }, name);
            if !number.is_multiple_of(4) {
                // Equal times, so that ids decide.
                doc = doc.with_schedule(Some(schedule(Some(at(100 - (number as i64 / 3))))));
            }
            D::catalog(seams).save(&doc, Expect::Absent)?;
            Ok(doc)
        }
        let mut skill: Skill = dress(seams, name, number)?;
        skill.exposed_to_chat = number % 2 == 0;
        skill.tags = [id("t"), id("T")].into_iter().take(number % 3).collect();
        skill.visibility = [Visibility::Public, Visibility::Shared, Visibility::Private][number % 3];
        skill.shared_with = [id("friend")].into_iter().take(number % 2).collect();
        seams.skills().save(&skill, Expect::Any)?;
        let mut agent: Agent = dress(seams, name, number)?;
        agent.channel_filter = [id("general"), id("ops")].into_iter().skip(number % 3).collect();
        seams.agents().save(&agent, Expect::Any)?;
        seams.checkpoints().save(&checkpoint(name, number as u64))?;
        seams.skills().append_version(&version(&format!("s{number}"), self::skill("a"))).map(drop)?;
        seams.agents().save(&self::agent("versioned"), Expect::Any)?;
        seams.agents().append_version(&version(&format!("a{number}"), self::agent("versioned"))).map(drop)?;
    }
    Ok(())
}

fn fill_runs(seams: &dyn Seams) -> Result<()> {
    for number in 0..24_i64 {
        let name = IDS[number as usize % IDS.len()];
        let mut started = run(&format!("r{number}"), number / 3);
        started.skill = [Some(id(name)), None][number as usize % 2].clone();
        started.agent = [None, Some(id(name)), Some(id("a"))][number as usize % 3].clone();
        started.caller = id(["x", "X", "y"][number as usize % 3]);
        started.channel = [Some(id("general")), Some(id("ops")), None][number as usize % 3].clone();
        started.parent = (number % 4 == 1).then(|| id("r0"));
        // Some on other days, so that a summary by day has rows; one before 1970.
        started.started_at += chrono::TimeDelta::days(number / 8);
        if number == 23 {
            started.started_at = time::from_nanos(-1);
        }
        seams.audit().start_run(&started)?;
        let outcomes =
            [RunOutcome::Succeeded, RunOutcome::Failed, RunOutcome::Cancelled, RunOutcome::Abandoned];
        if number % 5 != 0 {
            let outcome = outcomes[number as usize % 4];
            let tokens = Tokens { input: 3, output: number as u64 };
            let finish = Finish { outcome, tokens, cost: micros(number as u64), ..finish(number + 5) };
            seams.audit().finish_run(&started.id, &finish)?;
        }
    }
    (1..=11).try_for_each(|number| seams.audit().append_event(&id("r0"), &event(number)).map(drop))
}

fn fill_accounts(seams: &dyn Seams) -> Result<()> {
    let windows = ["rollover:7d", "sliding:7d/7", "rollover:10s"];
    for (number, caller) in IDS.iter().enumerate() {
        for (meter, window) in ["usd", "Usd"].into_iter().zip(windows.iter().cycle().skip(number)) {
            let account = Account::new(id(caller), id(meter), window.parse()?);
            seams.budgets().add(&charge(&account, 1 + number as u64), at(0))?;
        }
    }
    Ok(())
}

/// Every list method of every seam, with every filter.
fn cases() -> Vec<Case<'static>> {
    let mut cases = vec![
        case("skill versions", |s, page| s.skills().versions(&id("a"), page)),
        case("agent versions", |s, page| s.agents().versions(&id("versioned"), page)),
        case("by_channel", |s, page| s.agents().by_channel(&id("ops"), page)),
        case("accounts", |s, page| s.budgets().accounts(at(5), page)),
        case("children", |s, page| s.audit().children(&id("r0"), page)),
        case("events", |s, page| s.audit().events(&id("r0"), page)),
        case("interrupted", |s, page| s.checkpoints().interrupted(page)),
    ];
    definition_cases::<Skill>(&mut cases);
    definition_cases::<Agent>(&mut cases);
    let owner = Some(id("other"));
    for filter in [
        DefinitionFilter { exposed_to_chat: Some(true), ..DefinitionFilter::default() },
        DefinitionFilter { tag: Some(id("t")), ..DefinitionFilter::default() },
        DefinitionFilter { visible_to: Some(id("friend")), ..DefinitionFilter::default() },
        DefinitionFilter { visible_to: Some(id("owner")), ..DefinitionFilter::default() },
        DefinitionFilter { owner, tag: Some(id("t")), scheduled: Some(true), ..DefinitionFilter::default() },
    ] {
        let name = format!("skills by {filter:?}");
        cases.push(case(name, move |s, page| s.skills().list(&filter, page)));
    }
    for filter in run_filters() {
        let name = format!("runs by {filter:?}");
        cases.push(case(name, move |s, page| s.audit().runs(&filter, page)));
    }
    for group_by in
        [GroupBy::Skill, GroupBy::Agent, GroupBy::Caller, GroupBy::Channel, GroupBy::Status, GroupBy::Day]
    {
        let summary =
            move |s: &dyn Seams, page: &PageRequest| s.audit().summary(&RunFilter::default(), group_by, page);
        cases.push(case(format!("summary by {group_by:?}"), summary));
    }
    cases
}

fn definition_cases<D: Sample>(cases: &mut Vec<Case<'static>>) {
    let kind = D::KIND;
    for filter in [
        DefinitionFilter::default(),
        DefinitionFilter { owner: Some(id("owner")), ..DefinitionFilter::default() },
        DefinitionFilter { scheduled: Some(true), ..DefinitionFilter::default() },
        DefinitionFilter { scheduled: Some(false), ..DefinitionFilter::default() },
    ] {
        let name = format!("{kind:?} by {filter:?}");
        cases.push(case(name, move |s, page| D::catalog(s).list(&filter, page)));
    }
    cases.push(case(format!("due {kind:?}"), |s, page| D::catalog(s).due(at(99), page)));
}

fn run_filters() -> Vec<RunFilter> {
    let none = RunFilter::default();
    let day = chrono::TimeDelta::days(1);
    let mut filters = vec![
        none.clone(),
        RunFilter { agent: Some(id("a")), ..none.clone() },
        RunFilter { caller: Some(id("X")), ..none.clone() },
        RunFilter { channel: Some(id("ops")), ..none.clone() },
        RunFilter { from: Some(at(1)), ..none.clone() },
        RunFilter { to: Some(at(6) + day), ..none.clone() },
        RunFilter { from: Some(at(1)), to: Some(at(6) + day), ..none.clone() },
        RunFilter { top_level: true, ..none.clone() },
        RunFilter { top_level: true, status: Some(RunStatus::Succeeded), ..none.clone() },
    ];
    let status = |status| RunFilter { status: Some(status), ..RunFilter::default() };
    filters.extend([RunStatus::Running, RunStatus::Succeeded, RunStatus::Failed].map(status));
    filters
}

fn lists_have_their_order(store: &dyn Store) {
    let mut ids: Vec<&str> = IDS.to_vec();
    ids.sort();
    let listed = list(|page| store.skills().list(&DefinitionFilter::default(), page));
    assert!(listed.iter().map(|skill| skill.doc.id.as_str()).eq(ids.iter().copied()), "by bytes of the id");
    let listed = list(|page| store.checkpoints().interrupted(page));
    assert!(listed.iter().map(|i| i.checkpoint.run.as_str()).eq(ids.iter().copied()));
    let due = list(|page| store.skills().due(at(1_000), page));
    let key = |skill: &Stored<Skill>| (skill.schedule.as_ref().unwrap().next_run_at, skill.doc.id.clone());
    assert!(due.is_sorted_by_key(key) && due.len() == 9, "by time, then id");
    let accounts = list(|page| store.budgets().accounts(at(0), page));
    assert!(accounts.is_sorted_by_key(|listed| listed.account.key()) && accounts.len() == 24);
    let newest_first = |runs: &[std::sync::Arc<Run>]| {
        runs.is_sorted_by(|a, b| (a.started_at, &a.start.id) > (b.started_at, &b.start.id))
    };
    let all = list(|page| store.audit().runs(&RunFilter::default(), page));
    assert!(newest_first(&all) && all.len() == 24 && all[23].start.id.as_str() == "r23");
    for filter in run_filters() {
        let runs = list(|page| store.audit().runs(&filter, page));
        let by_hand: Vec<_> = all.iter().filter(|run| filter.matches(run)).cloned().collect();
        assert_eq!(runs, by_hand, "{filter:?}");
        summaries_are_the_sums(store, &filter, &runs);
    }
    let children = list(|page| store.audit().children(&id("r0"), page));
    assert!(newest_first(&children) && children.len() == 6);
    let visible = list(|page| {
        let friend = DefinitionFilter { visible_to: Some(id("friend")), ..DefinitionFilter::default() };
        store.skills().list(&friend, page)
    });
    // Public ones, and of the shared ones those that name the friend.
    let expected = |number: usize| number.is_multiple_of(3) || (number % 3 == 1 && !number.is_multiple_of(2));
    assert_eq!(visible.len(), (0..IDS.len()).filter(|number| expected(*number)).count());
}

/// Each summary says what the runs themselves say, added up here.
fn summaries_are_the_sums(store: &dyn Store, filter: &RunFilter, runs: &[std::sync::Arc<Run>]) {
    use std::collections::BTreeMap;
    let groups =
        [GroupBy::Nothing, GroupBy::Skill, GroupBy::Caller, GroupBy::Channel, GroupBy::Status, GroupBy::Day];
    for group_by in groups {
        let mut sums: BTreeMap<Option<String>, (u64, u64, u64, u64)> = BTreeMap::new();
        for run in runs {
            let sum = sums.entry(group_by.group(run)).or_default();
            let finish = run.finish.as_ref();
            sum.0 += 1;
            sum.1 += u64::from(finish.is_none());
            sum.2 += finish.map_or(0, |finish| finish.tokens.output);
            sum.3 += finish.map_or(0, |finish| finish.cost.micros());
        }
        let rows = list(|page| store.audit().summary(filter, group_by, page));
        let said = rows.iter().map(|row| {
            let running = row.by_status[&RunStatus::Running];
            (row.group.clone(), (row.runs, running, row.tokens.output, row.cost.micros()))
        });
        assert!(said.eq(sums), "{filter:?} by {group_by:?}: {rows:?}");
        for row in &rows {
            assert_eq!(row.by_status.len(), RunStatus::ALL.len(), "no status is left out for being zero");
            assert_eq!(row.by_status.values().sum::<u64>(), row.runs);
        }
    }
}

/// A cursor that is damaged, made up, or another list's is InvalidInput: also where the list is empty.
fn cursors_belong_to_their_list(store: &dyn Store, cases: &[Case<'_>]) {
    let first = PageRequest::first(1).unwrap();
    let mut cursors: Vec<(&str, Cursor)> = Vec::new();
    for case in cases {
        cursors.push((&case.name, (case.fetch)(store, &first).unwrap().next.expect("more than one item")));
    }
    // Lists with filters are one list: a cursor is a position in it. These are the first of each.
    let kinds =
        ["skill versions", "agent versions", "by_channel", "accounts", "children", "events", "interrupted"];
    let by = ["Skill by", "Agent by", "due Skill", "due Agent", "runs by", "summary by"];
    let kind_of = |name: &str| kinds.iter().chain(&by).position(|kind| name.starts_with(kind));
    for case in cases.iter().filter(|case| !case.name.starts_with("skills by")) {
        for (of, cursor) in cursors.iter().filter(|(of, _)| !of.starts_with("skills by")) {
            let answer = (case.fetch)(store, &first.clone().after(cursor.clone()));
            let error = answer.as_ref().err().map(Error::kind);
            let expected = (kind_of(of) != kind_of(&case.name)).then_some(ErrorKind::InvalidInput);
            assert_eq!(error, expected, "{}: a cursor of {of}", case.name);
        }
        let mut damaged: Vec<String> = ["AAAA", "0", "a_b-c", &"x".repeat(500)].map(str::to_owned).into();
        let (_, own) = cursors.iter().find(|(of, _)| *of == case.name).unwrap();
        for at in [0, own.as_str().len() / 2, own.as_str().len() - 1] {
            let mut bytes = own.as_str().as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'A' { b'Q' } else { b'A' };
            damaged.push(String::from_utf8(bytes).unwrap());
        }
        damaged.push(own.as_str()[..own.as_str().len() - 1].to_owned());
        for text in damaged {
            let request = first.clone().after(text.parse().unwrap());
            assert_refused(&case.name, &text, (case.fetch)(store, &request));
        }
    }
    // The cursor is looked at first, whatever else is wrong or missing.
    let foreign = || first.clone().after(cursors[0].1.clone());
    refused(store.skills().due(DateTime::<Utc>::MAX_UTC, &foreign()), ErrorKind::InvalidInput);
    refused(store.audit().events(&id("nobody"), &foreign()), ErrorKind::InvalidInput);
    refused(store.agents().versions(&id("nobody"), &foreign()), ErrorKind::InvalidInput);
    refused(PageRequest::first(0), ErrorKind::InvalidInput);
    refused(PageRequest::first(page::MAX_PAGE + 1), ErrorKind::InvalidInput);
    let beyond = RunFilter { to: Some(DateTime::<Utc>::MAX_UTC), ..RunFilter::default() };
    refused(store.audit().runs(&beyond, &first), ErrorKind::InvalidInput);
    refused(store.audit().summary(&beyond, GroupBy::Nothing, &first), ErrorKind::InvalidInput);
}

fn assert_refused<T: Debug>(list: &str, cursor: &str, answer: Result<T>) {
    let kind = answer.as_ref().err().map(Error::kind);
    assert_eq!(kind, Some(ErrorKind::InvalidInput), "{list}: the cursor {cursor} gave {answer:?}");
}

/// Items come and go between two pages: what was there from the start is listed once.
fn inserts_neither_repeat_nor_drop(suite: &Suite<'_>) {
    let instance = suite.create();
    let store = instance.store();
    fill(&*store);
    for case in &cases() {
        let size = 2;
        let first = (case.fetch)(&*store, &PageRequest::first(size).unwrap()).unwrap();
        let before = read_all(case, &*store, 1_000);
        disturb(&*store, &case.name);
        let rest = PageRequest::first(1_000).unwrap().after(first.next.unwrap());
        let rest = (case.fetch)(&*store, &rest).unwrap().items;
        let joined: Vec<_> = first.items.iter().chain(&rest).map(key).collect();
        let mut seen = std::collections::BTreeSet::new();
        assert!(joined.iter().all(|key| seen.insert(key.clone())), "{}: an item came twice", case.name);
        for item in &before {
            assert!(seen.contains(&key(item)), "{}: {} was dropped", case.name, key(item));
        }
        // The order of what stays is the order there was.
        let stayed: Vec<_> = before.iter().map(key).collect();
        let kept: Vec<_> = joined.into_iter().filter(|key| stayed.contains(key)).collect();
        assert_eq!(kept, stayed, "{}", case.name);
    }
}

/// What tells an item of a list apart, in JSON.
fn key(item: &serde_json::Value) -> String {
    let fields = ["/doc/id", "/account", "/seq", "/id", "/run", "/group"];
    fields.iter().find_map(|field| item.pointer(field)).expect("an item has a key").to_string()
}

/// Puts something new into the list, before and after any position.
fn disturb(store: &dyn Store, list: &str) {
    let tail = list.len() + list.bytes().map(usize::from).sum::<usize>();
    let insert = &mut |s: &dyn Seams| {
        for name in [format!("\u{20}{tail}"), format!("b{tail}"), format!("\u{10FFFF}{tail}")] {
            let schedule = Some(schedule(Some(at(98 - name.len() as i64))));
            let tagged = Skill { tags: [id("t")].into(), ..skill(&name) };
            s.skills().save(&tagged.with_schedule(schedule.clone()), Expect::Absent)?;
            let answering = Agent { channel_filter: [id("ops")].into(), ..agent(&name) };
            s.agents().save(&answering.with_schedule(schedule), Expect::Absent)?;
            s.skills().append_version(&version(&format!("s{name}"), skill("a")))?;
            s.agents().append_version(&version(&format!("a{name}"), agent("versioned")))?;
            s.checkpoints().save(&checkpoint(&name, 1))?;
            s.budgets().add(&charge(&account(&name, 60), 1), at(0))?;
            let started = NewRun { caller: id("x"), agent: Some(id("a")), ..child(&name, "r0", 4) };
            s.audit().start_run(&started)?;
            s.audit().append_event(&id("r0"), &event(0))?;
        }
        Ok(())
    };
    store.transaction(insert).unwrap();
}

fn last_runs_are_the_newest(suite: &Suite<'_>) {
    let instance = suite.create();
    let store = instance.store();
    let audit = store.audit();
    // The newest by start, then by id, in whatever order they were recorded.
    for (name, skill, started) in [
        ("1", "s", 5),
        ("2", "s", 9),
        ("3", "s", 1),
        ("b", "t", 7),
        ("c", "t", 7),
        ("a", "t", 7),
        ("x", "u", 3),
    ] {
        audit.start_run(&NewRun { skill: Some(id(skill)), ..run(name, started) }).unwrap();
    }
    let last = |skills: &[&str]| -> Vec<String> {
        let skills: Vec<SkillId> = skills.iter().map(|skill| id(skill)).collect();
        audit.last_run_of(&skills).unwrap().iter().map(|run| run.start.id.to_string()).collect()
    };
    assert_eq!(last(&["t", "s", "nobody", "t"]), ["c", "2"], "as they are given, each once, without holes");
    assert_eq!(last(&[]), [""; 0]);
    let many: Vec<SkillId> = (0..=page::MAX_PAGE).map(|n| id(&n.to_string())).collect();
    refused(audit.last_run_of(&many), ErrorKind::InvalidInput);
    assert!(audit.last_run_of(&many[1..]).unwrap().is_empty());
}
