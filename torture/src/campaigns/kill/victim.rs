//! A child, as its parent sees it.

use std::io::{self, BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use super::child::Orders;
use super::said::Said;
use crate::CHILD;

/// A wait that is shorter than this is spent awake: a sleep would be longer.
const AWAKE: Duration = Duration::from_micros(500);

/// A child that was started. Killed when it is dropped.
pub(crate) struct Victim {
    child: Child,
    /// What it has said, read on a thread of its own, so that the child never waits and can be asked without waiting.
    said: Receiver<io::Result<Said>>,
}

impl Victim {
    pub(super) fn start(orders: &Orders) -> io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([CHILD, super::CAMPAIGN.name, &serde_json::to_string(orders)?])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().ok_or_else(|| io::Error::other("a child without an output"))?;
        let (hear, said) = mpsc::channel();
        thread::spawn(move || {
            // Whoever does not listen any more has dropped the child.
            lines(BufReader::new(output)).try_for_each(|line| hear.send(line))
        });
        Ok(Victim { child, said })
    }

    /// The next that it says; `None` when the child is gone.
    pub(super) fn next(&mut self) -> io::Result<Option<Said>> {
        self.said.recv().map_or(Ok(None), |said| said.map(Some))
    }

    /// What it has said by now and nobody has heard.
    pub(crate) fn so_far(&self) -> io::Result<Vec<Said>> {
        self.said.try_iter().collect()
    }

    /// Kills it, as `kill -9` does, and gives all that it had said.
    pub(crate) fn kill(mut self) -> io::Result<Vec<Said>> {
        self.child.kill()?;
        self.child.wait()?;
        self.said.iter().collect()
    }
}

/// What an output says, to its end. A line that the kill cut off was not said.
fn lines(mut output: impl BufRead) -> impl Iterator<Item = io::Result<Said>> {
    std::iter::from_fn(move || {
        let mut line = String::new();
        match output.read_line(&mut line) {
            Err(e) => Some(Err(e)),
            Ok(_) if line.ends_with('\n') => Some(serde_json::from_str(&line).map_err(io::Error::from)),
            Ok(_) => None,
        }
    })
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
