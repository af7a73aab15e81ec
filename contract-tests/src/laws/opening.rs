//! OPEN: opening a place, and waiting for one that somebody holds. And SEC: what a place shows of secrets.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use store_api::*;

use crate::fixture::*;
use crate::harness::{Instance, PATIENT, Stranger};
use crate::laws::moves;
use crate::suite::Suite;

/// How long the waiters of OPEN-2 wait: long enough to be told from not waiting at all.
const WAIT: Duration = Duration::from_millis(300);
/// How much longer than that an answer may take on a slow machine.
const SLACK: Duration = Duration::from_secs(10);

/// An empty directory beside the store's own file, for files that are none of its own.
fn beside(instance: &dyn Instance) -> Option<PathBuf> {
    let directory = instance.place()?.parent()?.join("strangers");
    fs::create_dir_all(&directory).expect("a directory beside the store");
    Some(directory)
}

pub fn open_1_only_its_own_and_untouched(suite: &Suite<'_>) {
    if !suite.facts().file {
        return suite.exempt("OPEN-1", "all of it", "file is false: there is nothing to open");
    }
    open_is_idempotent(suite);
    let instance = suite.create();
    let Some(directory) = beside(&*instance) else {
        return suite.exempt("OPEN-1", "strange files", "the harness names no place");
    };
    let special = suite.harness().strangers(&directory);
    if special.is_empty() {
        suite.exempt("OPEN-1", "newer schemas and other programs' files", "the harness makes none");
    }
    for stranger in special.into_iter().chain(any_strangers(&directory)) {
        a_stranger_is_refused(suite, &stranger);
    }
}

fn open_is_idempotent(suite: &Suite<'_>) {
    let mut instance = suite.create();
    // Opening what is empty leaves it empty; opening what is not changes nothing in it.
    instance.reopen().unwrap();
    assert_eq!(export(&*instance.store()), [Record::Counter(Counter { last: 0 })]);
    moves::fill(&*instance.store());
    let info = instance.store().info();
    let written = export(&*instance.store());
    for _ in 0..3 {
        instance.reopen().unwrap();
        assert_eq!(export(&*instance.store()), written);
        assert_eq!(instance.store().info(), info);
    }
}

/// Files that no engine can take for its own.
fn any_strangers(directory: &Path) -> Vec<Stranger> {
    let noise: Vec<u8> =
        (0..20_000_u64).map(|n| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect();
    let text = "This is a letter, and no database at all.\n".repeat(500);
    [("a file of text", text.into_bytes()), ("a file of noise", noise)]
        .into_iter()
        .enumerate()
        .map(|(number, (what, content))| {
            let place = directory.join(format!("any-{number}"));
            fs::write(&place, content).expect("a strange file");
            Stranger { what: what.into(), place, refused_as: ErrorKind::NotThisStore }
        })
        .collect()
}

fn a_stranger_is_refused(suite: &Suite<'_>, stranger: &Stranger) {
    let Stranger { what, place, refused_as } = stranger;
    let before = fs::read(place).expect("a strange file");
    let siblings = || {
        let entries = fs::read_dir(place.parent().expect("a directory")).expect("a directory");
        let mut names: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
        names.sort();
        names
    };
    let beside = siblings();
    for _ in 0..2 {
        match suite.harness().open(place, PATIENT) {
            None => return suite.exempt("OPEN-1", what, "the harness opens no place"),
            Some(Ok(_)) => panic!("{what} was opened"),
            Some(Err(error)) => assert_eq!(error.kind(), *refused_as, "{what}: {}", describe(&error)),
        }
        assert!(fs::read(place).expect("a strange file") == before, "{what} was touched");
        assert_eq!(siblings(), beside, "opening {what} left files beside it");
    }
}

pub fn open_2_waits_then_busy(suite: &Suite<'_>) {
    writers_of_one_store_wait(suite);
    if suite.facts().durable {
        a_second_opener_waits(suite);
    } else {
        suite.exempt("OPEN-2", "a second opener", "durable is false: a place has one opener");
    }
}

/// Holds a transaction open in `store` while `meanwhile` runs.
fn while_held(store: &Arc<dyn Store>, meanwhile: impl FnOnce()) {
    let (release, wait) = mpsc::channel::<()>();
    let (inside, entered) = mpsc::channel();
    thread::scope(|scope| {
        let holder = Arc::clone(store);
        let holding = scope.spawn(move || {
            holder.transaction(&mut move |seams| {
                seams.audit().start_run(&run("holder", 0))?;
                inside.send(()).expect("somebody waits for it");
                // Until the other side lets go of its end.
                wait.recv().expect_err("nothing is ever sent");
                Ok(())
            })
        });
        if entered.recv().is_err() {
            let refused = holding.join().expect("a holder");
            panic!("no transaction is held: {refused:?}");
        }
        // Dropped also when `meanwhile` panics, so the holder ends in any case.
        let release = release;
        meanwhile();
        drop(release);
        holding.join().expect("a holder").expect("its transaction");
    });
}

/// Asserts that `call` is refused as Busy, after waiting as long as it was told to and not much longer.
fn busy_after_waiting<T: std::fmt::Debug>(call: impl FnOnce() -> Result<T>) {
    let start = Instant::now();
    let error = refused(call(), ErrorKind::Busy);
    let waited = start.elapsed();
    assert!(waited >= WAIT, "gave up after {waited:?}");
    assert!(waited < WAIT + SLACK, "waited {waited:?}");
    assert!(error.is_retryable() && error.outcome() == Outcome::NotApplied);
}

fn writers_of_one_store_wait(suite: &Suite<'_>) {
    let instance = suite.harness().create_waiting(WAIT);
    let store = instance.store();
    while_held(&store, || {
        busy_after_waiting(|| store.skills().save(&skill("a"), Expect::Any));
        busy_after_waiting(|| store.transaction(&mut |_| Ok(())));
        // A reader sees nothing of it: by what was there before, or by being told to wait.
        match store.audit().run(&id("holder")) {
            Ok(found) => assert_eq!(found, None),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Busy, "{error}"),
        }
    });
    assert!(store.skills().get(&id("a")).unwrap().is_none());
    store.skills().save(&skill("a"), Expect::Absent).unwrap();
    // A writer that is patient gets its turn.
    let instance = suite.create();
    let store = instance.store();
    let waiter = instance.store();
    let mut waiting = None;
    while_held(&store, || {
        waiting = Some(thread::spawn(move || waiter.skills().save(&skill("a"), Expect::Absent)));
        thread::sleep(WAIT);
    });
    waiting.expect("a waiter").join().expect("a waiter").unwrap();
}

fn a_second_opener_waits(suite: &Suite<'_>) {
    let instance = suite.create();
    let open = || suite.harness().open(instance.place()?, WAIT);
    let Some(second) = open() else {
        return suite.exempt("OPEN-2", "a second opener", "the harness opens no place");
    };
    if !suite.facts().multi_process {
        // One opener at a time: the second one waits for the first to close, and then says Busy.
        drop(second);
        busy_after_waiting(|| open().expect("a harness that opens").map(|_| "a store"));
        instance.store().close().unwrap();
        let second = open().expect("a harness that opens").unwrap();
        second.audit().start_run(&run("second", 0)).unwrap();
        return;
    }
    let second = second.unwrap();
    let store = instance.store();
    store.skills().save(&skill("a"), Expect::Absent).unwrap();
    assert!(second.skills().get(&id("a")).unwrap().is_some(), "one place, one state");
    while_held(&store, || {
        busy_after_waiting(|| second.skills().save(&skill("b"), Expect::Any));
        assert!(second.skills().get(&id("a")).unwrap().is_some(), "a reader waits for no writer");
        // Opening beside a writer is no write.
        drop(open().expect("a harness that opens").unwrap());
    });
    assert!(second.audit().run(&id("holder")).unwrap().is_some());
    second.skills().save(&skill("b"), Expect::Absent).unwrap();
    assert!(store.skills().get(&id("b")).unwrap().is_some());
    second.close().unwrap();
    store.skills().save(&skill("c"), Expect::Absent).unwrap();
}

/// The secret of SEC-1, and the key of its digest: found nowhere.
const SECRET: &str = "swordfish-is-the-password-of-this-test";
const KEY: &[u8; 32] = b"the-key-that-outlives-the-stores";

pub fn sec_1_secrets_stay_secret(suite: &Suite<'_>) {
    let instance = suite.create();
    let store = instance.store();
    let secret = Secret::new(SECRET).unwrap();
    let key = DigestKey::new("k", *KEY).unwrap();
    let digest = key.digest(&secret);
    let hooked = |id: &str| Agent { webhook: Some(digest.clone()), ..agent(id) };
    store.agents().publish(&version("v", hooked("a")), Expect::Absent).unwrap();
    let found = store.agents().by_webhook(&digest).unwrap().unwrap();
    assert_eq!(found.doc.id.as_str(), "a");
    assert_eq!(found.webhook.as_ref(), Some(&digest), "the digest is what is stored");
    let taken = refused(store.agents().save(&hooked("b"), Expect::Any), ErrorKind::AlreadyExists);

    let hex = digest.to_string();
    let hex = hex.rsplit(':').next().expect("a digest in hex");
    let shows = |text: &str| text.contains(SECRET) || text.contains(std::str::from_utf8(KEY).unwrap());
    let records = export(&*store);
    let shown = [
        format!("{secret:?} {key:?} {digest:?}"),
        format!("{found:?} {records:?} {taken:?} {taken} {}", describe(&taken)),
        format!("{:?} {:?}", store.info(), store.verify().unwrap()),
    ];
    for text in &shown {
        assert!(!shows(text), "a secret is printed: {text}");
    }
    assert!(!format!("{found:?} {records:?}").contains(hex), "Debug shows not even the digest");
    for record in &records {
        assert!(!shows(&json::encode(record).unwrap()), "a secret is exported");
    }
    if suite.facts().file {
        files_show_nothing(suite, &*instance);
    } else {
        suite.exempt("SEC-1", "files", "file is false");
    }
}

fn files_show_nothing(suite: &Suite<'_>, instance: &dyn Instance) {
    let mut files = instance.files();
    if files.is_empty() {
        return suite.exempt("SEC-1", "files", "the harness names none");
    }
    if let Some(directory) = beside(instance) {
        let copy = directory.join("backup");
        instance.store().backup(&copy).unwrap();
        backups_are_whole(suite, instance, &copy);
        files.push(copy);
    }
    for file in files {
        let content = fs::read(&file).expect("a file of the store");
        for secret in [SECRET.as_bytes(), KEY] {
            let found = content.windows(secret.len()).any(|window| window == secret);
            assert!(!found, "{} holds a secret", file.display());
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(&file).expect("a file of the store").permissions().mode() & 0o777;
            assert_eq!(mode & 0o077, 0, "{} can be read by others: {mode:o}", file.display());
        }
    }
}

fn backups_are_whole(suite: &Suite<'_>, instance: &dyn Instance, copy: &Path) {
    let store = instance.store();
    refused(store.backup(copy), ErrorKind::AlreadyExists);
    if let Some(opened) = suite.harness().open(copy, PATIENT) {
        let opened = opened.unwrap();
        assert_eq!(export(&*opened), export(&*store), "a backup is the store");
        opened.close().unwrap();
    }
}
