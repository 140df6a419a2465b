//! Refuses a try while upstream counts as down, and learns from every outcome.
//!
//! Innermost but for the client, so that every try counts, whoever made it. A create is never the
//! probe of an open breaker: where one would be due, a token call is made in the background instead,
//! which is always safe to make, and the create is refused. Neither sleeps nor retries; the state
//! machine is `upstream::breaker`'s.

use std::sync::Arc;

use tokio::time::Instant;

use crate::call::Signed;
use crate::layers::next::Next;
use crate::upstream::{Breakers, Class, Gate, NotSent, Outcome, Sign, Tokens, Unknown};

/// What the step works with.
#[derive(Debug)]
pub struct Breaking {
    /// One for each class.
    pub breakers: Arc<Breakers>,
    /// Make the call that proves life.
    pub tokens: Arc<Tokens>,
}

/// The layer's step.
pub async fn breaker(state: Arc<Breaking>, signed: Signed, next: Next<Signed, Outcome>) -> Outcome {
    let class = Class::of(signed.operation.kind);
    match state.breakers.admit(class, Instant::now()) {
        Gate::Go => {}
        Gate::Stay => return Outcome::NotSent(NotSent::BreakerOpen),
        Gate::StayAndProbe => {
            state.tokens.probe(&signed.merchant, signed.operation.dialect);
            return Outcome::NotSent(NotSent::BreakerOpen);
        }
    }
    let outcome = next.run(signed).await;
    state.breakers.record(class, sign(&outcome), Instant::now());
    outcome
}

/// Failures are connect errors, timeouts, resets and 5xx without an envelope (contract section 9).
fn sign(outcome: &Outcome) -> Sign {
    let answered = |healthy: bool| if healthy { Sign::Alive } else { Sign::Dead };
    match outcome {
        Outcome::Answered(answer) => answered(!answer.status.is_server_error() || answer.document.is_some()),
        Outcome::NotSent(NotSent::Connect) => Sign::Dead,
        Outcome::NotSent(NotSent::NoToken | NotSent::BreakerOpen | NotSent::Deadline | NotSent::Defect) => {
            Sign::Nothing
        }
        Outcome::Unknown(Unknown::Timeout | Unknown::Broken) => Sign::Dead,
        Outcome::Unknown(Unknown::ServerError { enveloped, .. }) => answered(*enveloped),
        Outcome::Unknown(Unknown::BadAnswer | Unknown::Pending) => Sign::Alive,
    }
}
