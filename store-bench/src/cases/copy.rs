//! Copying a large store into another, against a bulk load of the bare database by hand.
//!
//! Each copy is made by a process of its own, so that the memory it took at most is its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use store_api::{Store, transfer};

use super::{Case, Method};
use crate::engine::{Engine, Who};
use crate::measure::{Tally, median};
use crate::population::Population;
use crate::report::Line;
use crate::runner::{Config, Side};
use crate::subject::{Ours, Result};

pub(super) const COPY: Case = Case {
    name: "copy",
    about: "a large store is copied into an empty one, from each engine into this one",
    method: Method::Own(run),
};

/// The cache of a redb store that is copied: what `storectl copy` gives it.
const CACHE_BYTES: usize = 48 << 20;

/// The most rounds that there are: so many records even out by themselves.
const ROUNDS: usize = 3;

/// One copy, made by a process of its own.
#[derive(Debug, clap::Args)]
pub(crate) struct Job {
    /// The engine to copy from; a bulk load by hand of the bare database when left out.
    #[arg(long)]
    from: Option<Engine>,
    #[arg(long)]
    to: Engine,
    /// Where the store to copy from lies, and where the copy goes.
    #[arg(long)]
    dir: PathBuf,
    /// How many records.
    #[arg(long)]
    size: u64,
}

/// What it came to.
#[derive(Serialize, Deserialize)]
struct Done {
    seconds: f64,
    records: u64,
    peak_memory_mb: Option<f64>,
}

fn run(case: &Case, to: Engine, config: &Config) -> Result<()> {
    for &from in &config.engines {
        let place = config.place()?;
        if from.is_durable() {
            Side::fill(from, Who::Ours, Population::Mixed(config.large), place.path(), None)?;
        }
        let mut rounds = [Vec::new(), Vec::new()];
        for _ in 0..config.rounds.min(ROUNDS) {
            for (from, rounds) in [Some(from), None].into_iter().zip(&mut rounds) {
                rounds.push(start(&Job { from, to, dir: place.path().to_owned(), size: config.large })?);
            }
        }
        report(case, &format!("{}->{}", from.as_str(), to.as_str()), &rounds, config)?;
    }
    Ok(())
}

fn report(case: &Case, engine: &str, rounds: &[Vec<Done>; 2], config: &Config) -> Result<()> {
    let tallies = |done: &Vec<Done>| {
        let tally = |done: &Done| {
            let tally = Tally::of_one(Duration::try_from_secs_f64(done.seconds)?)?;
            Ok(Tally { ops: done.records, ..tally })
        };
        done.iter().map(tally).collect::<Result<Vec<Tally>>>()
    };
    let [ours, bare] = [tallies(&rounds[0])?, tallies(&rounds[1])?];
    for (who, own, done) in [(Who::Ours, &ours, &rounds[0]), (Who::Bare, &bare, &rounds[1])] {
        let mut line = Line::new(case.name, engine, who.as_str(), 1, own)?;
        line.processor_us = None;
        line.size = Some(config.large);
        line.peak_memory_mb = done.iter().map(|done| done.peak_memory_mb).collect::<Option<_>>().map(median);
        if who == Who::Ours {
            line.compare(&ours, &bare);
        }
        config.printer.line(line, config)?;
    }
    Ok(())
}

/// Has a process of its own do it.
fn start(job: &Job) -> Result<Done> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["job", "--to", job.to.as_str(), "--size", &job.size.to_string(), "--dir"]).arg(&job.dir);
    if let Some(from) = job.from {
        command.args(["--from", from.as_str()]);
    }
    let output = command.output()?;
    if !output.status.success() {
        return Err(format!("a copy failed: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Does it, and prints what it came to.
pub(crate) fn run_job(job: &Job) -> Result<()> {
    let done = match job.from {
        Some(from) => copy(from, job)?,
        None => load(job)?,
    };
    serde_json::to_writer(std::io::stdout(), &done)?;
    Ok(())
}

fn copy(from: Engine, job: &Job) -> Result<Done> {
    let source = open(from, &job.dir)?;
    if !from.is_durable() {
        Population::Mixed(job.size).load_into(&Ours(source.clone()))?;
    }
    let place = tempfile::tempdir_in(&job.dir)?;
    let target = open(job.to, place.path())?;
    let start = Instant::now();
    let copied = transfer::copy(&*source, &*target, &mut |_| {})?;
    Ok(Done {
        seconds: start.elapsed().as_secs_f64(),
        records: copied.report.total(),
        peak_memory_mb: peak_memory_mb()?,
    })
}

/// A store of ours, its cache as `storectl copy` sets it.
fn open(engine: Engine, directory: &Path) -> Result<Arc<dyn Store>> {
    let path = directory.join(format!("ours.{}", engine.as_str()));
    Ok(match engine {
        Engine::Sqlite => Arc::new(store_sqlite::SqliteStore::open(path)?),
        Engine::Redb => {
            let options = store_redb::Options { cache_size: CACHE_BYTES, ..Default::default() };
            Arc::new(store_redb::RedbStore::open_with(path, options)?)
        }
        Engine::Memory => Arc::new(store_memory::MemoryStore::default()),
    })
}

fn load(job: &Job) -> Result<Done> {
    let place = tempfile::tempdir_in(&job.dir)?;
    let target = job.to.open(Who::Bare, place.path(), None)?;
    let start = Instant::now();
    let records = Population::Mixed(job.size).load_into(&*target)?;
    Ok(Done { seconds: start.elapsed().as_secs_f64(), records, peak_memory_mb: peak_memory_mb()? })
}

/// The most memory that this process had so far, where the system says it.
fn peak_memory_mb() -> Result<Option<f64>> {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return Ok(None) };
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.map(|line| line.trim().trim_end_matches(" kB").parse::<f64>()).transpose()?;
    Ok(kilobytes.map(|kilobytes| kilobytes / 1024.0))
}
