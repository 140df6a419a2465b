//! Tries until there is an answer, the deadline is over, or trying again would not be safe.
//!
//! Only what provably never left is tried again here, and reads, which change nothing. Whether a try
//! left is the outcome's word; this layer does not know why it failed. Turns the last outcome into
//! an answer or an error.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::call::{Attempt, Call, Outgoing};
use crate::config;
use crate::dialect::{Operation, OperationKind};
use crate::entropy::Entropy;
use crate::error::Error;
use crate::layers::next::Next;
use crate::upstream::{Answer, NotSent, Outcome, Unknown};

/// What retrying needs.
#[derive(Debug)]
pub struct Retry {
    /// How often, how long between.
    pub settings: config::Retry,
    /// For jitter.
    pub entropy: Entropy,
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
    let mut tries = 1;
    loop {
        let outcome = next.run(attempt.clone()).await;
        let pause = state.pause(tries);
        let time_left = Instant::now() + pause < attempt.deadline;
        if tries >= state.settings.attempts || !time_left || !may_repeat(operation, &outcome) {
            return conclude(operation, outcome);
        }
        sleep(pause).await;
        tries += 1;
    }
}

impl Retry {
    /// Doubles from `base_delay` to `max_delay`; the second half is jitter.
    fn pause(&self, tries: u32) -> Duration {
        let doubled = self.settings.base_delay.saturating_mul(1 << (tries - 1).min(16));
        let longest = doubled.min(self.settings.max_delay);
        longest / 2 + self.entropy.up_to(longest / 2)
    }
}

fn may_repeat(operation: &Operation, outcome: &Outcome) -> bool {
    match outcome {
        Outcome::NotSent(NotSent::Connect) => true,
        // Token calls are tried again where they are made; the others would end the same way.
        Outcome::NotSent(NotSent::NoToken | NotSent::BreakerOpen | NotSent::Deadline | NotSent::Defect) => false,
        Outcome::Unknown(_) => operation.kind == OperationKind::Read,
        Outcome::Answered(answer) => operation.kind == OperationKind::Read && answer.is_gateway_trouble(),
    }
}

fn conclude(operation: &Operation, outcome: Outcome) -> Result<Answer, Error> {
    match outcome {
        Outcome::Answered(answer) => Ok(answer),
        Outcome::NotSent(NotSent::NoToken) => Err(Error::TokenUnavailable),
        Outcome::NotSent(NotSent::Connect | NotSent::BreakerOpen | NotSent::Deadline) => {
            Err(Error::UpstreamUnavailable)
        }
        Outcome::NotSent(NotSent::Defect) => Err(Error::Internal),
        Outcome::Unknown(why) => Err(match (operation.kind, why) {
            (OperationKind::Create | OperationKind::Update, _) => Error::OutcomeUnknown,
            (OperationKind::Read, Unknown::Timeout) => Error::UpstreamTimeout,
            (OperationKind::Read, Unknown::Broken | Unknown::BadAnswer | Unknown::ServerError { .. }) => {
                Error::UpstreamTimeout
            }
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
        let retry = Retry { settings, entropy: Entropy::from_seed([1; 32]) };
        for (tries, longest) in [(1, 100), (2, 200), (3, 400), (6, 2_000), (40, 2_000)] {
            let pause = retry.pause(tries).as_millis();
            assert!((longest / 2..=longest).contains(&pause), "{tries}: {pause}");
        }
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
            assert!(matches!(conclude(create, Outcome::Unknown(why)), Err(Error::OutcomeUnknown)));
            let read = OperationId::ClassicGet.operation();
            assert!(may_repeat(read, &Outcome::Unknown(why)));
            assert!(matches!(conclude(read, Outcome::Unknown(why)), Err(Error::UpstreamTimeout)));
        }
        assert!(may_repeat(create, &Outcome::NotSent(NotSent::Connect)));
    }
}
