//! One try: sends the request and says what became of it.
//!
//! Bounds the try in time, counts it, and marks the merchant's quota as used just before the request
//! may leave. Retries nothing.

use std::sync::Arc;
use std::time::Duration;

use http::header::DATE;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use tokio::time::{Instant, timeout};

use crate::call::Signed;
use crate::clock::SharedClock;
use crate::crash::{self, Place};
use crate::dialect::OperationKind;
use crate::telemetry::metrics::Metrics;
use crate::upstream::outcome::classify;
use crate::upstream::{Answer, NotSent, Outcome, Transport, TransportError, Unknown};

/// What a try needs.
#[derive(Debug)]
pub struct Client {
    /// The connection.
    pub transport: Arc<dyn Transport>,
    /// Longest time a try may take.
    pub attempt_timeout: Duration,
    /// For comparing upstream's clock.
    pub clock: SharedClock,
    /// Where tries are counted.
    pub metrics: Arc<Metrics>,
}

/// The innermost step.
pub async fn client(state: Arc<Client>, signed: Signed) -> Outcome {
    let Signed { operation, merchant: _, deadline, request, admission } = signed;
    let started = Instant::now();
    let time = deadline.saturating_duration_since(started).min(state.attempt_timeout);
    if time.is_zero() {
        return Outcome::NotSent(NotSent::Deadline);
    }
    admission.spend();
    if operation.kind != OperationKind::Read {
        crash::pass(Place::Sending);
    }
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
            state.compare_clocks(response.headers());
            let (head, body) = response.into_parts();
            classify(operation, Answer::new(head.status, head.headers, body))
        }
    };
    state.metrics.attempted(operation.id, outcome.label(), started.elapsed().as_secs_f64());
    outcome
}

impl Client {
    /// Upstream refuses timestamps that are off by minutes; the gauge shows it before that.
    fn compare_clocks(&self, headers: &http::HeaderMap) {
        let date = headers.get(DATE).and_then(|value| value.to_str().ok());
        if let Some(theirs) = date.and_then(|text| rfc2822::parse(text).ok()) {
            let theirs: Timestamp = theirs.timestamp();
            self.metrics.clock_skew(theirs.duration_since(self.clock.now()).as_secs_f64());
        }
    }
}
