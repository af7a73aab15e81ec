//! A lone writer, by itself and beside readers that never pause.

use super::{Case, Method, reads, writes};
use crate::engine::Engine;
use crate::measure::{Plan, Tally, median};
use crate::population::Population;
use crate::report::Line;
use crate::runner::{Config, Side, Stage, batch};
use crate::subject::Result;

const READERS: usize = 2;

pub(super) const BESIDE_READERS: Case = Case {
    name: "beside-readers",
    about: "one writer appends versions, alone and while 2 readers get skills without a pause",
    method: Method::Own(run),
};

fn run(case: &Case, engine: Engine, config: &Config) -> Result<()> {
    let mut stage = Stage::set(engine, Population::Small, config)?;
    let plan = Plan { clients: 1, length: config.length, batch: batch(engine), end: u64::MAX };
    let mut ratios = [Vec::new(), Vec::new()];
    for _ in 0..config.rounds {
        for (side, ratios) in stage.sides().iter_mut().zip(&mut ratios) {
            let alone = side.measure(&plan, writes::append_version)?;
            let beside = side.measure_beside(&plan, writes::append_version, READERS, reads::get)?;
            ratios.push(beside.quantile_us(0.5) / alone.quantile_us(0.5));
            side.rounds.push(beside);
        }
    }
    let rounds_of = |side: &Side| side.rounds.clone();
    let [ours, bare]: [Vec<Tally>; 2] = stage.sides().each_ref().map(rounds_of);
    for (side, ratios) in stage.sides().iter().zip(ratios) {
        let mut line = Line::new(case.name, engine.as_str(), side.who.as_str(), 1, &side.rounds)?;
        line.beside_ratio = Some(median(ratios));
        if side.who == crate::engine::Who::Ours {
            line.compare(&ours, &bare);
        }
        config.printer.line(line, config)?;
    }
    Ok(())
}
