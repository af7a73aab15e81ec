//! What each verb does. A verb turns its flags into one call of the method table, so that the command line and
//! `rpc` have the same methods, checks and answers.

pub(crate) mod budget;
pub(crate) mod catalog;
pub(crate) mod checkpoint;
pub(crate) mod copy;
mod files;
pub(crate) mod run;
mod whole;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};
use store::{Entity, Error, OpenOptions, Result, Store, json as strict, window};

use crate::args::{Cli, Noun, PageArgs};
use crate::clock::{Clock, moment};
use crate::exit::{Code, Failure};
use crate::key::read_text;
use crate::render::{Look, render, visible_lines};
use crate::rpc::{self, Params};

/// How much of a store's file is kept in memory. A copy has two of them open and is to need less than 200 MB.
const CACHE: usize = 48 << 20;

/// Does what the command line says.
pub(crate) fn run(cli: Cli) -> Result<Code, Failure> {
    let clock = Clock::new(cli.now.as_deref())?;
    let busy_timeout = window::parse_length("busy-timeout", &cli.busy_timeout)?;
    let options = OpenOptions::default().busy_timeout(busy_timeout).cache_size(CACHE);
    // A command sees one time from its begin to its end; `rpc` asks the clock anew for each request.
    let context = Context { url: cli.url()?, json: cli.json, options, clock, now: clock.now() };
    match cli.noun {
        Noun::Skill(verb) => context.say(verb.run(&context)?),
        Noun::Agent(verb) => context.say(verb.run(&context)?),
        Noun::Budget(verb) => context.say(verb.run(&context)?),
        Noun::Run(verb) => context.say(verb.run(&context)?),
        Noun::Checkpoint(verb) => context.say(verb.run(&context)?),
        Noun::Copy(args) => context.say(copy::run(&args, &context)?),
        noun => whole::run(noun, &context),
    }
}

/// What every verb needs.
pub(crate) struct Context {
    url: String,
    json: bool,
    options: OpenOptions,
    clock: Clock,
    pub(crate) now: DateTime<Utc>,
}

/// What a verb has to say.
pub(crate) struct Answer {
    value: Value,
    shown: Shown,
    code: Code,
}

/// What people see of an answer.
enum Shown {
    /// The value, so.
    Value(Look),
    /// A text of its own.
    Text(String),
}

impl Answer {
    /// A value, and how it looks to people.
    pub(crate) fn new(value: Value, look: Look) -> Self {
        Answer { value, shown: Shown::Value(look), code: Code::Fine }
    }

    /// A value, and what people are told instead.
    pub(crate) fn told(value: Value, text: String) -> Self {
        Answer { value, shown: Shown::Text(text), code: Code::Fine }
    }

    /// The same answer with another exit code.
    pub(crate) fn with_code(mut self, code: Code) -> Self {
        self.code = code;
        self
    }
}

impl Context {
    /// Opens the store. A verb that only reads makes none where there is none: the path is mistyped then.
    pub(crate) fn open(&self, create: bool) -> Result<Arc<dyn Store>> {
        store::open_with(&self.url, &self.options.clone().create(create))
    }

    /// Calls a method of the table.
    pub(crate) fn call(&self, call: Call) -> Result<Value> {
        let unknown = || Error::Unsupported { operation: call.method.into() };
        let method = rpc::find(call.method).ok_or_else(unknown)?;
        let clock = Clock::at(self.now);
        let store = self.open(method.writes)?;
        let value = rpc::call(&*store, method, Params::new(call.params, clock))?;
        // Dropping would close it too, but not say when that failed.
        store.close()?;
        match call.absent {
            Some((what, id)) if value.is_null() => Err(Error::not_found(what, id)),
            _ => Ok(value),
        }
    }

    /// Calls a method of the table, for its answer.
    pub(crate) fn answer(&self, call: Call, look: Look) -> Result<Answer> {
        Ok(Answer::new(self.call(call)?, look))
    }

    /// A time that a flag gives; `now` when it is left out.
    pub(crate) fn moment(&self, field: &'static str, text: Option<&str>) -> Result<DateTime<Utc>> {
        text.map_or(Ok(self.now), |text| moment(field, text, self.now))
    }

    /// A time that a flag gives, or none.
    pub(crate) fn optional(&self, field: &'static str, text: Option<&str>) -> Result<Option<DateTime<Utc>>> {
        text.map(|text| moment(field, text, self.now)).transpose()
    }

    /// Writes an answer to standard output: one JSON document, or what people read.
    fn say(&self, answer: Answer) -> Result<Code, Failure> {
        let text = match answer.shown {
            _ if self.json => format!("{}\n", answer.value),
            Shown::Value(look) => render(look, &answer.value, self.now),
            Shown::Text(text) => visible_lines(&text),
        };
        crate::write_out(&text)?;
        Ok(answer.code)
    }
}

/// A call of a method of the table.
pub(crate) struct Call {
    method: &'static str,
    params: Map<String, Value>,
    absent: Option<(Entity, String)>,
}

impl Call {
    pub(crate) fn new(method: &'static str) -> Self {
        Call { method, params: Map::new(), absent: None }
    }

    /// With a parameter; `null` leaves it out.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        if !value.is_null() {
            self.params.insert(name.to_owned(), value);
        }
        self
    }

    /// With a parameter that is a time.
    pub(crate) fn at(self, name: &str, time: Option<DateTime<Utc>>) -> Self {
        self.with(name, json!(time))
    }

    /// With the parameters of a page.
    pub(crate) fn page(self, page: PageArgs) -> Self {
        self.with("limit", page.limit).with("cursor", page.cursor)
    }

    /// An answer of `null` means that `what` with this id is not there.
    pub(crate) fn or_absent(mut self, what: Entity, id: impl Into<String>) -> Self {
        self.absent = Some((what, id.into()));
        self
    }
}

/// The JSON in a file, or on standard input for `-`.
pub(crate) fn read_json(field: &'static str, path: &str) -> Result<Value> {
    strict::parse(field, &read_text(field, path)?)
}

/// The JSON in a file that a flag names, or `null`.
pub(crate) fn optional_json(field: &'static str, path: Option<&str>) -> Result<Value> {
    path.map_or(Ok(Value::Null), |path| read_json(field, path))
}

/// What `--expect` says: `any`, `absent`, or a revision.
pub(crate) fn expect(text: &str) -> Result<Value> {
    match text {
        "any" | "absent" => Ok(text.into()),
        revision => match revision.parse::<u64>() {
            Ok(revision) => Ok(json!({ "revision": revision })),
            Err(_) => {
                Err(Error::invalid("expect", format!("{text:?} is neither any, absent nor a revision")))
            }
        },
    }
}

/// An amount in units, as `12` or `0.25`: micro-units in a call.
pub(crate) fn amount(text: &str) -> Result<Value> {
    let amount: store::Amount = text.parse()?;
    Ok(json!(amount))
}

/// An object of the members that are not `null`.
pub(crate) fn object<const N: usize>(members: [(&str, Value); N]) -> Value {
    let given = members.into_iter().filter(|(_, value)| !value.is_null());
    given.map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>().into()
}
