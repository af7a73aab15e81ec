//! Calls a method of the table.

use serde_json::{Value, json};
use store::{Error, Seams, Store};

use super::params::{CallError, InnerCall, Params, TYPES};
use super::table::{self, Method, Target};
use crate::clock::Clock;

/// Calls `method` on a store.
pub(crate) fn call(store: &dyn Store, method: &Method, mut params: Params) -> Result<Value, CallError> {
    match method.target {
        Target::Seams(run) => run(seams(store), &mut params),
        Target::Store(run) => run(store, &mut params),
        Target::Transaction => together(params, |work| store.transaction(work)),
        Target::Snapshot => together(params, |work| store.snapshot(work)),
        Target::Discover => params.finish().map(|()| discover()),
    }
}

fn seams(store: &dyn Store) -> &dyn Seams {
    store
}

/// Runs the calls that `params` list as one unit of work: their results, or the first error, which undoes them all.
fn together(
    mut params: Params,
    unit: impl FnOnce(store::Work<'_>) -> store::Result<()>,
) -> Result<Value, CallError> {
    let calls: Vec<InnerCall> = params.take("calls")?;
    params.finish()?;
    // One unit of work happens at one time, also when an engine runs it again.
    let clock = Clock::at(params.clock().now());
    let mut failure = None;
    let mut results = Vec::new();
    let outcome = unit(&mut |seams| {
        // An engine may run the work again, so nothing of an earlier attempt may stay.
        (failure, results) = (None, Vec::with_capacity(calls.len()));
        for (index, call) in calls.iter().enumerate() {
            match inner(seams, call, clock) {
                Ok(result) => results.push(result),
                Err(CallError::Store(error)) => return Err(error),
                Err(CallError::Param { name, reason }) => {
                    let name = format!("calls[{index}].{name}");
                    failure = Some(CallError::param(name.clone(), reason.clone()));
                    return Err(Error::invalid(name, reason));
                }
            }
        }
        Ok(())
    });
    match (outcome, failure) {
        (Ok(()), _) => Ok(Value::Array(results)),
        (Err(_), Some(failure)) => Err(failure),
        (Err(error), None) => Err(error.into()),
    }
}

/// One call of a unit of work. Only the seams can be called in one.
fn inner(seams: &dyn Seams, call: &InnerCall, clock: Clock) -> Result<Value, CallError> {
    let Some(Method { target: Target::Seams(run), .. }) = table::find(&call.method) else {
        let reason = format!("{:?} is no method that can be called here", call.method);
        return Err(CallError::param("method", reason));
    };
    run(seams, &mut Params::new(call.params.clone(), clock)).map_err(|error| match error {
        CallError::Param { name, reason } => CallError::param(format!("params.{name}"), reason),
        store => store,
    })
}

/// The error codes of the protocol, each with its meaning.
pub(crate) const CODES: &[(i64, &str)] = &[
    (
        PARSE_ERROR,
        "parse error: not JSON, a key twice in one object, an integer beyond 64 bits, not UTF-8, too long",
    ),
    (INVALID_REQUEST, "invalid request: JSON, but no request"),
    (METHOD_NOT_FOUND, "method not found"),
    (INVALID_PARAMS, "invalid params: one is missing, unknown or of the wrong type; `data.param` names it"),
    (
        STORE_ERROR,
        "the store's answer is an error: `data` has `kind`, `message`, `retryable`, `outcome`, and where they apply `field`, `what`, `id`, `value`, `used`, `limit`",
    ),
];

pub(crate) const PARSE_ERROR: i64 = -32700;
pub(crate) const INVALID_REQUEST: i64 = -32600;
pub(crate) const METHOD_NOT_FOUND: i64 = -32601;
pub(crate) const INVALID_PARAMS: i64 = -32602;
pub(crate) const STORE_ERROR: i64 = -32000;

/// What is good to know beside the tables.
pub(crate) const NOTES: &[&str] = &[
    "One request on each line of standard input, one answer on each line of standard output, in order. A request is answered after its commit, and not before.",
    "Parameters go by name: `params` is an object. One that a method does not have is refused by its name.",
    "A request without `id` is a notification: it is carried out and not answered. A batch is a list of requests, carried out one by one; it is not a transaction.",
    "`update` takes a closure, which does not travel. Read, edit, and call `save` with `expect: {\"revision\": N}`; after a `conflict`, do it again.",
    "In `transaction` and `snapshot` each of the calls may name a method of `skills`, `agents`, `budgets`, `audit` or `checkpoints`.",
    "A list gives `next_cursor`: hand it back as `cursor` for the next page; `null` means that this was the last. `limit` is 1 to 1000, and 50 when it is left out.",
];

/// The table as JSON.
fn discover() -> Value {
    let methods: Vec<Value> = table::all()
        .map(|method| {
            json!({
                "name": method.name,
                "doc": method.doc,
                "params": method.params,
                "result": method.result,
                "writes": method.writes,
                "laws": method.laws,
            })
        })
        .collect();
    let types: Vec<Value> = TYPES.iter().map(|(name, doc)| json!({ "name": name, "doc": doc })).collect();
    let errors: Vec<Value> = CODES.iter().map(|(code, doc)| json!({ "code": code, "doc": doc })).collect();
    json!({ "jsonrpc": "2.0", "notes": NOTES, "methods": methods, "types": types, "errors": errors })
}
