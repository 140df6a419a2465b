//! How a listener leaves so that no client notices.
//!
//! Promises that who is served until nobody asks any more: answers say that their connection ends, so that
//! clients open another one, which is the next process's once this one has closed its listener.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// A listener's way out. A clone is the same.
#[derive(Clone, Debug)]
pub struct Departure(Arc<State>);

#[derive(Debug)]
struct State {
    is_leaving: AtomicBool,
    under_way: AtomicUsize,
    origin: Instant,
    /// When the last request ended, in milliseconds since the origin.
    last: AtomicU64,
}

impl Default for Departure {
    fn default() -> Self {
        Self(Arc::new(State {
            is_leaving: AtomicBool::new(false),
            under_way: AtomicUsize::new(0),
            origin: Instant::now(),
            last: AtomicU64::new(0),
        }))
    }
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Passenger(Arc<State>);

impl Drop for Passenger {
    fn drop(&mut self) {
        let now = u64::try_from(self.0.origin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.last.fetch_max(now, Ordering::Relaxed);
        self.0.under_way.fetch_sub(1, Ordering::Release);
    }
}

impl Departure {
    /// From now on connections end with their next answer.
    pub fn begin(&self) {
        self.0.is_leaving.store(true, Ordering::Relaxed);
    }

    /// Whether it has begun.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.0.is_leaving.load(Ordering::Relaxed)
    }

    pub(super) fn board(&self) -> Passenger {
        self.0.under_way.fetch_add(1, Ordering::Relaxed);
        Passenger(Arc::clone(&self.0))
    }

    /// Waits until nothing has been under way for so long.
    pub async fn quiet(&self, pause: Duration) {
        loop {
            let last = Duration::from_millis(self.0.last.load(Ordering::Relaxed));
            let since = self.0.origin.elapsed().saturating_sub(last);
            let is_empty = self.0.under_way.load(Ordering::Acquire) == 0;
            // Before the first request there is nothing to wait for.
            if is_empty && (since >= pause || last.is_zero()) {
                return;
            }
            sleep(pause.saturating_sub(since).max(LOOK)).await;
        }
    }
}

/// How often it is looked at least.
const LOOK: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_quiet_when_the_last_request_is_long_over() {
        let departure = Departure::default();
        let began = Instant::now();
        departure.quiet(Duration::from_secs(1)).await;
        assert_eq!(began.elapsed(), Duration::ZERO, "nobody has ever asked");
        sleep(Duration::from_secs(60)).await;
        let request = departure.board();
        let ending = tokio::spawn(async move {
            sleep(Duration::from_secs(5)).await;
            drop(request);
        });
        let began = Instant::now();
        departure.quiet(Duration::from_secs(1)).await;
        assert_eq!(began.elapsed().as_millis() / 100, 60, "five seconds of work and one of silence");
        ending.await.unwrap();
        departure.quiet(Duration::from_secs(1)).await;
        assert!(!departure.has_begun());
        departure.begin();
        assert!(departure.clone().has_begun());
    }
}
