//! DOC: documents.

use std::collections::BTreeSet;
use std::fmt::Debug;

use chrono::{DateTime, Utc};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Map, Value, json};
use store_api::json::{Extra, MAX_JSON_DEPTH, MAX_RECORD_BYTES};
use store_api::*;

use crate::fixture::*;
use crate::suite::Suite;

/// How many documents of each kind are made up.
const DOCUMENTS: u32 = 24;
/// Threads that edit one document.
const THREADS: usize = 4;
/// Edits of each thread.
const EDITS: usize = 15;
/// A body that no prompt is longer than.
const LARGE_BODY: usize = 1024 * 1024;

// What a document may hold.

/// Any text but U+0000, with what has broken databases before: quotes, wildcards, surrogate pairs, joined emoji.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[^\u{0}]{0,40}",
        Just("it's \"quoted\", 100%, _x_, C:\\n; DROP TABLE skills; --".to_owned()),
        Just("日本語 \u{1F468}\u{200D}\u{1F469}\u{200D}\u{1F467} e\u{301} \u{202E}abc\r\n\t\u{1}\u{7f}\u{FFFE}".to_owned()),
    ]
}

/// Any id: no control characters, up to 255 bytes.
fn any_id<T: std::str::FromStr<Err = Error> + Debug>() -> impl Strategy<Value = T> {
    prop_oneof!["[^\\p{Cc}]{1,20}", Just("é".repeat(127)), Just("'\"%_\\".to_owned())]
        .prop_map(|text| id(&text))
}

fn number() -> impl Strategy<Value = Value> {
    let floats =
        prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO | prop::num::f64::NEGATIVE;
    prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        floats.prop_map(Value::from),
        prop::sample::select(vec![
            json!(u64::MAX),
            json!(i64::MIN),
            json!(0.1),
            json!(-0.0),
            json!(1.0),
            json!(5e-324),
            json!(f64::MAX),
            json!(9_007_199_254_740_993_u64),
            json!(0.1 + 0.2),
        ]),
    ]
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number(),
        text().prop_map(Value::from)
    ];
    leaf.prop_recursive(6, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(text(), inner, 0..6).prop_map(Value::from_iter),
        ]
    })
}

/// Unknown fields: their names begin with `x`, so that they shadow none.
fn unknown() -> impl Strategy<Value = Extra> {
    prop::collection::btree_map("x[^\u{0}]{0,8}", any_json(), 0..4).prop_map(Map::from_iter)
}

fn any_time() -> impl Strategy<Value = DateTime<Utc>> {
    prop_oneof![any::<i64>(), Just(i64::MIN), Just(i64::MAX), Just(-1)].prop_map(time::from_nanos)
}

fn any_schedule() -> impl Strategy<Value = Option<Schedule>> {
    let fields = (text(), text(), prop::option::of(any_time()), prop::option::of(any_time()), unknown());
    let make = |(cron, time_zone, next_run_at, last_run_at, extra)| Schedule {
        cron,
        time_zone,
        next_run_at,
        last_run_at,
        lease: None,
        extra,
    };
    prop::option::of(fields.prop_map(make))
}

fn any_set<T: Ord + std::str::FromStr<Err = Error> + Debug>() -> impl Strategy<Value = BTreeSet<T>> {
    prop::collection::btree_set(any_id(), 0..4)
}

fn any_skill() -> impl Strategy<Value = Skill> {
    let visibility = prop::sample::select(vec![Visibility::Public, Visibility::Shared, Visibility::Private]);
    let named = (any_id(), any_id(), any_id(), text(), any_set(), visibility, any_set(), any::<bool>());
    let content = (text(), prop::collection::vec(text(), 0..4), unknown(), any_schedule(), unknown());
    (named, content).prop_map(
        |(
            (id, owner, name, description, tags, visibility, shared_with, exposed_to_chat),
            (body, tools, inputs, schedule, extra),
        )| Skill {
            id,
            owner,
            name,
            description,
            tags,
            visibility,
            shared_with,
            exposed_to_chat,
            body,
            tools,
            inputs,
            schedule,
            extra,
        },
    )
}

fn any_agent() -> impl Strategy<Value = Agent> {
    let caps = (any::<Option<u32>>(), any::<Option<u32>>(), prop::option::of(0..=i64::MAX as u64), unknown());
    let caps = caps.prop_map(|(max_iterations, max_seconds, cost, extra)| Caps {
        max_iterations,
        max_seconds,
        max_cost: cost.map(micros),
        extra,
    });
    let lists = (prop::collection::vec(any_id(), 0..4), prop::collection::vec(any_id(), 0..4), any_set());
    let digest = prop::option::of(any::<[u8; 32]>());
    (any_skill(), any_id(), caps, lists, digest).prop_map(|(skill, agent_id, caps, lists, digest)| {
        let (skills, sub_agents, channel_filter) = lists;
        let hex = |bytes: [u8; 32]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        Agent {
            id: agent_id,
            owner: skill.owner,
            name: skill.name,
            description: skill.description,
            tags: skill.tags,
            visibility: skill.visibility,
            shared_with: skill.shared_with,
            exposed_to_chat: skill.exposed_to_chat,
            prompt: skill.body,
            tools: skill.tools,
            inputs: skill.inputs,
            schedule: skill.schedule,
            skills,
            sub_agents,
            caps,
            channel_filter,
            webhook: digest.map(|bytes| format!("hmac-sha256:k:{}", hex(bytes)).parse().unwrap()),
            extra: skill.extra,
        }
    })
}

fn any_run() -> impl Strategy<Value = NewRun> {
    let names =
        (any_id(), prop::option::of(any_id()), prop::option::of(any_id()), prop::option::of(any_id()));
    let rest = (any_id(), prop::option::of(any_id()), any_time(), any_json(), unknown());
    (names, rest).prop_map(|((id, parent, skill, agent), (caller, channel, started_at, input, extra))| {
        NewRun { id, parent, skill, agent, caller, channel, started_at, input, extra }
    })
}

fn any_finish() -> impl Strategy<Value = Finish> {
    let outcome =
        prop::sample::select(vec![RunOutcome::Succeeded, RunOutcome::Failed, RunOutcome::Cancelled]);
    let used = (any::<u64>(), any::<u64>(), 0..=i64::MAX as u64);
    (outcome, any_time(), any_json(), prop::option::of(text()), used, unknown()).prop_map(
        |(outcome, finished_at, output, error, (input, tokens, cost), extra)| Finish {
            outcome,
            finished_at,
            output,
            error,
            tokens: Tokens { input, output: tokens },
            cost: micros(cost),
            extra,
        },
    )
}

fn any_event() -> impl Strategy<Value = NewEvent> {
    ("[^\u{0}]{1,40}", any_time(), any_json()).prop_map(|(kind, at, payload)| NewEvent { kind, at, payload })
}

fn any_checkpoint() -> impl Strategy<Value = Checkpoint> {
    (any_id(), unknown(), 0..=i64::MAX as u64, any_json(), any_time(), unknown()).prop_map(
        |(run, meta, iteration, state, updated_at, extra)| Checkpoint {
            run,
            meta,
            iteration,
            state,
            updated_at,
            extra,
        },
    )
}

// What is read must be what was saved, to the bit: equality alone would take -0.0 for 0.0.

#[track_caller]
fn same<T: serde::Serialize + PartialEq + Debug>(read: &T, saved: &T) {
    assert_eq!(read, saved);
    let text = |value: &T| serde_json::to_string(value).expect("a record is JSON");
    assert_eq!(text(read), text(saved), "equal, but not to the bit");
}

/// Runs `check` on made-up values: the same ones in each run, so that a failure can be repeated.
fn for_any<S: Strategy>(strategy: S, check: impl Fn(S::Value)) {
    let config =
        Config { cases: DOCUMENTS, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let run = TestRunner::new_with_rng(config, rng).run(&strategy, |value| {
        check(value);
        Ok(())
    });
    run.unwrap_or_else(|failure| panic!("{failure}"));
}

pub fn doc_1_what_was_saved_is_read(suite: &Suite<'_>) {
    let mut instance = suite.create();
    definitions_round_trip(&*instance.store(), any_skill());
    definitions_round_trip(&*instance.store(), any_agent());
    runs_round_trip(&*instance.store());
    checkpoints_round_trip(&*instance.store());
    large_and_deep_documents(&*instance.store());
    what_is_not_allowed_changes_nothing(suite);
    if suite.facts().durable {
        let before = export(&*instance.store());
        instance.reopen().unwrap();
        assert_eq!(export(&*instance.store()), before);
    }
}

fn definitions_round_trip<D: Sample>(store: &dyn Store, docs: impl Strategy<Value = D>) {
    let catalog = D::catalog(store);
    for_any(
        (docs, any_id::<VersionId>(), text(), any_time(), unknown()),
        |(doc, version_id, label, saved_at, extra)| {
            let revision = catalog.save(&doc, Expect::Any).unwrap();
            let read = catalog.get(doc.id()).unwrap().unwrap();
            same(&*read.doc, &doc);
            assert_eq!(read.revision, revision);
            same(&*catalog.by_name(doc.owner(), doc.name()).unwrap().unwrap().doc, &doc);
            let owned = DefinitionFilter { owner: Some(doc.owner().clone()), ..DefinitionFilter::default() };
            let listed = list(|page| catalog.list(&owned, page));
            same(&*listed.iter().find(|stored| stored.id() == doc.id()).expect("it is listed").doc, &doc);
            let mut new = NewVersion::new(version_id, doc.clone(), id("e"), saved_at);
            (new.label, new.summary, new.extra) = (label.clone(), label, extra);
            let appended = catalog.append_version(&new).unwrap();
            new.snapshot = rules::without_run_state(&doc).into_owned();
            same(&appended.content, &new);
            same(&*catalog.version(&new.id).unwrap().unwrap(), &*appended);
            same(&*catalog.latest(doc.id()).unwrap().unwrap(), &*appended);
            let edited = catalog.update(doc.id(), &mut |_| Ok(())).unwrap();
            same(&*edited.doc, &doc);
            catalog.delete(doc.id(), Expect::Revision(edited.revision)).unwrap();
            assert!(catalog.get(doc.id()).unwrap().is_none());
            // Kept under an id of its own, for the export at the end.
            catalog.publish(&new, Expect::Absent).unwrap();
            catalog.delete(doc.id(), Expect::Any).unwrap();
        },
    );
}

fn runs_round_trip(store: &dyn Store) {
    let audit = store.audit();
    for_any((any_run(), any_finish(), any_event()), |(run, finish, event)| {
        if audit.run(&run.id).unwrap().is_some() {
            return;
        }
        same(&audit.start_run(&run).unwrap().start, &run);
        same(&*audit.run(&run.id).unwrap().unwrap(), &Run::started(run.clone()));
        let seq = audit.append_event(&run.id, &event).unwrap();
        let stored = Event { run: run.id.clone(), seq, content: event };
        same(&*list(|page| audit.events(&run.id, page))[0], &stored);
        audit.finish_run(&run.id, &finish).unwrap();
        let expected = Run { status: finish.outcome.into(), finish: Some(finish), start: run.clone() };
        same(&*audit.run(&run.id).unwrap().unwrap(), &expected);
        let from = RunFilter {
            from: Some(run.started_at),
            caller: Some(run.caller.clone()),
            ..RunFilter::default()
        };
        let listed = list(|page| audit.runs(&from, page));
        same(&**listed.iter().find(|listed| listed.start.id == run.id).expect("it is listed"), &expected);
    });
}

fn checkpoints_round_trip(store: &dyn Store) {
    let checkpoints = store.checkpoints();
    for_any(any_checkpoint(), |checkpoint| {
        let run = &checkpoint.run;
        checkpoints.save(&checkpoint).unwrap();
        same(&*checkpoints.load(run).unwrap().unwrap(), &checkpoint);
        let listed = list(|page| checkpoints.interrupted(page));
        same(
            &*listed.iter().find(|i| i.checkpoint.run == *run).expect("it is listed").checkpoint,
            &checkpoint,
        );
        checkpoints.delete(run).unwrap();
    });
}

/// JSON that nests that many levels, lists and maps by turns.
fn nested(levels: usize) -> Value {
    (0..levels - 1)
        .fold(json!([]), |inner, level| if level % 2 == 0 { json!({ "k": inner }) } else { json!([inner]) })
}

fn large_and_deep_documents(store: &dyn Store) {
    let large = "ü\"\\\u{1F600}".repeat(LARGE_BODY / 8);
    let deep = Map::from_iter([("deep".to_owned(), nested(MAX_JSON_DEPTH - 1))]);
    let wide = Map::from_iter((0..2_000).map(|n| (format!("x{n}"), json!(n))));
    let skill = Skill { body: large.clone(), extra: deep.clone(), inputs: wide.clone(), ..skill("large") };
    store.skills().publish(&version("large-s", skill.clone()), Expect::Any).unwrap();
    same(&*store.skills().get(&id("large")).unwrap().unwrap().doc, &skill);
    same(&store.skills().version(&id("large-s")).unwrap().unwrap().snapshot, &skill);
    let agent = Agent { prompt: large.clone(), extra: deep.clone(), inputs: wide, ..agent("large") };
    store.agents().save(&agent, Expect::Any).unwrap();
    same(&*store.agents().get(&id("large")).unwrap().unwrap().doc, &agent);
    let run = NewRun { input: nested(MAX_JSON_DEPTH), extra: deep.clone(), ..run("large", 0) };
    store.audit().start_run(&run).unwrap();
    let event = NewEvent { payload: json!(large), ..event(1) };
    store.audit().append_event(&run.id, &event).unwrap();
    let finish = Finish { output: nested(MAX_JSON_DEPTH), error: Some(large), ..finish(1) };
    store.audit().finish_run(&run.id, &finish).unwrap();
    let read = store.audit().run(&run.id).unwrap().unwrap();
    same(&read.start, &run);
    same(read.finish.as_ref().unwrap(), &finish);
    same(&list(|page| store.audit().events(&run.id, page))[0].content, &event);
    let checkpoint = Checkpoint { state: nested(MAX_JSON_DEPTH), extra: deep, ..checkpoint("large", 1) };
    store.checkpoints().save(&checkpoint).unwrap();
    same(&*store.checkpoints().load(&checkpoint.run).unwrap().unwrap(), &checkpoint);
}

fn what_is_not_allowed_changes_nothing(suite: &Suite<'_>) {
    let instance = suite.create();
    let store = instance.store();
    store.skills().publish(&version("v", skill("a")), Expect::Absent).unwrap();
    store.agents().publish(&version("w", agent("a")), Expect::Absent).unwrap();
    store.audit().start_run(&run("r", 0)).unwrap();
    store.checkpoints().save(&checkpoint("r", 0)).unwrap();
    bad_definitions::<Skill>(&*store);
    bad_definitions::<Agent>(&*store);
    let field = |name: &str, value: Value| Map::from_iter([(name.to_owned(), value)]);
    let agents = [
        Agent { caps: Caps { extra: field("max_cost", json!(1)), ..Caps::default() }, ..agent("a") },
        Agent { caps: Caps { extra: field("x", json!("\0")), ..Caps::default() }, ..agent("a") },
        Agent { extra: field("webhook", json!("x")), ..agent("a") },
    ];
    for bad in agents {
        refused_without_trace(&*store, ErrorKind::InvalidInput, || store.agents().save(&bad, Expect::Any));
    }
    let too_large = json!("x".repeat(MAX_RECORD_BYTES + 1));
    for bad in [nested(MAX_JSON_DEPTH + 1), json!({ "a": ["b\0"] }), json!({ "nul\0": 1 }), too_large] {
        let invalid = ErrorKind::InvalidInput;
        let audit = store.audit();
        let new = NewRun { input: bad.clone(), ..run("new", 0) };
        refused_without_trace(&*store, invalid, || audit.start_run(&new));
        let new = NewEvent { payload: bad.clone(), ..event(0) };
        refused_without_trace(&*store, invalid, || audit.append_event(&id("r"), &new));
        let new = Finish { output: bad.clone(), ..finish(0) };
        refused_without_trace(&*store, invalid, || audit.finish_run(&id("r"), &new));
        let new = Checkpoint { state: bad.clone(), ..checkpoint("r", 1) };
        refused_without_trace(&*store, invalid, || store.checkpoints().save(&new));
        let new = Checkpoint { meta: field("m", bad), ..checkpoint("new", 1) };
        refused_without_trace(&*store, invalid, || store.checkpoints().save(&new));
    }
    let invalid = ErrorKind::InvalidInput;
    let shadow = |name: &str| field(name, json!(1));
    let new = NewRun { extra: shadow("status"), ..run("new", 0) };
    refused_without_trace(&*store, invalid, || store.audit().start_run(&new));
    let new = Finish { extra: shadow("cost"), ..finish(0) };
    refused_without_trace(&*store, invalid, || store.audit().finish_run(&id("r"), &new));
    let new = Checkpoint { extra: shadow("lease"), ..checkpoint("r", 1) };
    refused_without_trace(&*store, invalid, || store.checkpoints().save(&new));
    let new = NewRun { started_at: DateTime::<Utc>::MAX_UTC, ..run("new", 0) };
    refused_without_trace(&*store, invalid, || store.audit().start_run(&new));
}

fn bad_definitions<D: Sample>(store: &dyn Store) {
    let catalog = D::catalog(store);
    let invalid = ErrorKind::InvalidInput;
    type Spoil<D> = Box<dyn Fn(&mut D) + Sync>;
    let extra = |name: &'static str, value: Value| -> Spoil<D> {
        Box::new(move |doc| drop(doc.extra_mut().insert(name.to_owned(), value.clone())))
    };
    let schedule = |spoil: fn(&mut Schedule)| -> Spoil<D> {
        Box::new(move |doc| {
            *doc = doc.clone().with_schedule(Some(crate::fixture::schedule(None)));
            spoil(doc.schedule_mut().expect("a schedule"));
        })
    };
    let spoils: [Spoil<D>; 11] = [
        Box::new(|doc| *doc.text_mut() = "a\0b".into()),
        Box::new(|doc| *doc.text_mut() = "x".repeat(MAX_RECORD_BYTES + 1)),
        extra("x", nested(MAX_JSON_DEPTH)),
        extra("x\0", json!(1)),
        extra("id", json!("other")),
        extra("schedule", json!(null)),
        extra("name", json!("n")),
        schedule(|schedule| schedule.cron = "\0".into()),
        schedule(|schedule| schedule.next_run_at = Some(DateTime::<Utc>::MAX_UTC)),
        schedule(|schedule| schedule.last_run_at = Some(DateTime::<Utc>::MIN_UTC)),
        schedule(|schedule| drop(schedule.extra.insert("lease".into(), json!(1)))),
    ];
    for spoil in spoils {
        for name in ["a", "new"] {
            let mut bad = D::sample(name);
            spoil(&mut bad);
            refused_without_trace(store, invalid, || catalog.save(&bad, Expect::Any));
            refused_without_trace(store, invalid, || {
                catalog.publish(&version("new", bad.clone()), Expect::Any)
            });
            refused_without_trace(store, invalid, || catalog.append_version(&version("new", bad.clone())));
        }
        refused_without_trace(store, invalid, || {
            catalog.update(D::sample("a").id(), &mut |doc| {
                spoil(doc);
                Ok(())
            })
        });
    }
    let mut bad = version("new", D::sample("a"));
    bad.saved_at = DateTime::<Utc>::MAX_UTC;
    refused_without_trace(store, invalid, || catalog.append_version(&bad));
    let mut bad = version("new", D::sample("a"));
    bad.extra.insert("seq".into(), json!(7));
    refused_without_trace(store, invalid, || catalog.append_version(&bad));
}

pub fn doc_2_names_are_unique(suite: &Suite<'_>) {
    names_are_unique::<Skill>(suite);
    names_are_unique::<Agent>(suite);
    webhooks_and_channels_follow(suite);
    one_of_many_gets_the_name(suite);
}

fn names_are_unique<D: Sample>(suite: &Suite<'_>) {
    let instance = suite.create();
    let store = instance.store();
    let catalog = D::catalog(&*store);
    let by_name = |owner: &str, name: &str| -> Option<String> {
        let found = catalog.by_name(&id(owner), &id(name)).unwrap();
        found.map(|stored| {
            assert_eq!(catalog.get(stored.id()).unwrap().as_ref(), Some(&stored), "one answer by either way");
            stored.id().as_ref().to_owned()
        })
    };
    let doc = |id: &str, owner: &str, name: &str| D::sample(id).named(owner, name);
    let (one, two) = (doc("1", "o", "n"), doc("2", "o", "m"));
    catalog.save(&one, Expect::Absent).unwrap();
    let first = catalog.save(&two, Expect::Absent).unwrap();
    catalog.append_version(&version("v", one.clone())).unwrap();
    let taken = |work: &dyn Fn() -> Result<()>| {
        let before = export(&*store);
        match work() {
            Err(Error::AlreadyExists { field: "name", what, .. }) => assert_eq!(what, D::KIND.entity()),
            other => panic!("AlreadyExists on the name was expected, not {other:?}"),
        }
        assert_eq!(export(&*store), before, "a refusal changed something");
    };
    taken(&|| catalog.save(&doc("3", "o", "n"), Expect::Any).map(drop));
    taken(&|| catalog.save(&doc("2", "o", "n"), Expect::Revision(first)).map(drop));
    taken(&|| catalog.publish(&version("w", doc("3", "o", "n")), Expect::Absent).map(drop));
    taken(&|| {
        let rename = &mut |doc: &mut D| {
            *doc = doc.clone().named("o", "n");
            Ok(())
        };
        catalog.update(two.id(), rename).map(drop)
    });

    // Another owner, another case, another form of the same letters: other names.
    for (id, owner, name) in
        [("4", "p", "n"), ("5", "o", "N"), ("6", "O", "n"), ("7", "o", "é"), ("8", "o", "e\u{301}")]
    {
        catalog.save(&doc(id, owner, name), Expect::Absent).unwrap();
        assert_eq!(by_name(owner, name).as_deref(), Some(id));
    }
    // A rename, a new owner, a deletion and a restore free and take names at once.
    catalog.save(&doc("1", "o", "new"), Expect::Any).unwrap();
    assert_eq!((by_name("o", "n"), by_name("o", "new").as_deref()), (None, Some("1")));
    catalog.save(&doc("3", "o", "n"), Expect::Absent).unwrap();
    assert_eq!(by_name("o", "n").as_deref(), Some("3"));
    taken(&|| catalog.restore(&id("v"), Expect::Any).map(drop));
    catalog.save(&doc("3", "elsewhere", "n"), Expect::Any).unwrap();
    catalog.restore(&id("v"), Expect::Any).unwrap();
    assert_eq!((by_name("o", "n").as_deref(), by_name("o", "new")), (Some("1"), None));
    catalog.delete(one.id(), Expect::Any).unwrap();
    assert_eq!(by_name("o", "n"), None);
    // Two swap their names, in one transaction.
    store
        .transaction(&mut |seams| {
            let catalog = D::catalog(seams);
            catalog.save(&doc("2", "o", "passing"), Expect::Any)?;
            catalog.save(&doc("5", "o", "m"), Expect::Any)?;
            assert!(catalog.by_name(&id("o"), &id("N"))?.is_none());
            catalog.save(&doc("2", "o", "N"), Expect::Any).map(drop)
        })
        .unwrap();
    assert_eq!((by_name("o", "N").as_deref(), by_name("o", "m").as_deref()), (Some("2"), Some("5")));
    // What is undone was never renamed.
    let before = export(&*store);
    let undone = store.transaction(&mut |seams| {
        D::catalog(seams).save(&doc("2", "o", "undone"), Expect::Any)?;
        D::catalog(seams).delete(doc("5", "o", "m").id(), Expect::Any)?;
        Err(Error::invalid("work", "undone"))
    });
    refused(undone, ErrorKind::InvalidInput);
    assert_eq!(export(&*store), before);
    assert_eq!((by_name("o", "N").as_deref(), by_name("o", "undone")), (Some("2"), None));
}

fn webhooks_and_channels_follow(suite: &Suite<'_>) {
    let instance = suite.create();
    let store = instance.store();
    let agents = store.agents();
    // A skill and an agent may share id, owner and name: they are two catalogs.
    store.skills().save(&skill("a"), Expect::Absent).unwrap();
    let key = DigestKey::new("k", [7; 32]).unwrap();
    let digest = |text: &str| key.digest(&Secret::new(text).unwrap());
    let (one, two) = (digest("first-secret-of-sixteen"), digest("second-secret-of-sixteen"));
    let other_key =
        DigestKey::new("k2", [7; 32]).unwrap().digest(&Secret::new("first-secret-of-sixteen").unwrap());
    let with = |id: &str, webhook: Option<&SecretDigest>, channels: &[&str]| Agent {
        webhook: webhook.cloned(),
        channel_filter: channels.iter().map(|channel| self::id(channel)).collect(),
        ..agent(id)
    };
    let by_webhook =
        |digest: &SecretDigest| agents.by_webhook(digest).unwrap().map(|found| found.doc.id.to_string());
    let by_channel = |channel: &str| -> Vec<String> {
        list(|page| agents.by_channel(&id(channel), page))
            .iter()
            .map(|found| found.doc.id.to_string())
            .collect()
    };
    agents.save(&with("a", Some(&one), &["c", "d"]), Expect::Absent).unwrap();
    agents.save(&with("b", None, &["c"]), Expect::Absent).unwrap();
    assert_eq!(
        (by_webhook(&one).as_deref(), by_webhook(&two), by_webhook(&other_key)),
        (Some("a"), None, None)
    );
    assert_eq!(
        (by_channel("c"), by_channel("d"), by_channel("C")),
        (vec!["a".into(), "b".into()], vec!["a".into()], vec![])
    );
    let before = export(&*store);
    match agents.save(&with("b", Some(&one), &["x"]), Expect::Any) {
        Err(Error::AlreadyExists { field: "webhook", value, .. }) => {
            assert!(!value.contains("first-secret"), "an error shows a secret");
        }
        other => panic!("AlreadyExists on the webhook was expected, not {other:?}"),
    }
    assert_eq!(export(&*store), before);
    agents.save(&with("b", Some(&other_key), &["d"]), Expect::Any).unwrap();
    agents.save(&with("a", Some(&two), &[]), Expect::Any).unwrap();
    assert_eq!((by_webhook(&one), by_webhook(&two).as_deref()), (None, Some("a")));
    assert_eq!((by_channel("c"), by_channel("d")), (vec![], vec!["b".to_owned()]));
    agents.save(&with("b", Some(&one), &["d"]), Expect::Any).unwrap();
    agents.delete(&id("b"), Expect::Any).unwrap();
    assert_eq!((by_webhook(&one), by_channel("d")), (None, vec![]));
    agents.save(&with("c", Some(&one), &["d"]), Expect::Any).unwrap();
    assert_eq!(by_webhook(&one).as_deref(), Some("c"));
}

fn one_of_many_gets_the_name(suite: &Suite<'_>) {
    let instance = suite.create();
    let store = instance.store();
    for round in 0..5 {
        let name = format!("n{round}");
        let won = race(THREADS, |thread| {
            let doc = skill(&format!("{round}-{thread}")).named("o", &name);
            match store.skills().save(&doc, Expect::Absent) {
                Ok(_) => true,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
                    false
                }
            }
        });
        assert_eq!(won.iter().filter(|won| **won).count(), 1, "one of them gets the name");
        let owner = store.skills().by_name(&id("o"), &id(&name)).unwrap().expect("it is taken");
        let winner = won.iter().position(|won| *won).unwrap();
        assert_eq!(owner.doc.id.as_str(), format!("{round}-{winner}"));
    }
}

pub fn doc_3_old_revisions_are_refused(suite: &Suite<'_>) {
    old_revisions_are_refused::<Skill>(suite);
    old_revisions_are_refused::<Agent>(suite);
    no_edit_is_lost(suite);
}

fn old_revisions_are_refused<D: Sample>(suite: &Suite<'_>) {
    let instance = suite.create();
    let store = instance.store();
    let catalog = D::catalog(&*store);
    let doc = D::sample("a");
    let id = doc.id();
    let mut changed = doc.clone();
    *changed.text_mut() = "changed".into();
    let (absent, conflict) = (ErrorKind::NotFound, ErrorKind::Conflict);
    let nothing = Expect::Revision(Revision(1));
    refused_without_trace(&*store, absent, || catalog.save(&doc, nothing));
    refused_without_trace(&*store, absent, || catalog.delete(id, Expect::Any));
    refused_without_trace(&*store, absent, || catalog.delete(id, nothing));
    refused_without_trace(&*store, absent, || catalog.update(id, &mut |_| Ok(())));
    refused_without_trace(&*store, absent, || catalog.publish(&version("v", doc.clone()), nothing));

    let first = catalog.save(&doc, Expect::Absent).unwrap();
    catalog.append_version(&version("v", doc.clone())).unwrap();
    let second = catalog.save(&doc, Expect::Revision(first)).unwrap();
    assert!(second > first, "each save is a new revision, also when nothing changed");
    let old = Expect::Revision(first);
    refused_without_trace(&*store, conflict, || catalog.save(&changed, old));
    refused_without_trace(&*store, conflict, || catalog.save(&changed, Expect::Revision(Revision(u64::MAX))));
    refused_without_trace(&*store, conflict, || catalog.delete(id, old));
    refused_without_trace(&*store, conflict, || catalog.restore(&crate::fixture::id("v"), old));
    refused_without_trace(&*store, conflict, || catalog.publish(&version("w", changed.clone()), old));
    refused_without_trace(&*store, ErrorKind::AlreadyExists, || catalog.save(&changed, Expect::Absent));
    refused_without_trace(&*store, ErrorKind::InvalidInput, || catalog.delete(id, Expect::Absent));

    // An edit's own error comes back as it is and changes nothing; nor may an edit change the id.
    let failed = catalog.update(id, &mut |doc| {
        *doc.text_mut() = "half".into();
        Err(Error::conflict(Entity::Skill, "mine", "the host says no"))
    });
    match failed {
        Err(Error::Conflict { reason, .. }) => assert_eq!(reason, "the host says no"),
        other => panic!("the edit's own error was expected, not {other:?}"),
    }
    refused_without_trace(&*store, ErrorKind::InvalidInput, || {
        catalog.update(id, &mut |doc| {
            *doc = D::sample("b");
            Ok(())
        })
    });
    assert_eq!(catalog.get(id).unwrap().unwrap().revision, second);
    let edited = catalog
        .update(id, &mut |doc| {
            *doc.text_mut() = "edited".into();
            Ok(())
        })
        .unwrap();
    assert!(edited.revision > second);
    assert_eq!(catalog.get(id).unwrap().unwrap(), edited);

    // A revision belongs to one saved state: a deleted one never comes back, and no other definition gets it.
    catalog.delete(id, Expect::Revision(edited.revision)).unwrap();
    let again = catalog.save(&doc, Expect::Absent).unwrap();
    let other = catalog.save(&D::sample("other"), Expect::Any).unwrap();
    assert!(again > edited.revision && other > again);
    refused_without_trace(&*store, conflict, || catalog.save(&changed, Expect::Revision(edited.revision)));
}

fn no_edit_is_lost(suite: &Suite<'_>) {
    let instance = suite.create();
    let store = instance.store();
    store.skills().save(&skill("a"), Expect::Absent).unwrap();
    let count = |doc: &mut Skill| {
        let count = doc.extra.get("count").and_then(Value::as_u64).unwrap_or(0);
        doc.extra.insert("count".into(), json!(count + 1));
        Ok(())
    };
    let revisions = race(THREADS, |_| {
        let edit = |_| store.skills().update(&id("a"), &mut { count }).unwrap();
        let edits: Vec<Stored<Skill>> = (0..EDITS).map(edit).collect();
        edits.iter().map(|stored| (stored.revision, stored.extra["count"].as_u64())).collect::<Vec<_>>()
    });
    let edits = (THREADS * EDITS) as u64;
    assert_eq!(store.skills().get(&id("a")).unwrap().unwrap().extra["count"], edits, "an edit was lost");
    let mut revisions = revisions.concat();
    revisions.sort();
    let counts: Vec<u64> = revisions.iter().filter_map(|(_, count)| *count).collect();
    assert_eq!(counts, (1..=edits).collect::<Vec<_>>(), "each edit saw the one before it");
    assert_eq!(revisions.iter().map(|(revision, _)| revision).collect::<BTreeSet<_>>().len() as u64, edits);
}
