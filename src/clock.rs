//! Wall time, the only place that reads it.
//!
//! Promises that everything that needs the time of day (timestamps, expiry dates, records) gets it
//! from a [`Clock`] handed in, so that a test decides what time it is. Elapsed time is tokio's:
//! [`TestClock`] derives wall time from it, so that one `tokio::time::advance` moves both.

use std::fmt;
use std::sync::Arc;

use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};

use crate::digits::push_padded;

/// Tells wall time.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The present moment.
    fn now(&self) -> Timestamp;
}

/// A clock as it is passed around.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// A clock that starts where a test says and moves with tokio's (pausable) time.
#[derive(Clone, Debug)]
pub struct TestClock {
    start: Timestamp,
    origin: tokio::time::Instant,
}

impl TestClock {
    /// A clock that shows `start` now.
    #[must_use]
    pub fn new(start: Timestamp) -> Self {
        Self { start, origin: tokio::time::Instant::now() }
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        let elapsed = SignedDuration::try_from(self.origin.elapsed()).unwrap_or(SignedDuration::MAX);
        self.start.checked_add(elapsed).unwrap_or(Timestamp::MAX)
    }
}

/// Jakarta's offset, `+07:00`, in which Ayoconnect's samples are written.
pub const JAKARTA: Offset = Offset::constant(7);

/// `yyyy-MM-ddTHH:mm:ss+07:00`, the 25 characters of `X-TIMESTAMP` (`snap.md` section 3).
#[must_use]
pub fn iso8601(moment: Timestamp) -> String {
    let local = JAKARTA.to_datetime(moment);
    let mut text = String::with_capacity(25);
    push_padded(&mut text, local.year(), 4);
    for (before, part) in [('-', local.month()), ('-', local.day()), ('T', local.hour()), (':', local.minute())] {
        text.push(before);
        push_padded(&mut text, i16::from(part), 2);
    }
    text.push(':');
    push_padded(&mut text, i16::from(local.second()), 2);
    text.push_str("+07:00");
    text
}

/// `yyyyMMddHHmmss` in Jakarta's time, the form of `responseTime`.
#[must_use]
pub fn compact(moment: Timestamp) -> String {
    let local = JAKARTA.to_datetime(moment);
    format!(
        "{:04}{:02}{:02}{:02}{:02}{:02}",
        local.year(),
        local.month(),
        local.day(),
        local.hour(),
        local.minute(),
        local.second()
    )
}

/// Reads the 25 characters of an ISO 8601 time with an offset in hours and minutes; nothing else
/// passes (vectors `timestamps.json`).
#[must_use]
pub fn parse_iso8601(text: &str) -> Option<Timestamp> {
    let shape = b"dddd-dd-ddTdd:dd:ddsdd:dd";
    let fits = text.len() == shape.len()
        && text.bytes().zip(shape).all(|(byte, expected)| match expected {
            b'd' => byte.is_ascii_digit(),
            b's' => byte == b'+' || byte == b'-',
            literal => byte == *literal,
        });
    if fits { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_of_the_vectors() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../tests/vectors/timestamps.json")).unwrap();
        let cases = vectors["cases"].as_array().unwrap();
        assert!(!cases.is_empty());
        for case in cases {
            let read = parse_iso8601(case["value"].as_str().unwrap());
            assert_eq!(read.is_some(), case["valid"].as_bool().unwrap(), "{}", case["id"]);
            if let Some(utc) = case["utc"].as_str() {
                assert_eq!(read.unwrap().to_string(), utc, "{}", case["id"]);
            }
        }
    }

    #[test]
    fn written_times_read_back() {
        let moment: Timestamp = "2026-01-05T03:00:00Z".parse().unwrap();
        assert_eq!(iso8601(moment), "2026-01-05T10:00:00+07:00");
        assert_eq!(compact(moment), "20260105100000");
        assert_eq!(parse_iso8601(&iso8601(moment)), Some(moment));
    }

    #[tokio::test(start_paused = true)]
    async fn advancing_tokio_moves_the_test_clock() {
        let clock = TestClock::new("2026-01-05T03:00:00Z".parse().unwrap());
        tokio::time::advance(std::time::Duration::from_secs(90)).await;
        assert_eq!(clock.now().to_string(), "2026-01-05T03:01:30Z");
    }
}
