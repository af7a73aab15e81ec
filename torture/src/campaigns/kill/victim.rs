//! A child, as its parent sees it.

use std::io::{self, BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use super::child::Orders;
use super::said::Said;
use crate::CHILD;

/// A wait that is shorter than this is spent awake: a sleep would be longer.
const AWAKE: Duration = Duration::from_micros(500);

/// A child that was started. Killed when it is dropped.
pub(super) struct Victim {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Victim {
    pub(super) fn start(orders: &Orders) -> io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([CHILD, super::CAMPAIGN.name, &serde_json::to_string(orders)?])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().ok_or_else(|| io::Error::other("a child without an output"))?;
        Ok(Victim { child, output: BufReader::new(output) })
    }

    /// The next line; `None` when the child is gone. A line that the kill cut off was not said.
    pub(super) fn next(&mut self) -> io::Result<Option<Said>> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        if !line.ends_with('\n') {
            return Ok(None);
        }
        Ok(Some(serde_json::from_str(&line)?))
    }

    /// Kills it, as `kill -9` does, and gives all that it had said.
    pub(super) fn kill(mut self) -> io::Result<Vec<Said>> {
        self.child.kill()?;
        self.child.wait()?;
        std::iter::from_fn(|| self.next().transpose()).collect()
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // A child that has ended cannot be killed, and need not be.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Waits that long, to some microseconds.
pub(super) fn pause(time: Duration) {
    let start = Instant::now();
    if time > AWAKE {
        std::thread::sleep(time - AWAKE);
    }
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}
