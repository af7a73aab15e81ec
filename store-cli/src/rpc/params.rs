//! Parameters by name: taken one by one, each with the type that its method says, and none left over.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use store::{page, *};

use crate::clock::Clock;

/// Why a call was not answered with a result.
#[derive(Debug)]
pub(crate) enum CallError {
    /// A parameter is missing, unknown or of the wrong type: the store was not asked.
    Param {
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The store's answer.
    Store(Error),
}

impl From<Error> for CallError {
    fn from(error: Error) -> Self {
        CallError::Store(error)
    }
}

impl From<CallError> for Error {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Param { name, reason } => Error::invalid(name, reason),
            CallError::Store(error) => error,
        }
    }
}

impl CallError {
    pub(crate) fn param(name: impl Into<String>, reason: impl Into<String>) -> Self {
        CallError::Param { name: name.into(), reason: reason.into() }
    }
}

/// The parameters of one call that are not taken yet, and the clock for a `now` that was left out.
#[derive(Debug, Clone)]
pub(crate) struct Params {
    values: Map<String, Value>,
    clock: Clock,
}

impl Params {
    pub(crate) fn new(values: Map<String, Value>, clock: Clock) -> Self {
        Params { values, clock }
    }

    /// The clock that the call goes by.
    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    /// Takes the parameter of this name.
    pub(crate) fn take<T: Param>(&mut self, name: &'static str) -> Result<T, CallError> {
        let value = self.values.remove(name);
        T::read(name, value, self.clock)
    }

    /// Checks that nothing is left over.
    pub(crate) fn finish(&self) -> Result<(), CallError> {
        match self.values.keys().next() {
            None => Ok(()),
            Some(name) => Err(CallError::param(name, "is no parameter of this method")),
        }
    }
}

/// What a method takes under one name.
pub(crate) trait Param: Sized {
    /// The name of its type.
    const TYPE: &'static str;
    /// Whether it must be given.
    const REQUIRED: bool;
    /// Reads it.
    fn read(name: &'static str, value: Option<Value>, clock: Clock) -> Result<Self, CallError>;
}

/// A parameter that is written as one JSON value.
pub(crate) trait Json: DeserializeOwned {
    /// The name of its type in the reference.
    const NAME: &'static str;
}

impl<T: Json> Param for T {
    const TYPE: &'static str = T::NAME;
    const REQUIRED: bool = true;

    fn read(name: &'static str, value: Option<Value>, _: Clock) -> Result<Self, CallError> {
        let value = value.ok_or_else(|| CallError::param(name, "is missing"))?;
        strictly(name, value)
    }
}

impl<T: Json> Param for Option<T> {
    const TYPE: &'static str = T::NAME;
    const REQUIRED: bool = false;

    fn read(name: &'static str, value: Option<Value>, _: Clock) -> Result<Self, CallError> {
        value.filter(|value| !value.is_null()).map(|value| strictly(name, value)).transpose()
    }
}

/// Reads a value; a member that its type does not know would be lost without a word, so it is refused.
fn strictly<T: DeserializeOwned>(name: &'static str, value: Value) -> Result<T, CallError> {
    let mut ignored = BTreeSet::new();
    let read = serde_ignored::deserialize(value, |path| {
        ignored.insert(path.to_string());
    });
    let read = read.map_err(|error: serde_json::Error| CallError::param(name, error.to_string()))?;
    match ignored.pop_first() {
        None => Ok(read),
        Some(path) => Err(CallError::param(name, format!("has the unknown member {path:?}"))),
    }
}

/// The time of a call: the clock's, when it is left out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now(pub(crate) DateTime<Utc>);

impl Param for Now {
    const TYPE: &'static str = <DateTime<Utc> as Json>::NAME;
    const REQUIRED: bool = false;

    fn read(name: &'static str, value: Option<Value>, clock: Clock) -> Result<Self, CallError> {
        let given = Option::<DateTime<Utc>>::read(name, value, clock)?;
        Ok(Now(given.unwrap_or_else(|| clock.now())))
    }
}

/// A length of time, as text.
#[derive(Debug, Clone, Copy, serde::Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Length(pub(crate) Duration);

impl TryFrom<String> for Length {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        window::parse_length("length", &text).map(Length)
    }
}

/// A page from its two parameters.
pub(crate) fn page(limit: Option<usize>, cursor: Option<Cursor>) -> Result<PageRequest> {
    let first = PageRequest::first(limit.unwrap_or(page::DEFAULT_PAGE))?;
    Ok(match cursor {
        Some(cursor) => first.after(cursor),
        None => first,
    })
}

/// One call inside a `transaction` or a `snapshot`.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct InnerCall {
    pub(crate) method: String,
    #[serde(default)]
    pub(crate) params: Map<String, Value>,
}

macro_rules! types {
    ($($name:literal: $doc:literal => $($type:ty),+;)*) => {
        /// The types of parameters, each with what it looks like in JSON.
        pub(crate) const TYPES: &[(&str, &str)] = &[$(($name, $doc)),*];
        $($(impl Json for $type { const NAME: &'static str = $name; })+)*
    };
}

types! {
    "id": "a string of 1 to 255 bytes without control characters" =>
        SkillId, AgentId, VersionId, RunId, ReservationId, PrincipalId, WorkerId, ChannelId, Name;
    "time": "an RFC 3339 string, to the nanosecond; a `now` that is left out is the clock's" => DateTime<Utc>;
    "length": "a string of digits and a unit: `7d`, `12h`, `90m`, `30s`, `250ms`, `1us`, `1ns`" => Length;
    "amount": "an integer: millionths of a unit" => Amount;
    "integer": "a whole number, not negative" => usize;
    "boolean": "`true` or `false`" => bool;
    "path": "a string: a file's path as the process that serves sees it" => PathBuf;
    "cursor": "a string: the `next_cursor` of the page before" => Cursor;
    "token": "an integer: the `token` of a lease" => LeaseToken;
    "digest": "a string: `hmac-sha256:KEY_ID:64 hex digits`" => SecretDigest;
    "expect": "`\"any\"`, `\"absent\"` or `{\"revision\": N}`: what must be stored for the call to happen" => Expect;
    "skill": "an object: `id`, `owner`, `name` and whatever else a skill has; unknown members are kept" => Skill;
    "agent": "an object: `id`, `owner`, `name` and whatever else an agent has; unknown members are kept" => Agent;
    "new_version": "an object: `id`, `snapshot` (the whole document), `saved_by`, `saved_at`; `label`, `summary`, `pinned`" =>
        NewVersion<Skill>, NewVersion<Agent>;
    "definition_filter": "an object: `owner`, `visible_to`, `exposed_to_chat`, `tag`, `scheduled`; each may be left out" =>
        DefinitionFilter;
    "account": "an object: `caller`, `meter`: {`name`, `window` (`rollover:7d`, `sliding:7d/168`)}" => Account;
    "charge": "an object: `account`, `amount`, and a `key` that makes it happen once" => Charge;
    "reservation": "an object: `id`, `account`, `estimate`, `expires_at`" => Reservation;
    "new_run": "an object: `id`, `caller`, `started_at`; `parent`, `skill`, `agent`, `channel`, `input`" => NewRun;
    "finish": "an object: `outcome` (`succeeded`, `failed`, `cancelled`, `abandoned`), `finished_at`; `output`, `error`, `tokens`: {`input`, `output`}, `cost`" =>
        Finish;
    "new_event": "an object: `kind`, `at`; `payload`" => NewEvent;
    "run_filter": "an object: `skill`, `agent`, `caller`, `channel`, `status`, `from`, `to`, `top_level`; each may be left out" =>
        RunFilter;
    "group_by": "`\"nothing\"`, `\"skill\"`, `\"agent\"`, `\"caller\"`, `\"channel\"`, `\"status\"` or `\"day\"`" => GroupBy;
    "skills": "a list of skill ids" => Vec<SkillId>;
    "checkpoint": "an object: `run`, `iteration`, `updated_at`; `meta` (an object), `state`" => Checkpoint;
    "calls": "a list of objects: `method`, `params`" => Vec<InnerCall>;
}
