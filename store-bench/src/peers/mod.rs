//! Peers: what others offer for the same work, from their registries, at equal durability, in turn with ours.
//!
//! A peer is a program in `store-bench/peers`. For each round it is given a new directory with the documents that are
//! stored, opens a database of its own there, warms up, works for as long as ours did, and prints what came of it.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::engine::Engine;
use crate::measure::{Tally, median};
use crate::report::{Judged, Line};
use crate::subject::{Failure, Result};
use install::Runtime;
use ours::Work;

mod install;
mod ours;

/// One operation of a peer, beside the one of ours that does the same for a host.
struct Peer {
    name: &'static str,
    work: Work,
    runtime: Runtime,
    /// What its program is called with before clients, seconds and directory.
    arguments: &'static [&'static str],
    /// What is not the same.
    note: &'static str,
}

const ALL: &[Peer] = &[
    Peer {
        name: "langgraph SqliteSaver.put",
        work: Work::SaveCheckpoint,
        runtime: Runtime::Python,
        arguments: &["langgraph_saver.py", "put"],
        note: "Python, threads behind the saver's lock; keeps every checkpoint where ours keeps the last",
    },
    Peer {
        name: "openai-agents SQLiteSession.add_items",
        work: Work::AppendEvent,
        runtime: Runtime::Python,
        arguments: &["openai_session.py", "add_items"],
        note: "Python, one session for each task, asyncio's thread pool; does not number the items",
    },
    Peer {
        name: "mastra skills.createVersion",
        work: Work::AppendVersion,
        runtime: Runtime::Node,
        arguments: &["mastra.mjs", "skills.createVersion"],
        note: "JavaScript, promises on one thread; the caller gives the number of the version",
    },
    Peer {
        name: "mastra schedules.updateSchedule",
        work: Work::Mark,
        runtime: Runtime::Node,
        arguments: &["mastra.mjs", "schedules.updateSchedule"],
        note: "JavaScript, promises on one thread; reads the schedule back",
    },
    Peer {
        name: "mastra workflows.persistWorkflowSnapshot",
        work: Work::SaveCheckpoint,
        runtime: Runtime::Node,
        arguments: &["mastra.mjs", "workflows.persistWorkflowSnapshot"],
        note: "JavaScript, promises on one thread; one row for each run, as ours",
    },
    Peer {
        name: "sqlx pool insert",
        work: Work::AppendVersion,
        runtime: Runtime::Cargo,
        arguments: &["sqlx"],
        note: "Rust, async; a bare statement that numbers and inserts, a connection for each client",
    },
    Peer {
        name: "apalis-sqlite push",
        work: Work::StartRun,
        runtime: Runtime::Cargo,
        arguments: &["apalis"],
        note: "Rust, async; a job is queued where ours starts a run of the same document",
    },
    Peer {
        name: "fjall transaction",
        work: Work::AppendVersion,
        runtime: Runtime::Cargo,
        arguments: &["fjall"],
        note: "Rust, threads; a log-structured store, numbered and inserted by hand",
    },
    Peer {
        name: "native_db insert",
        work: Work::AppendVersion,
        runtime: Runtime::Cargo,
        arguments: &["native_db"],
        note: "Rust, threads, on redb 2 with one-phase commits where ours makes two; the caller gives the number",
    },
];

/// Measures ours beside peers.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Those whose name contains one of these; all when none is given.
    names: Vec<String>,
    /// How many clients at once.
    #[arg(long, value_delimiter = ',', default_value = "1,16")]
    clients: Vec<usize>,
    /// How many rounds, ours and the peer in turn in each.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long each of them takes in a round.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Where the databases are made, on the disk to be measured.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// One JSON object a line instead of a table.
    #[arg(long)]
    json: bool,
}

/// What a peer's program prints.
#[derive(Debug, Deserialize)]
struct Ran {
    ops: u64,
    seconds: f64,
    p50_us: f64,
    p99_us: f64,
    max_us: f64,
    settings: BTreeMap<String, String>,
}

impl Ran {
    fn ops_per_second(&self) -> f64 {
        self.ops as f64 / self.seconds
    }
}

/// A line of a peer, with what only such lines have.
#[derive(Debug, Serialize)]
struct PeerLine {
    #[serde(flatten)]
    line: Line,
    /// What decides about durability.
    settings: BTreeMap<String, String>,
    note: &'static str,
    ours: OurFigures,
}

#[derive(Debug, Serialize)]
struct OurFigures {
    ops_per_second: f64,
    p50_us: f64,
    p99_us: f64,
    settings: BTreeMap<String, String>,
}

/// Measures every peer that runs here, and says which does not and why.
pub(crate) fn run(args: &Args) -> Result<()> {
    if !args.json {
        let mut out = io::stdout().lock();
        writeln!(
            out,
            "| case | engine | peer | clients | the peer's/s | ours/s | ours over it | p50 us, ours | p99 us, ours | target |"
        )?;
        writeln!(out, "|---|---|---|--:|--:|--:|--:|--:|--:|---|")?;
    }
    let chosen = |peer: &&Peer| args.names.is_empty() || args.names.iter().any(|n| peer.name.contains(&**n));
    let mut programs = BTreeMap::new();
    for peer in ALL.iter().filter(chosen) {
        let program = programs.entry(peer.runtime).or_insert_with(|| peer.runtime.install());
        match program {
            Ok(program) => against(peer, program, args)?,
            Err(error) => skip(peer, error),
        }
    }
    Ok(())
}

fn skip(peer: &Peer, error: &Failure) {
    eprintln!("store-bench: skipped {}: {error}", peer.name);
}

/// The durable engines of ours, each of which is held against every peer.
const OURS: [Engine; 2] = [Engine::Sqlite, Engine::Redb];

fn against(peer: &Peer, program: &Path, args: &Args) -> Result<()> {
    let length = Duration::try_from_secs_f64(args.seconds)?;
    for &clients in &args.clients {
        let mut of_ours = OURS.map(|_| Vec::new());
        let mut of_peer = Vec::new();
        for _ in 0..args.rounds {
            for (engine, rounds) in OURS.iter().zip(&mut of_ours) {
                rounds.push(ours::round(*engine, peer.work, clients, length, &args.dir)?);
            }
            match round(peer, program, clients, args) {
                Ok(ran) => of_peer.push(ran),
                Err(error) => {
                    skip(peer, &error);
                    return Ok(());
                }
            }
        }
        for (engine, rounds) in OURS.iter().zip(&of_ours) {
            report(peer, *engine, clients, rounds, &of_peer, args.json)?;
        }
    }
    Ok(())
}

/// A directory for one database, with the documents that are stored in it.
fn stage(within: &Path) -> Result<TempDir> {
    let directory = tempfile::Builder::new().prefix("store-bench-").tempdir_in(within)?;
    std::fs::write(directory.path().join("documents.json"), serde_json::to_vec(&ours::documents()?)?)?;
    Ok(directory)
}

fn round(peer: &Peer, program: &Path, clients: usize, args: &Args) -> Result<Ran> {
    let directory = stage(&args.dir)?;
    let mut command = Command::new(program);
    command.current_dir(install::folder()).args(peer.arguments);
    command.arg(clients.to_string()).arg(args.seconds.to_string()).arg(directory.path().canonicalize()?);
    let output = install::output(&mut command)?;
    // Libraries may greet on the lines before.
    let last = output.lines().last().ok_or("it printed nothing")?;
    Ok(serde_json::from_str(last)?)
}

fn report(
    peer: &Peer,
    engine: Engine,
    clients: usize,
    ours: &[Tally],
    theirs: &[Ran],
    is_json: bool,
) -> Result<()> {
    let of_ours = Line::new(peer.work.as_str(), engine.as_str(), "ours", clients, ours)?;
    let middle = |figure: fn(&Ran) -> f64| median(theirs.iter().map(figure).collect());
    let pairs = || ours.iter().zip(theirs);
    let ratio = median(pairs().map(|(ours, ran)| ours.ops_per_second() / ran.ops_per_second()).collect());
    let mut line = Line {
        case: of_ours.case,
        engine: of_ours.engine,
        subject: peer.name.to_owned(),
        clients,
        rounds: theirs.len(),
        ops_per_second: middle(Ran::ops_per_second),
        p50_us: middle(|ran| ran.p50_us),
        p99_us: middle(|ran| ran.p99_us),
        max_us: theirs.iter().map(|ran| ran.max_us).fold(0.0, f64::max),
        ratio: Some(ratio),
        p99_ratio: Some(median(pairs().map(|(ours, ran)| ours.quantile_us(0.99) / ran.p99_us).collect())),
        ..Line::default()
    };
    line.judge();
    let settings = theirs.last().map(|ran| ran.settings.clone()).unwrap_or_default();
    let ours = OurFigures {
        ops_per_second: of_ours.ops_per_second,
        p50_us: of_ours.p50_us,
        p99_us: of_ours.p99_us,
        settings: ours::settings(engine)?,
    };
    print(&PeerLine { line, settings, note: peer.note, ours }, is_json)
}

fn print(found: &PeerLine, is_json: bool) -> Result<()> {
    let mut out = io::stdout().lock();
    if is_json {
        return Ok(writeln!(out, "{}", serde_json::to_string(found)?)?);
    }
    let PeerLine { line, settings, note, ours } = found;
    let Line { case, engine, subject, clients, ops_per_second, p50_us, p99_us, .. } = line;
    let ratio = line.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
    let targets: Vec<String> = line.targets.iter().map(Judged::to_string).collect();
    writeln!(
        out,
        "| {case} | {engine} | {subject} | {clients} | {ops_per_second:.0} | {:.0} | {ratio} | {p50_us:.0}, {:.0} \
         | {p99_us:.0}, {:.0} | {} |",
        ours.ops_per_second,
        ours.p50_us,
        ours.p99_us,
        targets.join("; ")
    )?;
    writeln!(out, "  theirs: {}; ours: {}. {note}", said(settings), said(&ours.settings))?;
    Ok(())
}

fn said(settings: &BTreeMap<String, String>) -> String {
    settings.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}
