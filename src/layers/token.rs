//! Gives every try a token, and a second one where upstream blames the first.
//!
//! Stands inside `retry`, since a token may end between tries, and outside `sign`, since the token is
//! part of what is signed. A refused token is dropped and the try repeated once, unless another was
//! refused just before: then the refusal is the answer. As the outermost step of a try it notes
//! how the try ended. Fetching is the token manager's.

use std::sync::Arc;

use http::StatusCode;

use crate::call::{Attempt, Authorized, Cause};
use crate::layers::next::Next;
use crate::upstream::{NotSent, Outcome, Token, Tokens, Unknown};

/// The layer's step.
pub async fn token(tokens: Arc<Tokens>, attempt: Attempt, next: Next<Authorized, Outcome>) -> Outcome {
    let (tries, kind) = (attempt.admission.tries(), attempt.route.operation.kind);
    let outcome = authorized(&tokens, attempt, next).await;
    let (status, cause) = ending(&outcome);
    tries.ended(kind, status, cause);
    outcome
}

/// The status received and what went wrong.
fn ending(outcome: &Outcome) -> (Option<StatusCode>, Option<Cause>) {
    match outcome {
        Outcome::Answered(answer) => (Some(answer.status), None),
        Outcome::NotSent(NotSent::Connect) => (None, Some(Cause::Connect)),
        Outcome::NotSent(NotSent::NoToken) => (None, Some(Cause::NoToken)),
        Outcome::NotSent(NotSent::BreakerOpen) => (None, Some(Cause::BreakerOpen)),
        Outcome::NotSent(NotSent::Deadline) => (None, Some(Cause::Deadline)),
        Outcome::NotSent(NotSent::Defect) => (None, Some(Cause::Defect)),
        Outcome::Unknown(Unknown::Timeout) => (None, Some(Cause::Timeout)),
        Outcome::Unknown(Unknown::Broken) => (None, Some(Cause::Broken)),
        Outcome::Unknown(Unknown::ServerError { status, .. }) => ((*status).try_into().ok(), Some(Cause::Status)),
        Outcome::Unknown(Unknown::BadAnswer) => (None, Some(Cause::BadAnswer)),
        Outcome::Unknown(Unknown::Pending) => (None, Some(Cause::Pending)),
    }
}

async fn authorized(tokens: &Tokens, attempt: Attempt, next: Next<Authorized, Outcome>) -> Outcome {
    let dialect = attempt.route.operation.dialect;
    let Ok(token) = get(tokens, &attempt).await else { return Outcome::NotSent(NotSent::NoToken) };
    let outcome = next.run(Authorized { attempt: attempt.clone(), token: Arc::clone(&token) }).await;
    match &outcome {
        Outcome::Answered(answer) if answer.blames_token(dialect) => {}
        Outcome::Answered(answer) => {
            if answer.refuses_credentials() {
                let merchant = &*attempt.merchant.name;
                tracing::error!(merchant, "upstream refuses the merchant's credentials or signature");
            }
            return outcome;
        }
        Outcome::NotSent(_) | Outcome::Unknown(_) => return outcome,
    }
    if !tokens.refuse(&attempt.merchant, dialect, &token) {
        return outcome;
    }
    match get(tokens, &attempt).await {
        Ok(token) => next.run(Authorized { attempt, token }).await,
        // Upstream's own refusal says more than that there is no other token.
        Err(_) => outcome,
    }
}

async fn get(tokens: &Tokens, attempt: &Attempt) -> Result<Arc<Token>, ()> {
    let dialect = attempt.route.operation.dialect;
    tokens.get(&attempt.merchant, dialect, attempt.deadline).await.map_err(|_| ())
}
