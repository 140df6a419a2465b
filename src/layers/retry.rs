//! Tries until there is an answer, the deadline is over, or trying again would not be safe.
//!
//! Tries again what provably never left, and what the operation's table says may be repeated with the
//! same ids and bytes; a classic create never. Repeats are bounded by attempts, deadline and a budget
//! shared by all. Whether a try left is the outcome's word; this layer does not know why it failed.
//! Turns the last outcome into an answer or an error.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tower::retry::budget::{Budget as _, TpsBudget};

use crate::call::{Attempt, Call, Outgoing};
use crate::config;
use crate::dialect::{Operation, OperationKind, Repeat};
use crate::entropy::Entropy;
use crate::error::Error;
use crate::layers::next::Next;
use crate::upstream::outcome::is_definite;
use crate::upstream::{Answer, NotSent, Outcome, Unknown};

/// What retrying needs.
pub struct Retry {
    settings: config::Retry,
    entropy: Entropy,
    /// Repeats are a share of requests, with a floor, so that trouble upstream is not multiplied.
    budget: TpsBudget,
}

impl fmt::Debug for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Time over which requests and repeats are held against each other.
const BUDGET_WINDOW: Duration = Duration::from_secs(10);

/// Repeats a second that are always allowed (contract section 9).
const BUDGET_FLOOR: u32 = 10;

impl Retry {
    /// With a full budget.
    #[must_use]
    pub fn new(settings: &config::Retry, entropy: Entropy) -> Self {
        // `config` allows 0 to 100 per cent; the budget panics beyond 1000.
        let share = f64::from(settings.budget_percent.min(100)) / 100.0;
        #[expect(clippy::cast_possible_truncation, reason = "a share between 0 and 1")]
        let budget = TpsBudget::new(BUDGET_WINDOW, BUDGET_FLOOR, share as f32);
        Self { settings: settings.clone(), entropy, budget }
    }

    /// Doubles from `base_delay` to `max_delay`; the second half is jitter.
    fn pause(&self, tries: u32) -> Duration {
        let doubled = self.settings.base_delay.saturating_mul(1 << (tries - 1).min(16));
        let longest = doubled.min(self.settings.max_delay);
        longest / 2 + self.entropy.up_to(longest / 2)
    }

    /// How long to wait before the next try; nothing where there is none.
    fn next_try(&self, tries: u32, operation: &Operation, outcome: &Outcome, deadline: Instant) -> Option<Duration> {
        if tries >= self.settings.attempts || !may_repeat(operation, outcome) {
            return None;
        }
        let pause = self.pause(tries);
        (Instant::now() + pause < deadline && self.budget.withdraw()).then_some(pause)
    }
}

/// The layer's step.
pub async fn retry(state: Arc<Retry>, call: Call<Outgoing>, next: Next<Attempt, Outcome>) -> Result<Answer, Error> {
    let operation = call.operation();
    let (call, outgoing) = call.with_body(());
    let attempt = Attempt {
        route: call.route,
        merchant: call.merchant,
        deadline: call.deadline,
        outgoing: Arc::new(outgoing),
        admission: call.admission,
    };
    state.budget.deposit();
    let mut tries = 1;
    let mut may_have_arrived = false;
    loop {
        let outcome = next.run(attempt.clone()).await;
        let Some(pause) = state.next_try(tries, operation, &outcome, attempt.deadline) else {
            return conclude(operation, outcome, may_have_arrived);
        };
        may_have_arrived |= matches!(outcome, Outcome::Unknown(_));
        sleep(pause).await;
        tries += 1;
    }
}

fn may_repeat(operation: &Operation, outcome: &Outcome) -> bool {
    match outcome {
        Outcome::NotSent(NotSent::Connect) => true,
        // Token calls are tried again where they are made; the others would end the same way.
        Outcome::NotSent(NotSent::NoToken | NotSent::BreakerOpen | NotSent::Deadline | NotSent::Defect) => false,
        // Upstream has it and is at work on it.
        Outcome::Unknown(Unknown::Pending) => false,
        // With the same ids and bytes upstream recognises a repetition (`errors.md` sections 1, 4).
        Outcome::Unknown(_) => operation.repeat != Repeat::Never,
        Outcome::Answered(answer) => operation.kind == OperationKind::Read && answer.says_nothing(),
    }
}

/// What became of the last try, given whether an earlier one may have arrived: that one's doubt is not
/// lifted by a later try that never left.
fn conclude(operation: &Operation, outcome: Outcome, may_have_arrived: bool) -> Result<Answer, Error> {
    match outcome {
        // Of an earlier try that may have arrived it says nothing that stands.
        Outcome::Answered(answer)
            if may_have_arrived && operation.kind != OperationKind::Read && !is_definite(answer.status) =>
        {
            Err(Error::OutcomeUnknown)
        }
        Outcome::Answered(answer) => Ok(Answer { repeated: may_have_arrived, ..answer }),
        Outcome::NotSent(_) if may_have_arrived && operation.kind != OperationKind::Read => Err(Error::OutcomeUnknown),
        Outcome::NotSent(NotSent::NoToken) => Err(Error::TokenUnavailable),
        Outcome::NotSent(NotSent::Connect | NotSent::BreakerOpen | NotSent::Deadline) => {
            Err(Error::UpstreamUnavailable)
        }
        Outcome::NotSent(NotSent::Defect) => Err(Error::Internal),
        Outcome::Unknown(why) => Err(match (operation.kind, why) {
            (OperationKind::Create | OperationKind::Update, _) => Error::OutcomeUnknown,
            (OperationKind::Read, Unknown::Timeout) => Error::UpstreamTimeout,
            (
                OperationKind::Read,
                Unknown::Broken | Unknown::BadAnswer | Unknown::Pending | Unknown::ServerError { .. },
            ) => Error::UpstreamTimeout,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::OperationId;

    #[test]
    fn pauses_double_and_end() {
        let settings = config::Retry {
            attempts: 9,
            base_delay: Duration::from_millis(100),
            max_delay: Duration::from_secs(2),
            budget_percent: 20,
        };
        let retry = Retry::new(&settings, Entropy::from_seed([1; 32]));
        for (tries, longest) in [(1, 100), (2, 200), (3, 400), (6, 2_000), (40, 2_000)] {
            let pause = retry.pause(tries).as_millis();
            assert!((longest / 2..=longest).contains(&pause), "{tries}: {pause}");
        }
    }

    #[test]
    fn a_doubt_outlives_a_later_try_that_never_left() {
        let create = OperationId::SnapCreate.operation();
        let not_sent = || Outcome::NotSent(NotSent::Connect);
        assert!(matches!(conclude(create, not_sent(), true), Err(Error::OutcomeUnknown)));
        assert!(matches!(conclude(create, not_sent(), false), Err(Error::UpstreamUnavailable)));
        let read = OperationId::SnapInquiry.operation();
        assert!(matches!(conclude(read, not_sent(), true), Err(Error::UpstreamUnavailable)));
    }

    #[test]
    fn a_doubt_outlives_an_answer_that_does_not_stand() {
        let answered = |status: u16| {
            let status = http::StatusCode::from_u16(status).unwrap();
            Outcome::Answered(Answer::new(status, http::HeaderMap::new(), bytes::Bytes::new()))
        };
        let create = OperationId::SnapCreate.operation();
        let read = OperationId::SnapInquiry.operation();
        for status in [401, 408, 429, 503] {
            assert!(matches!(conclude(create, answered(status), true), Err(Error::OutcomeUnknown)), "{status}");
            assert!(conclude(create, answered(status), false).is_ok());
            assert!(conclude(read, answered(status), true).is_ok());
        }
        for status in [200, 400, 404, 409] {
            assert!(conclude(create, answered(status), true).is_ok_and(|answer| answer.repeated), "{status}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn repeats_are_bounded_by_the_budget() {
        let settings = config::Retry {
            attempts: 3,
            base_delay: Duration::from_millis(1),
            max_delay: Duration::from_millis(2),
            budget_percent: 20,
        };
        let retry = Retry::new(&settings, Entropy::from_seed([1; 32]));
        let deadline = Instant::now() + Duration::from_secs(60);
        let create = OperationId::SnapCreate.operation();
        let repeats = (0..10_000)
            .filter(|_| {
                retry.budget.deposit();
                retry.next_try(1, create, &Outcome::Unknown(Unknown::Timeout), deadline).is_some()
            })
            .count();
        assert!((2_000..=2_000 + 110).contains(&repeats), "{repeats}");
    }

    #[test]
    fn a_create_that_may_have_arrived_is_not_repeated() {
        let create = OperationId::ClassicCreate.operation();
        for why in [
            Unknown::Timeout,
            Unknown::Broken,
            Unknown::ServerError { status: 500, enveloped: false },
            Unknown::BadAnswer,
        ] {
            assert!(!may_repeat(create, &Outcome::Unknown(why)));
            assert!(matches!(conclude(create, Outcome::Unknown(why), false), Err(Error::OutcomeUnknown)));
            let read = OperationId::ClassicGet.operation();
            assert!(may_repeat(read, &Outcome::Unknown(why)));
            assert!(matches!(conclude(read, Outcome::Unknown(why), false), Err(Error::UpstreamTimeout)));
        }
        assert!(may_repeat(create, &Outcome::NotSent(NotSent::Connect)));
    }
}
