//! `copy`: what arrives, what is refused, and what is left when it is killed.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::records::records;
use crate::support::{Bench, NOW, Ran, finish};

/// The engines with a file that are compiled in.
fn engines() -> Vec<&'static str> {
    store::engines().into_iter().filter(|engine| *engine != "memory").collect()
}

fn url(bench: &Bench, engine: &str, name: &str) -> String {
    format!("{engine}:{}", bench.path(name).display())
}

fn filled(url: &str, count: u64) {
    let store = store::open(url).unwrap();
    store.import(&mut records(count)).unwrap();
    store.close().unwrap();
}

fn copying(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_storectl"));
    command.args(["--now", NOW, "copy"]).args(args).stdin(Stdio::null());
    command
}

fn copy(args: &[&str]) -> Ran {
    finish(copying(args), "")
}

fn refused(code: i32, args: &[&str]) -> Value {
    let ran = copy(&[&["--json"], args].concat());
    assert_eq!((ran.code, ran.out.as_str()), (code, ""), "{args:?}: {}", ran.err);
    serde_json::from_str::<Value>(&ran.err).unwrap()["error"].clone()
}

/// The names in the directory, hidden ones included.
fn names(bench: &Bench) -> Vec<String> {
    let entries = std::fs::read_dir(bench.directory.path()).unwrap();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// How many records a store holds, after it was verified.
fn sound(url: &str) -> u64 {
    let store = store::open_with(url, &store::OpenOptions::default().create(false)).unwrap();
    let found = store.verify().unwrap();
    assert!(found.is_sound(), "{url}: {:?}", found.problems);
    let records = store::transfer::counts(&*store, &mut |_| {}).unwrap().values().sum();
    store.close().unwrap();
    records
}

#[test]
fn every_file_engine_into_every_file_engine() {
    for from in engines() {
        let bench = Bench::new();
        let source = url(&bench, from, "source");
        filled(&source, 300);
        for to in engines() {
            let target = url(&bench, to, &format!("to-{to}"));
            let ran = copy(&["--from", &source, "--to", &target]);
            assert_eq!((ran.code, ran.err.as_str()), (0, ""), "quiet when nobody watches");
            assert!(ran.out.starts_with("SEAM"), "{}", ran.out);
            assert!(ran.out.contains("records copied: 301; the stores hold the same\n"), "{}", ran.out);
            assert_eq!(sound(&target), 301);
            let compared = copy(&["--json", "--from", &source, "--to", &target, "--verify-only"]);
            let compared: Value = serde_json::from_str(&compared.out).unwrap();
            assert_eq!((&compared["same"], &compared["records"]), (&true.into(), &301.into()));
            assert_eq!(compared["seams"].as_array().unwrap().len(), 5);
        }
        let left = names(&bench).into_iter().filter(|name| name.starts_with('.')).count();
        assert_eq!(left, 0, "{:?}", names(&bench));
    }
}

#[test]
fn only_an_empty_store_is_copied_into() {
    for engine in engines() {
        let bench = Bench::new();
        let [source, target] = ["source", "target"].map(|name| url(&bench, engine, name));
        filled(&source, 100);
        filled(&target, 200);
        let error = refused(4, &["--from", &source, "--to", &target]);
        assert_eq!((&error["kind"], &error["what"]), (&"conflict".into(), &"store".into()));
        assert!(error["message"].as_str().unwrap().contains("--replace"), "{error}");
        assert_eq!(sound(&target), 201);

        assert_eq!(copy(&["--from", &source, "--to", &target, "--replace"]).code, 0);
        assert_eq!(sound(&target), 101);
        let empty = url(&bench, engine, "empty");
        store::open(&empty).unwrap().close().unwrap();
        assert_eq!(copy(&["--from", &source, "--to", &empty]).code, 0);
        assert_eq!(sound(&empty), 101);
        assert_eq!(names(&bench), ["empty", "source", "target"], "one file each");
    }
}

#[test]
fn stores_that_differ_are_exit_code_6() {
    let bench = Bench::new();
    let engine = engines()[0];
    let [one, other] = ["one", "other"].map(|name| url(&bench, engine, name));
    filled(&one, 100);
    filled(&other, 200);
    let ran = copy(&["--from", &one, "--to", &other, "--verify-only"]);
    assert_eq!((ran.code, ran.err.as_str()), (6, ""));
    assert!(ran.out.contains("the stores differ"), "{}", ran.out);
    let missing = url(&bench, engine, "missing");
    refused(3, &["--from", &one, "--to", &missing, "--verify-only"]);
    refused(3, &["--from", &missing, "--to", &one, "--verify-only"]);
    assert_eq!(names(&bench), ["one", "other"]);
}

#[test]
fn what_cannot_be_a_target_stays_as_it_is() {
    let bench = Bench::new();
    let engine = engines()[0];
    let source = url(&bench, engine, "source");
    filled(&source, 100);
    bench.file("text", "no store");
    let text = url(&bench, engine, "text");
    refused(6, &["--from", &source, "--to", &text]);
    refused(6, &["--from", &source, "--to", &text, "--replace"]);
    assert_eq!(std::fs::read_to_string(bench.path("text")).unwrap(), "no store");
    assert_eq!(refused(9, &["--from", &source, "--to", &source, "--replace"])["field"], "to");
    refused(3, &["--from", &text.replace("text", "nothing"), "--to", &url(&bench, engine, "new")]);
    refused(1, &["--from", &source, "--to", "postgres:x"]);
    refused(1, &["--from", &source, "--to", &url(&bench, engine, "no/such/directory")]);
    refused(2, &["--from", &source]);
    refused(2, &["--from", &source, "--to", &text, "--replace", "--verify-only"]);
    assert_eq!(names(&bench), ["source", "text"]);
}

#[test]
fn a_store_in_use_is_not_replaced() {
    for engine in engines() {
        let bench = Bench::new();
        let [source, target] = ["source", "target"].map(|name| url(&bench, engine, name));
        filled(&source, 100);
        filled(&target, 200);
        let held = store::open(&target).unwrap();
        let args = ["--busy-timeout", "100ms", "--from", &source, "--to", &target, "--replace"];
        assert_eq!(refused(5, &args)["kind"], "busy");
        held.close().unwrap();
        assert_eq!(sound(&target), 201);
        assert_eq!(copy(&args).code, 0);
    }
}

#[test]
fn two_copies_do_not_share_a_target() {
    let bench = Bench::new();
    let engine = engines()[0];
    let [source, target] = ["source", "target"].map(|name| url(&bench, engine, name));
    filled(&source, 20_000);
    let mut first = copying(&["--from", &source, "--to", &target]).stdout(Stdio::null()).spawn().unwrap();
    while !bench.path(".target.copying").join("target").exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(refused(5, &["--from", &source, "--to", &target])["kind"], "busy");
    assert!(first.wait().unwrap().success());
    assert_eq!(names(&bench), ["source", "target"]);
}

/// Kills a copy after a while. Whether it was over by then does not matter.
fn kill_after(mut child: Child, wait: Duration) {
    std::thread::sleep(wait);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The kills are spread over the time that a whole copy takes, and a little beyond it.
fn kills(started: std::time::Instant) -> impl Iterator<Item = Duration> {
    const KILLS: u32 = 5;
    let whole = started.elapsed();
    (1..=KILLS).map(move |kill| whole * kill * 11 / (KILLS * 10))
}

#[test]
fn a_killed_copy_leaves_nothing_that_looks_whole_and_starts_again() {
    for engine in engines() {
        let bench = Bench::new();
        let [source, target] = ["source", "target"].map(|name| url(&bench, engine, name));
        filled(&source, 3_000);
        let args = ["--from", &source, "--to", &target];
        let started = std::time::Instant::now();
        assert_eq!(copy(&args).code, 0);
        for wait in kills(started) {
            std::fs::remove_file(bench.path("target")).unwrap();
            kill_after(copying(&args).stdout(Stdio::null()).spawn().unwrap(), wait);
            if bench.path("target").exists() {
                assert_eq!(sound(&target), 3_001, "what has the name is whole");
                std::fs::remove_file(bench.path("target")).unwrap();
            }
            let again = copy(&args);
            assert_eq!(again.code, 0, "{}", again.err);
            assert_eq!(sound(&target), 3_001);
            assert_eq!(names(&bench), ["source", "target"]);
        }
    }
}

#[test]
fn a_killed_copy_into_an_empty_store_leaves_it_empty_or_whole() {
    for engine in engines() {
        let bench = Bench::new();
        let [source, target] = ["source", "target"].map(|name| url(&bench, engine, name));
        filled(&source, 3_000);
        let args = ["--from", &source, "--to", &target];
        let started = std::time::Instant::now();
        assert_eq!(copy(&args).code, 0);
        for wait in kills(started) {
            std::fs::remove_file(bench.path("target")).unwrap();
            store::open(&target).unwrap().close().unwrap();
            kill_after(copying(&args).stdout(Stdio::null()).spawn().unwrap(), wait);
            match sound(&target) {
                1 => assert_eq!(copy(&args).code, 0),
                records => assert_eq!(records, 3_001),
            }
            assert_eq!(sound(&target), 3_001);
        }
    }
}

#[test]
fn a_killed_replacement_leaves_the_old_store_or_the_new_one() {
    for engine in engines() {
        let bench = Bench::new();
        let [source, target] = ["source", "target"].map(|name| url(&bench, engine, name));
        filled(&source, 3_000);
        let args = ["--from", &source, "--to", &target, "--replace"];
        filled(&target, 100);
        let started = std::time::Instant::now();
        assert_eq!(copy(&args).code, 0);
        for wait in kills(started) {
            std::fs::remove_file(bench.path("target")).unwrap();
            filled(&target, 100);
            kill_after(copying(&args).stdout(Stdio::null()).spawn().unwrap(), wait);
            let found = sound(&target);
            assert!(found == 101 || found == 3_001, "{engine}: {found}");
            let again = copy(&args);
            assert_eq!(again.code, 0, "{}", again.err);
            assert_eq!(sound(&target), 3_001);
            assert_eq!(names(&bench), ["source", "target"]);
        }
    }
}
