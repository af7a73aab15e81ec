//! Runs cases: our engine and the bare database in turn, round by round.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fault_disk::{Delay, sqlite::Mount};
use tempfile::TempDir;

use crate::cases::{Case, Clients, Loop, Make, Method, Needs, Seat, prepared};
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

/// One subject and its data.
pub(crate) struct Side {
    pub(crate) who: Who,
    pub(crate) subject: Box<dyn Subject>,
    pub(crate) population: Population,
    /// Numbers from here on no operation was given yet.
    next: AtomicU64,
    /// Up to which number there is a run to use up.
    prepared: u64,
    /// How many operations a second it did when it was last measured.
    rate: f64,
}

/// How long a turn of one client is.
const TURN: Duration = Duration::from_millis(25);

/// How many runs are prepared in one transaction.
const CHUNK: u64 = 1_000;

/// How many such transactions there are at most. What uses up more in a measurement is measured for a shorter time.
const MOST_CHUNKS: u64 = 100;

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
        Ok(Side { who, subject, population, next: AtomicU64::new(0), prepared: 0, rate: 0.0 })
    }

    /// Measures once.
    pub(crate) fn measure(&self, plan: &Plan, make: Make) -> Result<Tally> {
        measure::run(plan, &self.next, &|client| make(self.seat(client)))
    }

    /// Measures once, while readers do something else without a pause.
    pub(crate) fn measure_beside(
        &self,
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

    /// Measures what a case does, once: for as long as there are runs to use up, if that is what it does.
    fn measure_case(&mut self, plan: &Plan, method: &Loop) -> Result<Tally> {
        let end = match method.needs {
            Needs::Nothing => plan.end,
            Needs::ARun => self.prepared,
        };
        let tally = self.measure(&Plan { end, ..*plan }, method.make)?;
        self.rate = tally.ops_per_second();
        Ok(tally)
    }

    /// Prepares what a case uses up while it is measured, all of it before: to prepare some between two turns fills the
    /// database's log, and chance would decide in whose turn that is copied back.
    fn prepare_for(&mut self, plan: &Plan, method: &Loop) -> Result<()> {
        let Needs::ARun = method.needs else { return Ok(()) };
        let count = (2.0 * self.rate * plan.length.as_secs_f64()) as u64;
        let first = self.prepared;
        for chunk in 0..count.clamp(CHUNK, MOST_CHUNKS * CHUNK).div_ceil(CHUNK) {
            let from = first + chunk * CHUNK;
            let runs: Vec<_> = (from..from + CHUNK).map(prepared).collect::<Result<_>>()?;
            self.subject.prepare(&runs)?;
            self.prepared = from + CHUNK;
        }
        self.next.store(first, Ordering::Relaxed);
        // The first one does not count: it may have to tidy up after so much was prepared.
        self.measure(&Plan { clients: 1, batch: 1, end: first + 1, ..*plan }, method.make)?;
        self.next.store(first + 1, Ordering::Relaxed);
        Ok(())
    }
}

/// Both subjects on the same data.
pub(crate) struct Stage {
    sides: [Side; 2],
    _place: Place,
}

impl Stage {
    pub(crate) fn set(engine: Engine, population: Population, config: &Config) -> Result<Self> {
        let place = config.place()?;
        let side = |who| Side::fill(engine, who, population, place.path(), config.delay);
        Ok(Stage { sides: [side(Who::Ours)?, side(Who::Bare)?], _place: place })
    }

    /// Whether it can be measured on once more. How memory and files happen to lie moves a ratio for as long as they do,
    /// so stores are made anew where that does not take too long.
    fn serves(&self, population: Population) -> bool {
        population != Population::Small && self.sides.iter().all(|side| side.population == population)
    }

    pub(crate) fn sides(&self) -> &[Side; 2] {
        &self.sides
    }

    /// Measures both in many short turns, after a time that opens connections and warms caches. A shared machine is
    /// now fast and now slow, for a second or a minute, so neither is measured long before the other.
    fn round(&mut self, nth: usize, method: &Loop, plan: &Plan) -> Result<[Tally; 2]> {
        let warm_up = Plan { length: warm_up(nth, plan.length), ..*plan };
        for side in &mut self.sides {
            side.prepare_for(&warm_up, method)?;
            side.measure_case(&warm_up, method)?;
            side.prepare_for(plan, method)?;
        }
        let turns = turns(plan, self.sides[0].rate.min(self.sides[1].rate));
        let turn = Plan { length: plan.length / turns, ..*plan };
        let mut tallies = [Tally::new()?, Tally::new()?];
        for number in 0..turns {
            // Who went last goes first, so that a drift favours nobody.
            for which in if number.is_multiple_of(2) { [0, 1] } else { [1, 0] } {
                tallies[which].add(&self.sides[which].measure_case(&turn, method)?)?;
            }
        }
        Ok(tallies)
    }
}

/// How long the time before a measurement is: a third of it to two thirds, and not the same in two rounds. Every so many
/// operations a database copies its log back, which takes as long as dozens of them. Did all rounds begin at one place of
/// that cycle, one side could pay for a copy more in every one of them.
fn warm_up(round: usize, length: Duration) -> Duration {
    // Steps of the golden ratio never come close to where they have been.
    let place = (round as f64 * 0.618_034).fract();
    length.mul_f64((1.0 + place) / 3.0)
}

/// How often it is each one's turn in a measurement, if the slower one does so many operations a second: the more clients
/// have to start, the longer a turn takes, and it takes one operation at least.
fn turns(plan: &Plan, slower: f64) -> u32 {
    let turn = TURN * u32::try_from(plan.clients.min(8)).unwrap_or(8);
    let length = plan.length.as_secs_f64();
    (length / turn.as_secs_f64()).min(length * slower).max(1.0) as u32
}

/// Runs cases, engine by engine. Those on one large store are beside each other, so that it is filled once.
pub(crate) fn run(cases: &[&Case], config: &Config) -> Result<()> {
    for &engine in &config.engines {
        let mut kept = None;
        for case in cases {
            match &case.method {
                Method::Own(run) => {
                    kept = None;
                    run(case, engine, config)?;
                }
                Method::Loop(method) => looped(case.name, method, engine, &mut kept, config)?,
            }
        }
    }
    Ok(())
}

fn looped(
    name: &str,
    method: &Loop,
    engine: Engine,
    kept: &mut Option<Stage>,
    config: &Config,
) -> Result<()> {
    let exactly;
    let numbers = match method.clients {
        Clients::Writers => &config.clients,
        Clients::Readers => &config.readers,
        Clients::Exactly(clients) => {
            exactly = [clients];
            &exactly[..]
        }
    };
    let population = (method.on)(config.large);
    let mut alone = None;
    for &clients in numbers {
        let plan = Plan { clients, length: config.length, batch: batch(engine), end: u64::MAX };
        let mut rounds = [Vec::new(), Vec::new()];
        for round in 0..config.rounds {
            let mut stage = match kept.take().filter(|kept| kept.serves(population)) {
                Some(stage) => stage,
                None => Stage::set(engine, population, config)?,
            };
            let tallies = stage.round(round, method, &plan)?;
            rounds.iter_mut().zip(tallies).for_each(|(rounds, tally)| rounds.push(tally));
            *kept = Some(stage);
        }
        let [ours, bare] = &rounds;
        let mut line = Line::new(name, engine.as_str(), Who::Ours.as_str(), clients, ours)?;
        line.compare(ours, bare);
        if clients == 1 {
            alone = Some(line.ops_per_second);
        }
        line.scaling = alone.filter(|_| clients > 1).map(|alone| line.ops_per_second / alone);
        config.printer.line(line, config)?;
        config.printer.line(Line::new(name, engine.as_str(), Who::Bare.as_str(), clients, bare)?, config)?;
    }
    Ok(())
}

/// Where nothing waits for a disk, an operation can be as short as reading the clock.
pub(crate) fn batch(engine: Engine) -> u64 {
    if engine.is_durable() { 1 } else { 64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_large_store_of_the_right_size_serves_once_more() {
        let printer = Printer { is_json: true };
        let config = Config {
            engines: Vec::new(),
            clients: Vec::new(),
            readers: Vec::new(),
            rounds: 1,
            length: Duration::from_millis(1),
            large: 10,
            delay: None,
            flush_us: 0.0,
            directory: std::env::temp_dir(),
            printer,
        };
        let populations = [Population::Small, Population::Large(10), Population::Large(20)];
        let serves = populations.map(|of| {
            let stage = Stage::set(Engine::Memory, of, &config).unwrap();
            populations.map(|wanted| stage.serves(wanted))
        });
        assert_eq!(serves, [[false; 3], [false, true, false], [false, false, true]]);
    }

    #[test]
    fn no_two_rounds_begin_at_one_place() {
        let length = Duration::from_millis(300);
        let mut lengths: Vec<_> = (0..13).map(|round| warm_up(round, length)).collect();
        lengths.sort();
        assert!(lengths[0] >= length / 3 && lengths[12] < length * 2 / 3, "{lengths:?}");
        let apart = lengths.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(apart.min().unwrap() > Duration::from_millis(4), "{lengths:?}");
    }

    #[test]
    fn turns_are_as_many_as_fit() {
        let plan = |clients| Plan { clients, length: Duration::from_millis(400), batch: 1, end: u64::MAX };
        let often = [(1, 1e4), (2, 1e4), (8, 1e4), (64, 1e4), (1, 10.0), (1, 0.3)];
        assert_eq!(often.map(|(clients, rate)| turns(&plan(clients), rate)), [16, 8, 2, 2, 4, 1]);
    }
}
