//! The verbs about the store as a whole.

use std::io::{self, BufReader};
use std::path::Path;

use serde_json::json;
use store::{Error, Verification};

use super::{Answer, Call, Context};
use crate::args::Noun;
use crate::exit::{Code, Failure};
use crate::render::{Cell, Column, Look, column, render};
use crate::{rpc, transfer};

const PROBLEMS: &[Column] = &[column("WHAT", "/what", Cell::Text), column("PROBLEM", "/detail", Cell::Text)];

pub(super) fn run(noun: Noun, context: &Context) -> Result<Code, Failure> {
    match noun {
        Noun::Verify => verify(context),
        Noun::Backup { to } => {
            let call = Call::new("store.backup").with("to", to);
            context.say(context.answer(call, Look::Said("written"))?)
        }
        Noun::Export { to } => export(to.as_deref().unwrap_or("-"), context),
        Noun::Import { from } => import(&from, context),
        Noun::Info => context.say(context.answer(Call::new("store.info"), Look::Record)?),
        Noun::Rpc => serve(context),
        Noun::Skill(_)
        | Noun::Agent(_)
        | Noun::Budget(_)
        | Noun::Run(_)
        | Noun::Checkpoint(_)
        | Noun::Copy(_) => {
            Err(Error::Unsupported { operation: "a verb that is done elsewhere".into() }.into())
        }
    }
}

/// Problems are the answer and not an error, but the exit code tells.
fn verify(context: &Context) -> Result<Code, Failure> {
    let value = context.call(Call::new("store.verify"))?;
    let found: Verification = serde_json::from_value(value.clone())
        .map_err(|error| Error::backend("reading the verification", error))?;
    let text = if found.is_sound() {
        format!("sound; records read: {}", found.records)
    } else {
        let problems = render(Look::Table(PROBLEMS), &value["problems"], context.now);
        format!("{problems}problems: {}", found.problems_found)
    };
    let code = if found.is_sound() { Code::Fine } else { Code::Corrupt };
    context.say(Answer::told(value, text).with_code(code))
}

/// To a file, or to standard output; the records are not the one document that `--json` promises.
fn export(to: &str, context: &Context) -> Result<Code, Failure> {
    if to != "-" {
        let call = Call::new("store.export").with("to", to);
        let mut exported = context.call(call)?;
        let look = Look::Said("records written:");
        let value = if context.json { exported } else { exported["records"].take() };
        return context.say(Answer::new(value, look));
    }
    if context.json {
        let reason = "an export is many JSON documents: with --json, name a file for it";
        return Err(Failure::Usage(reason.into()));
    }
    let store = context.open(false)?;
    // A reader that left is no fault of the store: it is told apart from what the store says.
    let mut out = Watched { out: io::stdout().lock(), error: None };
    match (transfer::export(&*store, &mut out), out.error) {
        (_, Some(error)) => Err(Failure::Output(error)),
        (Err(error), None) => Err(error.into()),
        (Ok(_), None) => Ok(store.close().map(|()| Code::Fine)?),
    }
}

/// Remembers the first error of writing, which an export passes on as one of the store's.
struct Watched<W> {
    out: W,
    error: Option<io::Error>,
}

impl<W: io::Write> Watched<W> {
    fn watch<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        result.map_err(|error| {
            let kind = error.kind();
            self.error.get_or_insert(error);
            kind.into()
        })
    }
}

impl<W: io::Write> io::Write for Watched<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = self.out.write(bytes);
        self.watch(result)
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.out.flush();
        self.watch(result)
    }
}

fn import(from: &str, context: &Context) -> Result<Code, Failure> {
    let store = context.open(true)?;
    let report = match from {
        "-" => transfer::import(&*store, BufReader::new(io::stdin())),
        path => transfer::import_from_file(&*store, Path::new(path)),
    }?;
    store.close()?;
    if context.json {
        return context.say(Answer::new(json!(report), Look::Record));
    }
    context.say(Answer::new(json!(report.total()), Look::Said("records stored:")))
}

fn serve(context: &Context) -> Result<Code, Failure> {
    let store = context.open(true)?;
    rpc::serve(&*store, context.clock, io::stdin().lock(), io::stdout().lock())?;
    Ok(store.close().map(|()| Code::Fine)?)
}
