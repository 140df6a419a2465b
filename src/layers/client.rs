//! One try: sends the request and says what became of it.
//!
//! Bounds the try in time, counts it, and marks the merchant's quota as used just before the request
//! may leave. Where the request belongs to a trace, the try gets a span of its own and tells upstream of
//! it; nothing that is signed is touched by that. Retries nothing.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tokio::time::{Instant, timeout};

use crate::call::{Cause, Signed};
use crate::crash::{self, Place};
use crate::dialect::OperationKind;
use crate::entropy::Entropy;
use crate::notes::{Notes, Part};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::{Facts, Server, SharedTracer, Span};
use crate::upstream::outcome::classify;
use crate::upstream::{Answer, ClockSkew, NotSent, Outcome, Transport, TransportError, Unknown};

/// What a try needs.
#[derive(Debug)]
pub struct Client {
    /// The connection.
    pub transport: Arc<dyn Transport>,
    /// Longest time a try may take.
    pub attempt_timeout: Duration,
    /// Compares upstream's clock.
    pub skew: Arc<ClockSkew>,
    /// Where tries are counted.
    pub metrics: Arc<Metrics>,
    /// Where spans go.
    pub tracer: SharedTracer,
    /// Ids of spans that are not exported.
    pub entropy: Entropy,
    /// Who is tried.
    pub server: Server,
}

/// The innermost step.
pub async fn client(state: Arc<Client>, signed: Signed) -> Outcome {
    let Signed { operation, merchant: _, deadline, mut request, admission } = signed;
    let started = Instant::now();
    let time = deadline.saturating_duration_since(started).min(state.attempt_timeout);
    if time.is_zero() {
        return Outcome::NotSent(NotSent::Deadline);
    }
    admission.spend();
    if operation.kind != OperationKind::Read {
        crash::pass(Place::Sending);
    }
    let notes = admission.notes();
    let span = state.follow(notes, request.headers_mut());
    let about = span.map(|span| (span, request.method().clone(), request.uri().path().to_owned()));
    let outcome = match timeout(time, state.transport.send(request)).await {
        Err(_) => Outcome::Unknown(Unknown::Timeout),
        Ok(Err(TransportError::NotSent(error))) => {
            admission.unspend();
            tracing::debug!(operation = operation.id.name(), error, "no connection to upstream");
            Outcome::NotSent(NotSent::Connect)
        }
        Ok(Err(TransportError::Broken(error))) => {
            tracing::debug!(operation = operation.id.name(), error, "the connection to upstream broke");
            Outcome::Unknown(Unknown::Broken)
        }
        Ok(Ok(response)) => {
            state.skew.look(response.headers(), started);
            let (head, body) = response.into_parts();
            classify(operation, Answer::new(head.status, head.headers, body))
        }
    };
    let spent = started.elapsed();
    notes.add(Part::Upstream, spent);
    state.metrics.attempted(operation.id, outcome.label(), spent.as_secs_f64());
    if let Some((span, method, path)) = about {
        state.end_span(span, (method.as_str(), &path), &outcome);
    }
    outcome
}

impl Client {
    /// Gives the try its place in the request's trace, if there is one.
    fn follow(&self, notes: &Notes, headers: &mut HeaderMap) -> Option<Box<dyn Span>> {
        let request = notes.trace()?;
        let span = self.tracer.as_ref().map(|tracer| tracer.attempt(request));
        let own = || request.with_span(self.entropy.span_id());
        span.as_ref().map_or_else(own, |span| span.context()).put_into(headers);
        span
    }

    fn end_span(&self, span: Box<dyn Span>, (method, path): (&str, &str), outcome: &Outcome) {
        let (status, cause) = outcome.ending();
        let refused = status.as_ref().filter(|status| status.as_u16() >= 400).map(|status| status.as_str());
        span.end(Facts {
            method,
            route: Some(path),
            status: status.map(|status| status.as_u16()),
            error: refused.or(cause.map(Cause::name)),
            server: Some(&self.server),
            more: &[("ayova.outcome", outcome.label())],
        });
    }
}
