//! What is printed: one line for each subject of each measurement.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use crate::measure::{Tally, median};
use crate::subject::Result;
use crate::targets::{Bound, Figure};

/// What came of measuring one subject, which was measured in turn with others in the same run.
///
/// A tool that measures others prints the same, so that all lines can be put into the same tables.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) case: String,
    pub(crate) engine: String,
    /// `ours`, `bare`, or the name of a peer.
    pub(crate) subject: String,
    pub(crate) clients: usize,
    /// By how much each flush was delayed, in microseconds.
    #[serde(default)]
    pub(crate) delay_flush_us: u64,
    pub(crate) rounds: usize,
    /// The median of the rounds.
    pub(crate) ops_per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) max_us: f64,
    /// On a line of ours: operations per second over those of the bare database. On a peer's: ours over the peer's.
    /// The median of the rounds' ratios.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ratio: Option<f64>,
    /// In the same way: the 99th percentile of the latency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) p99_ratio: Option<f64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) targets: Vec<Judged>,
}

/// A target, and whether it was met.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Judged {
    pub(crate) figure: Figure,
    #[serde(flatten)]
    pub(crate) bound: Bound,
    pub(crate) found: f64,
    pub(crate) met: bool,
}

impl Line {
    /// A line from the rounds of one subject.
    pub(crate) fn new(
        case: &str,
        engine: &str,
        subject: &str,
        clients: usize,
        rounds: &[Tally],
    ) -> Result<Self> {
        let mut all = Tally::new()?;
        rounds.iter().try_for_each(|tally| all.add(tally))?;
        let micros = |nanos: u64| nanos as f64 / 1e3;
        Ok(Line {
            case: case.to_owned(),
            engine: engine.to_owned(),
            subject: subject.to_owned(),
            clients,
            delay_flush_us: 0,
            rounds: rounds.len(),
            ops_per_second: median(rounds.iter().map(Tally::ops_per_second).collect()),
            p50_us: micros(all.latency.value_at_quantile(0.5)),
            p99_us: micros(all.latency.value_at_quantile(0.99)),
            max_us: micros(all.latency.max()),
            ratio: None,
            p99_ratio: None,
            targets: Vec::new(),
        })
    }

    fn figure(&self, figure: Figure) -> Option<f64> {
        match figure {
            Figure::Ratio => self.ratio,
            Figure::P99Ratio => self.p99_ratio,
            Figure::OpsPerSecond => Some(self.ops_per_second),
        }
    }

    /// Holds the line against targets, as far as it has the figures for them.
    pub(crate) fn judge(&mut self, targets: Vec<(Figure, Bound)>) {
        let judged = targets.into_iter().filter_map(|(figure, bound)| {
            let found = self.figure(figure)?;
            Some(Judged { figure, bound, found, met: bound.holds(found) })
        });
        self.targets = judged.collect();
    }
}

/// Where lines go: to a table, or as JSON one by one.
pub(crate) struct Printer {
    pub(crate) is_json: bool,
}

impl Printer {
    pub(crate) fn head(&self) -> io::Result<()> {
        if self.is_json {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        writeln!(
            out,
            "| {:<22} | {:<6} | {:<4} | {:>7} | {:>10} | {:>6} | {:>9} | {:>9} | {:>9} | target |",
            "case", "engine", "who", "clients", "ops/s", "ratio", "p50 us", "p99 us", "max us"
        )?;
        writeln!(out, "|---|---|---|--:|--:|--:|--:|--:|--:|---|")
    }

    pub(crate) fn line(&self, line: &Line) -> Result<()> {
        let mut out = io::stdout().lock();
        if self.is_json {
            serde_json::to_writer(&mut out, line)?;
            writeln!(out)?;
            return Ok(());
        }
        let Line { case, engine, subject, clients, ops_per_second, p50_us, p99_us, max_us, .. } = line;
        let ratio = line.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
        let targets: Vec<String> = line.targets.iter().map(judged).collect();
        writeln!(
            out,
            "| {case:<22} | {engine:<6} | {subject:<4} | {clients:>7} | {ops_per_second:>10.0} | {ratio:>6} | {p50_us:>9.1} \
             | {p99_us:>9.1} | {max_us:>9.0} | {} |",
            targets.join("; ")
        )?;
        Ok(())
    }
}

/// A target in a few characters.
pub(crate) fn judged(judged: &Judged) -> String {
    let Judged { figure, bound, found, met } = judged;
    let what = match figure {
        Figure::Ratio => String::new(),
        Figure::P99Ratio => format!("p99 x {found:.2} "),
        Figure::OpsPerSecond => "ops/s ".to_owned(),
    };
    let (sign, bound) = match bound {
        Bound::AtLeast(bound) => (">=", bound),
        Bound::AtMost(bound) => ("<=", bound),
    };
    format!("{what}{sign} {bound}: {}", if *met { "met" } else { "NOT MET" })
}
