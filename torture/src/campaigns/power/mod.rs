//! Power loss: what an engine does to its files is written down, and the disk is put together as it may be when the
//! power goes, after every prefix of that. The real engine opens it, and has to hold what was acknowledged.

mod alone;
mod together;

use std::io;
use std::ops::Range;
use std::path::Path;

use fastrand::Rng;
use fault_disk::Log;
use store::Durability;

use crate::campaigns::{Campaign, Plan};
use crate::crew::Crew;
use crate::engines::Engine;
use crate::report::Line;
use crate::simulation::Machine;
use crate::story::Operation;
use alone::Cutting;
use together::{Sharing, Together};

pub(crate) const SQLITE: Campaign = Campaign {
    name: "power-sqlite",
    about: "SQLite: what was acknowledged is there, wherever the power goes",
    run: |plan, report| run(SQLITE.name, Engine::Sqlite, plan, report),
    child: None,
};

pub(crate) const REDB: Campaign = Campaign {
    name: "power-redb",
    about: "redb: what was acknowledged is there, wherever the power goes",
    run: |plan, report| run(REDB.name, Engine::Redb, plan, report),
    child: None,
};

/// A machine whose power goes.
#[derive(Debug, Clone, Copy)]
struct Setup {
    engine: Engine,
    durability: Durability,
    /// Whether the disk flushes when it is told to.
    honest_disk: bool,
    seed: u64,
}

impl Setup {
    fn log(self) -> Log {
        if self.honest_disk { Log::new() } else { Log::without_syncs() }
    }

    fn machine(self, directory: &Path, log: Log) -> io::Result<Machine> {
        Machine::new(self.engine, self.durability, directory, log)
    }
}

/// How many images a control looks at.
const CONTROL: u64 = 500;

/// How many images of one story are looked at, where there are many stories to see.
const ENOUGH: u64 = 250;

/// One in so many images is verified record by record, too.
const VERIFIED: u64 = 8;

fn run(campaign: &'static str, engine: Engine, plan: &Plan, report: &mut dyn FnMut(Line)) {
    if !plan.wants(engine.name()) {
        return;
    }
    let real = Setup { engine, durability: Durability::PowerLoss, honest_disk: true, seed: plan.seed };
    let process = Setup { durability: Durability::Process, ..real };
    let lying = Setup { honest_disk: false, ..real };
    let line = |text: &str| Line::new(campaign, engine.name(), text);

    let inside = |operation| (Some(operation), plan.count(800, 50_000), real);
    for (line, (operation, count, setup)) in [
        (line("an acknowledged write survives"), (None, plan.count(10_000, 1_000_000), real)),
        (line("durability Process").control(), (None, CONTROL, process)),
        (line("a disk that drops flushes").control(), (None, CONTROL, lying)),
        (line("inside import"), inside(Operation::Import)),
        (line("inside copy"), inside(Operation::Copy)),
        (line("inside backup"), inside(Operation::Backup)),
        (line("inside purge"), inside(Operation::Purge)),
        (line("an import that is made in pieces").control(), (Some(Operation::Pieces), CONTROL, real)),
    ] {
        report(line.run(plan.seed, "images", |line| {
            Crew::run(line, count, |crew, scratch, number| {
                Cutting { setup, operation, number, scratch, crew }.run()?;
                Ok(true)
            });
        }));
    }

    let several = |text: &str| line(&format!("{}{text}", together::WHAT));
    for (line, count, setup) in [
        (several(""), plan.count(3_000, 300_000), real),
        (several(", durability Process").control(), CONTROL, process),
        (several(", a disk that drops flushes").control(), CONTROL, lying),
    ] {
        report(line.run(plan.seed, "images", |line| {
            let sharing = Sharing::default();
            Crew::run(line, count, |crew, scratch, number| {
                Together { setup, number, scratch, crew }.run(&sharing)?;
                Ok(true)
            });
            sharing.tell(line);
        }));
    }
}

/// Somewhere in a part of a log, from where on there is still something to see.
fn somewhere(within: Range<usize>, rng: &mut Rng) -> usize {
    if within.is_empty() { within.start } else { rng.usize(within) }
}
