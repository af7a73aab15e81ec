//! Opening a store that holds much.

use std::time::Instant;

use super::{Case, Method};
use crate::engine::{Engine, Who};
use crate::measure::Tally;
use crate::population::Population;
use crate::report::Line;
use crate::runner::{Config, Side};
use crate::subject::Result;

pub(super) const OPEN: Case =
    Case { name: "open", about: "a large store is opened", method: Method::Own(run) };

fn run(case: &Case, engine: Engine, config: &Config) -> Result<()> {
    if !engine.is_durable() {
        return Ok(());
    }
    let place = config.place()?;
    let both = [Who::Ours, Who::Bare];
    for who in both {
        Side::fill(engine, who, Population::Mixed(config.large), place.path(), config.delay)?;
    }
    let mut rounds = [Vec::new(), Vec::new()];
    for _ in 0..config.rounds {
        for (who, rounds) in both.into_iter().zip(&mut rounds) {
            let start = Instant::now();
            let opened = engine.open(who, place.path(), config.delay)?;
            rounds.push(Tally::of_one(start.elapsed())?);
            drop(opened);
        }
    }
    let [ours, bare] = &rounds;
    for (who, own) in both.into_iter().zip(&rounds) {
        let mut line = Line::new(case.name, engine.as_str(), who.as_str(), 1, own)?;
        line.processor_us = None;
        line.size = Some(config.large);
        if who == Who::Ours {
            line.compare(ours, bare);
        }
        config.printer.line(line, config)?;
    }
    Ok(())
}
