//! What follows an attempt to tell the app: pure.
//!
//! Promises pauses that double from [`FIRST_PAUSE`] to [`LONGEST_PAUSE`] and never end before the time
//! the app asked for, one last attempt when the time is over, and an end after that. Jitter is handed
//! in.

use std::time::Duration;

use http::StatusCode;
use jiff::{SignedDuration, Timestamp};

/// The pause after the first attempt.
pub const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// The longest pause.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(6 * 3_600);

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With this status, and the pause the app asked for.
    Answered(StatusCode, Option<Duration>),
    /// Without an answer.
    Unanswered,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The app has it.
    Delivered,
    /// Another attempt then.
    Again(Timestamp),
    /// No more attempts: the app said 410, or its time is over.
    Dead,
}

/// Where an event stands.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// Attempts so far, this one included.
    pub attempts: u32,
    /// When the last attempt may begin.
    pub until: Timestamp,
    /// The present moment.
    pub now: Timestamp,
}

/// Judges an attempt. `jitter` is added to the pause.
#[must_use]
pub fn judge(outcome: &Outcome, standing: Standing, jitter: Duration) -> Next {
    let asked = match outcome {
        Outcome::Answered(status, _) if status.is_success() => return Next::Delivered,
        Outcome::Answered(StatusCode::GONE, _) => return Next::Dead,
        Outcome::Answered(_, asked) => asked.unwrap_or_default(),
        Outcome::Unanswered => Duration::ZERO,
    };
    postpone(standing, asked, jitter)
}

/// When an attempt that came to nothing is followed by the next.
#[must_use]
pub fn postpone(standing: Standing, asked: Duration, jitter: Duration) -> Next {
    let Standing { attempts, until, now } = standing;
    if now >= until {
        return Next::Dead;
    }
    let pause = (pause(attempts) + jitter).max(asked).min(LONGEST_PAUSE);
    let pause = SignedDuration::try_from(pause).unwrap_or(SignedDuration::MAX);
    Next::Again(now.checked_add(pause).unwrap_or(until).min(until))
}

/// The pause after so many attempts, without jitter.
#[must_use]
pub fn pause(attempts: u32) -> Duration {
    let doubled = 2_u32.checked_pow(attempts.saturating_sub(1)).and_then(|times| FIRST_PAUSE.checked_mul(times));
    doubled.unwrap_or(LONGEST_PAUSE).min(LONGEST_PAUSE)
}

/// Reads `Retry-After`: seconds, or a date.
#[must_use]
pub fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let then = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok()?;
    Duration::try_from(then.duration_since(now)).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_767_582_000 + seconds).unwrap()
    }

    fn standing(attempts: u32, now: i64, until: i64) -> Standing {
        Standing { attempts, until: at(until), now: at(now) }
    }

    fn status(code: u16) -> Outcome {
        Outcome::Answered(StatusCode::from_u16(code).unwrap(), None)
    }

    #[test]
    fn pauses_double_up_to_six_hours() {
        let pauses: Vec<_> = (1..=15).map(|attempts| pause(attempts).as_secs()).collect();
        let expected = [5, 10, 20, 40, 80, 160, 320, 640, 1_280, 2_560, 5_120, 10_240, 20_480, 21_600, 21_600];
        assert_eq!(pauses, expected);
        assert_eq!(pause(u32::MAX), LONGEST_PAUSE);
    }

    #[test]
    fn only_success_delivers_and_only_410_ends_at_once() {
        for code in [200, 201, 202, 204, 299] {
            assert_eq!(judge(&status(code), standing(1, 0, 100), Duration::ZERO), Next::Delivered);
        }
        assert_eq!(judge(&status(410), standing(1, 0, 100), Duration::ZERO), Next::Dead);
        for outcome in
            [301, 302, 307, 400, 401, 404, 429, 500, 503].map(status).into_iter().chain([Outcome::Unanswered])
        {
            assert_eq!(judge(&outcome, standing(1, 0, 100), Duration::ZERO), Next::Again(at(5)), "{outcome:?}");
        }
    }

    #[test]
    fn the_app_may_ask_for_more_time_and_the_end_has_one_last_attempt() {
        let busy = Outcome::Answered(StatusCode::SERVICE_UNAVAILABLE, Some(Duration::from_secs(60)));
        assert_eq!(judge(&busy, standing(1, 0, 1_000), Duration::ZERO), Next::Again(at(60)));
        assert_eq!(judge(&busy, standing(1, 0, 30), Duration::ZERO), Next::Again(at(30)));
        assert_eq!(judge(&busy, standing(2, 30, 30), Duration::ZERO), Next::Dead);
        assert_eq!(judge(&status(200), standing(2, 30, 30), Duration::ZERO), Next::Delivered);
    }

    #[test]
    fn retry_after_is_read_in_both_forms() {
        let now = "2015-10-21T07:27:00Z".parse().unwrap();
        assert_eq!(retry_after("120", now), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:28:00 GMT", now), Some(Duration::from_secs(60)));
        for text in ["", "soon", "-5", "Wed, 21 Oct 2015 07:26:00 GMT"] {
            assert_eq!(retry_after(text, now), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_next_attempt_is_later_and_within_bounds(
            attempts in 0_u32..100, left in 1_i64..1_000_000, asked in 0_u64..u64::MAX, jitter in 0_u64..10_000,
        ) {
            let asked = Outcome::Answered(StatusCode::SERVICE_UNAVAILABLE, Some(Duration::from_secs(asked)));
            let next = judge(&asked, standing(attempts, 0, left), Duration::from_secs(jitter));
            let Next::Again(then) = next else { panic!("{next:?}") };
            prop_assert!(then > at(0) && then <= at(left.min(21_600)));
        }
    }
}
