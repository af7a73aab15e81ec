//! When an expression is due next: the host's part of a schedule. A store keeps the answer and asks no questions.

use std::str::FromStr;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use croner::Cron;
use croner::errors::CronError;

/// The first time after `after` that `cron` names in `zone`; `None` when it never comes.
pub(crate) fn next(cron: &str, zone: &str, after: DateTime<Utc>) -> Result<Option<DateTime<Utc>>, String> {
    let zone = match zone {
        "" => Tz::UTC,
        name => name.parse().map_err(|_| format!("{name:?} is no time zone"))?,
    };
    let refuse = |error: CronError| format!("{cron:?} is no cron expression: {error}");
    match Cron::from_str(cron).map_err(refuse)?.find_next_occurrence(&after.with_timezone(&zone), false) {
        Ok(time) => Ok(Some(time.with_timezone(&Utc))),
        Err(CronError::TimeSearchLimitExceeded) => Ok(None),
        Err(error) => Err(refuse(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_in_the_morning_moves_with_the_clocks() {
        let after = |text: &str| next("0 6 * * *", "Europe/Madrid", text.parse().unwrap()).unwrap().unwrap();
        let summer = after("2026-10-24T00:00:00Z");
        assert_eq!(summer.to_rfc3339(), "2026-10-24T04:00:00+00:00");
        assert_eq!(after(&summer.to_rfc3339()).to_rfc3339(), "2026-10-25T05:00:00+00:00");
    }

    #[test]
    fn nonsense_is_named() {
        let now = "2026-10-24T00:00:00Z".parse().unwrap();
        assert!(next("never", "", now).unwrap_err().contains("\"never\" is no cron"));
        assert!(next("0 6 * * *", "Mars/Base", now).unwrap_err().contains("no time zone"));
        assert_eq!(next("0 0 30 2 *", "", now), Ok(None));
    }
}
