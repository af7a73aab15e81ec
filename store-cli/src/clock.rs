//! The one place in the project that reads the clock.

use chrono::{DateTime, Utc};
use store::{Error, Result, window};

/// Where `now` comes from: the clock, unless `--now` says another time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    fixed: Option<DateTime<Utc>>,
}

impl Clock {
    /// The system's clock, or the RFC 3339 time of `--now`.
    pub(crate) fn new(now: Option<&str>) -> Result<Self> {
        Ok(Clock { fixed: now.map(|text| rfc3339("now", text)).transpose()? })
    }

    /// A clock that stands still.
    pub(crate) fn at(now: DateTime<Utc>) -> Self {
        Clock { fixed: Some(now) }
    }

    /// The time.
    #[allow(
        clippy::disallowed_methods,
        reason = "a store never reads the clock, so that its callers can: here"
    )]
    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.fixed.unwrap_or_else(Utc::now)
    }
}

/// A time as people give it: RFC 3339, or relative to `now` as `+90m` and `-30d`.
pub(crate) fn moment(field: &'static str, text: &str, now: DateTime<Utc>) -> Result<DateTime<Utc>> {
    let shifted = |length: &str, sign: i64| {
        let length = window::parse_length(field, length)?;
        let nanos = i64::try_from(length.as_nanos()).ok().map(|nanos| sign * nanos);
        nanos
            .and_then(|nanos| now.checked_add_signed(chrono::Duration::nanoseconds(nanos)))
            .ok_or_else(|| Error::invalid(field, format!("{text} from {now} is out of range")))
    };
    match (text.strip_prefix('+'), text.strip_prefix('-')) {
        (Some(length), _) => shifted(length, 1),
        (_, Some(length)) => shifted(length, -1),
        _ => rfc3339(field, text),
    }
}

fn rfc3339(field: &'static str, text: &str) -> Result<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text).map(|time| time.to_utc()).map_err(|error| {
        Error::invalid(field, format!("{text:?} is no RFC 3339 time such as 2026-01-31T09:00:00Z: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_absolute_or_relative() {
        let now = rfc3339("now", "2026-01-31T09:00:00Z").unwrap();
        let at = |text| moment("next", text, now).unwrap().to_rfc3339();
        assert_eq!(at("+90m"), "2026-01-31T10:30:00+00:00");
        assert_eq!(at("-31d"), "2025-12-31T09:00:00+00:00");
        assert_eq!(at("2026-02-01T00:00:00+01:00"), "2026-01-31T23:00:00+00:00");
        for bad in ["", "+", "-5", "tomorrow", "2026-01-31", "+99999999999999999d"] {
            assert!(moment("next", bad, now).is_err(), "{bad}");
        }
    }
}
