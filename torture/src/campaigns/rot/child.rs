//! The flips of one worker, tried in a child process: what ends the process is a fault that names its flip.

use std::io::{self, BufRead, BufReader, Write};
use std::panic;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::{CAMPAIGN, Found, Series, try_flip};
use crate::CHILD;
use crate::report::{Attempt, Broken};

/// Which flips of a series a child is to try: from `first` on, each `step`th.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Orders {
    pub(super) series: Series,
    pub(super) first: u64,
    pub(super) step: u64,
}

/// What a child says, a line each.
#[derive(Debug, Serialize, Deserialize)]
enum Said {
    /// It is about to try the flip of this number.
    Tries(u64),
    /// What came of it.
    Found(Found),
    /// It cannot go on, and that says nothing of an engine.
    Broke(String),
}

impl Orders {
    /// Has the flips tried. A child that ends over one is followed by another, which goes on behind it.
    pub(super) fn carry_out(mut self) -> Result<Vec<(u64, Found)>, Broken> {
        let mut all = Vec::new();
        while let Some(deadly) = self.until_it_ends(&mut all)? {
            self.first = deadly + self.step;
        }
        Ok(all)
    }

    /// Hears one child to its end. Gives the number of the flip that ended it, unless it came through.
    fn until_it_ends(&self, all: &mut Vec<(u64, Found)>) -> Result<Option<u64>, Broken> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([CHILD, CAMPAIGN.name, &serde_json::to_string(self)?])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().ok_or("a child without an output")?;
        let mut trying = None;
        for line in BufReader::new(output).lines() {
            match serde_json::from_str(&line?)? {
                Said::Tries(number) => trying = Some(number),
                Said::Found(found) => all.extend(trying.take().map(|number| (number, found))),
                Said::Broke(reason) => return Err(reason.into()),
            }
        }
        let status = child.wait()?;
        match trying {
            None if status.success() => {}
            None => return Err(format!("a child ended outside of any flip: {status}").into()),
            Some(number) => {
                let fault = Some(format!("it ended the process: {status}"));
                all.push((number, Found { fault, panicked: true, ..Found::default() }));
            }
        }
        Ok(trying)
    }
}

/// How often anything panicked in this process, caught or not.
static PANICS: AtomicU64 = AtomicU64::new(0);

/// The child's side.
pub(super) fn main(arguments: &[String]) {
    panic::set_hook(Box::new(|_| {
        PANICS.fetch_add(1, Ordering::Relaxed);
    }));
    if let Err(error) = work(arguments)
        && say(&Said::Broke(error.to_string())).is_err()
    {
        // The parent is gone: nobody is left to tell.
    }
}

fn work(arguments: &[String]) -> Attempt {
    let orders: Orders = serde_json::from_str(arguments.first().ok_or("no orders")?)?;
    let series = &orders.series;
    let subject = series.subject()?;
    let step = usize::try_from(orders.step)?;
    for number in (orders.first..series.count).step_by(step) {
        say(&Said::Tries(number))?;
        let before = PANICS.load(Ordering::Relaxed);
        let mut found = try_flip(&subject, series.flip(&subject, number))?;
        let panics = PANICS.load(Ordering::Relaxed) - before;
        found.caught = panics.saturating_sub(u64::from(found.panicked));
        say(&Said::Found(found))?;
    }
    Ok(())
}

fn say(said: &Said) -> io::Result<()> {
    let mut line = serde_json::to_vec(said)?;
    line.push(b'\n');
    io::stdout().write_all(&line)
}
