//! Every noun and verb on a real store, as people and programs see them.

use crate::support::{Bench, NOW};
use serde_json::json;

#[test]
fn skills() {
    let bench = Bench::new();
    let file = bench.skill("report");
    assert_eq!(bench.json(&["skill", "put", &file]), 2);
    assert_eq!(bench.text(&["skill", "put", &file, "--expect", "2"]), "saved as revision 3\n");

    let stored = bench.json(&["skill", "get", "report"]);
    assert_eq!(stored["doc"]["x-new"]["kept"], 1.5);
    assert_eq!(bench.json(&["skill", "get", "--owner", "ana", "--name", "report"]), stored);
    let text = bench.text(&["skill", "get", "report"]);
    assert!(text.contains("schedule.next_run_at  2026-01-31T08:00:00Z (1 h ago)"), "{text}");
    assert!(text.ends_with("\nbody:\nline 1\nline 2\n"), "{text}");

    bench.skill("other");
    let ids = |args: &[&str]| {
        let page = bench.json(&[&["skill", "list"], args].concat());
        page["items"].as_array().unwrap().iter().map(|item| item["doc"]["id"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&[]), ["other", "report"]);
    assert_eq!(ids(&["--owner", "ana", "--tag", "t", "--scheduled", "--visible-to", "ana"]).len(), 2);
    assert!(ids(&["--exposed"]).is_empty());
    assert_eq!(ids(&["--exposed", "false"]).len(), 2);
    assert!(ids(&["--scheduled", "false"]).is_empty());
    let first = bench.json(&["skill", "list", "--limit", "1"]);
    let cursor = first["next_cursor"].as_str().unwrap();
    assert_eq!(ids(&["--limit", "1", "--cursor", cursor]), ["report"]);
    assert!(bench.text(&["skill", "list", "--limit", "1"]).contains(&format!("more: --cursor {cursor}")));

    let version =
        bench.json(&["skill", "append", "report", "--version-id", "v1", "--by", "ana", "--label", "one"]);
    assert_eq!((version["seq"].clone(), version["saved_at"].clone()), (json!(1), json!(NOW)));
    bench.json(&["skill", "append", "report", "--file", &file, "--version-id", "v2", "--by", "ana", "--pin"]);
    let published =
        bench.json(&["skill", "publish", &file, "--by", "ana", "--version-id", "v3", "--summary", "s"]);
    assert_eq!(published["version"]["seq"], 3);
    let text = bench.text(&["skill", "versions", "report"]);
    assert_eq!(text.lines().count(), 4, "{text}");
    assert_eq!(bench.json(&["skill", "version", "v1"])["label"], "one");
    assert_eq!(bench.json(&["skill", "restore", "v1"])["doc"]["id"], "report");
    assert_eq!(bench.text(&["skill", "pin", "v1"]), "pinned\n");
    assert_eq!(bench.text(&["skill", "pin", "v1", "--off"]), "unpinned\n");
    assert_eq!(bench.json(&["skill", "prune", "report", "--keep", "1"]), 1);

    bench.text(&["skill", "reschedule", "report", "--next", "-1h"]);
    let due = bench.text(&["skill", "due"]);
    assert!(due.contains("report") && due.contains("1 h ago"), "{due}");
    bench.text(&["skill", "mark", "other", "--next", "+1h"]);
    let claims = bench.json(&["skill", "claim", "--worker", "w", "--lease", "1m", "--max", "5"]);
    assert_eq!(claims.as_array().unwrap().len(), 1);
    let token = claims[0]["lease"]["token"].to_string();
    let lease = bench.json(&["skill", "renew", "report", "--token", &token, "--lease", "10m"]);
    assert_eq!(lease["until"], "2026-01-31T09:10:00Z");
    bench.text(&["skill", "unclaim", "report", "--token", &token]);
    assert_eq!(bench.fails(8, &["skill", "finish", "report", "--token", &token])["kind"], "lease_lost");
    let token = bench.json(&["skill", "claim", "--worker", "w"])[0]["lease"]["token"].to_string();
    bench.text(&["skill", "finish", "report", "--token", &token, "--ran-at", "-1m", "--next", "+1d"]);
    let schedule = &bench.json(&["skill", "get", "report"])["doc"]["schedule"];
    assert_eq!(schedule["last_run_at"], "2026-01-31T08:59:00Z");
    assert_eq!(schedule["next_run_at"], "2026-02-01T09:00:00Z");
    assert_eq!(bench.text(&["skill", "due"]), "none\n");
    assert_eq!(bench.text(&["skill", "rm", "report"]), "removed\n");
}

#[test]
fn agents() {
    let bench = Bench::new();
    let doc = r#"{"id":"a","owner":"ana","name":"helper","channel_filter":["mail"]}"#;
    assert_eq!(bench.run_with(&["agent", "put", "-"], doc).code, 0);
    assert_eq!(bench.json(&["agent", "by-channel", "mail"])["items"][0]["doc"]["id"], "a");
    assert_eq!(bench.text(&["agent", "by-channel", "phone"]), "none\n");

    let key = bench.file("key", &format!("k1 {}\n", "0f".repeat(32)));
    let set = bench.json(&["agent", "webhook-set", "a", "--key-file", &key]);
    let secret = set["secret"].as_str().unwrap();
    let found =
        bench.run_with(&["--json", "agent", "by-webhook", "--key-file", &key], &format!("{secret}\n"));
    assert!(found.code == 0 && found.out.contains("helper"), "{}", found.err);
    let mut by_variable = bench.command(&["agent", "by-webhook"]);
    by_variable.env("STORECTL_KEY_FILE", &key);
    assert_eq!(crate::support::finish(by_variable, secret).code, 0);
    let other = bench.run_with(&["agent", "by-webhook", "--key-file", &key], "another-secret-of-some-length");
    assert_eq!(other.code, 3);
    assert!(!other.err.contains("another"), "{}", other.err);
    for file in std::fs::read_dir(bench.directory.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(secret.len()).any(|part| part == secret.as_bytes()), "the secret was stored");
    }
    assert_eq!(bench.fails(9, &["agent", "webhook-set", "a"])["field"], "key-file");
    let bad = bench.file("bad", "k1 0f0f");
    let error = bench.fails(9, &["agent", "webhook-set", "a", "--key-file", &bad]);
    assert!(!error["message"].as_str().unwrap().contains("0f0f"), "{error}");
    assert_eq!(bench.fails(3, &["agent", "webhook-set", "b", "--key-file", &key])["kind"], "not_found");
}

#[test]
fn budgets() {
    let bench = Bench::new();
    const ACCOUNT: [&str; 4] = ["--caller", "ana", "--meter", "usd"];
    let run = |args: &[&str]| bench.json(&[&["budget"], args, &ACCOUNT].concat());
    let twice = [run(&["add", "0.25", "--key", "k"]), run(&["add", "0.25", "--key", "k"])];
    assert_eq!(twice[1]["used"], 250_000);
    assert_eq!(run(&["admit", "1", "--limit", "2"])["used"], 1_250_000);
    assert_eq!(run(&["reserve", "r", "0.5", "--limit", "2", "--expires", "+1h"])["held"], 500_000);
    assert_eq!(run(&["reservations"])[0]["expires_at"], "2026-01-31T10:00:00Z");
    assert_eq!(run(&["settle", "r", "0.1"])["used"], 1_350_000);
    run(&["reserve", "q", "0.5", "--limit", "2"]);
    assert_eq!(run(&["release", "q"])["held"], 0);
    let text = bench.text(&[&["budget", "usage"], &ACCOUNT[..]].concat());
    assert!(text.contains("used   1.35") && text.contains("(in 7 days)"), "{text}");
    let text = bench.text(&["budget", "accounts"]);
    assert!(text.contains("rollover:7d") && text.contains("1.35"), "{text}");
    let error = bench.fails(7, &[&["budget", "admit", "1", "--limit", "2"], &ACCOUNT[..]].concat());
    assert_eq!((error["kind"].clone(), error["limit"].clone()), (json!("limit_exceeded"), json!(2_000_000)));
    run(&["reset"]);
    assert_eq!(bench.text(&["budget", "accounts"]), "none\n");
}

#[test]
fn runs() {
    let bench = Bench::new();
    let input = bench.file("input.json", r#"{"pages":3}"#);
    bench.json(&["run", "start", "r1", "--caller", "ana", "--skill", "report", "--input", &input]);
    bench.json(&[
        "run",
        "start",
        "r2",
        "--caller",
        "ana",
        "--parent",
        "r1",
        "--agent",
        "a",
        "--channel",
        "mail",
    ]);
    assert_eq!(
        bench.json(&["--now", "2026-01-31T10:00:00Z", "run", "start", "--caller", "bo"])["status"],
        "running"
    );
    assert_eq!(bench.json(&["run", "event", "r1", "step", "--payload", &input]), 1);
    assert_eq!(bench.text(&["run", "event", "r1", "step"]), "recorded as event 2\n");
    let finish = ["run", "finish", "r2", "failed", "--error", "no", "--tokens-in", "7", "--cost", "0.5"];
    assert_eq!(bench.text(&finish), "recorded\n");
    assert_eq!(bench.json(&["run", "show", "r2"])["status"], "failed");
    assert_eq!(bench.json(&["run", "show", "r1"])["input"]["pages"], 3);
    assert_eq!(bench.json(&["run", "list", "--status", "failed", "--from", "-1h"])["items"][0]["id"], "r2");
    assert_eq!(bench.json(&["run", "list", "--top-level", "--caller", "ana"])["items"][0]["id"], "r1");
    assert_eq!(bench.json(&["run", "events", "r1"])["items"][1]["seq"], 2);
    assert_eq!(bench.json(&["run", "children", "r1"])["items"][0]["id"], "r2");
    assert_eq!(bench.json(&["run", "ancestors", "r2"])[0]["id"], "r1");
    assert_eq!(bench.json(&["run", "last", "report", "unknown"])[0]["id"], "r1");
    let text = bench.text(&["run", "summary", "--by", "caller"]);
    assert!(text.contains("ana") && text.contains("0.5"), "{text}");
    assert_eq!(bench.json(&["run", "stale", "--before", "+1s", "--max", "1"]), json!(["r1"]));
    let purge = bench.json(&["run", "purge", "--before", "+1s", "--dry-run"]);
    assert_eq!((purge["runs"].clone(), purge["events"].clone()), (json!(2), json!(2)));
    assert_eq!(bench.json(&["run", "purge", "--before", "+1s"]), purge);
    assert_eq!(bench.json(&["run", "list"])["items"].as_array().unwrap().len(), 1);
}

#[test]
fn checkpoints() {
    let bench = Bench::new();
    let state = bench.file("state.json", r#"[1, 2.5]"#);
    let meta = bench.file("meta.json", r#"{"skill":"report"}"#);
    assert_eq!(bench.text(&["checkpoint", "save", "r1", "3", "--state", &state, "--meta", &meta]), "saved\n");
    assert_eq!(bench.json(&["checkpoint", "load", "r1"])["state"], json!([1, 2.5]));
    assert_eq!(bench.fails(4, &["checkpoint", "save", "r1", "2"])["kind"], "conflict");
    let lease = bench.json(&["checkpoint", "claim-one", "r1", "--worker", "w", "--lease", "1m"]);
    let token = lease["token"].to_string();
    assert!(bench.text(&["checkpoint", "list"]).contains("in 1 min"));
    assert_eq!(bench.json(&["checkpoint", "renew", "r1", "--token", &token])["worker"], "w");
    bench.text(&["checkpoint", "release", "r1", "--token", &token]);
    assert_eq!(bench.json(&["checkpoint", "claim", "--worker", "w", "--max", "9"])[0]["run"], "r1");
    assert_eq!(bench.text(&["checkpoint", "rm", "r1"]), "removed\n");
    assert_eq!(bench.fails(3, &["checkpoint", "load", "r1"])["what"], "checkpoint");
}

#[test]
fn the_whole_store() {
    let bench = Bench::new();
    bench.skill("report");
    assert_eq!(bench.text(&["verify"]).split(':').next(), Some("sound; records read"));
    assert_eq!(bench.json(&["verify"])["problems_found"], 0);
    assert_eq!(bench.json(&["info"])["engine"], "sqlite");
    let copy = bench.path("copy.db").display().to_string();
    assert_eq!(bench.text(&["backup", &copy]), "written\n");
    assert_eq!(bench.fails(4, &["backup", &copy])["kind"], "already_exists");
    assert!(bench.path("copy.db").exists());
}

#[test]
fn definition_files() {
    let bench = Bench::new();
    let write = |path: &str, text: &str| {
        std::fs::create_dir_all(bench.path(path).parent().unwrap()).unwrap();
        bench.file(path, text)
    };
    write("skills/one/SKILL.md", "---\nname: one\ndescription: First: of two\n---\n# One\n");
    write("skills/two/SKILL.md", "---\nname: two\ndescription: Second\n---\n# Two\n");
    write("agents/helper.md", "---\nname: helper\ndescription: Helps\nskills: [one]\n---\nBe kind.\n");
    let dir = |name: &str| bench.path(name).display().to_string();
    let (skills, agents) = (dir("skills"), dir("agents"));
    let counts =
        |kind: &str, dir: &str| bench.json(&[kind, "import", dir, "--owner", "ana"])["counts"].clone();
    assert_eq!(counts("skill", &skills)["created"], 2);
    assert_eq!(counts("agent", &agents)["created"], 1);
    write("skills/two/SKILL.md", "---\nname: two\ndescription: Second\n---\n# Two, better\n");
    let again = counts("skill", &skills);
    assert_eq!((again["changed"].clone(), again["unchanged"].clone()), (json!(1), json!(1)));
    assert_eq!(
        bench.json(&["skill", "get", "--owner", "ana", "--name", "two"])["doc"]["body"],
        "# Two, better\n"
    );

    write("skills/bad/SKILL.md", "---\nname: [\n---\n");
    let ran = bench.run(&["skill", "import", &skills, "--owner", "ana"]);
    assert_eq!(ran.code, 9, "{}", ran.err);
    assert!(ran.out.contains("bad/SKILL.md") && ran.out.contains("refused"), "{}", ran.out);
    assert_eq!(bench.fails(3, &["skill", "import", "/no/such/dir", "--owner", "ana"])["what"], "file");
}
