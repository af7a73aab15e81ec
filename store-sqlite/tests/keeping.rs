//! What is kept: damage is found, the shell's view shows what a host reads, a copy is a store, old files open.

#![allow(clippy::unwrap_used)] // of the helpers: each is an assertion

#[path = "harness/rot.rs"]
mod rot;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use contract_tests::fixture::export;
use rusqlite::Connection;
use serde_json::{Value, json};
use store_api::{
    Account, Agent, AgentId, Amount, Charge, Checkpoint, ErrorKind, Expect, Finish, IdempotencyKey,
    MeterName, NewEvent, NewRun, NewVersion, PrincipalId, RunOutcome, Schedule, Seams, Skill, Store,
    StoreExt, Tag, VersionId, Visibility, Window, WorkerId, time,
};
use store_sqlite::SqliteStore;

fn id<T: std::str::FromStr<Err = store_api::Error>>(text: &str) -> T {
    text.parse().unwrap()
}

/// A store with at least one row in every table.
fn fill(store: &SqliteStore) {
    let now = time::from_nanos(1_700_000_000_123_456_789);
    let before_1970 = time::from_nanos(-1_500_000_001);
    let mut skill = Skill::new(id("s"), id("owner"), id("skill"));
    skill.tags = BTreeSet::from([id::<Tag>("red"), id("blue")]);
    skill.visibility = Visibility::Shared;
    skill.shared_with = BTreeSet::from([id::<PrincipalId>("friend")]);
    skill.schedule = Some(Schedule::new("@daily", "UTC", Some(before_1970)));
    skill.extra.insert("float".into(), json!(0.1_f64 + 0.2));
    skill.extra.insert("big".into(), json!(u64::MAX));
    let mut agent = Agent::new(id::<AgentId>("a"), id("owner"), id("agent"));
    agent.channel_filter = BTreeSet::from([id("general")]);
    let account = Account::new(id("caller"), id::<MeterName>("usd"), Window::default());
    let charge = Charge::new(account, Amount::from_units(2).unwrap());
    let run = NewRun { skill: Some(id("s")), ..NewRun::new(id("r"), id("caller"), now) };
    let event = NewEvent { kind: "tool".into(), at: now, payload: json!({"x": [1, 2.5]}) };
    store
        .transact(|seams| {
            seams.skills().save(&skill, Expect::Any)?;
            seams.skills().save(&Skill::new(id("plain"), id("owner"), id("plain")), Expect::Any)?;
            seams.agents().save(&agent, Expect::Any)?;
            let version = NewVersion::new(id::<VersionId>("v1"), skill.clone(), id("owner"), now);
            seams.skills().append_version(&version)?;
            let version = NewVersion::new(id::<VersionId>("v2"), agent.clone(), id("owner"), now);
            seams.agents().publish(&version, Expect::Any)?;
            seams.skills().claim_due(now, &id::<WorkerId>("w"), std::time::Duration::from_secs(60), 10)?;
            seams.budgets().add(&charge.clone().with_key(id::<IdempotencyKey>("k")), now)?;
            seams.audit().start_run(&run)?;
            seams.audit().append_event(&id("r"), &event)?;
            seams.audit().append_event(&id("r"), &event)?;
            seams.audit().finish_run(&id("r"), &Finish::new(RunOutcome::Succeeded, now))?;
            seams.checkpoints().save(&Checkpoint::new(id("r"), 3, json!({"step": 3}), now))?;
            seams.checkpoints().claim(&id("r"), now, &id("w"), std::time::Duration::from_secs(60))?;
            Ok(())
        })
        .unwrap();
}

fn filled() -> (tempfile::TempDir, PathBuf, SqliteStore) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.db");
    let store = SqliteStore::open(&path).unwrap();
    fill(&store);
    (directory, path, store)
}

#[test]
fn a_filled_store_is_sound_and_moves_whole() {
    let (directory, _, store) = filled();
    assert!(store.verify().unwrap().is_sound(), "{:?}", store.verify());
    let copy = SqliteStore::open(directory.path().join("copy.db")).unwrap();
    copy.import(&mut export(&store).into_iter().map(Ok)).unwrap();
    assert_eq!(export(&copy), export(&store));
    assert!(copy.verify().unwrap().is_sound(), "{:?}", copy.verify());
}

/// Every value column, changed behind the engine's back: a read of the record says Corrupt and names it, and `verify`
/// finds it.
#[test]
fn changed_values_are_never_returned_as_data() {
    let changes = [
        ("meta/counter", "UPDATE meta SET value = value + 1"),
        (
            "definitions/skill/s",
            "UPDATE definitions SET doc = replace(doc, '@daily', '@dailx') WHERE id = 's'",
        ),
        ("definitions/skill/s", "UPDATE definitions SET doc = CAST(x'ff' AS TEXT) WHERE id = 's'"),
        ("definitions/skill/s", "UPDATE definitions SET revision = revision + 1 WHERE id = 's'"),
        ("definitions/skill/s", "UPDATE last_seqs SET last_seq = 0 WHERE definition = 's'"),
        ("definitions/skill/s", "UPDATE definitions SET next_run_at = next_run_at + 1 WHERE id = 's'"),
        ("definitions/skill/s", "UPDATE definitions SET last_run_at = 5 WHERE id = 's'"),
        ("definitions/skill/s", "UPDATE definitions SET lease_token = lease_token - 1 WHERE id = 's'"),
        ("definitions/skill/s", "UPDATE definitions SET lease_worker = NULL WHERE id = 's'"),
        ("definitions/skill/s", "UPDATE definitions SET lease_until = lease_until + 1 WHERE id = 's'"),
        ("versions/v1", "UPDATE versions SET pinned = 1 WHERE id = 'v1'"),
        ("versions/v1", "UPDATE versions SET seq = 2 WHERE id = 'v1'"),
        ("versions/v1", "UPDATE versions SET doc = replace(doc, 'skill', 'skull') WHERE id = 'v1'"),
        (
            "accounts/caller/usd/rollover:7d",
            "UPDATE accounts SET ledger = replace(ledger, '2000000', '1000000')",
        ),
        ("accounts/caller/usd/rollover:7d/charges/k:k", "UPDATE charges SET amount = amount - 1"),
        ("accounts/caller/usd/rollover:7d/charges/k:k", "UPDATE charges SET expires_at = expires_at - 1"),
        ("runs/r", "UPDATE runs SET doc = replace(doc, 'caller', 'cellar')"),
        ("events/r/1", "UPDATE events SET payload = replace(payload, '2.5', '2.4') WHERE seq = 1"),
        ("events/r/2", "UPDATE events SET kind = 'tail' WHERE seq = 2"),
        ("events/r/2", "UPDATE events SET at = at - 1 WHERE seq = 2"),
        ("checkpoints/r", "UPDATE checkpoints SET iteration = 2"),
        ("checkpoints/r", "UPDATE checkpoints SET doc = replace(doc, 'step', 'stop')"),
        ("checkpoints/r", "UPDATE checkpoints SET lease_until = lease_until + 1"),
        // Text that is not UTF-8 is told before any checksum is made, and named all the same.
        ("versions/v2", "UPDATE versions SET doc = CAST(x'ff' AS TEXT) WHERE id = 'v2'"),
        ("accounts/caller/usd/rollover:7d", "UPDATE accounts SET ledger = CAST(x'ff' AS TEXT)"),
        ("runs/r", "UPDATE runs SET doc = CAST(x'ff' AS TEXT)"),
        ("events/r/1", "UPDATE events SET kind = CAST(x'ff' AS TEXT) WHERE seq = 1"),
        ("events/r/2", "UPDATE events SET payload = CAST(x'ff' AS TEXT) WHERE seq = 2"),
        ("checkpoints/r", "UPDATE checkpoints SET doc = CAST(x'ff' AS TEXT)"),
    ];
    for (place, change) in changes {
        let (_directory, path, store) = filled();
        let raw = Connection::open(&path).unwrap();
        assert_eq!(raw.execute(change, []).unwrap(), 1, "{change}");
        let error = store.export(&mut |_| Ok(())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{change}: {error}");
        assert!(error.to_string().starts_with(&format!("corrupt {place}: ")), "{change}: {error}");
        assert!(!store.verify().unwrap().is_sound(), "{change}");
    }
}

/// Keys, index columns, facets, references, numbers: what a read by key cannot see, `verify` does.
#[test]
fn changed_keys_and_indexes_are_found_by_verify() {
    let changes = [
        "UPDATE definitions SET owner = 'other' WHERE id = 's'",
        "UPDATE definitions SET name = 'other' WHERE id = 's'",
        "UPDATE definitions SET visibility = 'public' WHERE id = 's'",
        "UPDATE definitions SET exposed = 1 WHERE id = 's'",
        "UPDATE definitions SET scheduled = 0 WHERE id = 's'",
        "UPDATE definitions SET webhook = 'x' WHERE id = 'a'",
        "UPDATE definitions SET id = 'other' WHERE id = 'plain'",
        "UPDATE definitions SET kind = 3 WHERE id = 'plain'",
        "UPDATE facets SET term = 'other' WHERE field = 'channel'",
        "UPDATE facets SET id = 'other' WHERE term = 'red'",
        "DELETE FROM facets WHERE field = 'shared'",
        "INSERT INTO facets VALUES (1, 'tag', 'green', 's')",
        "DELETE FROM events WHERE seq = 1",
        "UPDATE events SET run = 'gone' WHERE seq = 2",
        "UPDATE versions SET id = 'v3' WHERE id = 'v1'",
        "UPDATE versions SET kind = 2 WHERE id = 'v1'",
        "UPDATE last_seqs SET definition = 'other' WHERE definition = 'plain'",
        "DELETE FROM last_seqs WHERE definition = 's'",
        "UPDATE charges SET key = 'k:other'",
        "UPDATE accounts SET caller = 'other'",
        "UPDATE runs SET status = 'running'",
        "UPDATE runs SET skill = NULL",
        "UPDATE runs SET started_at = started_at + 1",
        "UPDATE runs SET finished_at = NULL",
        "UPDATE runs SET id = 'other'",
        "UPDATE checkpoints SET run = 'other'",
        "DELETE FROM meta",
    ];
    for change in changes {
        let (_directory, path, store) = filled();
        let raw = Connection::open(&path).unwrap();
        raw.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
        assert_eq!(raw.execute(change, []).unwrap(), 1, "{change}");
        let found = store.verify().unwrap();
        assert!(!found.is_sound(), "{change}");
    }
}

/// Bits anywhere in rows and indexes: nothing wrong is ever returned, nothing panics, and `verify` finds every one.
/// `ROT_FLIPS` says how many, one after the other.
#[test]
fn flipped_bits_are_found() {
    let (directory, path, store) = filled();
    let sound = export(&store);
    store.close().unwrap();
    let flips = std::env::var("ROT_FLIPS").map_or(300, |flips| flips.parse().unwrap());
    for seed in 0..flips {
        let rotten = directory.path().join("rotten.db");
        fs::copy(&path, &rotten).unwrap();
        rot::flip(&rotten, seed);
        let store = match SqliteStore::open(&rotten) {
            Ok(store) => store,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "seed {seed}: {error}");
                continue;
            }
        };
        let mut found = Vec::new();
        let exported = store.export(&mut |record| {
            found.push(record);
            Ok(())
        });
        match exported {
            Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "seed {seed}: {error}"),
            // What is not found by its key is missing, and the rest is as it was.
            Ok(()) => assert!(found.iter().all(|record| sound.contains(record)), "seed {seed}"),
        }
        assert!(!store.verify().unwrap().is_sound(), "seed {seed} is not found");
        store.close().unwrap();
        fs::remove_file(rotten).unwrap();
    }
}

/// An index that leads to another record than it was asked for: the document has the last word.
#[test]
fn an_index_that_lies_leads_nowhere() {
    let (_directory, path, store) = filled();
    let raw = Connection::open(&path).unwrap();
    let found = |owner, name| store.skills().by_name(&id(owner), &id(name)).unwrap().is_some();
    assert!(found("owner", "skill"));
    raw.execute("UPDATE definitions SET name = 'other' WHERE id = 's'", []).unwrap();
    assert!(!found("owner", "other") && !found("owner", "skill"));
    raw.execute("UPDATE definitions SET owner = 'other', name = 'skill' WHERE id = 's'", []).unwrap();
    assert!(!found("other", "skill") && !found("owner", "skill"));
    let last_run_of = |skill| store.audit().last_run_of(&[id(skill)]).unwrap().len();
    assert_eq!(last_run_of("s"), 1);
    raw.execute("UPDATE runs SET skill = 'other'", []).unwrap();
    assert_eq!((last_run_of("other"), last_run_of("s")), (0, 0));
}

#[test]
fn corruption_is_named_by_table_and_key() {
    let (_directory, path, store) = filled();
    let raw = Connection::open(&path).unwrap();
    raw.execute("UPDATE definitions SET doc = replace(doc, '@daily', '@dailx') WHERE id = 's'", []).unwrap();
    let error = store.skills().get(&id("s")).unwrap_err().to_string();
    assert!(error.starts_with("corrupt definitions/skill/s"), "{error}");
    assert!(store.skills().get(&id("plain")).unwrap().is_some(), "other records are read");
}

#[test]
fn the_view_shows_what_a_host_reads() {
    let (_directory, path, store) = filled();
    for (ran_at, next) in [(-1, Some(-1_000_000_000)), (0, Some(i64::MAX)), (i64::MIN, None), (1, Some(-1))] {
        let next = next.map(time::from_nanos);
        store.skills().mark_scheduled_run(&id("s"), time::from_nanos(ran_at), next).unwrap();
        if next.is_some_and(|next| next < time::from_nanos(0)) {
            let lease = std::time::Duration::from_nanos(1_500_000_001);
            let claimed = store.skills().claim_due(time::from_nanos(-1), &id("w"), lease, 1).unwrap();
            assert_eq!(claimed.len(), 1);
        }
        let raw = Connection::open(&path).unwrap();
        for name in ["s", "plain"] {
            let sql = "SELECT doc FROM definitions_view WHERE kind = 'skill' AND id = ?1";
            let shown: String = raw.query_one(sql, [name], |row| row.get(0)).unwrap();
            let read = store.skills().get(&id(name)).unwrap().unwrap();
            assert_eq!(serde_json::from_str::<Skill>(&shown).unwrap(), *read.doc, "{shown}");
            let fields = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
            let (shown, read) =
                (serde_json::from_str(&shown).unwrap(), serde_json::to_value(&*read.doc).unwrap());
            assert_eq!(fields(&shown), fields(&read));
            if name == "s" {
                assert_eq!(fields(&shown["schedule"]), fields(&read["schedule"]));
            }
        }
    }
}

/// A backup that was killed left its half of a copy behind, a new one each time, until the disk was full.
#[test]
fn a_backup_clears_away_what_a_killed_one_left() {
    let (directory, _, store) = filled();
    let copy = directory.path().join("copy.db");
    let dead = directory.path().join(".copy.db.1-0.new");
    fs::write(&dead, "half a copy").unwrap();
    store.backup(&copy).unwrap();
    assert!(!dead.exists() && SqliteStore::open(&copy).unwrap().verify().unwrap().is_sound());
}

#[test]
fn a_backup_is_a_store_and_never_replaces_anything() {
    let (directory, _, store) = filled();
    let copy = directory.path().join("copy.db");
    store.backup(&copy).unwrap();
    store.skills().save(&Skill::new(id("later"), id("owner"), id("later")), Expect::Any).unwrap();
    assert_eq!(store.backup(&copy).unwrap_err().kind(), ErrorKind::AlreadyExists);
    let opened = SqliteStore::open(&copy).unwrap();
    assert!(opened.verify().unwrap().is_sound());
    assert!(opened.skills().get(&id("later")).unwrap().is_none());
    assert!(opened.skills().get(&id("s")).unwrap().is_some());
    opened.close().unwrap();

    let beside = directory.path().join("beside.db");
    fs::write(directory.path().join("beside.db-wal"), "left over").unwrap();
    assert_eq!(store.backup(&beside).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(store.backup(directory.path()).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(store.backup(&directory.path().join("none/copy.db")).unwrap_err().kind(), ErrorKind::Backend);
    assert_eq!(store.backup(Path::new("a\0")).unwrap_err().kind(), ErrorKind::InvalidInput);
    let mut left: Vec<_> =
        fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["beside.db-wal", "copy.db", "s.db", "s.db-shm", "s.db-wal"]);
}

fn fixture(schema: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/schema-{schema}.db"))
}

/// The file of the schema that this version writes is made by this test when there is none yet. One that was
/// released is never made again.
#[test]
fn files_of_every_schema_open_for_ever() {
    let (directory, path, current) = filled();
    let (expected, schema) = (export(&current), Store::info(&current).schema);
    current.close().unwrap();
    if !fixture(schema).exists() {
        fs::copy(path, fixture(schema)).unwrap();
    }
    for schema in 1..=schema {
        let path = directory.path().join(format!("from-{schema}.db"));
        fs::copy(fixture(schema), &path).unwrap();
        let store = SqliteStore::open(&path).unwrap();
        assert!(store.verify().unwrap().is_sound(), "schema {schema}: {:?}", store.verify());
        assert_eq!(export(&store), expected, "schema {schema}");
    }
}

#[test]
fn a_record_of_the_largest_weight_is_kept_also_when_every_byte_is_escaped() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path().join("s.db")).unwrap();
    let mut skill = Skill::new(id("s"), id("o"), id("n"));
    skill.body = "\u{1}".repeat(store_api::json::MAX_RECORD_BYTES - 1_000);
    store.skills().save(&skill, Expect::Any).unwrap();
    assert_eq!(*store.skills().get(&id("s")).unwrap().unwrap().doc, skill);
}
