//! How far upstream's clock is from ours, as its answers' `Date` tells.
//!
//! Upstream refuses timestamps that are off by minutes; this shows it long before that. A date has
//! seconds only and travels, so that one answer says little: the median of the last ones counts, answers
//! that took long are passed over, and one a second is enough. Warns when the clocks have come to differ
//! and says when they agree again, once each.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use http::header::DATE;
use jiff::fmt::rfc2822;
use tokio::time::Instant;

use crate::clock::SharedClock;
use crate::telemetry::metrics::Metrics;

/// Looks that count.
const LOOKS: usize = 9;

/// Looks that are enough for a warning.
const LOOKS_MIN: usize = 3;

/// Between two looks, and the longest that an answer may take to be looked at.
const PACE: Duration = Duration::from_secs(1);

/// Seconds from which on the difference is warned about (issue 5), and below which it is over: a median
/// of dates without fractions still moves by some tenths.
const TOO_FAR: f64 = 2.0;
const CLOSE: f64 = 1.5;

/// Watches the difference.
#[derive(Debug)]
pub struct ClockSkew {
    clock: SharedClock,
    metrics: Arc<Metrics>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    looks: VecDeque<f64>,
    last: Option<Instant>,
    warned: bool,
}

impl ClockSkew {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(clock: SharedClock, metrics: Arc<Metrics>) -> Self {
        Self { clock, metrics, seen: Mutex::default() }
    }

    /// An answer came to what was sent then.
    pub fn look(&self, headers: &HeaderMap, sent: Instant) {
        let now = Instant::now();
        let took = now.saturating_duration_since(sent);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if took > PACE || seen.last.is_some_and(|last| now < last + PACE) {
            return;
        }
        let date = headers.get(DATE).and_then(|value| value.to_str().ok());
        let Some(theirs) = date.and_then(|text| rfc2822::parse(text).ok()) else { return };
        let ahead = theirs.timestamp().duration_since(self.clock.now()).as_secs_f64();
        // Somewhere in that second, and half of the way ago.
        seen.add(ahead + 0.5 + took.as_secs_f64() / 2.0, now);
        let skew = seen.median().unwrap_or_default();
        self.metrics.clock_skew(skew);
        seen.warn(skew);
    }

    /// Seconds upstream's clock is ahead of ours; nothing before an answer has told.
    #[must_use]
    pub fn seconds(&self) -> Option<f64> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).median()
    }
}

impl Seen {
    fn add(&mut self, ahead: f64, now: Instant) {
        self.last = Some(now);
        if self.looks.len() == LOOKS {
            self.looks.pop_front();
        }
        self.looks.push_back(ahead);
    }

    fn median(&self) -> Option<f64> {
        let mut looks: Vec<f64> = self.looks.iter().copied().collect();
        looks.sort_by(f64::total_cmp);
        looks.get(looks.len() / 2).copied()
    }

    fn warn(&mut self, skew: f64) {
        let seconds = (skew * 10.0).round() / 10.0;
        if !self.warned && self.looks.len() >= LOOKS_MIN && skew.abs() > TOO_FAR {
            self.warned = true;
            tracing::warn!(
                upstream_ahead_s = seconds,
                "this machine's clock and upstream's differ; upstream refuses requests once it is minutes: \
                 check the time synchronisation here"
            );
        } else if self.warned && skew.abs() < CLOSE {
            self.warned = false;
            tracing::info!(upstream_ahead_s = seconds, "this machine's clock and upstream's agree again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock as _, TestClock};
    use jiff::SignedDuration;
    use prometheus_client::registry::Registry;

    struct Subject {
        skew: ClockSkew,
        clock: TestClock,
    }

    impl Subject {
        fn new() -> Self {
            let clock = TestClock::new("2026-01-05T03:00:00.4Z".parse().unwrap());
            let metrics = Arc::new(Metrics::new(&mut Registry::default()));
            Self { skew: ClockSkew::new(Arc::new(clock.clone()), metrics), clock }
        }

        /// An answer from a clock that is ahead, after this long on the way.
        async fn answer(&self, ahead_ms: i64, way: Duration) {
            // Not a whole number of seconds, so that every part of a second is met.
            tokio::time::advance(Duration::from_millis(1_130)).await;
            let sent = Instant::now();
            tokio::time::advance(way / 2).await;
            let theirs = self.clock.now() + SignedDuration::from_millis(ahead_ms);
            tokio::time::advance(way / 2).await;
            let date = jiff::fmt::strtime::format("%a, %d %b %Y %H:%M:%S GMT", theirs).unwrap();
            self.skew.look(&HeaderMap::from_iter([(DATE, date.parse().unwrap())]), sent);
        }

        fn warned(&self) -> bool {
            self.skew.seen.lock().unwrap().warned
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whole_seconds_and_the_way_are_no_difference() {
        let subject = Subject::new();
        assert_eq!(subject.skew.seconds(), None);
        for n in 0..40 {
            subject.answer(0, Duration::from_millis(n * 20)).await;
            assert!(subject.skew.seconds().unwrap().abs() < 0.6, "{:?}", subject.skew.seconds());
        }
        assert!(!subject.warned());
    }

    #[tokio::test(start_paused = true)]
    async fn a_difference_is_warned_about_until_it_is_over() {
        let subject = Subject::new();
        subject.answer(-3_000, Duration::ZERO).await;
        assert!(!subject.warned(), "one answer says little");
        for _ in 0..9 {
            subject.answer(-3_000, Duration::from_millis(50)).await;
        }
        assert!((subject.skew.seconds().unwrap() + 3.0).abs() < 0.6, "{:?}", subject.skew.seconds());
        assert!(subject.warned());
        for _ in 0..9 {
            subject.answer(0, Duration::from_millis(50)).await;
        }
        assert!(!subject.warned());
    }

    #[tokio::test(start_paused = true)]
    async fn slow_answers_and_several_a_second_do_not_count() {
        let subject = Subject::new();
        subject.answer(50_000, Duration::from_secs(6)).await;
        assert_eq!(subject.skew.seconds(), None);
        subject.answer(0, Duration::ZERO).await;
        let date = HeaderMap::from_iter([(DATE, "Mon, 05 Jan 2026 05:00:00 GMT".parse().unwrap())]);
        (0..20).for_each(|_| subject.skew.look(&date, Instant::now()));
        assert!(subject.skew.seconds().unwrap().abs() < 0.6);
    }
}
