//! A lone writer, by itself and beside readers that never pause.

use super::{Case, Method, reads, writes};
use crate::engine::{Engine, Who};
use crate::measure::{Plan, median};
use crate::population::Population;
use crate::report::Line;
use crate::runner::{Config, Stage, batch};
use crate::subject::Result;

const READERS: usize = 2;

pub(super) const BESIDE_READERS: Case = Case {
    name: "beside-readers",
    about: "one writer appends versions, alone and while 2 readers get skills without a pause",
    method: Method::Own(run),
};

fn run(case: &Case, engine: Engine, config: &Config) -> Result<()> {
    let plan = Plan { clients: 1, length: config.length, batch: batch(engine), end: u64::MAX };
    let (mut rounds, mut ratios) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for _ in 0..config.rounds {
        let stage = Stage::set(engine, Population::Small, config)?;
        for ((side, rounds), ratios) in stage.sides().iter().zip(&mut rounds).zip(&mut ratios) {
            let alone = side.measure(&plan, writes::append_version)?;
            let beside = side.measure_beside(&plan, writes::append_version, READERS, reads::get)?;
            ratios.push(beside.quantile_us(0.5) / alone.quantile_us(0.5));
            rounds.push(beside);
        }
    }
    let [ours, bare] = &rounds;
    for ((who, own), ratios) in [(Who::Ours, ours), (Who::Bare, bare)].into_iter().zip(ratios) {
        let mut line = Line::new(case.name, engine.as_str(), who.as_str(), 1, own)?;
        line.beside_ratio = Some(median(ratios));
        if who == Who::Ours {
            line.compare(ours, bare);
        }
        config.printer.line(line, config)?;
    }
    Ok(())
}
