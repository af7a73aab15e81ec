//! What a campaign reports: one line for each configuration that it tried.

use std::borrow::Cow;
use std::io::{self, BufRead, Write};
use std::time::Instant;

use serde::{Deserialize, Serialize};

/// Why a campaign could not go on: nothing that it says of an engine.
pub(crate) type Broken = Box<dyn std::error::Error>;

/// Work of a campaign that may break off.
pub(crate) type Attempt = Result<(), Broken>;

/// What came of one configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) campaign: Cow<'static, str>,
    pub(crate) engine: Cow<'static, str>,
    /// What was set up, in a few words.
    pub(crate) configuration: String,
    /// A configuration that must lose data, or the campaign proves nothing.
    pub(crate) control: bool,
    pub(crate) seed: u64,
    /// How many things were tried, and what each of them is.
    pub(crate) tried: u64,
    pub(crate) unit: Cow<'static, str>,
    /// Acknowledged writes that were not there.
    pub(crate) lost: u64,
    /// Answers that no honest store gives: wrong records, wrong errors, broken laws.
    pub(crate) wrong: u64,
    pub(crate) panicked: u64,
    pub(crate) seconds: f64,
    /// Why it was not run; everything else is nought then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) skipped: Option<String>,
    /// The first fault, told so that it can be found again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) first_fault: Option<String>,
}

impl Line {
    /// A line of a configuration about to be run.
    pub(crate) fn new(
        campaign: &'static str,
        engine: &'static str,
        configuration: impl Into<String>,
    ) -> Self {
        Line {
            campaign: campaign.into(),
            engine: engine.into(),
            configuration: configuration.into(),
            control: false,
            seed: 0,
            tried: 0,
            unit: Cow::Borrowed(""),
            lost: 0,
            wrong: 0,
            panicked: 0,
            seconds: 0.0,
            skipped: None,
            first_fault: None,
        }
    }

    /// The same, as a control.
    pub(crate) fn control(self) -> Self {
        Line { control: true, ..self }
    }

    /// The same, not run for a reason.
    pub(crate) fn skipped(self, reason: impl Into<String>) -> Self {
        Line { skipped: Some(reason.into()), ..self }
    }

    /// Runs the configuration, which counts into the line, and notes how long it took.
    pub(crate) fn run(mut self, seed: u64, unit: &'static str, work: impl FnOnce(&mut Line)) -> Self {
        (self.seed, self.unit) = (seed, unit.into());
        let start = Instant::now();
        work(&mut self);
        self.seconds = start.elapsed().as_secs_f64();
        self
    }

    /// As [`run`](Line::run), with work that may break off. Then nothing counts as tried, so that neither a
    /// configuration nor a control passes.
    pub(crate) fn attempt(
        self,
        seed: u64,
        unit: &'static str,
        work: impl FnOnce(&mut Line) -> Attempt,
    ) -> Self {
        self.run(seed, unit, |line| {
            if let Err(broken) = work(line) {
                line.tried = 0;
                line.first_fault = Some(format!("the campaign broke off: {broken}"));
            }
        })
    }

    /// Notes a fault's text, if it is the first.
    pub(crate) fn fault(&mut self, text: impl FnOnce() -> String) {
        self.first_fault.get_or_insert_with(text);
    }

    /// How many faults were found.
    pub(crate) fn faults(&self) -> u64 {
        self.lost + self.wrong + self.panicked
    }

    /// Whether the line is as it must be: something was tried, and faults were found in controls and only there.
    pub(crate) fn is_as_it_must_be(&self) -> bool {
        self.skipped.is_some() || (self.tried > 0 && self.control == (self.faults() > 0))
    }

    /// The verdict in a word.
    pub(crate) fn verdict(&self) -> &'static str {
        match (self.skipped.is_some(), self.is_as_it_must_be(), self.control) {
            (true, ..) => "skipped",
            (_, true, false) => "sound",
            (_, true, true) => "fails, as it must",
            (_, false, true) => "CONTROL PASSED",
            (_, false, false) => "BROKEN",
        }
    }
}

/// Writes a line as JSON.
pub(crate) fn write_json(to: &mut impl Write, line: &Line) -> io::Result<()> {
    serde_json::to_writer(&mut *to, line)?;
    writeln!(to)
}

/// Reads lines that were written as JSON.
pub(crate) fn read_json(from: impl BufRead) -> io::Result<Vec<Line>> {
    from.lines().map(|text| Ok(serde_json::from_str(&text?)?)).collect()
}

/// The head of the table that [`write_row`] fills.
pub(crate) fn write_head(to: &mut impl Write) -> io::Result<()> {
    writeln!(
        to,
        "| campaign | engine | configuration | tried | lost | wrong | panicked | seconds | seed | verdict |"
    )?;
    writeln!(to, "|---|---|---|---|---|---|---|---|---|---|")
}

/// Writes a line as a row of a table.
pub(crate) fn write_row(to: &mut impl Write, line: &Line) -> io::Result<()> {
    let Line { campaign, engine, configuration, tried, unit, lost, wrong, panicked, seconds, seed, .. } =
        line;
    let verdict = line.verdict();
    writeln!(
        to,
        "| {campaign} | {engine} | {configuration} | {tried} {unit} | {lost} | {wrong} | {panicked} | {seconds:.1} | {seed} | {verdict} |"
    )?;
    for (what, text) in [("skipped", &line.skipped), ("first fault", &line.first_fault)] {
        if let Some(text) = text
            && !(line.control && what == "first fault")
        {
            writeln!(to, "| | | {what}: {text} | | | | | | | |")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_read_back_from_json() {
        let line = Line::new("c", "e", "x").run(7, "images", |line| line.tried = 3);
        let mut text = Vec::new();
        write_json(&mut text, &line).unwrap();
        assert_eq!(read_json(text.as_slice()).unwrap(), [line]);
    }

    #[test]
    fn what_broke_off_never_passes() {
        let broken = Line::new("c", "e", "x").attempt(1, "things", |line| {
            (line.tried, line.wrong) = (1, 1);
            Err("no disk".into())
        });
        assert!(!broken.is_as_it_must_be() && !broken.control().is_as_it_must_be());
    }

    #[test]
    fn a_control_must_fail_and_everything_else_must_not() {
        let sound = Line { tried: 1, ..Line::new("c", "e", "x") };
        let broken = Line { lost: 1, ..sound.clone() };
        assert!(sound.is_as_it_must_be() && !broken.is_as_it_must_be());
        assert!(!sound.clone().control().is_as_it_must_be() && broken.control().is_as_it_must_be());
        assert!(!Line::new("c", "e", "x").is_as_it_must_be(), "nothing was tried");
        assert!(Line::new("c", "e", "x").skipped("no root").is_as_it_must_be());
    }
}
