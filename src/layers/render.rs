//! Turns a reply or a failure into a response: the only layer that picks a status.
//!
//! Adds the gateway's own headers and turns a panic below into `INTERNAL`, so that a defect costs
//! one request and not the connection. Words and bodies are `dialect::envelope`'s.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;

use crate::call::{Inbound, Reply, Seen, Source};
use crate::clock::{SharedClock, compact};
use crate::dialect::envelope::{self, Scene};
use crate::error::{Error, Failure};
use crate::layers::next::Next;

/// What rendering needs.
#[derive(Debug)]
pub struct Render {
    /// For `responseTime`.
    pub clock: SharedClock,
    /// `errors.classic_validation_status`.
    pub classic_validation_status: StatusCode,
}

const SOURCE: HeaderName = HeaderName::from_static("ayova-source");
const REASON: HeaderName = HeaderName::from_static("ayova-reason");
const ATTACHED: HeaderName = HeaderName::from_static("ayova-attached");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The layer's step.
pub async fn render(
    state: Arc<Render>,
    request: Request<Inbound>,
    next: Next<Request<Inbound>, Result<Reply, Failure>>,
) -> Response<Full<Bytes>> {
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(Ok(reply)) => render_reply(reply),
        Ok(Err(failure)) => state.render_failure(failure),
        Err(_) => {
            // The panic hook has told where; its payload may quote a value and is not repeated.
            tracing::error!("a request ended in a panic");
            state.render_failure(Error::Internal.into())
        }
    }
}

fn render_reply(reply: Reply) -> Response<Full<Bytes>> {
    let Reply { status, mut headers, body, source, reason, attached, about, .. } = reply;
    // An upstream that speaks of itself in these words, such as another ayova, is not believed.
    for name in [REASON, ATTACHED, REPLAYED] {
        headers.remove(name);
    }
    headers.insert(SOURCE, HeaderValue::from_static(source.name()));
    if let Some(reason) = reason {
        headers.insert(REASON, HeaderValue::from_static(reason.code()));
    }
    if source == Source::Replay {
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
    }
    if let Ok(attached) = HeaderValue::try_from(attached.join(", "))
        && !attached.is_empty()
    {
        headers.insert(ATTACHED, attached);
    }
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response.extensions_mut().insert(Seen { about, source, reason });
    response
}

impl Render {
    fn render_failure(&self, failure: Failure) -> Response<Full<Bytes>> {
        let Failure { error, about, headers } = failure;
        let scene = Scene {
            dialect: about.dialect,
            operation: about.operation,
            classic_validation_status: self.classic_validation_status,
            response_time: &compact(self.clock.now()),
        };
        let body = envelope::body(&error, &scene).to_string();
        let mut response = Response::new(Full::from(body));
        *response.status_mut() = envelope::status(&error, &scene);
        *response.headers_mut() = headers;
        let own = response.headers_mut();
        own.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        own.insert(SOURCE, HeaderValue::from_static(Source::Gateway.name()));
        own.insert(REASON, HeaderValue::from_static(error.reason().code()));
        add_hints(&error, own);
        let reason = Some(error.reason());
        response.extensions_mut().insert(Seen { about, source: Source::Gateway, reason });
        response
    }
}

/// What a client can act upon without reading the body.
fn add_hints(error: &Error, headers: &mut HeaderMap) {
    if let Error::MethodNotAllowed(allowed) = error {
        headers.insert(ALLOW, HeaderValue::from_static(allowed));
    }
    let seconds = match error {
        // Rounded up: a client that comes back in time must not be refused again.
        Error::RateLimited(wait) => wait.as_secs() + u64::from(wait.subsec_nanos() > 0),
        Error::TooManyInFlight
        | Error::TokenUnavailable
        | Error::UpstreamUnavailable
        | Error::StoreUnavailable
        | Error::ShuttingDown => 1,
        Error::UnknownRoute
        | Error::MethodNotAllowed(_)
        | Error::Unauthenticated(_)
        | Error::UnknownMerchant
        | Error::BodyTooLarge
        | Error::BodyTimeout
        | Error::BadJson(_)
        | Error::InvalidRequest(_)
        | Error::IdempotencyConflict
        | Error::IdempotencyInProgress
        | Error::ReferenceUnknown(_)
        | Error::AmountTooLow
        | Error::UpstreamTimeout
        | Error::OutcomeUnknown
        | Error::Internal => return,
    };
    headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
}
