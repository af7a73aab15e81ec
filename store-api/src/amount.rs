//! Exact amounts: what budgets add up.

use std::fmt;
use std::str::FromStr;

use crate::{Error, Result};

/// How many micro-units one unit has.
const MICROS: i64 = 1_000_000;

/// A non-negative fixed-point number with six decimals: seconds, dollars, tokens, whatever the meter counts.
///
/// At most [`Amount::MAX`] (`i64::MAX` micro-units, about 9.2 trillion units). Sums are exact and associative,
/// so "no add is lost" can be checked to the last micro-unit. In JSON it is the whole number of micro-units.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize,
)]
#[serde(into = "u64", try_from = "u64")]
pub struct Amount(i64);

impl Amount {
    /// Nothing.
    pub const ZERO: Amount = Amount(0);
    /// The most that an amount, or the sum in one window, can be.
    pub const MAX: Amount = Amount(i64::MAX);

    /// That many millionths of a unit.
    ///
    /// # Errors
    /// `InvalidInput` above [`Amount::MAX`].
    pub fn from_micros(micros: u64) -> Result<Self> {
        i64::try_from(micros)
            .map(Amount)
            .map_err(|_| Error::invalid("amount", format!("{micros} micro-units are more than {}", i64::MAX)))
    }

    /// That many whole units.
    ///
    /// # Errors
    /// `InvalidInput` above [`Amount::MAX`].
    pub fn from_units(units: u64) -> Result<Self> {
        i64::try_from(units)
            .ok()
            .and_then(|units| units.checked_mul(MICROS))
            .map(Amount)
            .ok_or_else(|| Error::invalid("amount", format!("{units} units are more than {}", Amount::MAX)))
    }

    /// The millionths of a unit.
    pub fn micros(self) -> u64 {
        self.0.unsigned_abs()
    }

    /// The sum, or `None` above [`Amount::MAX`].
    pub fn checked_add(self, other: Amount) -> Option<Amount> {
        self.0.checked_add(other.0).map(Amount)
    }

    /// The sum, or [`Amount::MAX`] where it would be more. For reports, never for what is stored.
    pub fn saturating_add(self, other: Amount) -> Amount {
        Amount(self.0.saturating_add(other.0))
    }

    /// The difference, or zero where it would be less.
    pub fn saturating_sub(self, other: Amount) -> Amount {
        Amount((self.0 - other.0).max(0))
    }
}

impl From<Amount> for u64 {
    fn from(amount: Amount) -> u64 {
        amount.micros()
    }
}

impl TryFrom<u64> for Amount {
    type Error = Error;
    fn try_from(micros: u64) -> Result<Self> {
        Amount::from_micros(micros)
    }
}

/// From a number of units, to the nearest micro-unit.
///
/// # Errors
/// `InvalidInput` for NaN, infinities, negative numbers and numbers above [`Amount::MAX`].
impl TryFrom<f64> for Amount {
    type Error = Error;
    fn try_from(units: f64) -> Result<Self> {
        let refuse = |why: &str| Err(Error::invalid("amount", format!("{units} {why}")));
        if units.is_nan() || units.is_infinite() {
            return refuse("is not a finite number");
        }
        if units < 0.0 {
            return refuse("is negative");
        }
        let micros = (units * MICROS as f64).round();
        // 2^63 is the first f64 that is too large; i64::MAX itself is not an f64.
        if micros >= 9_223_372_036_854_775_808.0 {
            return refuse("is too large");
        }
        Ok(Amount(micros as i64))
    }
}

/// Units with up to six decimals and no trailing zeros: `12`, `0.25`.
impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0 / MICROS, self.0 % MICROS);
        if part == 0 {
            return f.pad(&whole.to_string());
        }
        let decimals = format!("{part:06}");
        f.pad(&format!("{whole}.{}", decimals.trim_end_matches('0')))
    }
}

/// Plain decimal units, exactly: `12`, `0.25`. No sign, no exponent, at most six decimals.
///
/// # Errors
/// `InvalidInput` for anything else.
impl FromStr for Amount {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let refuse = |why: &str| Error::invalid("amount", format!("{text:?} {why}"));
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(part) {
            return Err(refuse("is not a decimal number such as 12 or 0.25"));
        }
        if part.len() > 6 {
            return Err(refuse("has more than six decimals"));
        }
        let too_large = |_| refuse("is too large");
        let whole: i64 = whole.parse().map_err(too_large)?;
        let part: i64 = format!("{part:0<6}").parse().map_err(too_large)?;
        whole
            .checked_mul(MICROS)
            .and_then(|micros| micros.checked_add(part))
            .map(Amount)
            .ok_or_else(|| refuse("is too large"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn amounts_are_subtracted_down_to_zero_and_are_whole_numbers() {
        let amount = |micros: u64| Amount::try_from(micros).unwrap();
        assert_eq!(amount(7).saturating_sub(amount(3)), amount(4));
        assert_eq!(amount(3).saturating_sub(amount(7)), Amount::ZERO);
        assert_eq!(u64::from(amount(7)), 7);
        assert!(Amount::try_from(u64::MAX).is_err());
    }

    #[test]
    fn floats_that_are_no_amounts_are_refused() {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.000_001, -1.0, 9.3e12, f64::MAX] {
            assert!(Amount::try_from(bad).is_err(), "{bad}");
        }
        assert_eq!(Amount::try_from(-0.0).unwrap(), Amount::ZERO);
        assert_eq!(Amount::try_from(0.1).unwrap().micros(), 100_000);
        assert_eq!(Amount::try_from(9.2e12).unwrap().micros(), 9_200_000_000_000_000_000);
    }

    #[test]
    fn text_that_is_no_amount_is_refused() {
        for bad in
            ["", ".", "1.", ".5", "-1", "+1", "1e3", "NaN", "inf", "0.0000001", "9223372036854.775808", "१"]
        {
            assert!(bad.parse::<Amount>().is_err(), "{bad}");
        }
        assert_eq!("9223372036854.775807".parse::<Amount>().unwrap(), Amount::MAX);
    }

    proptest! {
        #[test]
        fn display_and_parse_are_inverse(micros in 0..=i64::MAX as u64) {
            let amount = Amount::from_micros(micros).unwrap();
            prop_assert_eq!(amount.to_string().parse::<Amount>().unwrap(), amount);
        }

        #[test]
        fn any_float_is_refused_or_close(units: f64) {
            if let Ok(amount) = Amount::try_from(units) {
                prop_assert!(units >= 0.0 && units.is_finite());
                prop_assert!((amount.micros() as f64 / 1e6 - units).abs() <= 5e-7 + units * 1e-15);
            }
        }
    }
}
