//! Windows: over which time a meter adds up.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::{Error, Result};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The longest window: ten years.
pub const MAX_WINDOW: Duration = Duration::from_secs(3660 * 24 * 3600);

/// The most buckets that a sliding window may have: each add reads and writes them all.
pub const MAX_BUCKETS: u32 = 2_000;

/// How many buckets a sliding window has when nobody says: one an hour for a week.
pub const DEFAULT_BUCKETS: u32 = 168;

/// How long a window is and how it moves on.
///
/// As text, and in JSON: `rollover:7d`, `sliding:7d/168`; units are `d`, `h`, `m`, `s`, `ms`, `us`, `ns`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Window {
    length: Duration,
    kind: WindowKind,
}

/// How a window moves on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WindowKind {
    /// Starts at the first add; an add or a read at or after `start + length` belongs to a new window.
    Rollover,
    /// The sum of the buckets that begin within the last `length`. Buckets are `length / buckets` long and
    /// begin at whole multiples of that since 1970, so usage is off by at most one bucket: an add stops
    /// counting between `length - length / buckets` and `length` after it was made.
    Sliding {
        /// Into how many buckets the length is cut; it must divide the length evenly.
        buckets: u32,
    },
}

impl Default for Window {
    /// Seven days, rolling over.
    fn default() -> Self {
        Window { length: 7 * DAY, kind: WindowKind::Rollover }
    }
}

impl Window {
    /// A window that starts at its first add and lasts `length`.
    ///
    /// # Errors
    /// `InvalidInput` for a length of zero or above [`MAX_WINDOW`].
    pub fn rollover(length: Duration) -> Result<Self> {
        check_length(length)?;
        Ok(Window { length, kind: WindowKind::Rollover })
    }

    /// A window that ends now and began `length` ago, in steps of `length / buckets`.
    ///
    /// # Errors
    /// `InvalidInput` for a length of zero or above [`MAX_WINDOW`], for no bucket or more than [`MAX_BUCKETS`],
    /// and when the length is not a whole number of nanoseconds times the number of buckets.
    pub fn sliding(length: Duration, buckets: u32) -> Result<Self> {
        check_length(length)?;
        if !(1..=MAX_BUCKETS).contains(&buckets) {
            return Err(Error::invalid(
                "window",
                format!("{buckets} buckets are not between 1 and {MAX_BUCKETS}"),
            ));
        }
        if !length.as_nanos().is_multiple_of(u128::from(buckets)) {
            return Err(Error::invalid(
                "window",
                format!("{length:?} does not divide into {buckets} equal buckets"),
            ));
        }
        Ok(Window { length, kind: WindowKind::Sliding { buckets } })
    }

    /// How long it is.
    pub fn length(&self) -> Duration {
        self.length
    }

    /// How it moves on.
    pub fn kind(&self) -> WindowKind {
        self.kind
    }

    /// The length in nanoseconds. [`MAX_WINDOW`] keeps it far inside an `i64`.
    pub(crate) fn length_nanos(&self) -> i64 {
        i64::try_from(self.length.as_nanos()).unwrap_or(i64::MAX)
    }
}

fn check_length(length: Duration) -> Result<()> {
    if length.is_zero() || length > MAX_WINDOW {
        return Err(Error::invalid("window", format!("{length:?} is not between 1 ns and 3660 days")));
    }
    Ok(())
}

/// The units of a window's text, longest first.
const UNITS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// A length of time as a whole number of the longest unit that fits: `7d`, `90m`, `1500ms`.
pub fn format_length(length: Duration) -> String {
    let nanos = length.as_nanos();
    let (unit, size) = UNITS
        .into_iter()
        .find(|(_, size)| nanos != 0 && nanos.is_multiple_of(u128::from(*size)))
        .unwrap_or(("s", 1_000_000_000));
    format!("{}{unit}", nanos / u128::from(size))
}

/// The inverse of [`format_length`]: digits and one unit.
///
/// # Errors
/// `InvalidInput` naming `field`.
pub fn parse_length(field: &'static str, text: &str) -> Result<Duration> {
    let refuse =
        || Error::invalid(field, format!("{text:?} is no length of time such as 7d, 12h, 90m, 30s, 250ms"));
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let size = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(refuse)?.1;
    let nanos = number.parse::<u64>().ok().and_then(|n| n.checked_mul(size)).ok_or_else(refuse)?;
    Ok(Duration::from_nanos(nanos))
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = format_length(self.length);
        match self.kind {
            WindowKind::Rollover => f.pad(&format!("rollover:{length}")),
            WindowKind::Sliding { buckets } => f.pad(&format!("sliding:{length}/{buckets}")),
        }
    }
}

/// `rollover:LENGTH`, `sliding:LENGTH/BUCKETS`, `sliding:LENGTH` ([`DEFAULT_BUCKETS`]), or `LENGTH` (rolling over).
///
/// # Errors
/// `InvalidInput` for anything else.
impl FromStr for Window {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        match text.split_once(':') {
            None => Window::rollover(parse_length("window", text)?),
            Some(("rollover", length)) => Window::rollover(parse_length("window", length)?),
            Some(("sliding", rest)) => {
                let (length, buckets) = match rest.split_once('/') {
                    None => (rest, DEFAULT_BUCKETS),
                    Some((length, buckets)) => {
                        let number =
                            buckets.parse().ok().filter(|_| buckets.bytes().all(|b| b.is_ascii_digit()));
                        (
                            length,
                            number.ok_or_else(|| {
                                Error::invalid("window", format!("{buckets:?} is no number of buckets"))
                            })?,
                        )
                    }
                };
                Window::sliding(parse_length("window", length)?, buckets)
            }
            Some((kind, _)) => {
                Err(Error::invalid("window", format!("{kind:?} is neither rollover nor sliding")))
            }
        }
    }
}

impl TryFrom<String> for Window {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Window> for String {
    fn from(window: Window) -> String {
        window.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn windows_read_and_print() {
        assert_eq!(Window::default().to_string(), "rollover:7d");
        assert_eq!("7d".parse::<Window>().unwrap(), Window::default());
        assert_eq!("sliding:7d".parse::<Window>().unwrap().to_string(), "sliding:7d/168");
        assert_eq!(Window::try_from("sliding:2d/2".to_owned()).unwrap().to_string(), "sliding:2d/2");
        for bad in [
            "",
            "7",
            "d",
            "7 d",
            "-7d",
            "0d",
            "4000d",
            "sliding:7d/0",
            "sliding:7d/+5",
            "sliding:7d/2001",
            "sliding:10ns/3",
            "tumbling:7d",
            "99999999999999999999d",
            "rollover:7d/2",
        ] {
            assert!(bad.parse::<Window>().is_err(), "{bad}");
        }
    }

    #[test]
    fn lengths_and_buckets_are_bounded() {
        let (ns, longest) = (Duration::from_nanos(1), Duration::from_secs(316_224_000));
        assert_eq!(Window::default().length(), Duration::from_secs(604_800));
        assert_eq!(Window::rollover(longest).unwrap().length_nanos(), 316_224_000_000_000_000);
        assert!(Window::rollover(ns).is_ok() && Window::rollover(Duration::ZERO).is_err());
        assert!(Window::rollover(longest + ns).is_err() && Window::sliding(longest + ns, 1).is_err());
        let sliding = |buckets| Window::sliding(Duration::from_nanos(2_000), buckets);
        assert_eq!(sliding(2_000).unwrap().kind(), WindowKind::Sliding { buckets: 2_000 });
        assert!(sliding(1).is_ok() && sliding(0).is_err() && sliding(2_001).is_err());
        assert!(sliding(3).is_err(), "no whole nanoseconds");
    }

    #[test]
    fn lengths_are_told_in_the_longest_unit_that_fits() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_001, "1001ns"),
            (2_000, "2us"),
            (3_000_000, "3ms"),
            (90_000_000_000, "90s"),
            (120_000_000_000, "2m"),
            (7_200_000_000_000, "2h"),
            (172_800_000_000_000, "2d"),
        ] {
            assert_eq!(format_length(Duration::from_nanos(nanos)), text);
            assert_eq!(parse_length("length", text).unwrap(), Duration::from_nanos(nanos));
        }
    }

    proptest! {
        #[test]
        fn text_is_canonical(nanos in 1..=MAX_WINDOW.as_nanos() as u64) {
            let window = Window::rollover(Duration::from_nanos(nanos)).unwrap();
            prop_assert_eq!(window.to_string().parse::<Window>().unwrap(), window);
        }
    }
}
