//! Directories of files kept in a store: what is created, changed, left alone, refused.

#![allow(clippy::unwrap_used)] // in a test, also in its helpers, each is an assertion

use std::fs;
use std::path::Path;

use chrono::{DateTime, Utc};
use serde_json::json;
use store_api::{
    Catalog, Definition, DefinitionFilter, ErrorKind, Expect, Name, PageRequest, PrincipalId, Seams, Store,
    Stored, Visibility,
};
use store_files::sync::{Counts, FROM_FILE, Options, Outcome, Report};
use store_files::{sync_agents, sync_skills};
use store_memory::{MemoryStore, Options as MemoryOptions};

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn options() -> Options<'static> {
    let owner = PrincipalId::new("ana").unwrap();
    Options { saved_by: owner.clone(), owner, now: at("2026-01-05T08:00:00Z"), next: None }
}

fn store() -> MemoryStore {
    MemoryStore::new(MemoryOptions::default())
}

fn write(dir: &Path, path: &str, text: &str) {
    let path = dir.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn named<D: Definition, C: Catalog<D> + ?Sized>(catalog: &C, name: &str) -> Stored<D> {
    catalog
        .by_name(&options().owner, &Name::new(name).unwrap())
        .unwrap()
        .unwrap_or_else(|| panic!("no {name}"))
}

fn refusals(report: &Report) -> Vec<(String, Option<usize>, String)> {
    let of = |entry: &store_files::sync::Entry| match &entry.outcome {
        Outcome::Refused { line, reason } => {
            Some((entry.path.file_name()?.to_str()?.to_owned(), *line, reason.clone()))
        }
        _ => None,
    };
    report.files.iter().filter_map(of).collect()
}

/// All that a store holds, as text.
fn everything(store: &dyn Store) -> Vec<String> {
    let mut records = Vec::new();
    store
        .export(&mut |record| {
            records.push(serde_json::to_string(&record).unwrap());
            Ok(())
        })
        .unwrap();
    records
}

#[test]
fn created_then_unchanged_then_changed() {
    let (store, dir) = (store(), tempfile::tempdir().unwrap());
    write(
        dir.path(),
        "a/SKILL.md",
        "---\nname: a\ndescription: One\nlicense: MIT\ntags: [x, y]\n---\nBody\n",
    );
    write(
        dir.path(),
        "b/SKILL.md",
        "---\nname: b\ndescription: Two\nallowed-tools: Read, Bash(git *)\n---\n",
    );

    let report = sync_skills(&store, dir.path(), &options()).unwrap();
    assert_eq!(report.counts(), Counts { created: 2, ..Counts::default() });
    assert_eq!(report.counts().to_string(), "2 files: 2 created");
    let a = named(store.skills(), "a");
    assert_eq!((a.description.as_str(), a.body.as_str()), ("One", "Body\n"));
    assert_eq!(a.extra["license"], "MIT");
    assert_eq!(a.tags.len(), 2);
    assert_eq!(named(store.skills(), "b").tools, ["Read", "Bash(git *)"]);

    let before = everything(&store);
    let report = sync_skills(&store, dir.path(), &options()).unwrap();
    assert_eq!(report.counts(), Counts { unchanged: 2, ..Counts::default() });
    assert_eq!(everything(&store), before, "a second sync writes nothing");

    write(dir.path(), "a/SKILL.md", "---\nname: a\ndescription: One\ntags: [x, y]\n---\nAnother body\n");
    let report = sync_skills(&store, dir.path(), &options()).unwrap();
    assert_eq!(report.counts(), Counts { unchanged: 1, changed: 1, ..Counts::default() });
    let fields = vec!["body".to_owned(), "license".to_owned()];
    assert_eq!(report.files[0].outcome, Outcome::Changed { fields, seq: 2 });
    let (id, revision) = (a.id.clone(), a.revision);
    let a = named(store.skills(), "a");
    assert_eq!(a.id, id);
    assert!(a.revision > revision);
    assert!(!a.extra.contains_key("license"), "a key that is taken out of the file goes");
    let versions = store.skills().versions(&id, &PageRequest::default()).unwrap().items;
    let told: Vec<_> = versions.iter().map(|v| (v.seq, v.summary.as_str())).collect();
    assert_eq!(told, [(2, "changed body, license"), (1, "created from a file")]);
}

#[test]
fn what_the_file_does_not_say_stays() {
    let (store, dir) = (store(), tempfile::tempdir().unwrap());
    write(
        dir.path(),
        "a/SKILL.md",
        "---\nname: a\ndescription: d\ncron: 0 7 * * *\ntime-zone: Europe/Madrid\n---\n",
    );
    let due = at("2026-01-06T06:00:00Z");
    let next = move |cron: &str, zone: &str| {
        assert_eq!((cron, zone), ("0 7 * * *", "Europe/Madrid"));
        Ok(Some(due))
    };
    let options = Options { next: Some(&next), ..options() };
    sync_skills(&store, dir.path(), &options).unwrap();
    let id = named(store.skills(), "a").id.clone();
    assert_eq!(store.skills().due(due, &PageRequest::default()).unwrap().items.len(), 1);

    store
        .skills()
        .update(&id, &mut |skill| {
            skill.visibility = Visibility::Public;
            skill.extra.insert("stars".to_owned(), json!(5));
            Ok(())
        })
        .unwrap();
    store.skills().mark_scheduled_run(&id, due, Some(at("2026-01-07T06:00:00Z"))).unwrap();
    let before = everything(&store);
    let report = sync_skills(&store, dir.path(), &options).unwrap();
    assert_eq!(report.files[0].outcome, Outcome::Unchanged, "neither run state nor what people set counts");
    assert_eq!(everything(&store), before);

    write(dir.path(), "a/SKILL.md", "---\nname: a\ndescription: d\n---\n");
    sync_skills(&store, dir.path(), &options).unwrap();
    let a = named(store.skills(), "a");
    assert_eq!((a.visibility, &a.extra["stars"], &a.schedule), (Visibility::Public, &json!(5), &None));
    assert!(!a.extra.contains_key(FROM_FILE));
}

#[test]
fn a_schedule_that_the_host_does_not_understand_is_refused_with_its_line() {
    let (store, dir) = (store(), tempfile::tempdir().unwrap());
    write(dir.path(), "a/SKILL.md", "---\nname: a\ndescription: d\ncron: never\n---\n");
    let next = |cron: &str, _: &str| Err(format!("{cron:?} is no cron expression"));
    let report = sync_skills(&store, dir.path(), &Options { next: Some(&next), ..options() }).unwrap();
    assert_eq!(refusals(&report)[0].1, Some(4));
    assert!(refusals(&report)[0].2.contains("\"never\" is no cron expression"), "{report}");
    assert_eq!(store.skills().list(&DefinitionFilter::default(), &PageRequest::default()).unwrap().items, []);
}

#[test]
fn what_would_widen_rights_or_hide_a_field_is_refused_or_renamed() {
    let (store, dir) = (store(), tempfile::tempdir().unwrap());
    for (name, line) in [
        ("tools", "allowed-tools: {read: true}"),
        ("tags", "tags: {a: b}"),
        ("tag", "tags: ['']"),
        ("cron", "cron: 5"),
        ("zone", "time-zone: Europe/Madrid"),
        ("inputs", "inputs: [a, b]"),
        ("twin", "inputs: [{name: a}, {name: a}]"),
        ("clash", "file.visibility: x\nvisibility: public"),
        ("twice", "cron: '1 * * * *'\nmetadata: {cron: '2 * * * *'}"),
    ] {
        write(
            dir.path(),
            &format!("{name}/SKILL.md"),
            &format!("---\nname: {name}\ndescription: d\n{line}\n---\n"),
        );
    }
    let long = "n".repeat(256);
    write(dir.path(), "long/SKILL.md", &format!("---\ndescription: d\nname: {long}\n---\n"));
    write(
        dir.path(),
        "z/SKILL.md",
        "---\nname: z\ndescription: d\nvisibility: public\nowner: eve\nfrom_file: [x]\ninputs: [{name: page, required: true}]\n---\n",
    );
    let report = sync_skills(&store, dir.path(), &options()).unwrap();
    assert_eq!(report.counts(), Counts { created: 1, refused: 10, ..Counts::default() }, "{report}");
    for (_, line, reason) in refusals(&report) {
        assert!(line.is_some_and(|line| (3..=5).contains(&line)), "{line:?}: {reason}");
    }
    let z = named(store.skills(), "z");
    assert_eq!((z.visibility, z.owner.as_str()), (Visibility::Private, "ana"));
    assert_eq!((&z.extra["file.visibility"], &z.extra["file.owner"]), (&json!("public"), &json!("eve")));
    assert_eq!(json!(z.inputs), json!({"page": {"required": true}}));
    assert_eq!(report.files.iter().find(|e| e.name.as_deref() == Some("z")).unwrap().warnings.len(), 3);
    let again = sync_skills(&store, dir.path(), &options()).unwrap();
    assert_eq!(again.counts(), Counts { unchanged: 1, refused: 10, ..Counts::default() }, "{again}");
}

#[test]
fn agents_name_skills_and_each_other() {
    let (store, dir) = (store(), tempfile::tempdir().unwrap());
    write(dir.path(), "skills/a/SKILL.md", "---\nname: a\ndescription: d\n---\n");
    let agents = dir.path().join("agents");
    write(
        &agents,
        "one.md",
        "---\nname: one\ndescription: d\nskills: a, b\nsub-agents: [two, three]\nchannels: [docs]\nwebhook: true\n---\nDo.\n",
    );
    write(&agents, "two.md", "---\nname: two\ndescription: d\nsub-agents: one, two\nmodel: small\n---\n");
    write(&agents, "leak.md", "---\nname: leak\ndescription: d\nwebhook: hunter2hunter2hunter2\n---\n");
    write(&agents, "README.md", "# About\n");
    sync_skills(&store, dir.path().join("skills"), &options()).unwrap();
    let report = sync_agents(&store, &agents, &options()).unwrap();
    assert_eq!(report.counts().to_string(), "4 files: 2 created, 1 skipped, 1 refused");
    assert!(!report.to_string().contains("hunter2"), "{report}");

    let (one, two) = (named(store.agents(), "one"), named(store.agents(), "two"));
    assert_eq!(one.skills, [named(store.skills(), "a").id.clone()]);
    assert_eq!(one.extra["unresolved_skills"], json!(["b"]));
    assert_eq!(one.sub_agents, std::slice::from_ref(&two.id), "also one that comes later");
    assert_eq!(one.extra["unresolved_sub_agents"], json!(["three"]));
    assert_eq!(one.extra["file.webhook"], true);
    assert_eq!(one.prompt, "Do.\n");
    assert_eq!(two.sub_agents, [one.id.clone(), two.id.clone()]);
    assert_eq!(two.extra["model"], "small");

    let before = everything(&store);
    sync_agents(&store, &agents, &options()).unwrap();
    assert_eq!(everything(&store), before, "a second sync writes nothing");

    write(dir.path(), "skills/b/SKILL.md", "---\nname: b\ndescription: d\n---\n");
    sync_skills(&store, dir.path().join("skills"), &options()).unwrap();
    let report = sync_agents(&store, &agents, &options()).unwrap();
    assert_eq!(report.counts().changed, 1);
    let one = named(store.agents(), "one");
    assert_eq!((one.skills.len(), one.extra.get("unresolved_skills")), (2, None));
}

#[test]
fn the_odd_corpus_is_imported_or_refused_one_by_one() {
    let (store, dir) = (store(), tempfile::tempdir().unwrap());
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut files = 0;
    for file in fs::read_dir(corpus).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|e| e == "md") {
            let to = dir.path().join(path.file_stem().unwrap());
            fs::create_dir(&to).unwrap();
            fs::copy(&path, to.join("SKILL.md")).unwrap();
            files += 1;
        }
    }
    let report = sync_skills(&store, dir.path(), &options()).unwrap();
    let counts = report.counts();
    assert_eq!((report.files.len(), counts.created + counts.refused), (files, files), "{report}");
    // What cannot be read (18, see corpus.rs), and tools that are a map.
    assert_eq!(counts.refused, 19, "{report}");
    assert!(report.files.is_sorted_by_key(|entry| &entry.path));
    let before = everything(&store);
    assert_eq!(sync_skills(&store, dir.path(), &options()).unwrap().counts().unchanged, counts.created);
    assert_eq!(everything(&store), before);
}

#[test]
fn the_second_of_two_with_one_name_is_refused() {
    let (store, dir) = (store(), tempfile::tempdir().unwrap());
    for path in ["x/SKILL.md", "y/SKILL.md"] {
        write(dir.path(), path, "---\nname: twin\ndescription: d\n---\n");
    }
    let report = sync_skills(&store, dir.path(), &options()).unwrap();
    assert_eq!(report.counts().to_string(), "2 files: 1 created, 1 refused");
    assert!(refusals(&report)[0].2.contains("is taken by"), "{report}");
}

#[test]
fn one_name_may_have_two_owners() {
    let (store, dir) = (store(), tempfile::tempdir().unwrap());
    write(dir.path(), "a/SKILL.md", "---\nname: a\ndescription: d\n---\n");
    sync_skills(&store, dir.path(), &options()).unwrap();
    let eve = PrincipalId::new("eve").unwrap();
    let report = sync_skills(&store, dir.path(), &Options { owner: eve, ..options() }).unwrap();
    assert_eq!(report.counts().created, 1);
}

#[test]
fn two_hosts_may_sync_at_once() {
    let (store, dir) = (store(), tempfile::tempdir().unwrap());
    for round in 1..=5 {
        for n in 0..40 {
            let text = format!("---\nname: s{n}\ndescription: round {round}\n---\n");
            write(dir.path(), &format!("{n}/SKILL.md"), &text);
        }
        let reports = std::thread::scope(|scope| {
            let sync = || sync_skills(&store, dir.path(), &options()).unwrap().counts();
            let (one, two) = (scope.spawn(sync), scope.spawn(sync));
            [one.join().unwrap(), two.join().unwrap()]
        });
        let [one, two] = reports;
        assert_eq!(one.refused + two.refused, 0, "a lost race is tried again: {one}; {two}");
        assert_eq!(one.created + one.changed + two.created + two.changed, 40, "written once: {one}; {two}");
    }
    let id = named(store.skills(), "s7").id.clone();
    assert_eq!(store.skills().latest(&id).unwrap().unwrap().seq, 5);
}

#[test]
fn a_store_that_fails_ends_the_sync() {
    let (store, dir) = (store(), tempfile::tempdir().unwrap());
    write(dir.path(), "a/SKILL.md", "---\nname: a\ndescription: d\n---\n");
    store.close().unwrap();
    let error = sync_skills(&store, dir.path(), &options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[test]
fn the_report_is_json_too() {
    let (store, dir) = (store(), tempfile::tempdir().unwrap());
    write(dir.path(), "a/SKILL.md", "---\nname: a\ndescription: d\n---\n");
    write(dir.path(), "b/SKILL.md", "---\nname: [b]\n---\n");
    let report = serde_json::to_value(sync_skills(&store, dir.path(), &options()).unwrap()).unwrap();
    assert_eq!((&report["files"][0]["result"], &report["files"][0]["seq"]), (&json!("created"), &json!(1)));
    assert_eq!((&report["files"][1]["result"], &report["files"][1]["line"]), (&json!("refused"), &json!(2)));
    let id = report["files"][0]["id"].as_str().unwrap();
    let id = store_api::SkillId::new(id).unwrap();
    store.skills().delete(&id, Expect::Any).unwrap();
}
