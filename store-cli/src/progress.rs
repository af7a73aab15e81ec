//! How far long work is, for whoever watches a terminal. Where nobody does, nothing is written.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// How long a bar stands still before it is drawn anew.
const EVERY: Duration = Duration::from_millis(200);

/// How many characters wide the bar itself is.
const WIDTH: u64 = 20;

/// Whether somebody watches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Progress {
    shown: bool,
}

impl Progress {
    /// Shown on standard error, if that is a terminal.
    pub(crate) fn on_terminal() -> Self {
        Progress { shown: io::stderr().is_terminal() }
    }

    pub(crate) fn is_shown(self) -> bool {
        self.shown
    }

    /// A bar for one stage of the work. It goes away when it is dropped.
    pub(crate) fn bar(self, stage: &'static str, total: Option<u64>) -> Bar {
        let now = Instant::now();
        Bar { shown: self.shown, stage, total, started: now, next: now + EVERY, drawn: false }
    }
}

/// One line that is drawn over and over.
pub(crate) struct Bar {
    shown: bool,
    stage: &'static str,
    total: Option<u64>,
    started: Instant,
    next: Instant,
    drawn: bool,
}

impl Bar {
    /// So many records have passed.
    pub(crate) fn at(&mut self, passed: u64) {
        if !self.shown || Instant::now() < self.next {
            return;
        }
        self.draw(&line(self.stage, passed, self.total, self.started.elapsed()));
        self.next = Instant::now() + EVERY;
        self.drawn = true;
    }

    /// A terminal that is gone is no reason to stop working.
    fn draw(&self, text: &str) {
        let mut err = io::stderr().lock();
        drop(write!(err, "\r\x1b[K{text}").and_then(|()| err.flush()));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if self.drawn {
            self.draw("");
        }
    }
}

/// `copying [#####               ] 25%  1,000 of 4,000 records  500/s  6 s left`
fn line(stage: &str, passed: u64, total: Option<u64>, elapsed: Duration) -> String {
    let mut line = stage.to_owned();
    // More may pass than was counted before.
    let total = total.map(|total| total.max(passed)).filter(|total| *total > 0);
    if let Some(total) = total {
        let filled = WIDTH * passed / total;
        let bar: String = (0..WIDTH).map(|at| if at < filled { '#' } else { ' ' }).collect();
        append(&mut line, format_args!(" [{bar}] {}%", 100 * passed / total));
    }
    append(&mut line, format_args!("  {}", thousands(passed)));
    if let Some(total) = total {
        append(&mut line, format_args!(" of {}", thousands(total)));
    }
    append(&mut line, format_args!(" records"));
    let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
    append(&mut line, format_args!("  {}/s", thousands(passed.saturating_mul(1000) / millis)));
    if let Some(total) = total.filter(|_| passed > 0) {
        let left = (total - passed).saturating_mul(millis) / passed / 1000;
        append(&mut line, format_args!("  {} left", length(left)));
    }
    line
}

/// Formatting into a string cannot fail, so there is nothing to report.
fn append(line: &mut String, text: std::fmt::Arguments<'_>) {
    if line.write_fmt(text).is_err() {
        line.push('?');
    }
}

fn length(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_records_rate_and_time_left() {
        let at = |passed, total, seconds| line("copying", passed, total, Duration::from_secs(seconds));
        assert_eq!(
            at(1000, Some(4000), 2),
            "copying [#####               ] 25%  1,000 of 4,000 records  500/s  6 s left"
        );
        assert_eq!(
            at(1_000_000, Some(999_999), 100),
            "copying [####################] 100%  1,000,000 of 1,000,000 records  10,000/s  0 s left"
        );
        assert_eq!(at(999, None, 3), "copying  999 records  333/s");
        assert_eq!(at(0, Some(0), 0), "copying  0 records  0/s");
        assert_eq!(length(59), "59 s");
        assert_eq!(length(61), "1 min 1 s");
        assert_eq!(length(7500), "2 h 5 min");
    }
}
