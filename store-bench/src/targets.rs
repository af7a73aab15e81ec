//! What is aimed for, in one table.

use serde::{Deserialize, Serialize};

use crate::engine::Engine;

/// Which figure of a line a target is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Figure {
    Ratio,
    P99Ratio,
    BesideRatio,
    OpsPerSecond,
    Scaling,
    Growth,
    P50Us,
    PeakMemoryMb,
}

/// A bound, and on which side of it to be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    pub(crate) fn holds(self, found: f64) -> bool {
        match self {
            Bound::AtLeast(bound) => found >= bound,
            Bound::AtMost(bound) => found <= bound,
        }
    }
}

pub(crate) type Targets = Vec<(Figure, Bound)>;

/// From which delay of each flush on, in microseconds, a disk is slow. Less makes a fast disk like the one on which
/// the other targets were set, whose flush takes 124 microseconds.
pub(crate) const SLOW_US: u64 = 1_000;

/// The targets of a case on an engine with so many clients, each flush delayed by so much.
pub(crate) fn of(case: &str, engine: &str, clients: usize, delay_us: u64) -> Targets {
    use Bound::{AtLeast, AtMost};
    if let Some(scaled) = case.strip_prefix("scale-") {
        return (scaled != "walk").then_some((Figure::Growth, AtMost(1.5))).into_iter().collect();
    }
    if case == "copy" {
        let memory = (!engine.contains("memory")).then_some((Figure::PeakMemoryMb, AtMost(200.0)));
        return [(Figure::Ratio, AtLeast(0.5))].into_iter().chain(memory).collect();
    }
    let Some(engine) =
        [Engine::Sqlite, Engine::Redb, Engine::Memory].into_iter().find(|e| e.as_str() == engine)
    else {
        return Vec::new();
    };
    match (case, delay_us >= SLOW_US) {
        ("append-version", true) => delayed(engine, clients),
        (_, true) => Vec::new(),
        ("append-version", _) if engine.is_durable() => append(engine, clients),
        ("settle", _) if engine.is_durable() && clients == 16 => vec![(Figure::Ratio, AtLeast(3.5))],
        ("beside-readers", _) if engine.is_durable() => vec![(Figure::BesideRatio, AtMost(1.3))],
        ("open", _) if engine == Engine::Sqlite => vec![(Figure::P50Us, AtMost(50_000.0))],
        ("get" | "newest-page" | "due-page", _) => reading(case, engine, clients),
        (case, _) if engine.is_durable() && clients == 1 && is_single_write(case) => {
            vec![(Figure::Ratio, AtLeast(0.95))]
        }
        _ => Vec::new(),
    }
}

/// The targets of ours over a peer at equal durability.
pub(crate) fn of_peer(engine: &str, clients: usize) -> Targets {
    let least = match (engine, clients) {
        ("sqlite", 1) => 1.1,
        ("redb", 1) => 0.8,
        ("sqlite" | "redb", 16) => 2.0,
        _ => return Vec::new(),
    };
    vec![(Figure::Ratio, Bound::AtLeast(least))]
}

fn is_single_write(case: &str) -> bool {
    let writes = ["mark", "budget-add", "admit", "start-run", "append-event", "finish-run", "settle"];
    writes.contains(&case) || case.starts_with("checkpoint-")
}

fn append(engine: Engine, clients: usize) -> Targets {
    let least = match (engine, clients) {
        (_, 1) => 0.95,
        (_, 4) => 2.2,
        (Engine::Sqlite, 16) => 4.0,
        (_, 16) => 4.5,
        (Engine::Sqlite, 64) => 6.0,
        (_, 64) => 7.0,
        _ => return Vec::new(),
    };
    let latency = (clients == 64).then_some((Figure::P99Ratio, Bound::AtMost(0.1)));
    [(Figure::Ratio, Bound::AtLeast(least))].into_iter().chain(latency).collect()
}

fn delayed(engine: Engine, clients: usize) -> Targets {
    let least = match (engine, clients) {
        (Engine::Sqlite, 16) => 9.5,
        (Engine::Redb, 16) => 9.0,
        (Engine::Sqlite | Engine::Redb, 64) => 17.0,
        _ => return Vec::new(),
    };
    vec![(Figure::Ratio, Bound::AtLeast(least))]
}

fn reading(case: &str, engine: Engine, clients: usize) -> Targets {
    match (case, engine, clients) {
        ("get", Engine::Memory, 1) => vec![(Figure::OpsPerSecond, Bound::AtLeast(5e6))],
        ("get", Engine::Memory, 2) => vec![(Figure::Scaling, Bound::AtLeast(1.6))],
        (_, Engine::Memory, 1) => vec![(Figure::OpsPerSecond, Bound::AtLeast(1e6))],
        (_, Engine::Memory, _) => Vec::new(),
        (_, _, 1 | 2) => vec![(Figure::Ratio, Bound::AtLeast(0.9))],
        _ => Vec::new(),
    }
}
