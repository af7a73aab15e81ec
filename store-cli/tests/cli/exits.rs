//! Exit codes, errors, and what happens when the other side leaves.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use crate::support::{Bench, finish};
use serde_json::Value;

#[test]
fn help_and_readme_list_the_codes() {
    let mut help = Command::new(env!("CARGO_BIN_EXE_storectl"));
    help.arg("--help");
    let help = finish(help, "");
    assert_eq!(help.code, 0);
    let readme = include_str!("../../README.md");
    for code in 0..=9 {
        assert!(help.out.contains(&format!("\n  {code}  ")), "{code}");
        assert!(readme.contains(&format!("\n| {code} | ")), "{code}");
    }
}

#[test]
fn usage_is_2() {
    let bench = Bench::new();
    assert_eq!(bench.fails(2, &["skill", "fly"])["kind"], "usage");
    assert_eq!(bench.fails(2, &["export"])["kind"], "usage");
    let ran = bench.run(&["skill", "get"]);
    assert!(ran.code == 2 && ran.err.contains("Usage"), "{}", ran.err);
}

#[test]
fn a_build_without_the_engine_is_1() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_storectl"));
    command.args(["--json", "--store", "postgres://host/db", "info"]);
    let ran = finish(command, "");
    let error: Value = serde_json::from_str(&ran.err).unwrap();
    assert_eq!((ran.code, &error["error"]["kind"]), (1, &Value::from("engine_not_compiled")));
}

#[test]
fn what_is_not_there_is_3_and_nothing_is_made() {
    let bench = Bench::new();
    assert_eq!(bench.fails(3, &["skill", "get", "report"])["what"], "file");
    assert!(!bench.path("store.db").exists(), "a mistyped path made a store");
    bench.skill("report");
    assert_eq!(bench.fails(3, &["skill", "get", "x"])["what"], "skill");
    assert_eq!(bench.fails(3, &["skill", "get", "--owner", "ana", "--name", "x"])["id"], "ana/x");
    assert_eq!(bench.fails(3, &["skill", "put", "/no/such/file"])["what"], "file");
}

#[test]
fn conflicts_are_4() {
    let bench = Bench::new();
    let file = bench.skill("report");
    assert_eq!(bench.fails(4, &["skill", "put", &file, "--expect", "absent"])["kind"], "already_exists");
    assert_eq!(bench.fails(4, &["skill", "put", &file, "--expect", "9"])["kind"], "conflict");
}

#[test]
fn a_store_that_somebody_holds_is_5() {
    let bench = Bench::new();
    let file = bench.skill("report");
    let holder = store::open(&bench.url()).unwrap();
    let ran = store::StoreExt::transact(&*holder, |_| {
        Ok(bench.run(&["--json", "--busy-timeout", "50ms", "skill", "put", &file]))
    })
    .unwrap();
    let error: Value = serde_json::from_str(&ran.err).unwrap();
    assert_eq!((ran.code, &error["error"]["retryable"]), (5, &Value::Bool(true)));
}

#[test]
fn foreign_and_damaged_files_are_6() {
    let bench = Bench::new();
    bench.file("store.db", "this is a letter to my aunt, and no database at all, however long one reads on");
    assert_eq!(bench.fails(6, &["info"])["kind"], "not_this_store");

    let bench = Bench::new();
    bench.skill("report");
    let path = bench.path("store.db");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(11).position(|part| part == b"does report").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(bench.fails(6, &["skill", "get", "report"])["kind"], "corrupt");
    let ran = bench.run(&["--json", "verify"]);
    let found: Value = serde_json::from_str(&ran.out).unwrap();
    assert!(ran.code == 6 && found["problems_found"].as_u64().unwrap() > 0, "{}", ran.out);
    let ran = bench.run(&["verify"]);
    assert!(ran.code == 6 && ran.out.contains("problems:"), "{}", ran.out);
}

#[test]
fn invalid_input_is_9_and_names_the_field() {
    let bench = Bench::new();
    bench.skill("report");
    let account = ["--caller", "c", "--meter", "m"];
    for (args, field) in [
        (vec!["skill", "get", ""], "id"),
        (vec!["skill", "rm", "report", "--expect", "maybe"], "expect"),
        (vec!["skill", "list", "--cursor", "nonsense"], "cursor"),
        (vec!["skill", "list", "--limit", "0"], "limit"),
        (vec!["skill", "reschedule", "report", "--next", "soon"], "next"),
        (vec!["skill", "claim", "--worker", "w", "--lease", "0s"], "lease"),
        (vec!["run", "list", "--status", "odd"], "filter"),
        ([&["budget", "add", "1e3"], &account[..]].concat(), "amount"),
        ([&["budget", "usage", "--window", "7"], &account[..]].concat(), "account"),
        (vec!["--now", "noon", "info"], "now"),
        (vec!["--busy-timeout", "5", "info"], "busy-timeout"),
    ] {
        assert_eq!(bench.fails(9, &args)["field"], field, "{args:?}");
    }
    for (text, part) in [
        ("{", "EOF"),
        (r#"{"id":"a","id":"b","owner":"o","name":"n"}"#, "appears twice"),
        (r#"{"id":"a","owner":"o","name":"n","x":18446744073709551616}"#, "64 bits"),
        (r#"{"id":"a","owner":"o"}"#, "name"),
        (r#"{"id":"a","owner":"o","name":"n","body":"\u0000"}"#, "U+0000"),
    ] {
        let ran = bench.run_with(&["skill", "put", "-"], text);
        assert!(ran.code == 9 && ran.err.contains(part), "{text}: {} {}", ran.code, ran.err);
    }
}

#[test]
fn a_reader_that_leaves_is_no_panic() {
    let bench = Bench::new();
    let line = |id: usize| {
        format!(
            r#"{{"jsonrpc":"2.0","method":"skills.save","params":{{"doc":{{"id":"s{id}","owner":"o","name":"s{id}","body":"{}"}},"expect":"absent"}}}}"#,
            "x".repeat(4000)
        )
    };
    let saves: String = (0..60).map(|id| line(id) + "\n").collect();
    assert_eq!(bench.run_with(&["rpc"], &saves).code, 0);
    for args in [&["skill", "list"][..], &["--json", "skill", "list"], &["export"], &["info"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = bench.command(args).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), err.as_str()), (Some(1), ""), "{args:?}");
    }
}

#[test]
fn what_rpc_answered_survives_a_kill() {
    let bench = Bench::new();
    let mut child = bench.command(&["rpc"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut ask = |request: &str| {
        writeln!(input, "{request}").unwrap();
        let mut answer = String::new();
        output.read_line(&mut answer).unwrap();
        serde_json::from_str::<Value>(&answer).unwrap()
    };
    let answer = ask(
        r#"{"jsonrpc":"2.0","id":1,"method":"skills.save","params":{"doc":{"id":"s","owner":"o","name":"n"},"expect":"absent"}}"#,
    );
    assert_eq!(answer["result"], 1);
    let methods = ask(r#"{"jsonrpc":"2.0","id":2,"method":"rpc.discover"}"#);
    assert!(methods["result"]["methods"].as_array().unwrap().len() > 70);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(bench.json(&["skill", "get", "s"])["revision"], 1);
}
