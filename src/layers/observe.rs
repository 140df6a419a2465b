//! Gives every request an id and its place in a trace, and writes its one log line and its metrics.
//!
//! Outermost, so that nothing is answered unseen; also sees callers who leave before their answer
//! (status 499, which nobody receives). Decides nothing. What it reports comes from the request's notes
//! and the response's extensions; other layers stay silent about the request. Where neither the line nor
//! a span is wanted, their fields are not put together.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body::Body as _;
use http_body_util::Full;
use tokio::time::Instant;

use crate::call::{About, Cause, Inbound, Seen, Source};
use crate::entropy::Entropy;
use crate::layers::next::Next;
use crate::notes::{Notes, Part};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::{Context, Facts, SharedTracer, Span};

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
    /// Where spans go.
    pub tracer: SharedTracer,
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
    request.extensions_mut().insert(line.notes.clone());
    let mut response = next.run(request).await;
    response.headers_mut().insert(REQUEST_ID, id);
    line.seen = response.extensions_mut().remove::<Seen>();
    line.status = response.status().as_u16();
    line.bytes_out = response.body().size_hint().lower();
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
    bytes_out: u64,
    notes: Notes,
    span: Option<Box<dyn Span>>,
    seen: Option<Seen>,
}

impl Line {
    fn new(state: &Arc<Observe>, request: &Request<Inbound>, id: HeaderValue) -> Self {
        let method = request.method().clone();
        let caller = Context::of(request.headers());
        let span = state.tracer.as_ref().map(|tracer| tracer.request(method_name(&method), caller.as_ref()));
        let trace = span.as_ref().map(|span| span.context()).or(caller);
        Self {
            state: Arc::clone(state),
            started: Instant::now(),
            id,
            method,
            status: CALLER_LEFT,
            bytes_out: 0,
            notes: Notes::new(trace),
            span,
            seen: None,
        }
    }

    fn write(&self, seen: &Seen, seconds: f64) {
        let notes = &self.notes;
        let findings = notes.findings();
        let ended = findings.ended;
        let digits = findings.digits.map(|digits| digits.map(char::from));
        // Neither path nor query: a classic get carries account ids there.
        tracing::info!(
            request_id = self.id.to_str().unwrap_or_default(),
            trace_id = notes.trace().map(|trace| display(trace.trace())),
            merchant = seen.about.merchant.as_ref().map(|merchant| &*merchant.name),
            operation = seen.about.operation.map(|operation| operation.id.name()),
            number = digits.map(|[a, b, c, d]| display(format!("****{a}{b}{c}{d}"))),
            method = method_name(&self.method),
            status = self.status,
            source = seen.source.name(),
            reason = seen.reason.map(crate::error::Reason::code),
            attempts = notes.sent(),
            upstream_status = ended.and_then(|ended| ended.status).map(|status| status.as_u16()),
            upstream_code = ended.and_then(|ended| ended.code),
            cause = ended.and_then(|ended| ended.cause).map(Cause::name),
            bytes_in = notes.bytes_in(),
            bytes_out = self.bytes_out,
            duration_ms = milliseconds(seconds),
            upstream_ms = self.spent(Part::Upstream),
            token_ms = self.spent(Part::Token),
            store_ms = self.spent(Part::Store),
            "request"
        );
    }

    /// Where any time went there.
    fn spent(&self, part: Part) -> Option<f64> {
        let time = self.notes.time_of(part);
        (!time.is_zero()).then(|| milliseconds(time.as_secs_f64()))
    }

    fn end_span(&mut self, seen: &Seen) {
        let Some(span) = self.span.take() else { return };
        let findings = self.notes.findings();
        let own = [
            ("ayova.source", Some(seen.source.name())),
            ("ayova.reason", seen.reason.map(crate::error::Reason::code)),
            ("ayova.operation", seen.about.operation.map(|operation| operation.id.name())),
            ("ayova.merchant", seen.about.merchant.as_ref().map(|merchant| &*merchant.name)),
        ];
        let own: Vec<_> = own.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        let failed = self.status >= 500;
        let error = match seen.reason {
            Some(reason) if failed => Some(reason.code()),
            _ if self.status == CALLER_LEFT => Some("caller_left"),
            _ => failed.then_some("upstream"),
        };
        span.end(Facts {
            method: method_name(&self.method),
            route: findings.route.as_ref().map(|route| &*route.path),
            status: Some(self.status).filter(|status| *status != CALLER_LEFT),
            error,
            server: None,
            more: &own,
        });
    }
}

/// As many digits as mean anything.
fn milliseconds(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e3
}

impl Drop for Line {
    fn drop(&mut self) {
        let seconds = self.started.elapsed().as_secs_f64();
        let nobody = || Seen { about: About::default(), source: Source::Gateway, reason: None };
        let seen = self.seen.take().unwrap_or_else(nobody);
        self.state.metrics.answered(&seen, self.status, seconds);
        if tracing::enabled!(tracing::Level::INFO) {
            self.write(&seen, seconds);
        }
        self.end_span(&seen);
    }
}
