//! What is printed: one line for each subject of each measurement.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use crate::measure::{Tally, median, median_ratio};
use crate::runner::Config;
use crate::subject::Result;
use crate::targets::{self, Bound, Figure};

/// What came of measuring one subject, which was measured in turn with others in the same run.
///
/// A tool that measures others prints the same, so that all lines can be put into the same tables.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) case: String,
    /// Of a copy: from which to which.
    pub(crate) engine: String,
    /// `ours`, `bare`, or the name of a peer.
    pub(crate) subject: String,
    pub(crate) clients: usize,
    /// By how much each flush was delayed, in microseconds.
    #[serde(default)]
    pub(crate) delay_flush_us: u64,
    /// What writing 4 KB over and flushing them took in this run, the delay included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) flush_us: Option<f64>,
    /// How large the store was, where that is the question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) size: Option<u64>,
    pub(crate) rounds: usize,
    /// The median of the rounds. Of a copy: records.
    pub(crate) ops_per_second: f64,
    /// Latencies, over all rounds.
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) max_us: f64,
    /// What the processors spent on one operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) processor_us: Option<f64>,
    /// On a line of ours: operations per second over those of the bare database. On a peer's: ours over the peer's.
    /// The median of the rounds' ratios.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ratio: Option<f64>,
    /// In the same way: the 99th percentile of the latency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) p99_ratio: Option<f64>,
    /// The median latency beside readers, over that of a writer who is alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) beside_ratio: Option<f64>,
    /// Operations per second, over those of one client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) scaling: Option<f64>,
    /// The median latency in the largest store, over that in the smallest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) growth: Option<f64>,
    /// The power of the size that the median latency grows with: the slope of a fitted line, both in logarithms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) exponent: Option<f64>,
    /// The most memory that the process had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) peak_memory_mb: Option<f64>,
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
        Ok(Line {
            case: case.to_owned(),
            engine: engine.to_owned(),
            subject: subject.to_owned(),
            clients,
            rounds: rounds.len(),
            ops_per_second: median(rounds.iter().map(Tally::ops_per_second).collect()),
            p50_us: all.quantile_us(0.5),
            p99_us: all.quantile_us(0.99),
            max_us: all.quantile_us(1.0),
            processor_us: Some(median(rounds.iter().map(Tally::processor_us).collect())),
            ..Line::default()
        })
    }

    /// Puts down how ours compares with theirs, round by round.
    pub(crate) fn compare(&mut self, ours: &[Tally], theirs: &[Tally]) {
        self.ratio = Some(median_ratio(ours, theirs, Tally::ops_per_second));
        self.p99_ratio = Some(median_ratio(ours, theirs, |tally| tally.quantile_us(0.99)));
    }

    fn figure(&self, figure: Figure) -> Option<f64> {
        match figure {
            Figure::Ratio => self.ratio,
            Figure::P99Ratio => self.p99_ratio,
            Figure::BesideRatio => self.beside_ratio,
            Figure::OpsPerSecond => Some(self.ops_per_second),
            Figure::Scaling => self.scaling,
            Figure::Growth => self.growth,
            Figure::P50Us => Some(self.p50_us),
            Figure::PeakMemoryMb => self.peak_memory_mb,
        }
    }

    /// Holds the line against its targets, as far as it has the figures for them. The bare database has none.
    pub(crate) fn judge(&mut self) {
        let targets = match &*self.subject {
            "ours" => targets::of(&self.case, &self.engine, self.clients, self.delay_flush_us),
            "bare" => Vec::new(),
            _ => targets::of_peer(&self.engine, self.clients),
        };
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
            "| {:<15} | {:<6} | {:<4} | {:>7} | {:>7} | {:>10} | {:>6} | {:>9} | {:>9} | {:>9} | {:>8} | target |",
            "case",
            "engine",
            "who",
            "clients",
            "size",
            "ops/s",
            "ratio",
            "p50 us",
            "p99 us",
            "max us",
            "cpu us"
        )?;
        writeln!(out, "|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|---|")
    }

    pub(crate) fn line(&self, mut line: Line, config: &Config) -> Result<()> {
        line.delay_flush_us = config.delay.map_or(Ok(0), |delay| u64::try_from(delay.0.as_micros()))?;
        line.flush_us = Some(config.flush_us);
        line.judge();
        let mut out = io::stdout().lock();
        if self.is_json {
            serde_json::to_writer(&mut out, &line)?;
            writeln!(out)?;
            return Ok(());
        }
        let Line { case, engine, subject, clients, ops_per_second, p50_us, p99_us, max_us, .. } = &line;
        let size = line.size.map(|size| size.to_string()).unwrap_or_default();
        let ratio = line.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
        let processor = line.processor_us.map(|us| format!("{us:.1}")).unwrap_or_default();
        let targets: Vec<String> = line.targets.iter().map(Judged::to_string).collect();
        writeln!(
            out,
            "| {case:<15} | {engine:<6} | {subject:<4} | {clients:>7} | {size:>7} | {ops_per_second:>10.0} | {ratio:>6} \
             | {p50_us:>9.1} | {p99_us:>9.1} | {max_us:>9.0} | {processor:>8} | {} |",
            targets.join("; ")
        )?;
        Ok(())
    }
}

/// In a few characters: what was found, what was to be found, and whether it was.
impl std::fmt::Display for Judged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = match self.figure {
            Figure::Ratio => "",
            Figure::P99Ratio => "p99 x ",
            Figure::BesideRatio => "beside x ",
            Figure::OpsPerSecond => "ops/s ",
            Figure::Scaling => "scales ",
            Figure::Growth => "growth ",
            Figure::P50Us => "p50 us ",
            Figure::PeakMemoryMb => "MB ",
        };
        let (sign, bound) = match self.bound {
            Bound::AtLeast(bound) => (">=", bound),
            Bound::AtMost(bound) => ("<=", bound),
        };
        let met = if self.met { "met" } else { "NOT MET" };
        let found =
            if self.found < 1_000.0 { format!("{:.2}", self.found) } else { format!("{:.0}", self.found) };
        write!(f, "{what}{found} {sign} {bound}: {met}")
    }
}
