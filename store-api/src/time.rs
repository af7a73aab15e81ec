//! Times: kept to the nanosecond, within what an `i64` of nanoseconds can say (1677-09-21 to 2262-04-11).

use std::time::Duration;

use chrono::{DateTime, Timelike, Utc};

use crate::{Error, Result};

/// Nanoseconds since 1970-01-01T00:00:00Z, as engines index them.
///
/// # Errors
/// `InvalidInput` naming `field` for a time outside the range, or inside a leap second (which an `i64` cannot say).
pub fn nanos(field: &'static str, time: DateTime<Utc>) -> Result<i64> {
    if time.nanosecond() >= 1_000_000_000 {
        return Err(Error::invalid(field, format!("{time} lies inside a leap second")));
    }
    time.timestamp_nanos_opt()
        .ok_or_else(|| Error::invalid(field, format!("{time} is outside 1677-09-21 to 2262-04-11")))
}

/// The inverse of [`nanos`].
pub fn from_nanos(nanos: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_nanos(nanos)
}

/// `time + length`.
///
/// # Errors
/// `InvalidInput` naming `field` when the sum is outside the range.
pub fn after(field: &'static str, time: DateTime<Utc>, length: Duration) -> Result<DateTime<Utc>> {
    let start = nanos(field, time)?;
    i64::try_from(length.as_nanos())
        .ok()
        .and_then(|length| start.checked_add(length))
        .map(from_nanos)
        .ok_or_else(|| Error::invalid(field, format!("{time} + {length:?} is after 2262-04-11")))
}

/// Checks an optional time.
pub(crate) fn check(field: &'static str, time: Option<DateTime<Utc>>) -> Result<()> {
    time.map_or(Ok(()), |time| nanos(field, time).map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_range_ends_with_an_error() {
        let inside: DateTime<Utc> = "2262-04-11T23:47:16.854775807Z".parse().unwrap();
        let outside: DateTime<Utc> = "2262-04-11T23:47:16.854775808Z".parse().unwrap();
        assert_eq!(nanos("t", inside).unwrap(), i64::MAX);
        assert!(nanos("t", outside).is_err());
        assert!(nanos("t", DateTime::<Utc>::MAX_UTC).is_err());
        assert!(after("t", inside, Duration::from_nanos(1)).is_err());
        let leap: DateTime<Utc> = "2016-12-31T23:59:60.5Z".parse().unwrap();
        assert!(nanos("t", leap).unwrap_err().to_string().contains("leap"));
    }

    proptest! {
        #[test]
        fn nanos_round_trip_also_through_json(n: i64) {
            let time = from_nanos(n);
            prop_assert_eq!(nanos("t", time).unwrap(), n);
            let text = serde_json::to_string(&time).unwrap();
            prop_assert_eq!(serde_json::from_str::<DateTime<Utc>>(&text).unwrap(), time);
        }
    }
}
