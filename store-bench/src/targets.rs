//! What is aimed for, in one table: the figures are ratios to the bare database unless they say otherwise.

use serde::{Deserialize, Serialize};

use crate::engine::Engine;

/// Which figure of a line a target is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Figure {
    /// Operations per second, ours over bare.
    Ratio,
    /// The 99th percentile of the latency, ours over bare.
    P99Ratio,
    OpsPerSecond,
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

/// The targets of a case on an engine with so many clients, flushes delayed or not.
pub(crate) fn of(case: &str, engine: Engine, clients: usize, is_delayed: bool) -> Vec<(Figure, Bound)> {
    use Bound::{AtLeast, AtMost};
    use Engine::{Memory, Redb, Sqlite};
    let ratio = |least| vec![(Figure::Ratio, AtLeast(least))];
    match (case, engine, clients, is_delayed) {
        ("append-version", Sqlite, 16, true) => ratio(9.5),
        ("append-version", Redb, 16, true) => ratio(9.0),
        ("append-version", Sqlite | Redb, 64, true) => ratio(17.0),
        (_, _, _, true) => Vec::new(),
        ("append-version" | "mark" | "budget-add", Sqlite | Redb, 1, _) => ratio(0.95),
        ("append-version", Sqlite | Redb, 4, _) => ratio(2.2),
        ("append-version", Sqlite, 16, _) => ratio(4.0),
        ("append-version", Redb, 16, _) => ratio(4.5),
        ("append-version", Sqlite, 64, _) => [ratio(6.0), vec![(Figure::P99Ratio, AtMost(0.1))]].concat(),
        ("append-version", Redb, 64, _) => [ratio(7.0), vec![(Figure::P99Ratio, AtMost(0.1))]].concat(),
        ("get" | "newest-page", Sqlite | Redb, 1 | 2, _) => ratio(0.9),
        ("get", Memory, 1, _) => vec![(Figure::OpsPerSecond, AtLeast(5e6))],
        ("newest-page", Memory, 1, _) => vec![(Figure::OpsPerSecond, AtLeast(1e6))],
        _ => Vec::new(),
    }
}
