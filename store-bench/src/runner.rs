//! Runs cases: our engine and the bare database in turn, round by round.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fault_disk::{Delay, sqlite::Mount};
use tempfile::TempDir;

use crate::cases::{Case, Clients, Effect, Loop, Make, Method, Seat, prepared};
use crate::engine::{self, Engine, Who};
use crate::measure::{self, Plan, Tally};
use crate::population::Population;
use crate::report::{Line, Printer};
use crate::subject::{Result, Subject};

/// How everything is measured.
pub(crate) struct Config {
    pub(crate) engines: Vec<Engine>,
    /// How many writers at once, one measurement for each number.
    pub(crate) clients: Vec<usize>,
    /// How many readers.
    pub(crate) readers: Vec<usize>,
    pub(crate) rounds: usize,
    pub(crate) length: Duration,
    /// How large the large stores are.
    pub(crate) large: u64,
    pub(crate) delay: Option<Delay>,
    /// What writing 4 KB over and flushing them takes where the stores are made, the delay included, in microseconds.
    pub(crate) flush_us: f64,
    pub(crate) directory: PathBuf,
    pub(crate) printer: Printer,
}

impl Config {
    /// A directory for the files of one engine, with the delaying disk below it.
    pub(crate) fn place(&self) -> Result<Place> {
        let directory = tempfile::Builder::new().prefix("store-bench-").tempdir_in(&self.directory)?;
        let mount = engine::mount(directory.path(), self.delay)?;
        Ok(Place { _mount: mount, directory })
    }
}

/// A directory that goes when this does.
pub(crate) struct Place {
    _mount: Option<Mount>,
    directory: TempDir,
}

impl Place {
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// One subject, its data, and what was measured of it.
pub(crate) struct Side {
    pub(crate) who: Who,
    pub(crate) subject: Box<dyn Subject>,
    pub(crate) population: Population,
    /// Numbers from here on no operation was given yet.
    next: AtomicU64,
    /// Up to which number there is a run to use up.
    prepared: u64,
    pub(crate) rounds: Vec<Tally>,
}

/// How many runs are prepared in one transaction.
const CHUNK: u64 = 1_000;

impl Side {
    /// Opens a subject in a place of its own or another's, and fills it.
    pub(crate) fn fill(
        engine: Engine,
        who: Who,
        population: Population,
        at: &Path,
        delay: Option<Delay>,
    ) -> Result<Self> {
        let subject = engine.open(who, at, delay)?;
        population.load_into(&*subject)?;
        Ok(Side { who, subject, population, next: AtomicU64::new(0), prepared: 0, rounds: Vec::new() })
    }

    /// Measures once.
    pub(crate) fn measure(&mut self, plan: &Plan, make: Make) -> Result<Tally> {
        self.next.fetch_max(self.prepared, Ordering::Relaxed);
        measure::run(plan, &self.next, &|client| make(self.seat(client)))
    }

    /// Measures once, while readers do something else without a pause.
    pub(crate) fn measure_beside(
        &mut self,
        plan: &Plan,
        make: Make,
        readers: usize,
        read: Make,
    ) -> Result<Tally> {
        measure::run_beside(plan, &self.next, &|client| make(self.seat(client)), readers, &|reader| {
            read(self.seat(reader))
        })
    }

    pub(crate) fn seat(&self, client: usize) -> Seat<'_> {
        Seat { subject: &*self.subject, population: self.population, client }
    }

    /// Measures an operation that uses up runs, for as long as there are any of about `count`.
    fn measure_using_up(&mut self, plan: &Plan, make: Make, count: u64) -> Result<Tally> {
        let first = self.prepared;
        for chunk in 0..count.div_ceil(CHUNK) {
            let from = first + chunk * CHUNK;
            let runs: Vec<_> = (from..from + CHUNK).map(prepared).collect::<Result<_>>()?;
            self.subject.prepare(&runs)?;
            self.prepared = from + CHUNK;
        }
        self.next.store(first, Ordering::Relaxed);
        measure::run(&Plan { end: self.prepared, ..*plan }, &self.next, &|client| make(self.seat(client)))
    }
}

/// Both subjects on the same data.
pub(crate) struct Stage {
    sides: [Side; 2],
    population: Population,
    is_used: bool,
    _place: Place,
}

impl Stage {
    pub(crate) fn set(engine: Engine, population: Population, config: &Config) -> Result<Self> {
        let place = config.place()?;
        let side = |who| Side::fill(engine, who, population, place.path(), config.delay);
        Ok(Stage { sides: [side(Who::Ours)?, side(Who::Bare)?], population, is_used: false, _place: place })
    }

    pub(crate) fn sides(&mut self) -> &mut [Side; 2] {
        &mut self.sides
    }
}

/// Runs cases, engine by engine.
pub(crate) fn run(cases: &[&Case], config: &Config) -> Result<()> {
    for &engine in &config.engines {
        let mut kept: Option<Stage> = None;
        for case in cases {
            match &case.method {
                Method::Own(run) => {
                    kept = None;
                    run(case, engine, config)?;
                }
                Method::Loop(method) => {
                    let population = (method.on)(config.large);
                    let fits = |stage: &Stage| !stage.is_used && stage.population == population;
                    let mut stage = match kept.take().filter(fits) {
                        Some(stage) => stage,
                        None => Stage::set(engine, population, config)?,
                    };
                    looped(case.name, method, engine, &mut stage, config)?;
                    stage.is_used = method.effect != Effect::Reads;
                    kept = Some(stage);
                }
            }
        }
    }
    Ok(())
}

fn looped(name: &str, method: &Loop, engine: Engine, stage: &mut Stage, config: &Config) -> Result<()> {
    let exactly;
    let numbers = match method.clients {
        Clients::Writers => &config.clients,
        Clients::Readers => &config.readers,
        Clients::Exactly(clients) => {
            exactly = vec![clients];
            &exactly
        }
    };
    let mut alone = None;
    for &clients in numbers {
        let plan = Plan { clients, length: config.length, batch: batch(engine), end: u64::MAX };
        in_turn(method, &plan, config.rounds, stage.sides())?;
        let [ours, bare] = &stage.sides;
        let mut line = Line::new(name, engine.as_str(), ours.who.as_str(), clients, &ours.rounds)?;
        line.compare(&ours.rounds, &bare.rounds);
        if clients == 1 {
            alone = Some(line.ops_per_second);
        }
        line.scaling = alone.filter(|_| clients > 1).map(|alone| line.ops_per_second / alone);
        config.printer.line(line, config)?;
        let line = Line::new(name, engine.as_str(), bare.who.as_str(), clients, &bare.rounds)?;
        config.printer.line(line, config)?;
    }
    Ok(())
}

/// Where nothing waits for a disk, an operation can be as short as reading the clock.
pub(crate) fn batch(engine: Engine) -> u64 {
    if engine.is_durable() { 1 } else { 64 }
}

fn in_turn(method: &Loop, plan: &Plan, rounds: usize, sides: &mut [Side; 2]) -> Result<()> {
    // A first, short round opens connections and warms caches, and says how many runs are going to be used up.
    let warm_up = Plan { length: plan.length / 10, ..*plan };
    let mut rates = [0.0; 2];
    for (side, rate) in sides.iter_mut().zip(&mut rates) {
        side.rounds.clear();
        *rate = match method.effect {
            Effect::UsesUpRuns => side.measure_using_up(&warm_up, method.make, CHUNK)?,
            _ => side.measure(&warm_up, method.make)?,
        }
        .ops_per_second();
    }
    for round in 0..rounds {
        for turn in 0..2 {
            // Who goes first changes, so that a drift of the machine favours nobody.
            let which = (round + turn) % 2;
            let side = &mut sides[which];
            let tally = match method.effect {
                Effect::UsesUpRuns => {
                    let count = (2.0 * rates[which] * plan.length.as_secs_f64()) as u64;
                    side.measure_using_up(plan, method.make, count.max(CHUNK))?
                }
                _ => side.measure(plan, method.make)?,
            };
            side.rounds.push(tally);
        }
    }
    Ok(())
}
