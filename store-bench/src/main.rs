//! Measures each engine against the bare database beneath it, doing the same durable work by hand, in turn in one run.
//!
//! `cargo run --release -p store-bench -- [case…] --engines sqlite,redb,memory --clients 1,4,16,64 --json`

#![allow(clippy::print_stderr)] // a command's own messages

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use fault_disk::Delay;

use cases::{ALL, Case};
use engine::Engine;
use report::Printer;
use runner::Config;
use subject::Result;

mod bare;
mod cases;
mod data;
mod engine;
mod measure;
mod peers;
mod plot;
mod population;
mod report;
mod runner;
mod scale;
mod subject;
mod tables;
mod targets;

/// Measures the engines against the bare databases beneath them.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    /// The cases; all when none is named.
    cases: Vec<String>,
    /// The engines.
    #[arg(long, value_delimiter = ',', default_value = "sqlite,redb,memory")]
    engines: Vec<Engine>,
    /// How many clients at once, where they write.
    #[arg(long, value_delimiter = ',', default_value = "1,4,16,64")]
    clients: Vec<usize>,
    /// How many clients at once, where they read.
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    readers: Vec<usize>,
    /// How many rounds, ours and bare in turn in each; small stores are made anew for each.
    #[arg(long, default_value_t = 13)]
    rounds: usize,
    /// How long each of the two takes in a round.
    #[arg(long, default_value_t = 0.4)]
    seconds: f64,
    /// How large the large stores are, in records.
    #[arg(long, default_value = "1e6", value_parser = size)]
    large: u64,
    /// Instead of cases: the cost of a few operations in stores of these sizes.
    #[arg(long, value_delimiter = ',', value_parser = size, conflicts_with = "cases")]
    scale: Vec<u64>,
    /// Makes every flush take so much longer, such as 1ms.
    #[arg(long, value_parser = length)]
    delay_flush: Option<Duration>,
    /// Every case on tiny data, as fast as it goes: whether it runs and answers are right, not how fast it is.
    #[arg(long)]
    smoke: bool,
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
    /// Measures ours beside peers from their registries.
    Peers(peers::Args),
    /// Draws plots of saved lines.
    Plot {
        /// The lines, as `--json` prints them.
        file: PathBuf,
        /// Where the plots go.
        directory: PathBuf,
    },
    /// Prints the tables of PERFORMANCE.md that saved lines make.
    Tables {
        /// The lines, as `--json` prints them.
        file: PathBuf,
        /// Puts them into their places in this document instead.
        #[arg(long)]
        into: Option<PathBuf>,
    },
    /// Makes one copy in a process of its own.
    #[command(hide = true)]
    Job(cases::copy::Job),
}

fn size(text: &str) -> std::result::Result<u64, String> {
    match text.parse::<f64>() {
        Ok(size) if (1.0..1e12).contains(&size) => Ok(size as u64),
        _ => Err("is no size such as 1e6".into()),
    }
}

fn length(text: &str) -> std::result::Result<Duration, String> {
    store_api::window::parse_length("length", text).map_err(|error| error.to_string())
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match &args.command {
        Some(Command::List) => list(),
        Some(Command::Peers(args)) => peers::run(args),
        Some(Command::Plot { file, directory }) => plot(file, directory),
        Some(Command::Tables { file, into }) => print_tables(file, into.as_deref()),
        Some(Command::Job(job)) => cases::copy::run_job(job),
        None => measure(&args.run),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("store-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn list() -> Result<()> {
    let mut out = io::stdout();
    for case in ALL {
        writeln!(out, "{:<16} {}", case.name, case.about)?;
    }
    Ok(())
}

fn plot(file: &Path, directory: &Path) -> Result<()> {
    for name in plot::write(&tables::read(file)?, directory)? {
        writeln!(io::stdout(), "{}", directory.join(name).display())?;
    }
    Ok(())
}

fn print_tables(file: &Path, into: Option<&Path>) -> Result<()> {
    let tables = tables::render(&tables::read(file)?)?;
    match into {
        Some(document) => {
            let filled = tables::put_into(&std::fs::read_to_string(document)?, &tables)?;
            std::fs::write(document, filled)?;
        }
        None => {
            for (name, table) in tables {
                writeln!(io::stdout(), "{name}\n\n{table}")?;
            }
        }
    }
    Ok(())
}

fn measure(args: &RunArgs) -> Result<()> {
    if let Some(unknown) = args.cases.iter().find(|name| ALL.iter().all(|case| case.name != **name)) {
        return Err(format!("no case is called {unknown:?}; `list` names them").into());
    }
    let is_asked = |case: &&Case| args.cases.is_empty() || args.cases.iter().any(|name| name == case.name);
    let cases: Vec<_> = ALL.iter().filter(is_asked).collect();
    let config = config(args)?;
    config.printer.head()?;
    if args.scale.is_empty() {
        runner::run(&cases, &config)?;
    } else {
        scale::run(&args.scale, &config)?;
    }
    if args.smoke {
        scale::run(&[1_000, 2_000], &config)?;
    }
    Ok(())
}

fn config(args: &RunArgs) -> Result<Config> {
    let delay = args.delay_flush.map(Delay);
    let config = Config {
        engines: args.engines.clone(),
        clients: args.clients.clone(),
        readers: args.readers.clone(),
        rounds: args.rounds,
        length: Duration::try_from_secs_f64(args.seconds)?,
        large: args.large,
        delay,
        flush_us: measure::flush_us(&args.dir, delay)?,
        directory: args.dir.clone(),
        printer: Printer { is_json: args.json },
    };
    if !args.smoke {
        return Ok(config);
    }
    let length = Duration::from_millis(10);
    Ok(Config { clients: vec![2], readers: vec![2], rounds: 1, length, large: 2_000, ..config })
}
