//! Campaigns that try to break the engines. Each runs, beside the real configurations, a control that must fail.
//!
//! `cargo run --release -p torture -- <campaign> [--full] [--seed N] [--json]`, or `all` for every short form.

#![allow(clippy::print_stderr)] // a command's own messages

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use campaigns::{ALL, Campaign, Plan};
use report::Line;

mod campaigns;
mod report;

/// Tries to break the engines.
#[derive(Debug, Parser)]
struct Args {
    /// The campaign, or `all`, or `list`.
    campaign: String,
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

fn main() -> ExitCode {
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

/// Runs what was asked for; says whether every line is as it must be.
fn run(args: &Args) -> io::Result<bool> {
    let out = &mut io::stdout();
    if args.campaign == "list" {
        for campaign in ALL {
            writeln!(out, "{:<14} {}", campaign.name, campaign.about)?;
        }
        return Ok(true);
    }
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
