//! What operations cost as the store grows: the same on stores of several sizes, in turn.

use store_api::SkillId;
use store_api::page::MAX_PAGE;

use crate::cases::reads::{self, PAGE};
use crate::cases::{Make, Seat, check};
use crate::data;
use crate::engine::{Engine, Who};
use crate::measure::{Op, Plan, Tally};
use crate::population::Population;
use crate::report::Line;
use crate::runner::{Config, Place, Side, batch};
use crate::subject::{Position, Result, Subject};

/// What is measured at each size, by name.
const OPERATIONS: [(&str, Make); 6] = [
    ("scale-append", append),
    ("scale-mark", mark),
    ("scale-due-page", reads::due_page),
    ("scale-newest-page", newest_page),
    ("scale-last-page", last_page),
    ("scale-last-runs", reads::last_runs),
];

/// Above all numbers of the population.
const FRESH: u64 = 1_000_000_000;

/// A store of one size.
struct Sized {
    size: u64,
    side: Side,
    rounds: Vec<Tally>,
    _place: Place,
}

/// Runs every operation on every engine at every size.
pub(crate) fn run(sizes: &[u64], config: &Config) -> Result<()> {
    for &engine in &config.engines {
        for who in [Who::Ours, Who::Bare] {
            let mut stores =
                sizes.iter().map(|&size| fill(size, engine, who, config)).collect::<Result<Vec<_>>>()?;
            for (name, make) in OPERATIONS {
                in_turn(make, engine, &mut stores, config)?;
                report(name, engine, &stores, config)?;
            }
        }
    }
    Ok(())
}

fn fill(size: u64, engine: Engine, who: Who, config: &Config) -> Result<Sized> {
    let place = config.place()?;
    let side = Side::fill(engine, who, Population::Mixed(size), place.path(), config.delay)?;
    Ok(Sized { size, side, rounds: Vec::new(), _place: place })
}

fn in_turn(make: Make, engine: Engine, stores: &mut [Sized], config: &Config) -> Result<()> {
    let plan = Plan { clients: 1, length: config.length, batch: batch(engine), end: u64::MAX };
    for Sized { side, rounds, .. } in &mut *stores {
        rounds.clear();
        side.measure(&Plan { length: plan.length / 10, ..plan }, make)?;
    }
    for _ in 0..config.rounds {
        for Sized { side, rounds, .. } in &mut *stores {
            rounds.push(side.measure(&plan, make)?);
        }
    }
    Ok(())
}

fn report(name: &str, engine: Engine, stores: &[Sized], config: &Config) -> Result<()> {
    let line = |store: &Sized| {
        let line = Line::new(name, engine.as_str(), store.side.who.as_str(), 1, &store.rounds)?;
        Ok(Line { size: Some(store.size), ..line })
    };
    let mut lines = stores.iter().map(line).collect::<Result<Vec<_>>>()?;
    let points: Vec<_> =
        stores.iter().zip(&lines).map(|(store, line)| (store.size as f64, line.p50_us)).collect();
    if let (Some((_, first)), Some(largest)) = (points.first(), lines.last_mut())
        && points.len() > 1
    {
        largest.growth = Some(largest.p50_us / first);
        largest.exponent = Some(exponent(&points));
    }
    lines.into_iter().try_for_each(|line| config.printer.line(line, config))
}

/// The slope of the line that fits the points best, both in logarithms: 0 is flat, 1 grows with the size.
fn exponent(points: &[(f64, f64)]) -> f64 {
    let logarithms: Vec<_> = points.iter().map(|(size, cost)| (size.ln(), cost.ln())).collect();
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| logarithms.iter().map(of).sum::<f64>() / count;
    let (mean_size, mean_cost) = (mean(|point| point.0), mean(|point| point.1));
    let joint: f64 = logarithms.iter().map(|(size, cost)| (size - mean_size) * (cost - mean_cost)).sum();
    let own: f64 = logarithms.iter().map(|(size, _)| (size - mean_size).powi(2)).sum();
    joint / own
}

fn append(Seat { subject, population, .. }: Seat<'_>) -> Result<Op<'_>> {
    let mut version = data::version(0, 0, data::DOCUMENT_BYTES)?;
    // Not the first skill, whose list others read.
    let others = population.skills() - 1;
    Ok(Box::new(move |n| {
        version.id = data::version_id(FRESH + n)?;
        version.snapshot.id = data::skill_id(1 + data::scatter(n, others))?;
        check(subject.append_version(&version)? > 1, "the number of the version")
    }))
}

fn mark(Seat { subject, population, .. }: Seat<'_>) -> Result<Op<'_>> {
    Ok(Box::new(move |n| {
        let id = data::skill_id(data::scatter(n, population.skills()))?;
        subject.mark(&id, data::at(n), data::at(FRESH + n))
    }))
}

fn newest_page(Seat { subject, population, .. }: Seat<'_>) -> Result<Op<'_>> {
    let (id, newest) = (data::skill_id(0)?, population.versions(0));
    Ok(Box::new(move |_| {
        let (page, _) = subject.versions(&id, PAGE, None)?;
        check(page.len() == PAGE && page[0].seq == newest, "the newest versions")
    }))
}

fn last_page(Seat { subject, population, .. }: Seat<'_>) -> Result<Op<'_>> {
    let id = data::skill_id(0)?;
    let before = usize::try_from(population.versions(0))?.saturating_sub(PAGE);
    let at = walk(subject, &id, before)?;
    Ok(Box::new(move |_| {
        let (page, _) = subject.versions(&id, PAGE, at.as_ref())?;
        check(page.len() == PAGE && page[PAGE - 1].seq == 1, "the oldest versions")
    }))
}

/// Where a skill's versions go on after so many.
fn walk(subject: &dyn Subject, id: &SkillId, mut count: usize) -> Result<Option<Position>> {
    let mut at = None;
    while count > 0 {
        let step = count.min(MAX_PAGE);
        (_, at) = subject.versions(id, step, at.as_ref())?;
        count -= step;
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponents_are_found() {
        let grown = |power: f64| exponent(&[1e3, 1e4, 1e5].map(|size: f64| (size, 7.0 * size.powf(power))));
        assert!(
            grown(0.0).abs() < 1e-9 && (grown(1.0) - 1.0).abs() < 1e-9 && (grown(0.5) - 0.5).abs() < 1e-9
        );
    }
}
