//! Threads and processes that work on one store at once: what each was told must be explained by some order of the
//! operations that agrees with time.

use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use contract_tests::harness::Harness;
use contract_tests::history::{self, Log};
use contract_tests::saboteurs::{Fault, RACES, Saboteur};
use fault_disk::{Delay, Disk};
use store::{Durability, Store};
use store_redb::RedbStore;

use super::{Campaign, Plan};
use crate::place::{PATIENT, open, scratch, url};
use crate::report::Line;

mod workers;

pub(crate) const CAMPAIGN: Campaign = Campaign {
    name: "histories",
    about: "threads and processes on one store: every answer explained by an order that agrees with time",
    run,
    child: Some(workers::main),
};

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// How many rounds all writers of one store make together. Each makes two operations that an order is searched for,
/// so no search is for more than 2,000.
const ROUNDS: u64 = 1_000;

/// How many threads write at once, at most.
const THREADS: u64 = 8;

/// How many processes, and on how many threads each.
const PROCESSES: u64 = 4;
const THREADS_EACH: u64 = 2;

/// How long a flush of a slow disk takes: long enough that writers gather behind it, and share the next one.
const FLUSH: Duration = Duration::from_micros(200);

fn run(plan: &Plan, report: &mut dyn FnMut(Line)) {
    let operations = plan.count(200_000, 1_000_000);
    let configurations: [(&'static str, &str, u64, Record); 6] = [
        ("memory", "threads", 25, threads_in_memory),
        ("sqlite", "threads", 15, |random| threads_on("sqlite", None, random)),
        ("sqlite", "threads on a disk whose flush takes 0.2 ms", 15, |random| {
            threads_on("sqlite", Some(Delay(FLUSH)), random)
        }),
        ("sqlite", "4 processes of 2 threads", 20, |_| workers::record()),
        ("redb", "threads", 10, |random| threads_on("redb", None, random)),
        ("redb", "threads on a disk whose flush takes 0.2 ms", 15, |random| {
            threads_on("redb", Some(Delay(FLUSH)), random)
        }),
    ];
    for (engine, what, percent, record) in configurations {
        if plan.wants(engine) {
            let line = Line::new(CAMPAIGN.name, engine, what);
            report(line.run(plan.seed, "operations", |line| {
                check_until(line, (operations * percent).div_ceil(100), record);
            }));
        }
    }
    for fault in RACES {
        let line = Line::new(CAMPAIGN.name, "saboteur", fault.story()).control();
        report(line.run(plan.seed, "operations", |line| check(line, || Ok(of_a_saboteur(fault)))));
    }
}

/// Makes a store, and gives what its writers were told.
type Record = fn(&mut fastrand::Rng) -> Result<Log>;

/// Records and checks histories until there are as many operations, or something is wrong.
fn check_until(line: &mut Line, operations: u64, record: Record) {
    let mut random = fastrand::Rng::with_seed(line.seed);
    while line.tried < operations && line.faults() == 0 {
        check(line, || record(&mut random));
    }
}

fn check(line: &mut Line, record: impl FnOnce() -> Result<Log>) {
    let log = match catch_unwind(AssertUnwindSafe(record)) {
        Ok(Ok(log)) => log,
        Ok(Err(error)) => {
            line.wrong += 1;
            return line.fault(|| error.to_string());
        }
        Err(_) => {
            line.panicked += 1;
            return line.fault(|| "a writer was refused what no store may refuse, and panicked".into());
        }
    };
    line.tried += log.operations();
    if let Err(violation) = log.check() {
        line.wrong += 1;
        line.fault(|| violation);
    }
}

/// So many threads, each so many rounds.
fn threads(store: &dyn Store, random: &mut fastrand::Rng) -> Log {
    let writers = random.u64(2..=THREADS);
    history::record(store, usize::try_from(writers).unwrap_or(2), ROUNDS / writers)
}

fn threads_in_memory(random: &mut fastrand::Rng) -> Result<Log> {
    Ok(threads(&*store::open("memory:")?, random))
}

fn threads_on(engine: &str, disk: Option<Delay>, random: &mut fastrand::Rng) -> Result<Log> {
    let directory = scratch()?;
    let path = directory.path().join("store");
    let Some(disk) = disk.map(|disk| Arc::new(disk) as Arc<dyn Disk>) else {
        return Ok(threads(&*open(&url(engine, &path), Durability::PowerLoss)?, random));
    };
    if engine == "redb" {
        let options = store_redb::Options { busy_timeout: PATIENT, ..store_redb::Options::default() };
        let over = move |path: &std::path::Path, file| fault_disk::redb::over(path, file, Arc::clone(&disk));
        return Ok(threads(&RedbStore::open_over(&path, options, over)?, random));
    }
    let _mounted = fault_disk::sqlite::mount(directory.path(), disk)?;
    Ok(threads(&*open(&url(engine, &path), Durability::PowerLoss)?, random))
}

fn of_a_saboteur(fault: Fault) -> Log {
    history::record(&*Saboteur(Some(fault)).create().store(), 4, 40)
}
