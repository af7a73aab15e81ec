//! Measures each engine against the bare database beneath it, doing the same durable work by hand, in turn in one run.
//!
//! `cargo run --release -p store-bench -- [case…] --engines sqlite,redb,memory --clients 1,4,16,64 --json`

#![allow(clippy::print_stderr)] // a command's own messages

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use engine::Engine;
use report::Printer;
use runner::Config;
use subject::Result;

mod bare;
mod cases;
mod data;
mod engine;
mod measure;
mod report;
mod runner;
mod subject;
mod targets;

/// Measures the engines against the bare databases beneath them.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// The cases; all when none is named.
    cases: Vec<String>,
    /// The engines.
    #[arg(long, value_delimiter = ',', default_value = "sqlite,redb,memory")]
    engines: Vec<Engine>,
    /// How many clients at once.
    #[arg(long, value_delimiter = ',', default_value = "1,4,16,64")]
    clients: Vec<usize>,
    /// How many rounds, ours and bare in turn in each.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long each of the two takes in a round.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Where the stores are made, on the disk to be measured.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// One JSON object a line instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Names the cases.
    List,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("store-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    match &args.command {
        Some(Command::List) => list(),
        None => measure(args),
    }
}

fn list() -> Result<()> {
    let mut out = io::stdout();
    for case in cases::ALL {
        writeln!(out, "{:<24} {}", case.name, case.about)?;
    }
    Ok(())
}

fn measure(args: &Args) -> Result<()> {
    if let Some(unknown) = args.cases.iter().find(|name| cases::ALL.iter().all(|case| case.name != **name)) {
        return Err(format!("no case is called {unknown:?}; `list` names them").into());
    }
    let config = Config {
        engines: args.engines.clone(),
        clients: args.clients.clone(),
        rounds: args.rounds,
        length: Duration::try_from_secs_f64(args.seconds)?,
        directory: args.dir.clone(),
        printer: Printer { is_json: args.json },
    };
    config.printer.head()?;
    for case in
        cases::ALL.iter().filter(|case| args.cases.is_empty() || args.cases.iter().any(|n| n == case.name))
    {
        runner::run(case, &config)?;
    }
    Ok(())
}
