//! Durations as people write them: `30s`, `15m`, `6h`, `2d`.

use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error};

/// Longest duration, in seconds: 30 days. More is a slip of the hand.
const DURATION_SECONDS_MAX: u64 = 30 * 24 * 3600;

/// A text that is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a duration: a whole number and `s`, `m`, `h` or `d`, from 1s to 30d")]
pub struct DurationError {
    text: String,
}

/// Reads `30s`, `15m`, `6h` or `2d`: one number above zero, one unit.
///
/// # Errors
///
/// For any other text.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let error = || DurationError { text: text.to_owned() };
    let split = text.len().checked_sub(1).filter(|&at| text.is_char_boundary(at)).ok_or_else(error)?;
    let (number, unit) = text.split_at(split);
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return Err(error()),
    };
    if number.is_empty() || !number.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(error());
    }
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).ok_or_else(error)?;
    if seconds == 0 || seconds > DURATION_SECONDS_MAX {
        return Err(error());
    }
    Ok(Duration::from_secs(seconds))
}

pub(super) fn span<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse_duration(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

pub(super) fn optional_span<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    span(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_unit_is_read() {
        for (text, seconds) in [("30s", 30), ("15m", 900), ("6h", 21_600), ("2d", 172_800)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)));
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "s", "10", "0s", "-1s", "+1s", "1.5h", "1 h", "1H", "5é", "31d", "99999999999999999999s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
