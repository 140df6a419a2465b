//! Gives every request an id, and writes its one log line and its metrics.
//!
//! Outermost, so that nothing is answered unseen; also sees callers who leave before their answer
//! (status 499, which nobody receives). Decides nothing. What it reports comes back in the
//! response's extensions; other layers stay silent about the request.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body_util::Full;
use tokio::time::Instant;

use crate::call::{About, Cause, Inbound, Seen, Source, Trace};
use crate::entropy::Entropy;
use crate::layers::next::Next;
use crate::telemetry::metrics::Metrics;

/// Carries the request's id both ways.
pub const REQUEST_ID: &str = "x-request-id";

/// Longest id of a caller that is taken over (contract section 4).
const REQUEST_ID_MAX: usize = 128;

/// Status in log and metrics of a caller who left; nginx's habit.
const CALLER_LEFT: u16 = 499;

/// What observing needs.
#[derive(Debug)]
pub struct Observe {
    /// Where requests are counted.
    pub metrics: Arc<Metrics>,
    /// Where ids come from.
    pub entropy: Entropy,
}

/// The layer's step.
pub async fn observe(
    state: Arc<Observe>,
    mut request: Request<Inbound>,
    next: Next<Request<Inbound>, Response<Full<Bytes>>>,
) -> Response<Full<Bytes>> {
    let id = request_id(request.headers(), &state.entropy);
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let mut line = Line::new(&state, &request, id.clone());
    let mut response = next.run(request).await;
    response.headers_mut().insert(REQUEST_ID, id);
    line.seen = response.extensions_mut().remove::<Seen>();
    line.status = response.status().as_u16();
    response
}

/// The caller's id where it is one to 128 visible ASCII characters, otherwise a new one.
fn request_id(headers: &HeaderMap, entropy: &Entropy) -> HeaderValue {
    let given = headers.get(REQUEST_ID).filter(|value| {
        let bytes = value.as_bytes();
        (1..=REQUEST_ID_MAX).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
    });
    given.cloned().unwrap_or_else(|| {
        // Hexadecimal digits are always a header's value.
        HeaderValue::try_from(entropy.id()).unwrap_or(HeaderValue::from_static("none"))
    })
}

/// Methods that are none come from strangers and may say anything.
fn method_name(method: &Method) -> &str {
    match *method {
        Method::GET | Method::HEAD | Method::POST | Method::PUT | Method::PATCH | Method::DELETE | Method::OPTIONS => {
            method.as_str()
        }
        _ => "other",
    }
}

/// The line, written when it is dropped: that also happens when the caller leaves.
struct Line {
    state: Arc<Observe>,
    started: Instant,
    id: HeaderValue,
    method: Method,
    status: u16,
    seen: Option<Seen>,
}

impl Line {
    fn new(state: &Arc<Observe>, request: &Request<Inbound>, id: HeaderValue) -> Self {
        Self {
            state: Arc::clone(state),
            started: Instant::now(),
            id,
            method: request.method().clone(),
            status: CALLER_LEFT,
            seen: None,
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let seconds = self.started.elapsed().as_secs_f64();
        let nobody =
            || Seen { about: About::default(), source: Source::Gateway, reason: None, trace: Trace::default() };
        let seen = self.seen.take().unwrap_or_else(nobody);
        self.state.metrics.answered(&seen, self.status, seconds);
        // Neither path nor query: a classic get carries account ids there.
        tracing::info!(
            request_id = self.id.to_str().unwrap_or_default(),
            merchant = seen.about.merchant.as_ref().map(|merchant| &*merchant.name),
            operation = seen.about.operation.map(|operation| operation.id.name()),
            method = method_name(&self.method),
            status = self.status,
            source = seen.source.name(),
            reason = seen.reason.map(crate::error::Reason::code),
            attempts = seen.trace.attempts,
            upstream_status = seen.trace.upstream_status.map(|status| status.as_u16()),
            cause = seen.trace.cause.map(Cause::name),
            duration_ms = seconds * 1000.0,
            "request"
        );
    }
}
