//! Runs cases: our engine and the bare database in turn, round by round.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tempfile::TempDir;

use crate::cases::{Case, Seat};
use crate::engine::{Engine, Who};
use crate::measure::{self, Plan, Tally, median};
use crate::report::{Line, Printer};
use crate::subject::{Result, Subject};
use crate::{data, targets};

/// How everything is measured.
pub(crate) struct Config {
    pub(crate) engines: Vec<Engine>,
    pub(crate) clients: Vec<usize>,
    pub(crate) rounds: usize,
    pub(crate) length: Duration,
    pub(crate) directory: PathBuf,
    pub(crate) printer: Printer,
}

/// One subject, its data, and what was measured of it.
struct Side {
    who: Who,
    subject: Box<dyn Subject>,
    /// Numbers that none of its operations was given yet.
    next: AtomicU64,
    rounds: Vec<Tally>,
}

/// Both subjects on the same data, in a directory that goes with them.
struct Stage {
    sides: [Side; 2],
    _directory: TempDir,
}

impl Stage {
    fn set(engine: Engine, within: &Path) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("store-bench-").tempdir_in(within)?;
        let side = |who| {
            let subject = engine.open(who, directory.path())?;
            subject.load(&mut data::small()?.into_iter())?;
            Ok::<_, crate::subject::Failure>(Side {
                who,
                subject,
                next: AtomicU64::new(0),
                rounds: Vec::new(),
            })
        };
        Ok(Stage { sides: [side(Who::Ours)?, side(Who::Bare)?], _directory: directory })
    }
}

/// Runs a case on every engine and with every number of clients.
pub(crate) fn run(case: &Case, config: &Config) -> Result<()> {
    for &engine in &config.engines {
        let mut stage = Stage::set(engine, &config.directory)?;
        for &clients in &config.clients {
            // Where nothing waits for a disk, an operation is about as short as reading the clock.
            let batch = if engine.is_durable() { 1 } else { 64 };
            let plan = Plan { clients, length: config.length, batch, end: u64::MAX };
            in_turn(case, &plan, config.rounds, &mut stage.sides)?;
            report(case, engine, clients, &stage.sides, config)?;
        }
    }
    Ok(())
}

fn in_turn(case: &Case, plan: &Plan, rounds: usize, sides: &mut [Side; 2]) -> Result<()> {
    let once = |plan: &Plan, side: &Side| {
        measure::run(plan, &side.next, &|_| (case.make)(Seat { subject: &*side.subject }))
    };
    for side in &mut *sides {
        side.rounds.clear();
        once(&Plan { length: plan.length / 10, ..*plan }, side)?;
    }
    for round in 0..rounds {
        for turn in 0..2 {
            // Who goes first changes, so that a drift of the machine favours nobody.
            let side = &mut sides[(round + turn) % 2];
            let tally = once(plan, side)?;
            side.rounds.push(tally);
        }
    }
    Ok(())
}

fn report(case: &Case, engine: Engine, clients: usize, sides: &[Side; 2], config: &Config) -> Result<()> {
    let [ours, bare] = sides;
    let pairs = || ours.rounds.iter().zip(&bare.rounds);
    let p99 = |tally: &Tally| tally.latency.value_at_quantile(0.99) as f64;
    for side in sides {
        let who = format!("{:?}", side.who).to_lowercase();
        let mut line = Line::new(case.name, engine.as_str(), &who, clients, &side.rounds)?;
        if side.who == Who::Ours {
            let ratios = pairs().map(|(ours, bare)| ours.ops_per_second() / bare.ops_per_second());
            line.ratio = Some(median(ratios.collect()));
            line.p99_ratio = Some(median(pairs().map(|(ours, bare)| p99(ours) / p99(bare)).collect()));
            line.judge(targets::of(case.name, engine, clients, false));
        }
        config.printer.line(&line)?;
    }
    Ok(())
}
