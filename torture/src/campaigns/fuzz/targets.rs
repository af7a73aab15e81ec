//! What is fuzzed: a function for each format. An error is a fault; input that is refused is none.

use std::fmt::{Debug, Display};
use std::str::{self, FromStr};
use std::sync::{Arc, LazyLock};

use contract_tests::fixture::{at, id};
use contract_tests::laws::moves;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use store::transfer::{self, Digesting, Digests};
use store::{
    Agent, AgentId, Amount, ChannelId, Cursor, Definition, Error, ErrorKind, GroupBy, IdempotencyKey, List,
    MeterName, Name, Page, PageRequest, PrincipalId, Record, ReservationId, RunFilter, RunId, RunStatus,
    SecretDigest, Skill, SkillId, Store, Tag, VersionId, Window, WorkerId, describe, json as strict,
};
use store_files::FileError;

/// A fault, told.
type Outcome = Result<(), String>;

/// A format and what is done with input of it.
pub(super) struct Target {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    /// Which engine the input gets to.
    pub(super) engine: &'static str,
    /// The folders with the kept inputs, seen from this crate. The first is the target's own.
    pub(super) corpus: &'static [&'static str],
    /// Its share of all inputs: the dearer one is, the fewer.
    pub(super) percent: u64,
    pub(super) check: fn(&[u8]) -> Outcome,
}

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "documents",
        about: "documents and records: what is valid reads back the same",
        engine: "all",
        corpus: &["corpus/documents"],
        percent: 20,
        check: documents,
    },
    Target {
        name: "cursors",
        about: "cursors, also with a right checksum: pages end",
        engine: "memory",
        corpus: &["corpus/cursors"],
        percent: 20,
        check: cursors,
    },
    Target {
        name: "ids",
        about: "ids and other text forms: the same as text and in JSON, there and back",
        engine: "all",
        corpus: &["corpus/ids"],
        percent: 20,
        check: ids,
    },
    Target {
        name: "urls",
        about: "URLs: an engine and a plain path, or refused",
        engine: "all",
        corpus: &["corpus/urls"],
        percent: 20,
        check: urls,
    },
    Target {
        name: "rpc",
        about: "JSON-RPC sessions: every request answered, and what was stored can be moved",
        engine: "memory",
        corpus: &["corpus/rpc"],
        percent: 7,
        check: rpc,
    },
    Target {
        name: "imports",
        about: "exports, also with right checksums: all or nothing, and the next export is the same",
        engine: "memory",
        corpus: &["corpus/imports"],
        percent: 3,
        check: imports,
    },
    Target {
        name: "front-matter",
        about: "definition files: what they say, written as JSON, reads back the same",
        engine: "all",
        corpus: &["corpus/front-matter", "../store-files/tests/corpus"],
        percent: 10,
        check: front_matter,
    },
];

fn told(error: impl std::error::Error) -> String {
    describe(&error)
}

/// The value, or nothing for a refusal. No input damages a store in memory or makes it fail.
fn unless_refused<T>(result: store::Result<T>) -> Result<Option<T>, String> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Backend) => Err(told(error)),
        Err(_) => Ok(None),
    }
}

fn memory() -> Result<Arc<dyn Store>, String> {
    store::open("memory:").map_err(told)
}

/// Documents and records: what is valid reads back the same.
pub fn documents(input: &[u8]) -> Outcome {
    let Ok(text) = str::from_utf8(input) else { return Ok(()) };
    round_trip::<Skill>(text, Definition::validate)?;
    round_trip::<Agent>(text, Definition::validate)?;
    round_trip::<Record>(text, |_| Ok(()))
}

fn round_trip<T>(text: &str, validate: fn(&T) -> store::Result<()>) -> Outcome
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let valid = strict::parse_as::<T>("document", text).and_then(|record| validate(&record).map(|()| record));
    let Some(record) = unless_refused(valid)? else { return Ok(()) };
    let written = strict::encode(&record).map_err(told)?;
    let back: T = strict::decode(|| "what was written".to_owned(), &written).map_err(told)?;
    if back != record || strict::encode(&back).map_err(told)? != written {
        return Err(format!("{record:?} was written as {written} and read as {back:?}"));
    }
    Ok(())
}

macro_rules! as_they_are {
    ($text:ident: $($id:ty),*) => {$(
        if let Ok(id) = <$id>::new($text) && id.as_str() != $text {
            return Err(format!("{} is {id:?}", stringify!($id)));
        }
        text_form::<$id>($text)?;
    )*};
}

/// Ids and other text forms: the same as text and in JSON, there and back.
pub fn ids(input: &[u8]) -> Outcome {
    let Ok(text) = str::from_utf8(input) else { return Ok(()) };
    as_they_are!(text: SkillId, AgentId, VersionId, RunId, ReservationId, PrincipalId, WorkerId, ChannelId, Name,
        MeterName, Tag, IdempotencyKey);
    text_form::<Window>(text)?;
    text_form::<SecretDigest>(text)?;
    text_form::<RunStatus>(text)?;
    text_form::<Cursor>(text)?;
    // In JSON an amount is a number.
    match text.parse::<Amount>() {
        Ok(amount) if !amount.to_string().parse::<Amount>().is_ok_and(|back| back == amount) => {
            Err(format!("{amount:?} is shown as {amount}"))
        }
        _ => Ok(()),
    }
}

/// What has a text form has the same one in JSON, and is read back from what it is shown as.
fn text_form<T>(text: &str) -> Outcome
where
    T: FromStr<Err = Error> + Display + Serialize + DeserializeOwned + PartialEq + Debug,
{
    match (text.parse::<T>(), serde_json::from_value::<T>(Value::from(text))) {
        (Err(_), Err(_)) => Ok(()),
        (Ok(value), Ok(in_json)) if value == in_json => {
            let shown = value.to_string();
            let written = serde_json::to_value(&value).map_err(told)?;
            if written == shown && shown.parse::<T>().is_ok_and(|back| back == value) {
                return Ok(());
            }
            Err(format!("{value:?} is shown as {shown} and written as {written}"))
        }
        (as_text, in_json) => Err(format!("as text {as_text:?}, in JSON {in_json:?}")),
    }
}

/// URLs: an engine and a plain path, or refused.
pub fn urls(input: &[u8]) -> Outcome {
    let Ok(text) = str::from_utf8(input) else { return Ok(()) };
    let Some((scheme, path)) = unless_refused(store::take_apart(text))? else { return Ok(()) };
    let plain = match scheme {
        "memory" => path.is_empty(),
        _ => {
            let odd_start =
                ["//", ":", "file:"].iter().any(|start| path.to_ascii_lowercase().starts_with(start));
            !path.trim().is_empty() && !path.contains('\0') && !odd_start
        }
    };
    if plain && format!("{scheme}:{path}") == text {
        return Ok(());
    }
    Err(format!("taken for the path {path:?} of {scheme}"))
}

/// A store with some of everything. No target writes to it.
static FILLED: LazyLock<Result<Arc<dyn Store>, String>> = LazyLock::new(|| {
    let store = memory()?;
    moves::fill(&*store);
    Ok(store)
});

/// More items than any list of the filled store has.
const MANY: usize = 1_000;

/// A cursor: as text, or as JSON its list and position, which get the checksum that lets them pass.
pub fn cursors(input: &[u8]) -> Outcome {
    let Ok(text) = str::from_utf8(input) else { return Ok(()) };
    let text = match serde_json::from_str::<(List, Value)>(text) {
        Ok((list, position)) => Cursor::new(list, &position).map_err(told)?.to_string(),
        Err(_) => text.to_owned(),
    };
    let Some(cursor) = unless_refused(text.parse::<Cursor>())? else { return Ok(()) };
    let store = FILLED.as_ref().map_err(Clone::clone)?;
    LISTS.iter().try_for_each(|list| to_the_end(|page| list(&**store, page), &cursor))
}

/// Goes on from a cursor to the last page. A cursor that a page gave is good, and there is an end.
fn to_the_end(list: impl Fn(&PageRequest) -> store::Result<Read>, from: &Cursor) -> Outcome {
    let limit = 5;
    let first = PageRequest::first(limit).map_err(told)?;
    let Some(mut read) = unless_refused(list(&first.clone().after(from.clone())))? else { return Ok(()) };
    for _ in 0..MANY {
        match read {
            Read { items, .. } if items > limit => return Err(format!("{items} items on a page of {limit}")),
            Read { next: None, .. } => return Ok(()),
            Read { next: Some(next), .. } => read = list(&first.clone().after(next)).map_err(told)?,
        }
    }
    Err("the pages do not end".to_owned())
}

/// What is looked at of a page.
struct Read {
    items: usize,
    next: Option<Cursor>,
}

fn read<T>(page: store::Result<Page<T>>) -> store::Result<Read> {
    page.map(|page| Read { items: page.items.len(), next: page.next })
}

/// How a page of a list is read.
type ReadList = fn(&dyn Store, &PageRequest) -> store::Result<Read>;

/// The lists there are.
const LISTS: [ReadList; 13] = [
    |store, page| read(store.skills().list(&Default::default(), page)),
    |store, page| read(store.agents().list(&Default::default(), page)),
    |store, page| read(store.skills().versions(&id("b"), page)),
    |store, page| read(store.agents().versions(&id("a"), page)),
    |store, page| read(store.skills().due(at(1_000), page)),
    |store, page| read(store.agents().due(at(1_000), page)),
    |store, page| read(store.agents().by_channel(&id("c"), page)),
    |store, page| read(store.budgets().accounts(at(31), page)),
    |store, page| read(store.audit().runs(&RunFilter::default(), page)),
    |store, page| read(store.audit().children(&id("r1"), page)),
    |store, page| read(store.audit().events(&id("r1"), page)),
    |store, page| read(store.audit().summary(&RunFilter::default(), GroupBy::Status, page)),
    |store, page| read(store.checkpoints().interrupted(page)),
];

/// A session of several lines, on a store of its own.
pub fn rpc(input: &[u8]) -> Outcome {
    let store = memory()?;
    for line in input.split(|byte| *byte == b'\n') {
        let requests = match serde_json::from_slice(line) {
            Ok(Value::Array(batch)) => batch,
            Ok(request) => vec![request],
            Err(_) => Vec::new(),
        };
        let opens_a_file = |request: &Value| request["method"].as_str().is_some_and(store_cli::opens_a_file);
        if requests.iter().any(opens_a_file) {
            continue;
        }
        let is_note = |request: &Value| request.is_object() && request.get("id").is_none();
        match store_cli::answer_line(&*store, at(0), line) {
            Some(Value::Array(answers)) => answers.iter().try_for_each(is_answer)?,
            Some(answer) => is_answer(&answer)?,
            None if !requests.is_empty() && requests.iter().all(is_note) => {}
            None => return Err(format!("no answer to {}", line.escape_ascii())),
        }
    }
    moved(&*store)
}

/// An answer is a result or an error, and no error says that the store is damaged or failed.
fn is_answer(answer: &Value) -> Outcome {
    let kind = answer["error"]["data"]["kind"].as_str();
    let one = answer.get("result").is_some() != answer.get("error").is_some();
    if answer["jsonrpc"] == "2.0"
        && answer.get("id").is_some()
        && one
        && !matches!(kind, Some("corrupt" | "backend"))
    {
        return Ok(());
    }
    Err(format!("answered with {answer}"))
}

fn exported(store: &dyn Store) -> Result<Vec<u8>, String> {
    let mut file = Vec::new();
    store_cli::export(store, &mut file).map_err(told)?;
    Ok(file)
}

/// A store is sound and can be read, and its export makes one that exports the same.
fn moved(store: &dyn Store) -> Outcome {
    store.verify().and_then(|found| found.require_sound("the store")).map_err(told)?;
    for list in LISTS {
        unless_refused(list(store, &PageRequest::default()))?;
    }
    let file = exported(store)?;
    let copy = memory()?;
    store_cli::import(&*copy, file.as_slice()).map_err(told)?;
    if exported(&*copy)? == file {
        return Ok(());
    }
    Err(format!("another export after the import of {}", file.escape_ascii()))
}

/// An export as it is, and its lines as records of one whose checksums are right.
pub fn imports(input: &[u8]) -> Outcome {
    imported(input)?;
    let (file, digests) = sealed(input)?;
    match imported(&file)? {
        Some(store) if transfer::digests(&*store, &mut |_| {}).map_err(told)? != digests => {
            Err("what is stored is not what the file says".to_owned())
        }
        _ => Ok(()),
    }
}

fn imported(file: &[u8]) -> Result<Option<Arc<dyn Store>>, String> {
    let store = memory()?;
    if unless_refused(store_cli::import(&*store, file))?.is_some() {
        return moved(&*store).map(|()| Some(store));
    }
    if exported(&*store)? != exported(&*memory()?)? {
        return Err("something is left of an import that was refused".to_owned());
    }
    Ok(None)
}

/// Lines as EXPORT.md has them: between header and trailer, each with its checksum. Without it no changed line would
/// get as far as the store.
fn sealed(input: &[u8]) -> Result<(Vec<u8>, Digests), String> {
    let text = String::from_utf8_lossy(input);
    let mut digesting = Digesting::new();
    let header = json!({ "format": "store-export", "version": 1 }).to_string();
    let mut lines = vec![header.as_str()];
    for line in text.lines() {
        if let Ok(record) = strict::parse_as::<Record>("record", line) {
            digesting.add(&record).map_err(told)?;
        }
        lines.push(line);
    }
    let (records, digests) = (digesting.records(), digesting.finish());
    let trailer = json!({ "type": "end", "end": { "records": records, "digests": digests } }).to_string();
    lines.push(&trailer);
    let seal = |(number, line): (u64, &str)| {
        let rest = line.strip_prefix('{').unwrap_or(line);
        let sum = strict::checksum(&[&number.to_be_bytes(), rest.as_bytes()]);
        format!("{{\"sum\":\"{sum:016x}\",{rest}\n")
    };
    let file: String = (1..).zip(lines).map(seal).collect();
    Ok((file.into_bytes(), digests))
}

/// Definition files: what they say, written as JSON, reads back the same.
pub fn front_matter(input: &[u8]) -> Outcome {
    written_again(input, |bytes| store_files::parse_skill("folder/SKILL.md", bytes))?;
    written_again(input, |bytes| store_files::parse_agent("agent.md", bytes))
}

/// The longest front matter that is written again: YAML takes no key of more than 1,024 characters.
const MAX_WRITTEN: usize = 1_000;

fn written_again<F: Serialize>(input: &[u8], parse: impl Fn(&[u8]) -> Result<F, FileError>) -> Outcome {
    let Ok(file) = parse(input) else { return Ok(()) };
    let (keys, body) = said(&file)?;
    let front = in_ascii(&strict::encode(&keys).map_err(told)?);
    if front.len() > MAX_WRITTEN {
        return Ok(());
    }
    let written = format!("---\n{front}\n---\n{body}");
    let back = said(&parse(written.as_bytes()).map_err(told)?)?;
    if back == (keys, body) { Ok(()) } else { Err(format!("{written:?} says {back:?}")) }
}

/// What a file says: its keys, by the names that they have there, and its body.
fn said(file: &impl Serialize) -> Result<(Map<String, Value>, String), String> {
    let mut keys: Map<String, Value> =
        serde_json::to_value(file).and_then(serde_json::from_value).map_err(told)?;
    let body = keys.remove("body").unwrap_or_default();
    let extra = keys.remove("extra").unwrap_or_default();
    keys.retain(|key, value| {
        let empty = value.is_null() || *value == json!([]) || *value == json!({});
        !empty && key != "path" && key != "warnings"
    });
    if let Some(tools) = keys.remove("allowed_tools") {
        keys.insert("allowed-tools".to_owned(), tools);
    }
    keys.extend(extra.as_object().cloned().unwrap_or_default());
    Ok((keys, body.as_str().unwrap_or_default().to_owned()))
}

/// JSON is YAML as long as every character is printable.
fn in_ascii(text: &str) -> String {
    let escaped = |c: char| match c {
        ' '..='~' => c.to_string(),
        c => format!("\\U{:08x}", u32::from(c)),
    };
    text.chars().map(escaped).collect()
}
