//! Campaigns that try to break the engines. Each runs, beside the real configurations, a control that must fail.
//!
//! `cargo run --release -p torture -- <campaign> [--full] [--seed N] [--json]`, or `all` for every short form.
//! `table FILE` turns lines that were saved with `--json` into the table of RELIABILITY.md.
//!
//! A library too, because the fuzz targets in `fuzz/` run the same [`checks`] as the campaigns.

#![allow(clippy::print_stderr)] // a command's own messages

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use campaigns::{ALL, Campaign, Plan};
use report::Line;

mod campaigns;
mod crew;
mod cut;
mod engines;
mod lab;
mod mount;
mod place;
mod report;
mod rng;
mod simulation;
mod story;
mod tool;
mod workload;

/// What is done with input from outside. An error is a fault; input that is refused is none.
pub mod checks {
    pub use crate::campaigns::fuzz::targets::{cursors, documents, front_matter, ids, imports, rpc, urls};
    pub use crate::campaigns::model::operations;
}

/// Tries to break the engines.
#[derive(Debug, Parser)]
struct Args {
    /// The campaign, or `all`, or `list`, or `table`.
    campaign: String,
    /// For `table`: the file with the lines.
    file: Option<PathBuf>,
    /// The full form: the counts that stand in RELIABILITY.md, which take long.
    #[arg(long)]
    full: bool,
    /// Where the random numbers start. A run prints its seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many to try, instead of what the form says.
    #[arg(long)]
    count: Option<u64>,
    /// Only this engine.
    #[arg(long)]
    engine: Option<String>,
    /// One JSON object a line instead of a table.
    #[arg(long)]
    json: bool,
}

/// The first argument of a process that a campaign starts.
const CHILD: &str = "child";

/// The command: does what the arguments of the process say.
pub fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [child, name, arguments @ ..] = words.as_slice()
        && child == CHILD
    {
        return run_child(name, arguments);
    }
    let args = Args::parse();
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("torture: {error}");
            ExitCode::from(2)
        }
    }
}

fn run_child(name: &str, arguments: &[String]) -> ExitCode {
    match ALL.iter().find(|campaign| campaign.name == name).and_then(|campaign| campaign.child) {
        Some(child) => {
            child(arguments);
            ExitCode::SUCCESS
        }
        None => ExitCode::from(2),
    }
}

/// Does what was asked for; says whether it ended well.
fn run(args: &Args) -> io::Result<bool> {
    fault_disk::sqlite::count_no_memory()?;
    let out = &mut io::stdout();
    match (args.campaign.as_str(), &args.file) {
        ("list", None) => list(out).map(|()| true),
        ("table", Some(file)) => table(out, file).map(|()| true),
        (_, None) => try_to_break(args, out),
        (other, Some(_)) => Err(io::Error::other(format!("{other:?} takes no file; `table` does"))),
    }
}

fn list(out: &mut impl Write) -> io::Result<()> {
    ALL.iter().try_for_each(|campaign| writeln!(out, "{:<14} {}", campaign.name, campaign.about))
}

fn table(out: &mut impl Write, file: &Path) -> io::Result<()> {
    let lines = report::read_json(BufReader::new(File::open(file)?))?;
    report::write_head(out)?;
    lines.iter().try_for_each(|line| report::write_row(out, line))
}

/// Runs the campaigns that were asked for; says whether every line is as it must be.
fn try_to_break(args: &Args, out: &mut impl Write) -> io::Result<bool> {
    let chosen: Vec<&Campaign> =
        ALL.iter().filter(|campaign| args.campaign == "all" || args.campaign == campaign.name).collect();
    if chosen.is_empty() {
        return Err(io::Error::other(format!(
            "no campaign is called {:?}; `list` names them",
            args.campaign
        )));
    }
    let plan = Plan { full: args.full, seed: args.seed, count: args.count, engine: args.engine.clone() };
    if !args.json {
        report::write_head(out)?;
    }
    let (mut good, mut bad, mut failure) = (0, 0, None);
    for campaign in chosen {
        (campaign.run)(&plan, &mut |line: Line| {
            if line.is_as_it_must_be() {
                good += 1
            } else {
                bad += 1
            }
            let written =
                if args.json { report::write_json(out, &line) } else { report::write_row(out, &line) };
            failure = failure.take().or(written.err());
        });
    }
    if !args.json {
        writeln!(out, "{good} passed, {bad} failed")?;
    }
    failure.map_or(Ok(bad == 0), Err)
}
