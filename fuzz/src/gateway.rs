//! Whole conversations through the stack: an app, the gateway with its memory, the simulated upstream.
//!
//! Input: see `script`. Whatever is asked, and whatever upstream does: every answer has its generation's
//! shape and says whose it is; what goes upstream is signed, complete and the caller's own; and no account
//! is made twice.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use ayova::clock::{SharedClock, TestClock};
use ayova::config::{Config, SandboxConfig};
use ayova::dialect::Dialect;
use ayova::document::Document;
use ayova::entropy::Entropy;
use ayova::sandbox::Sandbox;
use ayova::signature::{HmacKey, SignedRequest, StringToSign, body_hash};
use ayova::stack::{Gateway, Surroundings};
use ayova::store::memory::MemoryStore;
use ayova::telemetry::metrics::Metrics;
use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full};
use prometheus_client::registry::Registry;
use rand::SeedableRng as _;
use serde_json::Value as Json;
use tokio::time::Instant;
use tower::ServiceExt as _;

use super::script::{self, Act, Ask, Script};
use super::text::CANARY;
use super::wire::{self, Arrived, Wire};

/// Longest time one request may take: the deadline, and what a repetition may wait for the first.
const PATIENCE: Duration = Duration::from_secs(35);

/// The target's body.
pub fn run(data: &[u8]) {
    let script = script::read(data);
    if !script.asks.is_empty() {
        wire::paused(converse(script));
    }
}

async fn converse(script: Script) {
    // An answer that is made up may teach the gateway what is not true; what it then sends is no fault.
    let honest = !script.acts.iter().any(|act| matches!(act, Act::Answer(..)));
    let world = World::new(script.acts);
    let mut told = Vec::new();
    for ask in &script.asks {
        let before = world.wire.arrived().len();
        let asked_at = Instant::now();
        let got = world.send(ask).await;
        assert!(asked_at.elapsed() <= PATIENCE, "bounded in time");
        let sent: Vec<Arrived> = world.wire.arrived().split_off(before);
        got.is_well_formed(ask);
        got.is_what_it_says(ask, &sent, &told);
        for call in sent.iter().filter(|call| !call.is_login()) {
            is_ours(call);
            is_the_callers(call, ask, &got);
        }
        told.push(got);
    }
    world.gateway.tasks().close();
    world.gateway.tasks().wait().await;
    if honest {
        assert_eq!(world.control("/_sandbox/stats").await["duplicate_creates"], 0, "an account was made twice");
        world.is_not_malformed().await;
    }
}

/// A gateway and what it talks to.
struct World {
    gateway: Gateway,
    sandbox: Sandbox,
    wire: Wire,
}

impl World {
    fn new(acts: Vec<Act>) -> Self {
        let clock: SharedClock = Arc::new(TestClock::new(wire::START.parse().unwrap()));
        let random = rand::rngs::StdRng::seed_from_u64(1);
        let sandbox = Sandbox::new(SandboxConfig::default(), Arc::clone(&clock), random).unwrap();
        let wire = Wire::new(sandbox.clone(), acts);
        let surroundings = Surroundings {
            clock,
            entropy: Entropy::from_seed([1; 32]),
            transport: Arc::new(wire.clone()),
            store: Arc::new(MemoryStore::new(1 << 20, 1 << 20)),
            metrics: Arc::new(Metrics::new(&mut Registry::default())),
            tracer: None,
        };
        Self { gateway: Gateway::new(&CONFIG, &surroundings).unwrap(), sandbox, wire }
    }

    async fn send(&self, ask: &Ask) -> Got {
        let mut request = Request::new(Full::new(ask.head.body.clone()));
        *request.method_mut() = ask.method.clone();
        *request.uri_mut() = ask.target.clone();
        *request.headers_mut() = ask.head.headers.clone();
        let answer = self.gateway.clone().oneshot(request).await.unwrap();
        let (head, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Got { status: head.status.as_u16(), headers: head.headers, body }
    }

    async fn control(&self, path: &str) -> Json {
        let request = Request::get(path).body(Full::new(Bytes::new())).unwrap();
        let answer = self.sandbox.clone().oneshot(request).await.unwrap();
        serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap()
    }

    /// Nothing that the gateway lets through is refused for its form.
    async fn is_not_malformed(&self) {
        for request in self.control("/_sandbox/requests").await["requests"].as_array().unwrap() {
            for check in request["checks"].as_array().unwrap() {
                let formal = !["account", "idempotency"].contains(&check["check"].as_str().unwrap());
                assert!(!formal || check["passed"] == true, "{request:#}");
            }
        }
    }
}

/// An answer.
#[derive(Debug)]
struct Got {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Got {
    /// The value of a header that may be there once.
    fn header(&self, name: &str) -> &str {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next().map_or("", |value| value.to_str().unwrap());
        assert!(values.next().is_none(), "{name} is there twice");
        value
    }

    fn is_well_formed(&self, ask: &Ask) {
        let id = self.header("x-request-id");
        assert!((1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic()), "{id}");
        for name in ["connection", "transfer-encoding", "keep-alive", "upgrade", "te"] {
            assert!(!self.headers.contains_key(name), "{name} belongs to another connection");
        }
        let (source, reason) = (self.header("ayova-source"), self.header("ayova-reason"));
        assert_eq!(source == "replay", self.header("idempotency-replayed") == "true");
        if source != "gateway" {
            assert!(["upstream", "replay"].contains(&source), "{source}");
            assert!(["", "SETTLED_BY_INQUIRY"].contains(&reason), "{reason}: memory stores everything");
            return;
        }
        let text = std::str::from_utf8(&self.body).expect("UTF-8");
        assert!(!text.contains(CANARY), "a value is repeated: {text}");
        let json: Json = serde_json::from_str(text).expect("JSON");
        if reason.is_empty() {
            assert!(is_login(ask) && self.status == 200 && json["accessToken"].is_string());
            return;
        }
        let dialect = dialect_of(ask.target.path());
        let statuses = REASONS.iter().find(|(name, _)| *name == reason).map(|(_, statuses)| statuses);
        assert!(statuses.expect(reason).contains(&self.status), "{reason} {}", self.status);
        envelope(dialect, self.status, &json);
    }

    /// Upstream's answers come back byte for byte, and so do replays of them.
    fn is_what_it_says(&self, ask: &Ask, sent: &[Arrived], told: &[Got]) {
        let calls = sent.iter().filter(|call| !call.is_login());
        let settled = self.header("ayova-reason") == "SETTLED_BY_INQUIRY";
        match self.header("ayova-source") {
            "upstream" if !settled => {
                let same = |call: &Arrived| call.answer.as_ref() == Some(&(self.status, self.body.clone()));
                assert!(calls.clone().any(same), "not what upstream said: {self:?}");
            }
            "replay" if !settled => {
                let same = |got: &Got| (got.status, &got.body) == (self.status, &self.body);
                assert!(told.iter().any(same), "not what was said before: {self:?}");
                assert_eq!(calls.count(), 0, "a replay asks nobody");
            }
            _ => {}
        }
        if let "UNKNOWN_ROUTE" | "METHOD_NOT_ALLOWED" | "BAD_JSON" | "UNKNOWN_MERCHANT" = self.header("ayova-reason") {
            assert!(sent.is_empty(), "{} {} went upstream", ask.method, ask.target);
        }
    }
}

/// The generation's shape (contract section 4).
fn envelope(dialect: Dialect, status: u16, json: &Json) {
    let message = json["responseMessage"].as_str().expect("a message");
    assert!((1..=150).contains(&message.chars().count()), "{message}");
    match dialect {
        Dialect::Snap => {
            let code = json["responseCode"].as_str().expect("a text");
            assert!(code.len() == 7 && code.starts_with(&status.to_string()), "{code} {status}");
            assert!(code.bytes().all(|byte| byte.is_ascii_digit()), "{code}");
        }
        Dialect::Classic => {
            assert_eq!(json["responseCode"], status);
            assert_eq!(json["responseTime"].as_str().map(str::len), Some(14));
        }
    }
    for error in json.get("errors").into_iter().flat_map(|errors| errors.as_array().expect("a list")) {
        for name in ["field", "rule", "message"] {
            assert!(error[name].as_str().is_some_and(|text| !text.is_empty()), "{error}");
        }
        assert!(error["pointer"].is_null() || error["pointer"].as_str().is_some_and(|text| text.starts_with('/')));
    }
}

/// Signed over the very bytes, under the gateway's own credentials.
fn is_ours(call: &Arrived) {
    for name in ["cookie", "x-api-key", "idempotency-key", "proxy-authorization", "x-request-id"] {
        assert!(!call.head.headers.contains_key(name), "{name} goes upstream");
    }
    let token = call.header("authorization").strip_prefix("Bearer ").expect("a token");
    if dialect_of(call.head.uri.path()) == Dialect::Classic {
        return;
    }
    let hash = body_hash(&call.body);
    let (path, timestamp) = (call.head.uri.path(), call.header("x-timestamp"));
    assert!(call.head.uri.query().is_none(), "{}", call.head.uri);
    let request = SignedRequest { method: call.head.method.as_str(), path, body_hash: &hash, timestamp };
    assert!(KEY.verify(&StringToSign::hmac_sha512(&request, token), call.header("x-signature")), "{call:?}");
}

/// What is sent on is what was asked but for what the answer says was attached.
fn is_the_callers(call: &Arrived, ask: &Ask, got: &Got) {
    let theirs = call.head.method == ask.method && call.head.uri.path() == ask.target.path();
    if !theirs || got.header("ayova-source") != "upstream" || !got.header("ayova-reason").is_empty() {
        return;
    }
    let attached: BTreeSet<&str> = got.header("ayova-attached").split(", ").collect();
    let members = |body: &Bytes| Document::parse(body.clone()).ok();
    match (members(&ask.head.body), members(&call.body)) {
        (Some(before), Some(after)) if !call.body.is_empty() => {
            for (name, value) in before.root().members().filter(|(name, _)| !attached.contains(name)) {
                assert_eq!(after.root().member(name).map(|value| value.raw()), Some(value.raw()), "{name}");
            }
            let news = after.root().members().filter(|(name, _)| before.root().member(name).is_none());
            news.for_each(|(name, _)| assert!(attached.contains(name), "{name} was attached without a word"));
            if before.root().members().all(|(name, _)| !attached.contains(name))
                && after.root().members().count() == before.root().members().count()
            {
                assert_eq!(call.body, ask.head.body, "byte for byte");
            }
        }
        (_, None) => assert!(call.body.is_empty()),
        (None, Some(_)) => panic!("a body out of nothing: {call:?}"),
        (Some(_), Some(_)) => {}
    }
}

fn dialect_of(path: &str) -> Dialect {
    let under = path.strip_prefix("/api/v1").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if under || path == CLASSIC_LOGIN { Dialect::Classic } else { Dialect::Snap }
}

fn is_login(ask: &Ask) -> bool {
    [SNAP_LOGIN, CLASSIC_LOGIN].contains(&ask.target.path())
}

const SNAP_LOGIN: &str = "/va/api/v2.0/access-token/b2b";
const CLASSIC_LOGIN: &str = "/v1/oauth/client_credential/accesstoken";

/// What may be said here, with its statuses. `INTERNAL` is not among them: it is a defect's name.
const REASONS: [(&str, &[u16]); 14] = [
    ("UNKNOWN_ROUTE", &[404]),
    ("METHOD_NOT_ALLOWED", &[405]),
    ("UNKNOWN_MERCHANT", &[404]),
    ("BODY_TOO_LARGE", &[413]),
    ("BAD_JSON", &[400]),
    ("INVALID_REQUEST", &[400]),
    ("IDEMPOTENCY_CONFLICT", &[409]),
    ("IDEMPOTENCY_IN_PROGRESS", &[409]),
    ("REFERENCE_UNKNOWN", &[404]),
    ("AMOUNT_TOO_LOW", &[404, 400]),
    ("TOKEN_UNAVAILABLE", &[503]),
    ("UPSTREAM_UNAVAILABLE", &[503]),
    ("UPSTREAM_TIMEOUT", &[504]),
    ("OUTCOME_UNKNOWN", &[504]),
];

static CONFIG: LazyLock<Config> = LazyLock::new(wire::config);
static KEY: LazyLock<HmacKey> = LazyLock::new(|| HmacKey::new(b"sandbox-secret"));
