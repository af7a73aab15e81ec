//! What `storectl` is made of: a program, not a library. What is public here is for the program and for the campaign
//! that fuzzes what it reads, and may change at any time.
#![doc(hidden)]

mod args;
mod clock;
mod commands;
mod exit;
mod key;
mod lines;
mod progress;
mod render;
mod rpc;
mod transfer;

use std::io::{self, BufRead, Write};
use std::process::ExitCode;

use chrono::{DateTime, Utc};
use clap::Parser;
use serde_json::Value;
use store::{ImportReport, Store};

use crate::args::Cli;
use crate::clock::Clock;
use crate::exit::{Code, Failure};

/// Runs the program, from the arguments of the process to its exit code.
pub fn main() -> ExitCode {
    // The arguments may be what is wrong, so whether errors are to be JSON is asked of the raw ones.
    let json = std::env::args_os().any(|arg| arg == "--json");
    let result = match Cli::try_parse() {
        Ok(cli) => commands::run(cli),
        Err(refused) if refused.use_stderr() => {
            Err(Failure::Usage(refused.to_string().trim_end().to_owned()))
        }
        Err(help) => write_out(&help.to_string()).map(|()| Code::Fine),
    };
    let code = match result {
        Ok(code) => code,
        Err(failure) => {
            if let Some(message) = failure.message(json) {
                // There is no one left to tell when standard error is gone too; the exit code still says it.
                drop(writeln!(io::stderr().lock(), "{message}"));
            }
            failure.code()
        }
    };
    code.into()
}

/// Writes to standard output, to the end.
fn write_out(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// The answer to one line of an `rpc` session in which time stands still; nothing for notifications.
pub fn answer_line(store: &dyn Store, now: DateTime<Utc>, line: &[u8]) -> Option<Value> {
    rpc::answer_line(store, Clock::at(now), line)
}

/// Whether a method of `rpc` opens a file that its caller names.
pub fn opens_a_file(method: &str) -> bool {
    rpc::find(method).is_some_and(|method| method.params.iter().any(|param| param.type_name == "path"))
}

/// Writes an export, not compressed.
///
/// # Errors
/// As [`Store::export`], and `Backend` when `out` cannot be written.
pub fn export(store: &dyn Store, out: &mut impl Write) -> store::Result<()> {
    transfer::export(store, out).map(drop)
}

/// Reads an export, not compressed, into an empty store: all of it, or nothing.
///
/// # Errors
/// As [`Store::import`], and `InvalidInput` naming the line for what is no export.
pub fn import(store: &dyn Store, input: impl BufRead + Send) -> store::Result<ImportReport> {
    transfer::import(store, input)
}
