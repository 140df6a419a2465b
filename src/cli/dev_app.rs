//! The receiving app of `ayova dev`: what a merchant's app does with payment events, in small.
//!
//! Promises to print one line for each event whose signature is right and nothing for any other, to
//! take an event (2xx) only when its line is written, and that numbers are masked like everywhere.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt as _, Full, Limited};
use prometheus_client::registry::Registry;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower::service_fn;

use super::{Failure, print};
use crate::callback::webhook::{Webhook, WebhookKey};
use crate::clock::{Clock as _, SystemClock};
use crate::dialect::number::{masked, without_blanks};
use crate::server::{Bound, Departure, Door, Kept, Terms, serve};
use crate::telemetry::metrics::Metrics;

/// An app that is running.
pub(super) struct Running {
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl Running {
    /// Lets what is under way end.
    pub(super) async fn stop(self) -> Result<(), Failure> {
        self.stop.cancel();
        self.serving.await.map_err(|error| Failure::Failed(error.to_string()))
    }
}

/// Takes events that are signed with `key`.
pub(super) fn start(bound: Bound, key: WebhookKey) -> Running {
    let (stop, key) = (CancellationToken::new(), Arc::new(key));
    let app = service_fn(move |request: Request<hyper::body::Incoming>| {
        let key = Arc::clone(&key);
        async move { Ok::<_, Infallible>(answer(&key, request).await) }
    });
    let terms = Terms {
        name: "dev",
        header_timeout: HEADER_TIME,
        connections: CONNECTIONS,
        kept: Kept::default(),
        door: Door::default(),
        certificates: None,
        // Nobody reads them.
        metrics: Arc::new(Metrics::new(&mut Registry::default())),
        departure: Departure::default(),
        stop: stop.clone(),
    };
    let serving = tokio::spawn(serve(bound, app, terms));
    Running { stop, serving }
}

async fn answer<B>(key: &WebhookKey, request: Request<B>) -> Response<Full<Bytes>>
where
    B: Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (head, body) = request.into_parts();
    let mut response = Response::default();
    *response.status_mut() = match Limited::new(body, BODY_MAX).collect().await {
        Ok(body) => take(key, &head.headers, &body.to_bytes()),
        Err(_) => StatusCode::BAD_REQUEST,
    };
    response
}

fn take(key: &WebhookKey, headers: &HeaderMap, body: &[u8]) -> StatusCode {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (id, timestamp, signatures) = (header("webhook-id"), header("webhook-timestamp"), header("webhook-signature"));
    if !key.verify(&Webhook { id, timestamp, signatures, body }, SystemClock.now()) {
        return StatusCode::UNAUTHORIZED;
    }
    let Some(line) = serde_json::from_slice(body).ok().and_then(|event| line(id, &event)) else {
        return StatusCode::BAD_REQUEST;
    };
    match print(&line) {
        Ok(()) => StatusCode::NO_CONTENT,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// What happened, to which number, how much, in which generation, under which id, and whether
/// Ayoconnect has confirmed it.
fn line(id: &str, event: &Value) -> Option<String> {
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str);
    let what = text("/type")?.trim_start_matches("va.");
    let number = masked(without_blanks(text("/data/virtualAccountNo")?));
    let amount = text("/data/amount/value").unwrap_or("-");
    let currency = text("/data/amount/currency").unwrap_or("-");
    let dialect = text("/data/dialect").unwrap_or("-");
    let confirmed = event.pointer("/data/confirmed").and_then(Value::as_bool).unwrap_or_default();
    let confirmed = if confirmed { "confirmed" } else { "unconfirmed" };
    Some(format!("{what:<8}{number}  {amount} {currency}  {dialect:<7}  {id}  {confirmed}\n"))
}

/// Longest time a request head may take.
const HEADER_TIME: Duration = Duration::from_secs(5);

/// Connections at once.
const CONNECTIONS: usize = 256;

/// Bytes of an event: the callback it carries and little more.
const BODY_MAX: usize = 512 * 1024;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_one_line_with_a_masked_number() {
        let data = json!({"virtualAccountNo": "   1462912345678901", "dialect": "snap", "confirmed": true,
            "amount": {"value": "150000.00", "currency": "IDR"}});
        let shown = line("evt_1", &json!({"type": "va.paid", "data": data})).unwrap();
        assert_eq!(shown, "paid    ****8901  150000.00 IDR  snap     evt_1  confirmed\n");
        let expired = json!({"type": "va.expired", "data": {"virtualAccountNo": "1392500012345678"}});
        assert_eq!(line("evt_2", &expired).unwrap(), "expired ****5678  - -  -        evt_2  unconfirmed\n");
        assert_eq!(line("evt_3", &json!({"type": "va.paid", "data": {}})), None);
    }

    #[test]
    fn what_is_not_signed_is_not_taken() {
        let key = WebhookKey::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        assert_eq!(take(&key, &HeaderMap::new(), b"{}"), StatusCode::UNAUTHORIZED);
        let mut headers = HeaderMap::new();
        let now = SystemClock.now().as_second();
        headers.insert("webhook-id", "evt_1".parse().unwrap());
        headers.insert("webhook-timestamp", now.into());
        headers.insert("webhook-signature", key.sign("evt_1", now, b"[]").parse().unwrap());
        assert_eq!(take(&key, &headers, b"{}"), StatusCode::UNAUTHORIZED);
        assert_eq!(take(&key, &headers, b"[]"), StatusCode::BAD_REQUEST);
    }
}
