//! Random sequences of operations over all seams, on every engine and on a model in plain Rust: each answer of one is
//! the answer of all.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use contract_tests::harness::{Facts, Harness, Instance};
use contract_tests::model::{self, Check, differential};
use contract_tests::saboteurs::{Fault, Saboteur};
use store::{Durability, OpenOptions, Result, Store};
use tempfile::TempDir;

use super::{Campaign, Plan};
use crate::place::{scratch, url};
use crate::report::Line;

pub(crate) const CAMPAIGN: Campaign = Campaign {
    name: "model",
    about: "random sequences on all engines at once: every answer equal, and as the model says",
    run,
    child: None,
};

/// How many operations a sequence has at most. Among them are steps of the clock to each moment at which an answer
/// may change, and to the nanoseconds beside it.
const OPERATIONS: usize = 60;

/// How many sequences come from one seed: those are run again to find one of them again.
const OF_ONE_SEED: u64 = 50;

/// How many sequences a saboteur gets at most.
const OF_A_SABOTEUR: u64 = 3_000;

/// Faults that one thread can see: some of each seam, of pages, of transactions and of moves.
const FAULTS: [Fault; 8] = [
    Fault::SeqFromNewest,
    Fault::DueNotMoved,
    Fault::LeaseEndOffByOne,
    Fault::WindowOffByOne,
    Fault::ParentPurged,
    Fault::StaleCheckpointWins,
    Fault::RefusedEditStored,
    Fault::LastSeqNotExported,
];

fn run(plan: &Plan, report: &mut dyn FnMut(Line)) {
    let schemes: Vec<&'static str> =
        store::engines().into_iter().filter(|engine| plan.wants(engine)).collect();
    let cases = plan.count(10_000, 200_000);
    let what = format!("{} with the model, up to {OPERATIONS} operations", schemes.join(", "));
    let line = Line::new(CAMPAIGN.name, "all", what);
    report(line.run(plan.seed, "cases", |line| match Engine::all(&schemes) {
        Err(error) => {
            line.wrong += 1;
            line.fault(|| error.to_string());
        }
        Ok(engines) => {
            let harnesses: Vec<&dyn Harness> = engines.iter().map(|engine| engine as &dyn Harness).collect();
            explore(line, cases, |seed, cases| differential::explore(&harnesses, cases, OPERATIONS, seed));
        }
    }));
    for fault in FAULTS {
        let line = Line::new(CAMPAIGN.name, "saboteur", fault.story()).control();
        report(line.run(plan.seed, "cases", |line| {
            explore(line, OF_A_SABOTEUR, |seed, cases| {
                model::explore(&Saboteur(Some(fault)), cases, OPERATIONS, seed)
            });
        }));
    }
}

/// Runs the sequence that some bytes stand for on every engine and the model: for the fuzzer in `fuzz/`.
pub fn operations(input: &[u8]) -> Check {
    let engines = Engine::all(&store::engines()).map_err(|error| error.to_string())?;
    let harnesses: Vec<&dyn Harness> = engines.iter().map(|engine| engine as &dyn Harness).collect();
    differential::of_bytes(&harnesses, OPERATIONS, input)
}

/// Runs `cases` sequences on all cores, until one of them fails.
fn explore(line: &mut Line, cases: u64, check: impl Fn(u64, u32) -> Check + Sync) {
    let (next, found) = (AtomicU64::new(0), AtomicBool::new(false));
    let (seed, check) = (line.seed, &check);
    let worker = || {
        let (mut tried, mut failures) = (0, Vec::new());
        while !found.load(Ordering::Relaxed) {
            let first = next.fetch_add(OF_ONE_SEED, Ordering::Relaxed);
            let some = cases.saturating_sub(first).min(OF_ONE_SEED);
            if some == 0 {
                break;
            }
            tried += some;
            let some = u32::try_from(some).unwrap_or(u32::MAX);
            if let Err(failure) = check(seed.wrapping_mul(1_000_000_007).wrapping_add(first), some) {
                failures.push(failure);
                found.store(true, Ordering::Relaxed);
            }
        }
        (tried, failures)
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(worker)).collect();
        for worker in workers {
            match worker.join() {
                Ok((tried, failures)) => {
                    line.tried += tried;
                    line.wrong += failures.len() as u64;
                    failures.into_iter().for_each(|failure| line.fault(|| failure));
                }
                Err(_) => line.panicked += 1,
            }
        }
    });
}

/// The stores of one engine, opened as hosts do.
struct Engine {
    scheme: &'static str,
    /// Where all of them lie.
    directory: Arc<TempDir>,
    next: AtomicU64,
}

impl Engine {
    fn all(schemes: &[&'static str]) -> std::io::Result<Vec<Engine>> {
        let directory = Arc::new(scratch()?);
        let engine = |scheme: &&'static str| Engine {
            scheme,
            directory: Arc::clone(&directory),
            next: AtomicU64::new(0),
        };
        Ok(schemes.iter().map(engine).collect())
    }
}

impl Harness for Engine {
    fn name(&self) -> &str {
        self.scheme
    }

    fn facts(&self) -> Facts {
        Facts { durable: self.scheme != "memory", ..Facts::MEMORY }
    }

    #[allow(clippy::expect_used)] // a harness has no other way to say it
    fn create_waiting(&self, wait: Duration) -> Box<dyn Instance> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (url, file) = if self.facts().durable {
            let file = self.directory.path().join(format!("{}-{number}", self.scheme));
            (url(self.scheme, &file), Some(file))
        } else {
            (format!("{}:", self.scheme), None)
        };
        let store = Some(open(&url, wait).expect("a new store"));
        Box::new(Opened { store, url, file, wait })
    }
}

struct Opened {
    /// `None` only while it is opened again.
    store: Option<Arc<dyn Store>>,
    url: String,
    file: Option<PathBuf>,
    wait: Duration,
}

impl Instance for Opened {
    #[allow(clippy::expect_used)] // a harness has no other way to say it
    fn store(&self) -> Arc<dyn Store> {
        self.store.clone().expect("an open store")
    }

    fn reopen(&mut self) -> Result<()> {
        self.store = None;
        self.store = Some(open(&self.url, self.wait)?);
        Ok(())
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // Others may hold it still; closed, it is one file. What cannot be removed goes with the directory.
        if let Some(store) = self.store.take() {
            drop(store.close());
        }
        if let Some(file) = &self.file {
            drop(std::fs::remove_file(file));
        }
    }
}

fn open(url: &str, wait: Duration) -> Result<Arc<dyn Store>> {
    store::open_with(url, &OpenOptions::default().busy_timeout(wait).durability(Durability::PowerLoss))
}
