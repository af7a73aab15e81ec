//! Several processes that write to one store.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::thread;

use contract_tests::history::{self, Log};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use store::Durability;

use super::{CAMPAIGN, PROCESSES, ROUNDS, Result, THREADS_EACH};
use crate::CHILD;
use crate::place::{open, scratch, url};

/// What a process is told.
#[derive(Debug, Serialize, Deserialize)]
struct Orders {
    url: String,
    /// The number of its first writer.
    writer: u64,
    writers: u64,
    rounds: u64,
}

/// What a process says when it has opened the store, and again when all have and it may begin.
const READY: &str = "ready\n";

/// What the writers of several processes are told by a new SQLite store.
pub(super) fn record() -> Result<Log> {
    let directory = scratch()?;
    let url = url("sqlite", &directory.path().join("store"));
    let store = open(&url, Durability::PowerLoss)?;
    history::prepare(&*store)?;
    let rounds = ROUNDS / (PROCESSES * THREADS_EACH);
    let orders = (0..PROCESSES).map(|process| Orders {
        url: url.clone(),
        writer: process * THREADS_EACH,
        writers: THREADS_EACH,
        rounds,
    });
    let mut workers = orders.map(|orders| Worker::start(&orders)).collect::<Result<Vec<Worker>>>()?;
    workers.iter_mut().try_for_each(Worker::wait_until_ready)?;
    workers.iter_mut().try_for_each(Worker::begin)?;
    let logs = workers.into_iter().map(Worker::finish).collect::<Result<Vec<Log>>>()?;
    store.close()?;
    Ok(join(logs))
}

fn join(logs: impl IntoIterator<Item = Log>) -> Log {
    logs.into_iter().fold(Log::default(), |mut all, log| {
        all.join(log);
        all
    })
}

/// A process, as its parent sees it. Killed when it is dropped.
struct Worker {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Worker {
    fn start(orders: &Orders) -> Result<Worker> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([CHILD, CAMPAIGN.name, &serde_json::to_string(orders)?])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().ok_or("a child without an output")?;
        Ok(Worker { child, output: BufReader::new(output) })
    }

    fn wait_until_ready(&mut self) -> Result {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        if line == READY { Ok(()) } else { Err(format!("a worker said {line:?}").into()) }
    }

    fn begin(&mut self) -> Result {
        let input = self.child.stdin.as_mut().ok_or("a child without an input")?;
        Ok(input.write_all(READY.as_bytes())?)
    }

    fn finish(mut self) -> Result<Log> {
        let mut text = String::new();
        self.output.read_to_string(&mut text)?;
        if !self.child.wait()?.success() {
            return Err("a worker was refused what no store may refuse, and panicked".into());
        }
        serde_json::from_str(&text).map_err(|e| format!("a worker said {text:?}: {e}").into())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // A worker that has ended cannot be killed, and need not be.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The worker's side. An error is what it says instead of its log.
pub(super) fn main(arguments: &[String]) {
    let said = work(arguments).and_then(|log| Ok(serde_json::to_string(&log)?));
    let said = said.unwrap_or_else(|error| error.to_string());
    if io::stdout().write_all(said.as_bytes()).is_err() {
        // The parent is gone: nobody is left to tell.
    }
}

fn work(arguments: &[String]) -> Result<Log> {
    let orders: Orders = serde_json::from_str(arguments.first().ok_or("no orders")?)?;
    let store = open(&orders.url, Durability::PowerLoss)?;
    io::stdout().write_all(READY.as_bytes())?;
    io::stdout().flush()?;
    io::stdin().read_line(&mut String::new())?;
    let logs: Result<Vec<Log>> = thread::scope(|scope| {
        let writers: Vec<_> = (orders.writer..orders.writer + orders.writers)
            .map(|writer| {
                let store = Arc::clone(&store);
                scope.spawn(move || history::write(&*store, writer, orders.rounds, &monotonic))
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().map_err(|_| "a writer panicked".into())).collect()
    });
    Ok(join(logs?))
}

/// A clock that all processes of the machine have in common.
fn monotonic() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}
