//! Durations and sizes as operators write them: `250ms`, `64KiB`. Not the limits on them: those
//! are in the key tables.

use crate::policy::limit::Rate;
use std::{fmt, str::FromStr, time::Duration};

/// A duration: a whole number and one of `ms`, `s`, `m`, `h`, `d`; or `0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Duration);

/// A number of bytes: a whole number alone or with `KiB`, `MiB`, `GiB`, `TiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// A rate: a whole number, `/` and one of `s`, `m`, `h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RateText(pub(super) Rate);

/// Why a text is no duration or no size; it says what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnitError(String);

/// Milliseconds per unit, the largest first.
const PERIODS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Seconds per unit of a rate.
const RATES: [(&str, u64); 3] = [("s", 1), ("m", 60), ("h", 3_600)];

/// Bytes per unit, the largest first.
const SIZES: [(&str, u64); 4] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl FromStr for Period {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (digits, unit) = split(text);
        let wrong = || {
            UnitError(format!(
                "'{text}' is not a duration; write a whole number and a unit: 250ms, 2s, 30m, 1h"
            ))
        };
        if digits.is_empty() {
            return Err(wrong());
        }
        let number = number(digits, text)?;
        if unit.is_empty() {
            return match number {
                0 => Ok(Self(Duration::ZERO)),
                _ => Err(UnitError(format!("'{text}' has no unit; write {text}ms, {text}s, ..."))),
            };
        }
        let (_, millis) = PERIODS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let millis = number.checked_mul(*millis).ok_or_else(|| too_large(text))?;
        Ok(Self(Duration::from_millis(millis)))
    }
}

impl FromStr for RateText {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let wrong = || {
            UnitError(format!(
                "'{text}' is not a rate; write a whole number from 1 and a time: 100/s, 600/m, 1000/h"
            ))
        };
        let (count, unit) = text.split_once('/').ok_or_else(wrong)?;
        let count = count.parse().ok().filter(|count| *count > 0).ok_or_else(wrong)?;
        let (_, seconds) = RATES.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        Ok(Self(Rate { count, period: Duration::from_secs(*seconds) }))
    }
}

impl fmt::Display for RateText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.period.as_secs();
        let unit = RATES.iter().find(|(_, unit)| *unit == seconds).map_or("s", |(name, _)| name);
        write!(f, "{}/{unit}", self.0.count)
    }
}

impl FromStr for Size {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (digits, unit) = split(text);
        let wrong = || {
            let near = SIZES.iter().find(|(name, _)| {
                !digits.is_empty()
                    && unit.chars().next().map(|c| c.to_ascii_uppercase()) == name.chars().next()
            });
            UnitError(match near {
                Some((name, _)) => format!("'{text}' is not a size; write {digits}{name}"),
                None => format!(
                    "'{text}' is not a size; write a whole number of bytes, or 64KiB, 1MiB, 2GiB"
                ),
            })
        };
        if digits.is_empty() {
            return Err(wrong());
        }
        let number = number(digits, text)?;
        if unit.is_empty() {
            return Ok(Self(number));
        }
        let (_, bytes) = SIZES.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        number.checked_mul(*bytes).map(Self).ok_or_else(|| too_large(text))
    }
}

/// In the largest unit that divides it, so that it reads back as the same value.
impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let unit = PERIODS
            .iter()
            .find(|(_, unit)| millis != 0 && millis.is_multiple_of(u128::from(*unit)));
        match unit {
            Some((name, unit)) => write!(f, "{}{name}", millis / u128::from(*unit)),
            None => f.write_str("0"),
        }
    }
}

/// In the largest unit that divides it, so that it reads back as the same value.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SIZES.iter().find(|(_, unit)| self.0 != 0 && self.0.is_multiple_of(*unit)) {
            Some((name, unit)) => write!(f, "{}{name}", self.0 / unit),
            None => self.0.fmt(f),
        }
    }
}

fn split(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

fn number(digits: &str, text: &str) -> Result<u64, UnitError> {
    digits.parse().map_err(|_| too_large(text))
}

fn too_large(text: &str) -> UnitError {
    UnitError(format!("'{text}' is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_round_trip() {
        for text in ["0", "250ms", "2s", "90s", "30m", "1h", "2d"] {
            assert_eq!(text.parse::<Period>().unwrap().to_string(), text);
        }
        assert_eq!("1000ms".parse::<Period>().unwrap().to_string(), "1s");
    }

    #[test]
    fn sizes_round_trip() {
        for text in ["0", "1000", "64KiB", "1MiB", "512MiB", "1GiB", "3TiB"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
        assert_eq!("1024".parse::<Size>().unwrap().to_string(), "1KiB");
    }

    #[test]
    fn rates_round_trip() {
        for text in ["1/s", "100/s", "600/m", "1000/h"] {
            assert_eq!(text.parse::<RateText>().unwrap().to_string(), text);
        }
        for text in ["", "100", "0/s", "-1/s", "1.5/s", "/s", "1/", "1/d", "1 / s", "99999999999/s"]
        {
            let error = text.parse::<RateText>().unwrap_err().to_string();
            assert!(error.contains("write a whole number from 1"), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_what_to_write() {
        for (text, hint) in [
            ("5", "no unit"),
            ("5 s", "250ms"),
            ("1.5s", "whole number"),
            ("-1s", "whole number"),
            ("s", "250ms"),
            ("", "250ms"),
            ("99999999999999999999s", "too large"),
            ("9999999999999999999h", "too large"),
        ] {
            let error = text.parse::<Period>().unwrap_err().to_string();
            assert!(error.contains(hint), "{text}: {error}");
        }
        for (text, hint) in [
            ("64kb", "write 64KiB"),
            ("1G", "write 1GiB"),
            ("1.5MiB", "64KiB"),
            ("", "64KiB"),
            ("18446744073709551616", "too large"),
            ("18446744073709551615KiB", "too large"),
        ] {
            let error = text.parse::<Size>().unwrap_err().to_string();
            assert!(error.contains(hint), "{text}: {error}");
        }
    }
}
