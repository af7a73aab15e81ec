//! Sessions of `rpc` on a real store.

use serde_json::{Value, json};

use crate::support::Bench;

/// The answers to requests, one for each, in order.
fn session(bench: &Bench, requests: &[(&str, Value)]) -> Vec<Value> {
    let line = |(id, (method, params)): (usize, &(&str, Value))| {
        format!("{}\n", json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }))
    };
    let input: String = requests.iter().enumerate().map(line).collect();
    let ran = bench.run_with(&["rpc"], &input);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let answers: Vec<Value> = ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(answers.iter().enumerate().all(|(id, answer)| answer["id"] == id), "{answers:?}");
    assert_eq!(answers.len(), requests.len());
    answers
}

#[test]
fn a_host_in_any_language_claims_works_and_finishes_in_one_transaction() {
    let bench = Bench::new();
    bench.skill("report");
    let account = json!({ "caller": "ana", "meter": { "name": "usd", "window": "sliding:7d/168" } });
    let now = "2026-01-31T09:05:00.000000001Z";
    let claimed = session(
        &bench,
        &[
            ("skills.claim_due", json!({ "worker": "w", "lease": "5m", "max": 10 })),
            (
                "audit.start_run",
                json!({ "run": { "id": "r", "caller": "ana", "skill": "report", "started_at": now } }),
            ),
            (
                "checkpoints.save",
                json!({ "checkpoint": { "run": "r", "iteration": 1, "state": [0.1], "updated_at": now } }),
            ),
        ],
    );
    let token = &claimed[0]["result"][0]["lease"]["token"];
    let finish = |token: &Value| {
        json!({ "calls": [
            { "method": "audit.finish_run", "params": { "id": "r", "finish": { "outcome": "succeeded", "finished_at": now } } },
            { "method": "budgets.add", "params": { "charge": { "account": account, "amount": 250_000 } } },
            { "method": "checkpoints.delete", "params": { "run": "r" } },
            { "method": "skills.finish_claim", "params": { "id": "report", "token": token, "ran_at": now } },
        ] })
    };
    let states = json!({ "calls": [
        { "method": "audit.run", "params": { "id": "r" } },
        { "method": "checkpoints.load", "params": { "run": "r" } },
        { "method": "budgets.usage", "params": { "account": account } },
    ] });
    let answers = session(
        &bench,
        &[
            ("transaction", finish(&json!(999))),
            ("snapshot", states.clone()),
            ("transaction", finish(token)),
            ("snapshot", states),
        ],
    );
    // The last call of the first transaction was refused, so none of it happened.
    assert_eq!(answers[0]["error"]["data"]["kind"], "lease_lost");
    assert_eq!(answers[1]["result"][0]["status"], "running");
    assert_eq!(answers[1]["result"][1]["state"], json!([0.1]));
    assert_eq!(answers[1]["result"][2]["used"], 0);
    assert_eq!(answers[2]["result"].as_array().unwrap().len(), 4);
    assert_eq!(answers[3]["result"][0]["status"], "succeeded");
    assert_eq!(answers[3]["result"][1], Value::Null);
    assert_eq!(answers[3]["result"][2]["used"], 250_000);
}

#[test]
fn damaged_lines_are_answered_and_the_session_goes_on() {
    let bench = Bench::new();
    let good = r#"{"jsonrpc":"2.0","id":1,"method":"store.info"}"#;
    let ran = bench.run_with(&["rpc"], &format!("{{\n\n[]\n{good}\n{{\"a\":1,\"a\":2}}\n{good}"));
    let answers: Vec<Value> = ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let codes: Vec<_> = answers.iter().map(|answer| answer["error"]["code"].as_i64()).collect();
    assert_eq!(codes, [Some(-32700), Some(-32700), Some(-32600), None, Some(-32700), None]);
    assert_eq!(answers[5]["result"]["engine"], "sqlite");
}

#[test]
fn a_store_is_copied_verified_and_moved() {
    let (bench, other) = (Bench::new(), Bench::new());
    bench.skill("report");
    let (copy, file) = (bench.path("copy.db"), bench.path("export.jsonl"));
    let answers = session(
        &bench,
        &[
            ("store.verify", json!({})),
            ("store.backup", json!({ "to": copy })),
            ("store.export", json!({ "to": file })),
            ("store.export", json!({ "to": file })),
        ],
    );
    assert_eq!(answers[0]["result"]["problems_found"], 0);
    assert_eq!(answers[2]["result"]["records"], 2);
    assert_eq!(answers[3]["error"]["data"]["kind"], "already_exists");
    assert!(copy.exists());
    let arrived = session(&other, &[("store.import", json!({ "from": file })), ("skills.list", json!({}))]);
    assert_eq!(arrived[1]["result"]["items"][0]["doc"]["id"], "report");
}
