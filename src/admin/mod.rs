//! The operator's listener: probes, metrics, and what is known, masked (contract section 6).
//!
//! Never the app's listener, since nothing here is authenticated. Shows no secret, token, name or
//! phone, and of a number the last four digits. Changes nothing but, on an operator's word, the end
//! of an outcome in doubt, and puts callbacks in line again.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::header::{ACCEPT, ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt as _, Full, Limited};
use prometheus_client::registry::Registry;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;
use tower::Service;

mod callbacks;

use crate::call::BodyError;
use crate::callback::deliver::Bell;
use crate::clock::{SharedClock, iso8601};
use crate::dialect::number::{masked, without_blanks};
use crate::dialect::{Attach, OperationId, describe};
use crate::document::Document;
use crate::layers::validate::id_from_key;
use crate::reference::Account;
use crate::resolver::{Decision, Name, Undecided};
use crate::stack::Gateway;
use crate::store::inbox::Event;
use crate::store::{Counters, Doubt, Known, Store, StoreError};
use crate::telemetry::exposition;
use crate::telemetry::metrics::Metrics;
use crate::upstream::Class;

/// The admin service.
#[derive(Clone)]
pub struct Admin(Arc<View>);

/// What the admin service looks at.
pub struct View {
    /// The running stack.
    pub gateway: Gateway,
    /// For `/references` and `/idempotency`.
    pub store: Arc<dyn Store>,
    /// For `/metrics`.
    pub registry: Arc<Registry>,
    /// Gauges that are set when scraped.
    pub metrics: Arc<Metrics>,
    /// `/config`, redacted.
    pub effective: Value,
    /// For retentions.
    pub clock: SharedClock,
    /// How long events are tried, by merchant; nothing where callbacks are off.
    pub retry_for: Vec<(Arc<str>, Duration)>,
    /// Rung when something is to be delivered again.
    pub bell: Bell,
    /// Whether the process is ending.
    pub draining: Arc<AtomicBool>,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Admin")
    }
}

impl Admin {
    /// The service over a view.
    #[must_use]
    pub fn new(view: View) -> Self {
        Self(Arc::new(view))
    }
}

impl<B> Service<Request<B>> for Admin
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let view = Arc::clone(&self.0);
        async move {
            let (head, body) = request.into_parts();
            if head.method == Method::POST && head.uri.path() == "/outcomes/resolve" {
                let body = body.map_err(|error| BodyError(error.into()));
                let body = Limited::new(body, DECISION_MAX).collect().await;
                return Ok(match body {
                    Ok(body) => view.resolve(&body.to_bytes()).await,
                    Err(_) => problem(StatusCode::BAD_REQUEST, "the body is too large or broke off"),
                });
            }
            if head.method == Method::POST && head.uri.path().starts_with("/callbacks/") {
                return Ok(view.replay(head.uri.path(), head.uri.query().unwrap_or_default()).await);
            }
            if head.method == Method::GET && head.uri.path() == "/metrics" {
                let accept = head.headers.get(ACCEPT).and_then(|value| value.to_str().ok());
                return Ok(view.scrape(accept.unwrap_or_default()).await);
            }
            Ok(view.answer(&head.method, head.uri.path(), head.uri.query().unwrap_or_default()).await)
        }
        .boxed()
    }
}

impl View {
    async fn answer(&self, method: &Method, path: &str, query: &str) -> Response<Full<Bytes>> {
        if method != Method::GET && method != Method::HEAD {
            let mut refusal = json_response(StatusCode::METHOD_NOT_ALLOWED, &json!({"error": "only GET and HEAD"}));
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        match path {
            "/livez" => json_response(StatusCode::OK, &json!({"live": true})),
            "/readyz" => self.ready(),
            "/metrics" => self.scrape("").await,
            "/config" => json_response(StatusCode::OK, &self.effective),
            "/routes" => json_response(StatusCode::OK, &self.routes()),
            "/status" => json_response(StatusCode::OK, &self.status()),
            "/outcomes" => self.outcomes(query).await,
            "/callbacks" => self.callbacks(query).await,
            _ => match path.split_once('/').and_then(|(_, rest)| rest.split_once('/')) {
                Some(("references", number)) if !number.is_empty() => self.references(number).await,
                Some(("callbacks", id)) if !id.is_empty() && !id.contains('/') => self.callback(id).await,
                Some(("idempotency", key)) if !key.is_empty() => self.idempotency(key).await,
                _ => json_response(StatusCode::NOT_FOUND, &json!({"error": "no such page", "pages": PAGES})),
            },
        }
    }

    /// Configuration, store and listeners; never upstream, whose troubles a restart would not cure.
    fn ready(&self) -> Response<Full<Bytes>> {
        let draining = self.draining.load(Ordering::Relaxed);
        let problem = self.store.problem();
        let component = |problem: Option<&str>| json!({"ready": problem.is_none(), "reason": problem.unwrap_or("ok")});
        let ready = !draining && problem.is_none();
        let body = json!({
            "ready": ready,
            "components": {
                "configuration": component(None),
                "store": component(problem.as_deref()),
                "listener": component(draining.then_some("shutting down")),
            },
        });
        json_response(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &body)
    }

    async fn scrape(&self, accept: &str) -> Response<Full<Bytes>> {
        self.count_events().await;
        let left = self.gateway.tokens().seconds_left();
        self.metrics.token_seconds_left(left.map(|(merchant, dialect, left)| (&merchant.name, dialect, left)));
        let Ok((text, kind)) = exposition::render(&self.registry, accept) else {
            return json_response(StatusCode::INTERNAL_SERVER_ERROR, &json!({"error": "metrics cannot be written"}));
        };
        let mut response = Response::new(Full::from(text));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }

    fn routes(&self) -> Value {
        let routes = self.gateway.routes().iter().map(|route| {
            let mut entry = describe::json(route.operation);
            if let Some(members) = entry.as_object_mut() {
                members.insert("method".to_owned(), route.method.as_str().into());
                members.insert("path".to_owned(), route.path.as_str().into());
            }
            entry
        });
        json!({"routes": routes.collect::<Vec<_>>()})
    }

    fn status(&self) -> Value {
        let now = Instant::now();
        let Counters { commits, records } = self.store.counters();
        let tokens: Vec<Value> = self
            .gateway
            .tokens()
            .seconds_left()
            .map(|(merchant, dialect, seconds)| {
                json!({"merchant": &*merchant.name, "dialect": dialect.name(), "seconds_left": seconds.map(f64::floor)})
            })
            .collect();
        let merchants: Vec<Value> = self
            .gateway
            .limits()
            .status()
            .map(|(merchant, in_flight, left)| {
                let limits: Vec<Value> = left
                    .iter()
                    .map(|left| json!({"policy": left.policy, "burst": left.rate.burst, "remaining": left.remaining}))
                    .collect();
                json!({"merchant": &**merchant, "in_flight": in_flight, "limits": limits})
            })
            .collect();
        let breakers: serde_json::Map<String, Value> = Class::ALL
            .iter()
            .map(|class| (class.name().to_owned(), self.gateway.breakers().state(*class, now).into()))
            .collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "tokens": tokens,
            "merchants": merchants,
            "store": {"problem": self.store.problem(), "commits": commits, "records": records},
            "breakers": breakers,
            "clock_skew_seconds": self.gateway.skew().seconds().map(|seconds| (seconds * 100.0).round() / 100.0),
            "under_way": self.gateway.tasks().len(),
        })
    }

    async fn outcomes(&self, query: &str) -> Response<Full<Bytes>> {
        let state = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "state").map(|(_, value)| value);
        if state.is_some_and(|state| state != "unknown") {
            return problem(StatusCode::BAD_REQUEST, "state must be unknown; nothing else is listed");
        }
        let doubts = match self.gateway.resolver().doubts().await {
            Ok(doubts) => doubts,
            Err(error) => return store_trouble(&error.to_string()),
        };
        let outcomes: Vec<Value> = doubts.iter().map(describe_doubt).collect();
        json_response(StatusCode::OK, &json!({"outcomes": outcomes}))
    }

    async fn resolve(&self, body: &Bytes) -> Response<Full<Bytes>> {
        let resolution: Resolution = match serde_json::from_slice(body) {
            Ok(resolution) => resolution,
            Err(error) => return problem(StatusCode::BAD_REQUEST, &error.to_string()),
        };
        let (name, decision) = match resolution.read() {
            Ok(read) => read,
            Err(error) => return problem(StatusCode::BAD_REQUEST, &error),
        };
        match self.gateway.resolver().decide(&name, decision).await {
            Ok(()) => json_response(StatusCode::OK, &json!({"resolved": true})),
            Err(error) => {
                let status = match error {
                    Undecided::NoSuchDoubt => StatusCode::NOT_FOUND,
                    Undecided::UnderWay => StatusCode::CONFLICT,
                    Undecided::BadAnswer => StatusCode::BAD_REQUEST,
                    Undecided::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
                };
                problem(status, &error.to_string())
            }
        }
    }

    async fn references(&self, number: &str) -> Response<Full<Bytes>> {
        let number: String = percent_decoded(number);
        match self.store.accounts(without_blanks(&number)).await {
            Ok(accounts) if accounts.is_empty() => not_known("virtual account"),
            Ok(accounts) => {
                let mut described = Vec::with_capacity(accounts.len());
                for account in &accounts {
                    let (dialect, digits) = (account.dialect(), account.digits());
                    match self.store.inbox().latest(&account.merchant, dialect, digits).await {
                        Ok(latest) => described.push(describe_account(account, latest.as_ref())),
                        Err(error) => return store_trouble(&error.to_string()),
                    }
                }
                json_response(StatusCode::OK, &json!({"accounts": described}))
            }
            Err(error) => store_trouble(&error.to_string()),
        }
    }

    /// By an id as it was sent, or else by the `Idempotency-Key` it was made from, which is what the
    /// app's log has.
    async fn known(&self, key: &str) -> Result<Vec<Known>, StoreError> {
        let known = self.store.known(key, self.clock.now()).await?;
        if known.is_empty() { self.store.known(&id_from_key(key), self.clock.now()).await } else { Ok(known) }
    }

    async fn idempotency(&self, key: &str) -> Response<Full<Bytes>> {
        match self.known(&percent_decoded(key)).await {
            Ok(known) if known.is_empty() => not_known("id"),
            Ok(known) => {
                let known: Vec<Value> = known
                    .iter()
                    .map(|known| {
                        json!({
                            "merchant": &*known.merchant,
                            "operation": known.operation.name(),
                            "state": known.state,
                            "status": known.status,
                            "expires": iso8601(known.expires),
                        })
                    })
                    .collect();
                json_response(StatusCode::OK, &json!({"known": known}))
            }
            Err(error) => store_trouble(&error.to_string()),
        }
    }
}

/// A record without the number's digits, names or phones; references are what an operator needs.
fn describe_account(account: &Account, latest: Option<&Event>) -> Value {
    json!({
        "merchant": &*account.merchant,
        "dialect": account.dialect().name(),
        "number": masked(&account.number),
        "bankCode": account.bank_code,
        "amount": account.amount.map(|amount| amount.to_string()),
        "created": (account.created != Account::READ).then(|| iso8601(account.created)),
        "referenceNo": account.value(Attach::Reference),
        "trxId": account.value(Attach::TransactionId),
        "status": latest.and_then(|event| event.status.as_deref()),
        "latestPaidAmount": latest.and_then(|event| event.amount).map(|amount| amount.to_string()),
        "latestPaidTime": latest.map(|event| event.paid_at.clone().unwrap_or_else(|| iso8601(event.received))),
    })
}

const PAGES: [&str; 11] = [
    "/livez",
    "/readyz",
    "/metrics",
    "/config",
    "/routes",
    "/status",
    "/references/{va}",
    "/idempotency/{key}",
    "/outcomes?state=unknown",
    "/callbacks?state=pending",
    "/callbacks/{id}",
];

/// Bytes of an operator's decision, which may hold an answer.
const DECISION_MAX: usize = 64 * 1024;

/// What `POST /outcomes/resolve` takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Resolution {
    merchant: String,
    operation: String,
    id: String,
    /// `absent` or `answered`.
    r#as: String,
    /// With `answered`: the HTTP status.
    status: Option<u16>,
    /// With `answered`: the body.
    body: Option<Value>,
}

impl Resolution {
    fn read(self) -> Result<(Name, Decision), String> {
        let operation = OperationId::from_name(&self.operation).ok_or_else(|| {
            "operation must be one of snap.create, snap.update, classic.create, classic.update".to_owned()
        })?;
        let decision = match (self.r#as.as_str(), self.body) {
            ("absent", None) => Decision::Absent,
            ("answered", Some(body)) => {
                let status = self.status.unwrap_or(operation.operation().success);
                let status = StatusCode::from_u16(status).map_err(|_| "status must be an HTTP status".to_owned())?;
                Decision::Answered { status, body: Bytes::from(body.to_string()) }
            }
            _ => return Err("as must be \"absent\", or \"answered\" with a body".to_owned()),
        };
        Ok((Name { merchant: self.merchant.into(), operation, id: self.id }, decision))
    }
}

fn describe_doubt(doubt: &Doubt) -> Value {
    let intent = &doubt.intent;
    let number = Document::parse(intent.request.clone()).ok().and_then(|request| {
        let number = request.root().member(intent.operation.operation().number)?.as_str()?.to_owned();
        Some(masked(&number))
    });
    json!({
        "merchant": &*intent.merchant,
        "operation": intent.operation.name(),
        "id": &*intent.id,
        "transaction": intent.sent.transaction.as_deref(),
        "number": number,
        "since": iso8601(doubt.since),
    })
}

fn problem(status: StatusCode, error: &str) -> Response<Full<Bytes>> {
    json_response(status, &json!({"error": error}))
}

fn percent_decoded(text: &str) -> String {
    let plus_kept = text.replace('+', "%2B");
    form_urlencoded::parse(plus_kept.as_bytes()).next().map(|(name, _)| name.into_owned()).unwrap_or_default()
}

fn not_known(what: &str) -> Response<Full<Bytes>> {
    json_response(StatusCode::NOT_FOUND, &json!({"error": format!("no such {what} is known")}))
}

fn store_trouble(error: &str) -> Response<Full<Bytes>> {
    json_response(StatusCode::SERVICE_UNAVAILABLE, &json!({"error": error}))
}

fn json_response(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(format!("{body}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
