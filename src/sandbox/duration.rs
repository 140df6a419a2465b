//! Durations as the control interface writes them.
//!
//! Promises `500ms`, `8s`, `15m`, `48h`, `7d` and nothing else: a whole number and one unit.

use std::time::Duration;

/// What is allowed, for messages.
pub(super) const EXPECTED: &str = "a text like 500ms, 8s, 90m, 48h or 7d";

/// Reads a duration.
#[must_use]
pub(super) fn parse(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    let seconds = match unit {
        "ms" => return Some(Duration::from_millis(number)),
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    number.checked_mul(seconds).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_and_a_unit() {
        for (text, seconds) in [("8s", 8), ("90m", 5_400), ("48h", 172_800), ("7d", 604_800), ("2000ms", 2)] {
            assert_eq!(parse(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "s", "8", "-1s", "1.5s", "8 s", "8S", "1h30m", "18446744073709551615h", "١s"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
