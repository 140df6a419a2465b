//! Announcing payments to the merchant (`callbacks.md`).
//!
//! Promises the documented judgement of answers and the documented pauses as one pure decision,
//! [`judge`]; that a payment stays valid however its announcement ends; and bounds on what is under
//! way. The bodies are `record`'s.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use super::Shared;
use crate::clock::iso8601;
use crate::config::sandbox::CallbackSigning;
use crate::dialect::Dialect;
use crate::signature::{Encoding, SignedRequest, StringToSign, body_hash};

/// Deliveries remembered for `GET /_sandbox/callbacks`.
pub(super) const DELIVERIES_MAX: usize = 1_000;
/// Deliveries that may be waiting or under way; beyond it a new one is lost, as in a real outage.
pub(super) const PENDING_MAX: usize = 10_000;
/// Requests to merchants at once.
pub(super) const IN_FLIGHT_MAX: usize = 16;

/// How one attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// With this status.
    Answered(StatusCode),
    /// Without an answer: refused, reset, too slow.
    Unanswered(String),
}

/// What follows an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The merchant has it.
    Delivered,
    /// The merchant never gets it.
    Lost,
    /// Another attempt, so long after the end of this one.
    RetryAfter(Duration),
}

/// Judges an attempt (`callbacks.md` section 2); `attempt` counts from 1, `delays` are the pauses after
/// the first, second, ... failure.
#[must_use]
pub(super) fn judge(dialect: Dialect, outcome: &Outcome, attempt: usize, delays: &[Duration]) -> Next {
    let again = match outcome {
        Outcome::Answered(status) if status.is_success() => return Next::Delivered,
        Outcome::Answered(status) if status.is_client_error() => false,
        // The generations differ: a classic 5xx ends it.
        Outcome::Answered(status) if status.is_server_error() => dialect == Dialect::Snap,
        Outcome::Answered(_) | Outcome::Unanswered(_) => true,
    };
    match attempt.checked_sub(1).and_then(|failed| delays.get(failed)) {
        Some(delay) if again => Next::RetryAfter(*delay),
        Some(_) | None => Next::Lost,
    }
}

/// How a callback travels. Tests put a function here, so that schedules run on paused time.
pub trait Transport: Send + Sync {
    /// Posts one callback; the error says in words why there is no answer. Time limits are the
    /// caller's.
    fn post(&self, request: Request<Full<Bytes>>) -> BoxFuture<'static, Result<StatusCode, String>>;
}

/// Real HTTP, without TLS: the simulator runs beside what it calls.
#[derive(Clone, Debug)]
pub struct HttpTransport(Client<HttpConnector, Full<Bytes>>);

impl Default for HttpTransport {
    fn default() -> Self {
        Self(Client::builder(TokioExecutor::new()).build_http())
    }
}

impl Transport for HttpTransport {
    fn post(&self, request: Request<Full<Bytes>>) -> BoxFuture<'static, Result<StatusCode, String>> {
        let answer = self.0.request(request);
        Box::pin(async move { answer.await.map(|answer| answer.status()).map_err(|error| error.to_string()) })
    }
}

/// Where payments are announced.
#[derive(Clone, Debug, Default)]
pub(super) struct Addresses {
    /// SNAP payments; `None`: nowhere.
    pub(super) snap: Option<Uri>,
    /// Classic payments; `None`: nowhere.
    pub(super) classic: Option<Uri>,
}

impl Addresses {
    /// The generation's.
    #[must_use]
    pub(super) const fn of(&self, dialect: Dialect) -> Option<&Uri> {
        match dialect {
            Dialect::Classic => self.classic.as_ref(),
            Dialect::Snap => self.snap.as_ref(),
        }
    }
}

/// Reads an address.
///
/// # Errors
/// In words, what is allowed.
pub(super) fn address(text: &str) -> Result<Uri, String> {
    let expected = || "must be an address like http://127.0.0.1:8443/callbacks/snap".to_owned();
    let uri: Uri = text.parse().map_err(|_| expected())?;
    if uri.scheme_str() == Some("http") && uri.host().is_some() { Ok(uri) } else { Err(expected()) }
}

/// One callback on its way.
#[derive(Clone, Debug)]
pub(super) struct Delivery {
    /// Its number since the last reset; given when it is taken up.
    pub(super) id: u64,
    /// The resets before it: a delivery from before a reset stops.
    pub(super) epoch: u64,
    /// The generation, which decides how answers are judged.
    pub(super) dialect: Dialect,
    /// Whose payment it is, by position.
    pub(super) merchant: usize,
    /// Where it goes.
    pub(super) to: Uri,
    /// What it says.
    pub(super) body: Bytes,
}

/// The deliveries since the last reset, oldest first.
#[derive(Debug, Default)]
pub(super) struct Deliveries {
    shown: VecDeque<Shown>,
    pending: usize,
    count: u64,
}

#[derive(Debug)]
struct Shown {
    delivery: Delivery,
    attempts: Vec<String>,
    state: &'static str,
}

impl Deliveries {
    /// Takes a callback up.
    ///
    /// Returns it where it may be sent, nothing where too many are under way.
    pub(super) fn begin(&mut self, delivery: Delivery) -> Option<Delivery> {
        self.count += 1;
        let delivery = Delivery { id: self.count, ..delivery };
        let admitted = self.pending < PENDING_MAX;
        if admitted {
            self.pending += 1;
        }
        while self.shown.len() >= DELIVERIES_MAX {
            self.shown.pop_front();
        }
        let state = if admitted { "pending" } else { "lost" };
        self.shown.push_back(Shown { delivery: delivery.clone(), attempts: Vec::new(), state });
        admitted.then_some(delivery)
    }

    /// Notes how an attempt ended and what follows.
    pub(super) fn note(&mut self, id: u64, outcome: &Outcome, next: Next) {
        let state = match next {
            Next::Delivered => "delivered",
            Next::Lost => "lost",
            Next::RetryAfter(_) => "pending",
        };
        if !matches!(next, Next::RetryAfter(_)) {
            self.pending = self.pending.saturating_sub(1);
        }
        if let Some(shown) = self.shown.iter_mut().rev().find(|shown| shown.delivery.id == id) {
            shown.state = state;
            shown.attempts.push(match outcome {
                Outcome::Answered(status) => status.as_u16().to_string(),
                Outcome::Unanswered(reason) => reason.clone(),
            });
        }
    }

    /// What `GET /_sandbox/callbacks` shows.
    #[must_use]
    pub(super) fn show(&self) -> Value {
        self.shown
            .iter()
            .map(|shown| {
                json!({
                    "id": shown.delivery.id,
                    "dialect": shown.delivery.dialect.name(),
                    "url": shown.delivery.to.to_string(),
                    "body": String::from_utf8_lossy(&shown.delivery.body),
                    "state": shown.state,
                    "attempts": shown.attempts,
                })
            })
            .collect()
    }
}

/// Sends a callback until it is delivered or lost.
pub(super) async fn deliver(shared: Arc<Shared>, delivery: Delivery) {
    let switches = &shared.config.callbacks;
    let mut attempt = 0;
    loop {
        attempt += 1;
        let outcome = attempt_once(&shared, &delivery, switches.timeout).await;
        let next = judge(delivery.dialect, &outcome, attempt, &switches.retry_delays);
        let goes_on = shared.note_delivery(&delivery, &outcome, next);
        match next {
            Next::RetryAfter(pause) if goes_on => tokio::time::sleep(pause).await,
            Next::RetryAfter(_) | Next::Delivered | Next::Lost => return,
        }
    }
}

async fn attempt_once(shared: &Shared, delivery: &Delivery, timeout: Duration) -> Outcome {
    // The semaphore is never closed; were it, sending without a permit would still be right.
    let _permit = shared.permits.acquire().await.ok();
    let mut request = request(delivery);
    if let Err(reason) = sign(shared, delivery, request.headers_mut()) {
        return Outcome::Unanswered(reason);
    }
    match tokio::time::timeout(timeout, shared.transport.post(request)).await {
        Ok(Ok(status)) => Outcome::Answered(status),
        Ok(Err(reason)) => Outcome::Unanswered(reason),
        Err(_) => Outcome::Unanswered("timeout".to_owned()),
    }
}

fn request(delivery: &Delivery) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(delivery.body.clone()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = delivery.to.clone();
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if delivery.dialect == Dialect::Classic {
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
    }
    request
}

/// Signs an attempt as the switch says: over what is sent, with the time of the attempt.
fn sign(shared: &Shared, delivery: &Delivery, headers: &mut HeaderMap) -> Result<(), String> {
    let timestamp = iso8601(shared.clock.now());
    let body_hash = body_hash(&delivery.body);
    let path = delivery.to.path();
    let request = SignedRequest { method: "POST", path, body_hash: &body_hash, timestamp: &timestamp };
    let signature = match (shared.config.callbacks.sign, &shared.callback_key) {
        (CallbackSigning::HmacSha512, _) => {
            let merchant = shared.merchant(delivery.merchant).ok_or("no such merchant")?;
            // The standard's token is one the receiver has given out; this one asks for none.
            merchant.hmac.sign(&StringToSign::hmac_sha512(&request, ""), Encoding::Hex)
        }
        (CallbackSigning::RsaTransactional, Some(key)) => {
            key.sign(&StringToSign::rsa_transactional(&request), Encoding::Base64).map_err(|error| error.to_string())?
        }
        (CallbackSigning::None | CallbackSigning::RsaTransactional, _) => return Ok(()),
    };
    for (name, value) in [("x-timestamp", timestamp), ("x-signature", signature)] {
        headers.insert(name, HeaderValue::from_str(&value).map_err(|error| error.to_string())?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(answer: &Value) -> Outcome {
        match answer["http"].as_u64() {
            Some(status) => Outcome::Answered(StatusCode::from_u16(u16::try_from(status).unwrap()).unwrap()),
            None => Outcome::Unanswered(answer["transport"].as_str().unwrap().to_owned()),
        }
    }

    fn delays() -> Vec<Duration> {
        crate::config::sandbox::CallbackSwitches::default().retry_delays
    }

    /// Runs answers to the end; returns the number of attempts, the pauses and the end.
    fn run(dialect: Dialect, answers: impl Iterator<Item = Outcome>) -> (usize, Vec<u64>, Next) {
        let mut pauses = Vec::new();
        for (index, outcome) in answers.enumerate() {
            match judge(dialect, &outcome, index + 1, &delays()) {
                Next::RetryAfter(pause) => pauses.push(pause.as_secs()),
                end => return (index + 1, pauses, end),
            }
        }
        panic!("the answers ran out before the delivery ended");
    }

    #[test]
    fn deliveries_and_schedules_of_the_vectors() {
        let vectors: Value = serde_json::from_str(include_str!("../../tests/vectors/callbacks.json")).unwrap();
        let mut seen = 0;
        for case in vectors["cases"].as_array().unwrap() {
            let dialect = if case["generation"] == "classic" { Dialect::Classic } else { Dialect::Snap };
            let id = case["id"].as_str().unwrap();
            match case["type"].as_str().unwrap() {
                "delivery" => {
                    let answer = outcome(&case["merchant_answer"]);
                    let (attempts, pauses, end) = run(dialect, std::iter::repeat(answer));
                    assert_eq!(end == Next::Delivered, case["acknowledged"].as_bool().unwrap(), "{id}");
                    assert_eq!(attempts > 1, case["retry"].as_bool().unwrap(), "{id}");
                    assert_eq!(json!(attempts), case["max_attempts"], "{id}");
                    assert_eq!(json!(pauses), case["retry_delays_s"], "{id}");
                }
                "schedule" => {
                    let answers = case["answers"].as_array().unwrap().iter().map(outcome);
                    let (attempts, pauses, end) = run(dialect, answers);
                    assert_eq!(json!(attempts), case["expect"]["attempts"], "{id}");
                    assert_eq!(json!(pauses), case["expect"]["delays_after_failure_s"], "{id}");
                    assert_eq!(json!(end == Next::Delivered), case["expect"]["delivered"], "{id}");
                }
                _ => continue,
            }
            seen += 1;
        }
        assert_eq!(seen, 12);
    }

    #[test]
    fn redirects_are_retried_in_both_generations() {
        let moved = Outcome::Answered(StatusCode::FOUND);
        for dialect in Dialect::ALL {
            assert_eq!(judge(dialect, &moved, 1, &delays()), Next::RetryAfter(Duration::from_secs(5)));
            assert_eq!(judge(dialect, &moved, 4, &delays()), Next::Lost);
        }
    }

    #[test]
    fn deliveries_are_bounded() {
        let mut deliveries = Deliveries::default();
        let begin = |deliveries: &mut Deliveries| {
            let to = Uri::from_static("http://127.0.0.1/");
            deliveries.begin(Delivery { id: 0, epoch: 0, dialect: Dialect::Snap, merchant: 0, to, body: Bytes::new() })
        };
        for _ in 0..PENDING_MAX {
            assert!(begin(&mut deliveries).is_some());
        }
        assert!(begin(&mut deliveries).is_none());
        assert_eq!(deliveries.show().as_array().unwrap().len(), DELIVERIES_MAX);
        deliveries.note(1, &Outcome::Answered(StatusCode::OK), Next::Delivered);
        assert!(begin(&mut deliveries).is_some());
    }

    #[test]
    fn only_plain_http_addresses_are_taken() {
        assert!(address("http://127.0.0.1:3000/callbacks").is_ok());
        for text in ["", "127.0.0.1:3000", "/callbacks", "https://127.0.0.1/", "http://", "ftp://x/"] {
            assert!(address(text).is_err(), "{text:?}");
        }
    }
}
