//! `storectl`: look into a store, change it, move it, serve it.

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

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use crate::args::Cli;
use crate::exit::{Code, Failure};

fn main() -> ExitCode {
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
