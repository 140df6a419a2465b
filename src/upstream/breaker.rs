//! Whether an upstream is worth trying: closed, open, half open.
//!
//! One breaker per class of operation, so that a broken create does not stop reads. Closed counts
//! failures inside a window; enough of them open it for a while; then one call may probe, and its
//! outcome decides. Reads tokio's clock and nothing else; refusing is the layer's affair.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use crate::config;
use crate::dialect::OperationKind;

/// What shares a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Token calls.
    Token,
    /// Creates.
    Create,
    /// Updates.
    Update,
    /// Inquiries and gets.
    Read,
}

impl Class {
    /// All, in the order of [`Breakers`].
    pub const ALL: [Self; 4] = [Self::Token, Self::Create, Self::Update, Self::Read];

    /// The class of an operation.
    #[must_use]
    pub const fn of(kind: OperationKind) -> Self {
        match kind {
            OperationKind::Create => Self::Create,
            OperationKind::Update => Self::Update,
            OperationKind::Read => Self::Read,
        }
    }

    /// Name in `/status`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Create => "create",
            Self::Update => "update",
            Self::Read => "read",
        }
    }
}

/// A breaker per class.
#[derive(Debug)]
pub struct Breakers {
    token: Breaker,
    create: Breaker,
    update: Breaker,
    read: Breaker,
}

impl Breakers {
    /// All closed.
    #[must_use]
    pub fn new(settings: &config::Breaker) -> Self {
        let breaker = || Breaker::new(settings.clone());
        Self { token: breaker(), create: breaker(), update: breaker(), read: breaker() }
    }

    /// The breaker of a class.
    #[must_use]
    pub const fn of(&self, class: Class) -> &Breaker {
        match class {
            Class::Token => &self.token,
            Class::Create => &self.create,
            Class::Update => &self.update,
            Class::Read => &self.read,
        }
    }
}

/// One breaker.
#[derive(Debug)]
pub struct Breaker {
    settings: config::Breaker,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// Times of the latest failures, the oldest first; never more than `failures`.
    Closed(VecDeque<Instant>),
    Open {
        until: Instant,
    },
    /// A probe is under way since then.
    Probing {
        since: Instant,
    },
}

impl Breaker {
    /// A closed breaker.
    #[must_use]
    pub const fn new(settings: config::Breaker) -> Self {
        Self { settings, state: Mutex::new(State::Closed(VecDeque::new())) }
    }

    /// Whether a call may go now. Whoever gets `true` must [`record`](Self::record) its outcome.
    #[must_use]
    pub fn admits(&self, now: Instant) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match *state {
            State::Closed(_) => true,
            State::Open { until } if now < until => false,
            // A probe whose caller vanished must not keep it open for ever.
            State::Probing { since } if now < since + self.settings.open_for => false,
            State::Open { .. } | State::Probing { .. } => {
                *state = State::Probing { since: now };
                true
            }
        }
    }

    /// Learns from a call that was admitted.
    pub fn record(&self, healthy: bool, now: Instant) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match (&mut *state, healthy) {
            (State::Closed(_) | State::Open { .. }, true) => {}
            (State::Probing { .. }, true) => *state = State::Closed(VecDeque::new()),
            (State::Probing { .. }, false) => *state = State::Open { until: now + self.settings.open_for },
            (State::Open { .. }, false) => {}
            (State::Closed(failures), false) => {
                failures.push_back(now);
                while failures.front().is_some_and(|at| *at + self.settings.window < now) {
                    failures.pop_front();
                }
                if failures.len() >= self.settings.failures as usize {
                    *state = State::Open { until: now + self.settings.open_for };
                }
            }
        }
    }

    /// `closed`, `open` or `half_open`, for `/status`.
    #[must_use]
    pub fn state(&self, now: Instant) -> &'static str {
        match *self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Closed(_) => "closed",
            State::Open { until } if now < until => "open",
            State::Open { .. } | State::Probing { .. } => "half_open",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn breaker() -> Breaker {
        Breaker::new(config::Breaker { failures: 3, window: Duration::from_secs(10), open_for: Duration::from_secs(5) })
    }

    #[tokio::test(start_paused = true)]
    async fn walks_every_transition() {
        let breaker = breaker();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        for second in 0..2 {
            assert!(breaker.admits(at(second)));
            breaker.record(false, at(second));
        }
        assert_eq!(breaker.state(at(2)), "closed");
        breaker.record(false, at(2));
        assert_eq!(breaker.state(at(2)), "open");
        assert!(!breaker.admits(at(6)));
        assert!(breaker.admits(at(7)), "one probe");
        assert!(!breaker.admits(at(7)), "only one");
        breaker.record(false, at(8));
        assert!(!breaker.admits(at(12)));
        assert!(breaker.admits(at(13)));
        breaker.record(true, at(13));
        assert_eq!(breaker.state(at(13)), "closed");
    }

    #[tokio::test(start_paused = true)]
    async fn old_failures_do_not_count_and_lost_probes_do_not_block() {
        let breaker = breaker();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        for second in [0, 1, 12, 13] {
            breaker.record(false, at(second));
        }
        assert_eq!(breaker.state(at(13)), "closed");
        breaker.record(false, at(14));
        assert!(breaker.admits(at(20)), "a probe whose outcome never comes");
        assert!(!breaker.admits(at(21)));
        assert!(breaker.admits(at(25)));
    }
}
