//! Refuses a try while upstream counts as down, and learns from every outcome.
//!
//! Innermost but for the client, so that every try counts, whoever made it. Neither sleeps nor
//! retries; the state machine is `upstream::breaker`'s.

use std::sync::Arc;

use tokio::time::Instant;

use crate::call::Signed;
use crate::layers::next::Next;
use crate::upstream::{Breakers, Class, NotSent, Outcome, Unknown};

/// The layer's step.
pub async fn breaker(breakers: Arc<Breakers>, signed: Signed, next: Next<Signed, Outcome>) -> Outcome {
    let breaker = breakers.of(Class::of(signed.operation.kind));
    if !breaker.admits(Instant::now()) {
        return Outcome::NotSent(NotSent::BreakerOpen);
    }
    let outcome = next.run(signed).await;
    breaker.record(is_healthy(&outcome), Instant::now());
    outcome
}

/// Failures are connect errors, timeouts, resets and 5xx without an envelope (contract section 9).
fn is_healthy(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Answered(answer) => !answer.status.is_server_error() || answer.document.is_some(),
        Outcome::NotSent(NotSent::Connect) => false,
        Outcome::NotSent(NotSent::NoToken | NotSent::BreakerOpen | NotSent::Deadline | NotSent::Defect) => true,
        Outcome::Unknown(Unknown::Timeout | Unknown::Broken) => false,
        Outcome::Unknown(Unknown::ServerError { enveloped, .. }) => *enveloped,
        Outcome::Unknown(Unknown::BadAnswer) => true,
    }
}
