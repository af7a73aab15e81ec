//! Keeping what is there: backup, verification, flipped bits, panics, failing flushes.

#![allow(clippy::unwrap_used)] // of the helpers: each is an assertion

mod harness;

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use harness::fault::Switch;
use harness::rot;
use redb::{Database, TableDefinition};
use safe_files::recovery::{is_marked, mark};
use store_api::*;
use store_redb::{Options, RedbStore};
use tempfile::TempDir;

fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agents.redb");
    (directory, path)
}

/// Says that it is over when it goes, also where a test fails: a thread that goes on until then would keep it from ending.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn at(nanos: i64) -> chrono::DateTime<chrono::Utc> {
    time::from_nanos(nanos)
}

fn ana() -> PrincipalId {
    PrincipalId::new("ana").unwrap()
}

fn agent(id: &str) -> Agent {
    let mut agent = Agent::new(AgentId::new(id).unwrap(), ana(), Name::new(id).unwrap());
    agent.tags = [Tag::new("t").unwrap()].into();
    agent.channel_filter = [ChannelId::new("c").unwrap()].into();
    agent.schedule = Some(Schedule::new("daily", "UTC", Some(at(10))));
    agent.prompt = format!("You are {id}. ").repeat(40);
    agent
}

/// Something in every table.
fn fill(store: &dyn Store) {
    let version = |id: &str, agent| NewVersion::new(VersionId::new(id).unwrap(), agent, ana(), at(1));
    let digest = DigestKey::new("k", [7; 32]).unwrap().digest(&Secret::new("0123456789abcdef").unwrap());
    for id in ["a", "b", "d"] {
        let mut agent = agent(id);
        agent.webhook = (id == "a").then(|| digest.clone());
        store.agents().publish(&version(id, agent), Expect::Absent).unwrap();
    }
    let skill = Skill::new(SkillId::new("s").unwrap(), ana(), Name::new("s").unwrap());
    store.skills().save(&skill, Expect::Absent).unwrap();
    let worker = WorkerId::new("w").unwrap();
    store.agents().claim_due(at(20), &worker, Duration::from_secs(60), 1).unwrap();
    let account = Account::new(ana(), MeterName::new("usd").unwrap(), Window::default());
    let charge = Charge::new(account, Amount::from_units(1).unwrap());
    store.budgets().add(&charge.with_key(IdempotencyKey::new("key").unwrap()), at(30)).unwrap();
    for number in 0..6 {
        let id = RunId::new(format!("run {number}")).unwrap();
        let mut run = NewRun::new(id.clone(), ana(), at(40 + number));
        run.skill = Some(skill.id.clone());
        run.parent = (number > 0).then(|| RunId::new("run 0").unwrap());
        store.audit().start_run(&run).unwrap();
        let event = NewEvent { kind: "k".into(), at: at(50), payload: "x".repeat(300).into() };
        for _ in 0..3 {
            store.audit().append_event(&id, &event).unwrap();
        }
        store.checkpoints().save(&Checkpoint::new(id, 1, "state".into(), at(60))).unwrap();
    }
    store.checkpoints().claim_interrupted(at(70), &worker, Duration::from_secs(60), 2).unwrap();
}

fn filled(path: &Path) -> RedbStore {
    let store = RedbStore::open(path).unwrap();
    fill(&store);
    store
}

fn export(store: &dyn Store) -> Vec<Record> {
    let mut records = Vec::new();
    store
        .export(&mut |record| {
            records.push(record);
            Ok(())
        })
        .unwrap();
    records
}

#[test]
fn a_sound_store_verifies_also_while_it_is_read_and_written() {
    let (_directory, path) = place();
    let store = filled(&path);
    let before = Store::verify(&store).unwrap();
    assert!(before.is_sound(), "{before:?}");
    assert!(before.records > 30, "{before:?}");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _over = Over(&done);
        scope.spawn(|| {
            for seq in 1.. {
                let mut checkpoint = Checkpoint::new(RunId::new("run 0").unwrap(), seq, "x".into(), at(60));
                checkpoint.state = "y".repeat(5000).into();
                store.checkpoints().save(&checkpoint).unwrap();
                if done.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        for _ in 0..5 {
            let found = Store::verify(&store).unwrap();
            assert!(found.is_sound(), "{found:?}");
        }
    });
    // Nothing of the check has reached the file.
    Store::close(&store).unwrap();
    assert!(Store::verify(&RedbStore::open(&path).unwrap()).unwrap().is_sound());
}

#[test]
fn a_backup_is_whole_private_and_clobbers_nothing() {
    let (directory, path) = place();
    let store = filled(&path);
    let copy = directory.path().join("copy.redb");
    let done = AtomicBool::new(false);
    let records = export(&store);
    Store::backup(&store, &copy).unwrap();
    std::thread::scope(|scope| {
        let over = Over(&done);
        scope.spawn(|| {
            for number in 0.. {
                let id = RunId::new(format!("while {number}")).unwrap();
                store.audit().start_run(&NewRun::new(id, ana(), at(100 + number))).unwrap();
                if done.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        let busy = directory.path().join("busy.redb");
        Store::backup(&store, &busy).unwrap();
        drop(over);
        let busy = RedbStore::open(&busy).unwrap();
        assert!(Store::verify(&busy).unwrap().is_sound(), "a copy taken while others write is consistent");
    });
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let copied =
        RedbStore::open_with(&copy, Options { check_integrity: true, ..Options::default() }).unwrap();
    assert!(export(&copied) == records);
    assert!(Store::verify(&copied).unwrap().is_sound());
    Store::close(&copied).unwrap();

    let bytes = fs::read(&copy).unwrap();
    for taken in [&copy, &path] {
        let error = Store::backup(&store, taken).unwrap_err();
        assert!(matches!(error, Error::AlreadyExists { what: Entity::File, field: "path", .. }), "{error}");
    }
    assert_eq!(fs::read(&copy).unwrap(), bytes);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3, "no temporary file is left");
}

/// A backup has more entries than one batch of it.
#[test]
fn a_large_backup_is_whole() {
    let (directory, path) = place();
    let store = RedbStore::open(&path).unwrap();
    store
        .transact(|seams| {
            for number in 0..4_000 {
                let id = RunId::new(format!("run {number}"))?;
                seams.audit().start_run(&NewRun::new(id, ana(), at(number)))?;
            }
            Ok(())
        })
        .unwrap();
    let copy = directory.path().join("copy.redb");
    Store::backup(&store, &copy).unwrap();
    let copied = RedbStore::open(&copy).unwrap();
    assert!(export(&copied) == export(&store));
    assert!(Store::verify(&copied).unwrap().is_sound());
}

#[test]
fn a_panic_in_a_transaction_leaves_no_trace_and_the_store_goes_on() {
    let (_directory, path) = place();
    let store = filled(&path);
    let before = export(&store);
    let panicking = || {
        store.transaction(&mut |seams| {
            fill_more(seams);
            panic!("the host's own");
        })
    };
    let payload = catch_unwind(AssertUnwindSafe(panicking)).unwrap_err();
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"the host's own"), "the panic goes on as it was");
    assert!(export(&store) == before);
    let update = || store.agents().update(&AgentId::new("a").unwrap(), &mut |_| panic!("the host's own"));
    catch_unwind(AssertUnwindSafe(update)).unwrap_err();
    let reading = || store.snapshot(&mut |_| panic!("the host's own"));
    catch_unwind(AssertUnwindSafe(reading)).unwrap_err();
    assert!(export(&store) == before);
    let more = |seams: &dyn Seams| {
        fill_more(seams);
        Ok(())
    };
    store.transact(more).unwrap();
    assert!(export(&store) != before);
    assert!(Store::verify(&store).unwrap().is_sound());
}

fn fill_more(seams: &dyn Seams) {
    let skill = Skill::new(SkillId::new("more").unwrap(), ana(), Name::new("more").unwrap());
    seams.skills().save(&skill, Expect::Absent).unwrap();
    seams.audit().start_run(&NewRun::new(RunId::new("more").unwrap(), ana(), at(1))).unwrap();
}

#[test]
fn after_a_failed_flush_writes_are_refused_until_the_store_is_reopened() {
    let (_directory, path) = place();
    let switch = Switch::default();
    let store = RedbStore::open_over(&path, Options::default(), switch.beneath()).unwrap();
    let save = |store: &RedbStore, id: &str| {
        let skill = Skill::new(SkillId::new(id).unwrap(), ana(), Name::new(id).unwrap());
        store.skills().save(&skill, Expect::Absent).map(drop)
    };
    save(&store, "acknowledged").unwrap();
    switch.fail(true);
    let error = save(&store, "in doubt").unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Backend, Outcome::InDoubt));
    switch.fail(false);
    let error = save(&store, "later").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Poisoned);
    assert!(error.to_string().contains("committing failed"), "{error}");
    assert!(store.skills().get(&SkillId::new("acknowledged").unwrap()).unwrap().is_some());
    drop(store);

    let store = RedbStore::open(&path).unwrap();
    assert!(store.skills().get(&SkillId::new("acknowledged").unwrap()).unwrap().is_some());
    assert!(store.skills().get(&SkillId::new("later").unwrap()).unwrap().is_none());
    save(&store, "later").unwrap();
    assert!(Store::verify(&store).unwrap().is_sound());
}

#[test]
fn a_close_that_cannot_flush_says_so() {
    let (_directory, path) = place();
    let switch = Switch::default();
    let store = RedbStore::open_over(&path, Options::default(), switch.beneath()).unwrap();
    fill(&store);
    switch.fail(true);
    assert_eq!(Store::close(&store).unwrap_err().kind(), ErrorKind::Backend);
    switch.fail(false);
    assert!(Store::verify(&RedbStore::open(&path).unwrap()).unwrap().is_sound());
}

#[test]
fn a_backup_on_a_disk_that_fails_says_so_and_is_not_there() {
    let (directory, path) = place();
    let switch = Switch::default();
    let store = RedbStore::open_over(&path, Options::default(), switch.beneath()).unwrap();
    fill(&store);
    let copy = directory.path().join("copy.redb");
    for disk in [Switch::fail, Switch::full] {
        disk(&switch, true);
        assert_eq!(Store::backup(&store, &copy).unwrap_err().kind(), ErrorKind::Backend);
        disk(&switch, false);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "the store alone");
    }
    Store::backup(&store, &copy).unwrap();
    assert_eq!(export(&RedbStore::open(&copy).unwrap()), export(&store));
}

/// Every answer that a store gives to reads: what was there, or an error.
fn answers(store: &dyn Store) -> BTreeMap<String, Result<String>> {
    let mut answers = BTreeMap::new();
    let mut note = |what: String, answer: Result<String>| {
        answers.insert(what, answer);
    };
    let page = PageRequest::first(100).unwrap();
    for id in ["a", "b", "d"] {
        let id = AgentId::new(id).unwrap();
        note(format!("agent {id}"), store.agents().get(&id).map(|found| format!("{found:?}")));
        note(format!("versions {id}"), store.agents().versions(&id, &page).map(|found| format!("{found:?}")));
        let name = Name::new(id.as_str()).unwrap();
        note(format!("name {id}"), store.agents().by_name(&ana(), &name).map(|found| format!("{found:?}")));
    }
    note(
        "list".into(),
        store.agents().list(&DefinitionFilter::default(), &page).map(|found| format!("{found:?}")),
    );
    note("due".into(), store.agents().due(at(99), &page).map(|found| format!("{found:?}")));
    let account = Account::new(ana(), MeterName::new("usd").unwrap(), Window::default());
    note("usage".into(), store.budgets().usage(&account, at(31)).map(|found| format!("{found:?}")));
    for number in 0..6 {
        let id = RunId::new(format!("run {number}")).unwrap();
        note(format!("run {id}"), store.audit().run(&id).map(|found| format!("{found:?}")));
        note(format!("events {id}"), store.audit().events(&id, &page).map(|found| format!("{found:?}")));
        note(format!("checkpoint {id}"), store.checkpoints().load(&id).map(|found| format!("{found:?}")));
    }
    note("runs".into(), store.audit().runs(&RunFilter::default(), &page).map(|found| format!("{found:?}")));
    note("interrupted".into(), store.checkpoints().interrupted(&page).map(|found| format!("{found:?}")));
    answers
}

/// Through a raw handle, so that redb's own structure is sound: one bit of each entry, in its value or in its key.
#[test]
fn every_flipped_entry_is_found_and_none_is_returned() {
    let (directory, path) = place();
    let store = filled(&path);
    let sound = answers(&store);
    Store::close(&store).unwrap();
    let damaged = directory.path().join("damaged.redb");
    for (number, entry) in rot::entries(&path).into_iter().enumerate() {
        for in_value in [true, false] {
            fs::copy(&path, &damaged).unwrap();
            let (mut key, mut value) = (entry.key.clone(), entry.value.clone());
            let flipped = if in_value { &mut value } else { &mut key };
            let at = rot::spread(number as u64) % flipped.len();
            flipped[at] ^= 1 << (number % 8);
            let raw = Database::open(&damaged).unwrap();
            let tx = raw.begin_write().unwrap();
            let definition: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new(&entry.table);
            tx.open_table(definition).unwrap().remove(entry.key.as_slice()).unwrap();
            tx.open_table(definition).unwrap().insert(key.as_slice(), value.as_slice()).unwrap();
            tx.commit().unwrap();
            raw.close().unwrap();

            let what = format!("{} {} (value: {in_value})", entry.table, entry.key.escape_ascii());
            let store = match RedbStore::open(&damaged) {
                Ok(store) => store,
                Err(error) => {
                    let mark = entry.table == "meta" && entry.key.starts_with(b"mark");
                    let kind = if in_value { ErrorKind::Corrupt } else { ErrorKind::NotThisStore };
                    assert!(mark && error.kind() == kind, "{what}: {error}");
                    continue;
                }
            };
            assert!(!Store::verify(&store).unwrap().is_sound(), "{what}: verify found nothing");
            for (question, answer) in answers(&store) {
                match answer {
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {question}: {error}"),
                    Ok(answer) if in_value => {
                        assert_eq!(answer, *sound[&question].as_ref().unwrap(), "{what}")
                    }
                    Ok(_) => {} // a lost key looks like an absent record until the store is verified
                }
            }
        }
    }
}

/// Anywhere in the file, redb's own pages included. A plain open trusts a file that was closed in order, so the open
/// may succeed; then each answer is right or Corrupt, and `verify` or a checking open tells.
#[test]
fn a_bit_flipped_anywhere_is_survived() {
    let flips: u64 = std::env::var("REDB_FLIPS").map_or(300, |text| text.parse().unwrap());
    let first: u64 = std::env::var("REDB_FLIPS_FROM").map_or(0, |text| text.parse().unwrap());
    let (directory, path) = place();
    let store = filled(&path);
    let sound = answers(&store);
    Store::close(&store).unwrap();
    let whole = fs::read(&path).unwrap();
    let damaged = directory.path().join("damaged.redb");
    let (mut refused, mut corrupt, mut silent) = (0, 0, 0);
    for seed in first..first + flips {
        let mut bytes = whole.clone();
        let at = rot::spread(seed) % bytes.len();
        bytes[at] ^= 1 << (seed % 8);
        fs::write(&damaged, &bytes).unwrap();
        let what = format!("seed {seed}, byte {at}");
        let store = match RedbStore::open(&damaged) {
            Ok(store) => store,
            Err(error) => {
                let expected = matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotThisStore);
                assert!(expected, "{what}: {error:?}");
                refused += 1;
                continue;
            }
        };
        let mut wrong = 0;
        for (question, answer) in answers(&store) {
            match answer {
                Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {question}: {error:?}"),
                Ok(answer) => wrong += usize::from(answer != *sound[&question].as_ref().unwrap()),
            }
        }
        let verified = Store::verify(&store).unwrap();
        assert!(wrong == 0 || !verified.is_sound(), "{what}: a wrong answer, and verify finds nothing");
        if verified.is_sound() {
            silent += 1
        } else {
            corrupt += 1
        }
        drop(store);
    }
    println!(
        "{flips} flips: {refused} refused by open, {corrupt} found by verify, {silent} in bytes without meaning"
    );
}

fn fixture(schema: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/schema-{schema}.redb"))
}

/// The file of the schema that this version writes is made by this test when there is none yet. One that was
/// released is never made again.
#[test]
fn files_of_every_schema_open_for_ever() {
    let (directory, path) = place();
    let current = filled(&path);
    let (expected, newest) = (export(&current), Store::info(&current).schema);
    Store::close(&current).unwrap();
    if !fixture(newest).exists() {
        fs::copy(path, fixture(newest)).unwrap();
    }
    for schema in 1..=newest {
        let path = directory.path().join(format!("from-{schema}.redb"));
        fs::copy(fixture(schema), &path).unwrap();
        let store = RedbStore::open(&path).unwrap();
        assert!(Store::verify(&store).unwrap().is_sound(), "schema {schema}: {:?}", Store::verify(&store));
        assert_eq!(export(&store), expected, "schema {schema}");
        // For good: it is not brought to the newest schema again.
        Store::close(&store).unwrap();
        let store = RedbStore::open(&path).unwrap();
        assert_eq!(export(&store), expected, "schema {schema}, opened again");
    }
}

/// Puts what `change` makes of it in the place of what is stored under a key of a closed store, or nothing.
fn replace(path: &Path, table: &str, key: &[u8], change: impl FnOnce(Vec<u8>) -> Option<Vec<u8>>) {
    let raw = Database::open(path).unwrap();
    let tx = raw.begin_write().unwrap();
    {
        let mut table = tx.open_table(TableDefinition::<&[u8], &[u8]>::new(table)).unwrap();
        let stored = table.remove(key).unwrap().unwrap().value().to_vec();
        if let Some(changed) = change(stored) {
            table.insert(key, changed.as_slice()).unwrap();
        }
    }
    tx.commit().unwrap();
    raw.close().unwrap();
}

/// Changes what is stored under a key of a closed store.
fn harm(path: &Path, table: &str, key: &[u8], harm: impl FnOnce(&mut Vec<u8>)) {
    replace(path, table, key, |mut stored| {
        harm(&mut stored);
        Some(stored)
    });
}

/// Takes away what is stored under a key of a closed store.
fn lose(path: &Path, table: &str, key: &[u8]) {
    replace(path, table, key, |_| None);
}

/// What a save replaces without having read it: how far the run was is checked, and a state that is lost anyway is in
/// nobody's way.
#[test]
fn a_save_checks_how_far_the_run_was_and_replaces_a_damaged_state() {
    let (_directory, path) = place();
    let run = RunId::new("r").unwrap();
    let save = |iteration| {
        let store = RedbStore::open(&path).unwrap();
        let saved = store.checkpoints().save(&Checkpoint::new(run.clone(), iteration, "s".into(), at(0)));
        Store::close(&store).unwrap();
        saved
    };
    save(5).unwrap();
    let flip = |byte: usize| harm(&path, "checkpoints", b"r\0\0", |stored| stored[byte] ^= 1);
    for byte in 8..25 {
        flip(byte);
        for iteration in [4, 9] {
            assert_eq!(save(iteration).unwrap_err().kind(), ErrorKind::Corrupt, "byte {byte}");
        }
        flip(byte);
    }
    flip(30);
    assert_eq!(save(4).unwrap_err().kind(), ErrorKind::Conflict);
    let store = RedbStore::open(&path).unwrap();
    assert_eq!(store.checkpoints().load(&run).unwrap_err().kind(), ErrorKind::Corrupt);
    Store::close(&store).unwrap();
    save(5).unwrap();
    assert!(Store::verify(&RedbStore::open(&path).unwrap()).unwrap().is_sound());
    harm(&path, "checkpoints", b"r\0\0", |stored| stored.truncate(20));
    assert_eq!(save(9).unwrap_err().kind(), ErrorKind::Corrupt);
}

/// A closed store with a checkpoint that was claimed and let go again, and one that never was.
fn claimed_and_not(path: &Path) -> [RunId; 2] {
    let runs = ["claimed", "saved"].map(|id| RunId::new(id).unwrap());
    let store = RedbStore::open(path).unwrap();
    let checkpoints = store.checkpoints();
    for run in &runs {
        checkpoints.save(&Checkpoint::new(run.clone(), 1, "s".into(), at(0))).unwrap();
    }
    let lease = checkpoints.claim(&runs[0], at(1), &worker(), MINUTE).unwrap();
    checkpoints.release_claim(&runs[0], lease.token, at(2)).unwrap();
    checkpoints.save(&Checkpoint::new(runs[0].clone(), 2, "s".into(), at(3))).unwrap();
    Store::close(&store).unwrap();
    runs
}

const MINUTE: Duration = Duration::from_secs(60);

fn worker() -> WorkerId {
    WorkerId::new("w").unwrap()
}

fn kind<T>(answer: Result<T>) -> Option<ErrorKind> {
    answer.err().map(|error| error.kind())
}

/// Only a checkpoint that was claimed has a claim beside it, and one that is lost is not taken for none.
#[test]
fn a_claim_that_is_lost_is_damage() {
    let (_directory, path) = place();
    let [claimed, saved] = claimed_and_not(&path);
    let claims = |path: &Path| {
        let of_claims = |entry: &rot::Entry| entry.table == "checkpoint_heads";
        rot::entries(path).into_iter().filter(of_claims).map(|entry| entry.key).collect::<Vec<_>>()
    };
    assert_eq!(claims(&path), [b"claimed\0\0"]);
    lose(&path, "checkpoint_heads", b"claimed\0\0");
    let store = RedbStore::open(&path).unwrap();
    let checkpoints = store.checkpoints();
    let corrupt = Some(ErrorKind::Corrupt);
    assert_eq!(kind(checkpoints.interrupted(&PageRequest::default())), corrupt);
    assert_eq!(kind(checkpoints.claim(&claimed, at(4), &worker(), MINUTE)), corrupt);
    assert_eq!(kind(checkpoints.claim_interrupted(at(4), &worker(), MINUTE, 9)), corrupt);
    checkpoints.claim(&saved, at(4), &worker(), MINUTE).unwrap();
    assert!(!Store::verify(&store).unwrap().is_sound());
    checkpoints.delete(&claimed).unwrap();
    checkpoints.delete(&saved).unwrap();
    assert!(Store::verify(&store).unwrap().is_sound());
    Store::close(&store).unwrap();
    assert!(claims(&path).is_empty());
}

/// A claim that is left alone is not taken for none either, and can be got rid of.
#[test]
fn a_claim_without_its_checkpoint_is_damage() {
    let (_directory, path) = place();
    let [claimed, saved] = claimed_and_not(&path);
    lose(&path, "checkpoints", b"claimed\0\0");
    RedbStore::open(&path).unwrap().checkpoints().delete(&saved).unwrap();
    let store = RedbStore::open(&path).unwrap();
    let checkpoints = store.checkpoints();
    let corrupt = Some(ErrorKind::Corrupt);
    assert!(!Store::verify(&store).unwrap().is_sound());
    assert_eq!(kind(checkpoints.claim(&claimed, at(4), &worker(), MINUTE)), corrupt);
    assert_eq!(kind(checkpoints.save(&Checkpoint::new(claimed.clone(), 1, "s".into(), at(4)))), corrupt);
    assert_eq!(kind(Store::import(&store, &mut std::iter::empty())), Some(ErrorKind::Conflict));
    checkpoints.delete(&claimed).unwrap();
    assert_eq!(kind(checkpoints.delete(&claimed)), Some(ErrorKind::NotFound));
    assert_eq!(kind(checkpoints.claim(&claimed, at(4), &worker(), MINUTE)), Some(ErrorKind::NotFound));
    checkpoints.save(&Checkpoint::new(claimed, 1, "s".into(), at(4))).unwrap();
    assert!(Store::verify(&store).unwrap().is_sound());
}

/// A checkpoint that does not know of the claim beside it is given to nobody.
#[test]
fn a_claim_that_its_checkpoint_does_not_know_is_damage() {
    let (_directory, path) = place();
    let [claimed, _] = claimed_and_not(&path);
    let before = path.with_file_name("before.redb");
    let store = RedbStore::open(&before).unwrap();
    store.checkpoints().save(&Checkpoint::new(claimed.clone(), 2, "s".into(), at(3))).unwrap();
    Store::close(&store).unwrap();
    let is_it = |entry: &rot::Entry| entry.table == "checkpoints" && entry.key == b"claimed\0\0";
    let old = rot::entries(&before).into_iter().find(is_it).unwrap();
    harm(&path, "checkpoints", &old.key, |stored| *stored = old.value);
    let store = RedbStore::open(&path).unwrap();
    assert_eq!(kind(store.checkpoints().claim(&claimed, at(4), &worker(), MINUTE)), Some(ErrorKind::Corrupt));
    assert!(!Store::verify(&store).unwrap().is_sound());
}

/// What can no longer be read can still be removed.
#[test]
fn a_damaged_checkpoint_can_be_deleted() {
    let (_directory, path) = place();
    let runs = claimed_and_not(&path);
    for key in [b"claimed\0\0".as_slice(), b"saved\0\0"] {
        harm(&path, "checkpoints", key, |stored| stored[17] ^= 1);
    }
    let store = RedbStore::open(&path).unwrap();
    for run in &runs {
        assert_eq!(kind(store.checkpoints().load(run)), Some(ErrorKind::Corrupt));
        store.checkpoints().delete(run).unwrap();
    }
    assert!(Store::verify(&store).unwrap().is_sound());
}

/// Damage stays damage: what is sound beside it can be read.
#[test]
fn a_damaged_run_state_keeps_no_older_file_from_being_opened() {
    let (_directory, path) = place();
    fs::copy(fixture(1), &path).unwrap();
    harm(&path, "run_states", b"\x02a\0\0", |stored| *stored.last_mut().unwrap() ^= 1);
    let store = RedbStore::open(&path).unwrap();
    let get = |id: &str| Catalog::<Agent>::get(store.agents(), &AgentId::new(id).unwrap());
    assert_eq!(get("a").unwrap_err().kind(), ErrorKind::Corrupt);
    assert!(get("b").unwrap().unwrap().doc.schedule.is_some());
}

/// Of a checkpoint that is damaged, what an older version made of it goes on: a state that is lost is in nobody's way, and
/// how far the run was is not forgotten.
#[test]
fn a_damaged_checkpoint_of_an_older_file_stays_as_damaged_as_it_was() {
    for schema in [2, 3] {
        let (_directory, path) = place();
        fs::copy(fixture(schema), &path).unwrap();
        stays_as_damaged_as_it_was(&path);
    }
}

fn stays_as_damaged_as_it_was(path: &Path) {
    let flip_last = |stored: &mut Vec<u8>| *stored.last_mut().unwrap() ^= 1;
    harm(path, "checkpoints", b"run 0\0\0", flip_last);
    harm(path, "checkpoint_heads", b"run 1\0\0", flip_last);
    // Where schema 3 says how far the run is, and schema 2 has the document.
    harm(path, "checkpoints", b"run 2\0\0", |stored| stored[20] ^= 1);
    harm(path, "checkpoint_heads", b"run 2\0\0", flip_last);
    let store = RedbStore::open(path).unwrap();
    let checkpoints = store.checkpoints();
    let run = |number: u8| RunId::new(format!("run {number}")).unwrap();
    let save = |number, iteration| {
        let saved = checkpoints.save(&Checkpoint::new(run(number), iteration, "anew".into(), at(80)));
        saved.map_err(|error| error.kind())
    };
    assert_eq!(checkpoints.load(&run(0)).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!((save(0, 0), save(0, 2)), (Err(ErrorKind::Conflict), Ok(())));
    assert!(checkpoints.load(&run(1)).unwrap().is_some());
    assert_eq!(checkpoints.interrupted(&PageRequest::default()).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!((save(1, 0), save(1, 2)), (Err(ErrorKind::Conflict), Ok(())));
    assert_eq!((save(2, 0), save(2, 2)), (Err(ErrorKind::Corrupt), Err(ErrorKind::Corrupt)));
    let problems = format!("{:?}", Store::verify(&store).unwrap().problems);
    let has = |run: &str| problems.contains(run);
    assert_eq!((has("run 0"), has("run 1"), has("run 2")), (false, true, true), "{problems}");
}

/// A flush failed while an older version had the file.
#[test]
fn a_file_of_an_older_schema_is_recovered_too() {
    let (_directory, path) = place();
    for schema in [1, 2, 3] {
        fs::copy(fixture(schema), &path).unwrap();
        mark(&path, "a flush failed").unwrap();
        let store = RedbStore::open(&path).unwrap();
        assert!(Store::verify(&store).unwrap().is_sound());
        assert!(!is_marked(&path).unwrap());
        Store::close(&store).unwrap();
    }
}
