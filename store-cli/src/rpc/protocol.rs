//! JSON-RPC 2.0 over lines: requests in, answers out.

use std::io::{self, BufRead, Write};

use serde_json::{Map, Value, json};
use store::{Store, json as strict};

use super::dispatch::{INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, PARSE_ERROR, STORE_ERROR, call};
use super::params::{CallError, Params};
use super::table;
use crate::clock::Clock;
use crate::exit::described;
use crate::lines::{self, Line, MAX_LINE_BYTES};

/// Answers every line of `input` on `output`, until there are no more.
pub(crate) fn serve(
    store: &dyn Store,
    clock: Clock,
    mut input: impl BufRead,
    mut output: impl Write,
) -> io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let answer = match lines::read(&mut input, &mut buffer)? {
            Line::End => return Ok(()),
            Line::Whole | Line::Unended => answer_line(store, clock, &buffer),
            Line::TooLong => {
                lines::skip(&mut input)?;
                let message = format!("the line is longer than {MAX_LINE_BYTES} bytes");
                Some(failure(Value::Null, PARSE_ERROR, message, None))
            }
        };
        if let Some(answer) = answer {
            writeln!(output, "{answer}")?;
            output.flush()?;
        }
    }
}

/// The answer to one line: a response, or a list of them for a batch, or nothing for notifications.
pub(crate) fn answer_line(store: &dyn Store, clock: Clock, line: &[u8]) -> Option<Value> {
    let refuse = |message: String| Some(failure(Value::Null, PARSE_ERROR, message, None));
    let text = match std::str::from_utf8(line) {
        Ok(text) => text,
        Err(error) => return refuse(format!("the line is not UTF-8: {error}")),
    };
    match strict::parse("request", text) {
        Err(error) => refuse(error.to_string()),
        Ok(Value::Array(batch)) if !batch.is_empty() => {
            let answers: Vec<Value> =
                batch.into_iter().filter_map(|request| answer(store, clock, request)).collect();
            (!answers.is_empty()).then_some(Value::Array(answers))
        }
        Ok(request) => answer(store, clock, request),
    }
}

/// The answer to one request, or nothing for a notification.
fn answer(store: &dyn Store, clock: Clock, request: Value) -> Option<Value> {
    let request = match Request::read(request) {
        Ok(request) => request,
        Err(Invalid { id, reason }) => return Some(failure(id, INVALID_REQUEST, reason, None)),
    };
    let result = match table::find(&request.method) {
        None => Err((METHOD_NOT_FOUND, format!("there is no method {:?}", request.method), None)),
        Some(method) => request
            .params
            .and_then(|params| call(store, method, Params::new(params, clock)))
            .map_err(call_failure),
    };
    let id = request.id?;
    Some(match result {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
        Err((code, message, data)) => failure(id, code, message, data),
    })
}

fn call_failure(error: CallError) -> (i64, String, Option<Value>) {
    match error {
        CallError::Param { name, reason } => {
            let data = json!({ "param": name, "reason": reason });
            (INVALID_PARAMS, format!("parameter {name:?}: {reason}"), Some(data))
        }
        CallError::Store(error) => (STORE_ERROR, error.to_string(), Some(described(&error))),
    }
}

fn failure(id: Value, code: i64, message: String, data: Option<Value>) -> Value {
    let mut error = json!({ "code": code, "message": message });
    if let Some(data) = data {
        error["data"] = data;
    }
    json!({ "jsonrpc": "2.0", "id": id, "error": error })
}

/// A request, taken apart.
struct Request {
    /// `None` for a notification.
    id: Option<Value>,
    method: String,
    params: Result<Map<String, Value>, CallError>,
}

/// Why a value is no request, and the id to answer to, as far as it has one.
struct Invalid {
    id: Value,
    reason: String,
}

impl Request {
    fn read(request: Value) -> Result<Request, Invalid> {
        let Value::Object(mut members) = request else {
            return Err(Invalid { id: Value::Null, reason: "a request is an object".into() });
        };
        let id = members.remove("id");
        if !matches!(id, None | Some(Value::Null | Value::String(_) | Value::Number(_))) {
            let reason = "the id is neither a string nor a number nor null".into();
            return Err(Invalid { id: Value::Null, reason });
        }
        let refuse = |reason: String| Invalid { id: id.clone().unwrap_or_default(), reason };
        if members.remove("jsonrpc") != Some("2.0".into()) {
            return Err(refuse("\"jsonrpc\" is not \"2.0\"".into()));
        }
        let Some(Value::String(method)) = members.remove("method") else {
            return Err(refuse("\"method\" is not a string".into()));
        };
        let params = match members.remove("params") {
            None => Ok(Map::new()),
            Some(Value::Object(params)) => Ok(params),
            Some(Value::Array(_)) => Err(CallError::param("params", "go by name: an object, not a list")),
            Some(_) => return Err(refuse("\"params\" is not an object".into())),
        };
        match members.keys().next() {
            None => Ok(Request { id, method, params }),
            Some(name) => Err(refuse(format!("a request has no member {name:?}"))),
        }
    }
}

#[cfg(test)]
#[cfg(feature = "memory")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn session(lines: &[u8]) -> Vec<Value> {
        let store = store::open("memory:").unwrap();
        let clock = Clock::new(Some("2026-01-31T09:00:00Z")).unwrap();
        let mut output = Vec::new();
        serve(&*store, clock, lines, &mut output).unwrap();
        let output = String::from_utf8(output).unwrap();
        output.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn code(line: &str) -> Option<i64> {
        let answers = session(line.as_bytes());
        assert_eq!(answers.len(), 1, "{line}: {answers:?}");
        answers[0]["error"]["code"].as_i64()
    }

    #[test]
    fn each_fault_has_its_code() {
        for (line, expected) in [
            ("", PARSE_ERROR),
            ("{", PARSE_ERROR),
            (r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"store.info"}"#, PARSE_ERROR),
            (r#"{"jsonrpc":"2.0","id":18446744073709551616,"method":"store.info"}"#, PARSE_ERROR),
            ("[]", INVALID_REQUEST),
            ("1", INVALID_REQUEST),
            (r#"{"id":1,"method":"store.info"}"#, INVALID_REQUEST),
            (r#"{"jsonrpc":"2.0","id":[],"method":"store.info"}"#, INVALID_REQUEST),
            (r#"{"jsonrpc":"2.0","id":1}"#, INVALID_REQUEST),
            (r#"{"jsonrpc":"2.0","id":1,"method":"store.info","parms":{}}"#, INVALID_REQUEST),
            (r#"{"jsonrpc":"2.0","id":1,"method":"store.info","params":7}"#, INVALID_REQUEST),
            (r#"{"jsonrpc":"2.0","id":1,"method":"skills.update"}"#, METHOD_NOT_FOUND),
            (r#"{"jsonrpc":"2.0","id":1,"method":"store.info","params":[]}"#, INVALID_PARAMS),
            (r#"{"jsonrpc":"2.0","id":1,"method":"store.info","params":{"x":1}}"#, INVALID_PARAMS),
            (r#"{"jsonrpc":"2.0","id":1,"method":"skills.get"}"#, INVALID_PARAMS),
            (r#"{"jsonrpc":"2.0","id":1,"method":"skills.get","params":{"id":""}}"#, INVALID_PARAMS),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"budgets.reset","params":{"account":{"caller":"c","meter":{"name":"m"}}}}"#,
                STORE_ERROR,
            ),
        ] {
            assert_eq!(code(&format!("{line}\n")), Some(expected), "{line}");
        }
        assert_eq!(session(b"\xff\n")[0]["error"]["code"], PARSE_ERROR);
    }

    #[test]
    fn a_misspelt_member_deep_down_is_named() {
        let line = r#"{"jsonrpc":"2.0","id":1,"method":"budgets.usage","params":{"account":{"caller":"c","meter":{"name":"m","windw":"1d"}}}}"#;
        let answer = &session(line.as_bytes())[0];
        assert_eq!(answer["error"]["data"]["param"], "account");
        assert!(answer["error"]["message"].as_str().unwrap().contains("meter.windw"), "{answer}");
    }

    #[test]
    fn notifications_and_batches() {
        let note = r#"{"jsonrpc":"2.0","method":"store.info"}"#;
        let ask = r#"{"jsonrpc":"2.0","id":"a","method":"store.info"}"#;
        assert!(session(note.as_bytes()).is_empty());
        assert!(session(format!("[{note},{note}]").as_bytes()).is_empty());
        let answers = session(format!("[{note},{ask},7]\n{ask}").as_bytes());
        assert_eq!(answers.len(), 2);
        assert_eq!(answers[0].as_array().unwrap().len(), 2);
        assert_eq!(answers[0][0]["id"], "a");
        assert_eq!(answers[0][1]["error"]["code"], INVALID_REQUEST);
        assert_eq!(answers[1]["result"]["engine"], "memory");
    }

    fn saves(ids: &[&str], extra: &str) -> String {
        let calls: Vec<String> = ids
            .iter()
            .map(|id| {
                format!(
                    r#"{{"method":"skills.save","params":{{"doc":{{"id":"{id}","owner":"o","name":"{id}"}},"expect":"absent"}}}}"#
                )
            })
            .collect();
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"transaction","params":{{"calls":[{}{extra}]}}}}"#,
            calls.join(",")
        )
    }

    #[test]
    fn a_transaction_is_all_or_nothing() {
        let list = r#"{"jsonrpc":"2.0","id":2,"method":"skills.list"}"#;
        let count = |transaction: &str| {
            let answers = session(format!("{transaction}\n{list}\n").as_bytes());
            (answers[0].clone(), answers[1]["result"]["items"].as_array().unwrap().len())
        };
        let (answer, found) = count(&saves(&["a", "b"], ""));
        assert_eq!((answer["result"].clone(), found), (json!([1, 2]), 2));
        let (answer, found) = count(&saves(&["a", "a"], ""));
        assert_eq!((answer["error"]["data"]["kind"].clone(), found), (json!("already_exists"), 0));
        let (answer, found) = count(&saves(&["a"], r#",{"method":"store.info"}"#));
        assert_eq!((answer["error"]["data"]["param"].clone(), found), (json!("calls[1].method"), 0));
        let (answer, found) = count(&saves(&["a"], r#",{"method":"skills.get","params":{}}"#));
        assert_eq!((answer["error"]["data"]["param"].clone(), found), (json!("calls[1].params.id"), 0));
        let (answer, found) = count(&saves(&["a"], "").replace("transaction", "snapshot"));
        assert_eq!((answer["error"]["data"]["kind"].clone(), found), (json!("read_only"), 0));
    }

    #[test]
    fn now_is_the_clocks_unless_it_is_given() {
        let account = r#""account":{"caller":"c","meter":{"name":"m"}}"#;
        let add = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"budgets.add","params":{{"charge":{{{account},"amount":5}}}}}}"#
        );
        let answers = session(add.as_bytes());
        assert_eq!(answers[0]["result"]["since"], "2026-01-31T09:00:00Z");
        let given = add.replace(r#","amount":5}"#, r#","amount":5},"now":"2025-01-01T00:00:00Z""#);
        assert_eq!(session(given.as_bytes())[0]["result"]["since"], "2025-01-01T00:00:00Z");
    }

    proptest! {
        #[test]
        fn any_line_has_one_answer(line in "[^\n]{0,60}|[\\[\\]{}\":,a-z0-9. -]{0,60}") {
            let answers = session(format!("{line}\n").as_bytes());
            prop_assert_eq!(answers.len(), 1);
        }

        #[test]
        fn any_method_with_any_parameters_is_answered(
            index in 0usize..100,
            values in proptest::collection::vec(
                proptest::sample::select(vec![
                    json!(null), json!(""), json!("x"), json!(0), json!(u64::MAX), json!(-1), json!(1.5),
                    json!([]), json!({}), json!(["x"]), json!("any"), json!("1h"), json!("2026-01-31T09:00:00Z"),
                    json!({"id": "x", "owner": "o", "name": "n"}), json!({"caller": "c", "meter": {"name": "m"}}),
                ]),
                6,
            ),
        ) {
            // A file that a random path names is nobody's business.
            let methods: Vec<_> = table::all().filter(|m| m.params.iter().all(|p| p.type_name != "path")).collect();
            let method = methods[index % methods.len()];
            let params: Map<_, _> = method.params.iter().zip(values).map(|(p, v)| (p.name.to_owned(), v)).collect();
            let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method.name, "params": params });
            prop_assert_eq!(session(request.to_string().as_bytes()).len(), 1);
        }
    }
}
