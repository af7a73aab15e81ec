//! Child processes: laws about several processes, and about processes that are killed, run the current test
//! executable again, with one test in it that does a worker's job ([`work`]).

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde::{Deserialize, Serialize};
use store_api::Store;

use crate::fixture;
use crate::harness::{Harness, PATIENT};
use crate::suite::Suite;

/// The environment variable that a worker finds its orders in.
const ORDERS: &str = "CONTRACT_TESTS_ORDERS";

/// What stands before each acknowledged id on a worker's output: the test runner prints there too.
const ACK: &str = "acknowledged:";

/// What a worker does in its own process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Orders {
    pub(crate) place: PathBuf,
    /// Which worker it is: its version ids begin with this.
    pub(crate) name: String,
    /// How many versions of [`fixture::skill`] `"shared"` it appends, each acknowledged on its output.
    pub(crate) appends: u32,
}

/// The worker's side: does nothing in a process that is no worker.
///
/// # Panics
/// When the store refuses what the worker was told to do.
pub fn work(harness: &dyn Harness) {
    let Ok(orders) = std::env::var(ORDERS) else { return };
    let orders: Orders = serde_json::from_str(&orders).expect("orders that the suite wrote");
    let store =
        harness.open(&orders.place, PATIENT).expect("a harness that opens").expect("a place that opens");
    append(&*store, &orders);
}

fn append(store: &dyn Store, orders: &Orders) {
    let mut output = std::io::stdout().lock();
    // The test runner has begun a line that it ends when the test is done.
    writeln!(output).expect("an open output");
    for number in 0..orders.appends {
        let id = format!("{}-{number}", orders.name);
        let version = fixture::version(&id, fixture::skill("shared"));
        store.skills().append_version(&version).expect("an append");
        writeln!(output, "{ACK}{id}").and_then(|()| output.flush()).expect("an open output");
    }
}

/// A worker's process, as its parent sees it. Killed when it is dropped.
pub(crate) struct Worker {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts a worker, when the engine can be opened from another process.
    pub(crate) fn start(suite: &Suite<'_>, orders: &Orders) -> Worker {
        let test = suite.worker().expect("a suite that starts processes");
        let executable = std::env::current_exe().expect("the path of this test");
        let mut child = Command::new(executable)
            .args([test, "--exact", "--nocapture", "--test-threads=1"])
            .env(ORDERS, serde_json::to_string(orders).expect("orders are JSON"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("a second process of this test");
        let output = BufReader::new(child.stdout.take().expect("a piped output"));
        Worker { child, output }
    }

    /// The next acknowledged id, or `None` when the worker is gone.
    pub(crate) fn next(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line).expect("output of the worker") == 0 {
                return None;
            }
            // A line that the kill cut off was not acknowledged.
            if let Some(id) = line.strip_prefix(ACK).and_then(|id| id.strip_suffix('\n')) {
                return Some(id.to_owned());
            }
        }
    }

    /// All ids that it acknowledged from here to its end, which must be a good one.
    pub(crate) fn finish(mut self) -> Vec<String> {
        let ids = std::iter::from_fn(|| self.next()).collect();
        assert!(self.child.wait().expect("an end of the worker").success(), "a worker failed");
        ids
    }

    /// Kills it, as `kill -9` does, and gives what it acknowledged up to then.
    pub(crate) fn kill(mut self) -> Vec<String> {
        self.child.kill().expect("a worker to kill");
        self.child.wait().expect("an end of the worker");
        std::iter::from_fn(|| self.next()).collect()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // A worker that has ended cannot be killed, and need not be.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Whether the suite can run workers on this instance's place.
pub(crate) fn place_for_workers<'i>(
    suite: &Suite<'_>,
    instance: &'i dyn crate::harness::Instance,
) -> Option<&'i Path> {
    instance.place().filter(|_| suite.worker().is_some())
}
