//! Gives every try a token, and a second one where upstream blames the first.
//!
//! Stands inside `retry`, since a token may end between tries, and outside `sign`, since the token is
//! part of what is signed. A refused token is dropped and the try repeated once, unless another was
//! refused just before: then the refusal is the answer. As the outermost step of a try it notes
//! how the try ended. Fetching is the token manager's.

use std::sync::Arc;

use tokio::time::Instant;

use crate::call::{Attempt, Authorized};
use crate::layers::next::Next;
use crate::notes::{Ended, Part};
use crate::upstream::{NotSent, Outcome, Token, Tokens};

/// The layer's step.
pub async fn token(tokens: Arc<Tokens>, attempt: Attempt, next: Next<Authorized, Outcome>) -> Outcome {
    let (notes, kind) = (attempt.admission.notes().clone(), attempt.route.operation.kind);
    let outcome = authorized(&tokens, attempt, next).await;
    let (status, cause) = outcome.ending();
    let code = match &outcome {
        Outcome::Answered(answer) => answer.response_code(),
        Outcome::NotSent(_) | Outcome::Unknown(_) => None,
    };
    notes.ended(Ended { kind, status, code, cause });
    outcome
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
    let asked = Instant::now();
    let token = tokens.get(&attempt.merchant, dialect, attempt.deadline).await;
    attempt.admission.notes().spent(Part::Token, asked);
    token.map_err(|_| ())
}
