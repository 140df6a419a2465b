//! A whole gateway over a simulated Ayoconnect, in memory and on a clock that a test moves.
//!
//! Promises no sockets, no real time and the same run for the same seed. What goes upstream passes a
//! [`Wire`], which notes the bytes that arrived and does with them what the test's script says. Knows
//! nothing of operations: requests are made in `asks`.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ayova::admin::{Admin, View};
use ayova::callback::deliver::Bell;
use ayova::clock::{SharedClock, TestClock};
use ayova::config::sandbox::SandboxMerchant;
use ayova::config::{Config, Rate, RateLimit, SandboxConfig, Secret};
use ayova::dialect::OperationId;
use ayova::entropy::Entropy;
use ayova::sandbox::Sandbox;
use ayova::stack::{Gateway, Surroundings};
use ayova::store::Store;
use ayova::store::memory::MemoryStore;
use ayova::telemetry::metrics::Metrics;
use ayova::telemetry::trace::SharedTracer;
use ayova::upstream::{Transport, TransportError};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use prometheus_client::registry::Registry;
use rand::SeedableRng as _;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tower::{Service as _, ServiceExt as _};

use crate::asks::Ask;

/// When every test's day begins: the moment of the vectors.
pub(crate) const START: &str = "2026-01-05T03:00:00Z";

/// Codes of the merchants of a world, in order; the first is the sample's.
pub(crate) const CODES: [&str; 3] = ["AYOTST", "AYOTS2", "AYOTS3"];

/// A world about to be built.
pub(crate) struct Setup {
    pub(crate) config: Config,
    pub(crate) sandbox: SandboxConfig,
    pub(crate) seed: u8,
    pub(crate) store: Option<Arc<dyn Store>>,
    /// The way its sandbox announces payments; none: over sockets.
    pub(crate) announce: Option<Arc<dyn ayova::sandbox::Transport>>,
    pub(crate) tracer: SharedTracer,
}

impl Setup {
    /// Defaults with that many merchants, whose secrets all differ.
    pub(crate) fn new(merchants: usize) -> Self {
        let any = "127.0.0.1:0".parse().unwrap();
        let mut config = Config::sample(any, any, any).unwrap();
        let mut sandbox = SandboxConfig::default();
        for (number, code) in CODES.into_iter().enumerate().take(merchants).skip(1) {
            let mut merchant = config.merchants[0].clone();
            merchant.name = format!("merchant{number}").into();
            merchant.merchant_code = code.into();
            merchant.client_id = Secret::new(format!("client-{number}"));
            merchant.client_secret = Secret::new(format!("secret-{number}"));
            sandbox.merchants.push(SandboxMerchant {
                name: Arc::clone(&merchant.name),
                merchant_code: code.into(),
                client_id: format!("client-{number}"),
                client_secret: Secret::new(format!("secret-{number}")),
                ..sandbox.merchants[0].clone()
            });
            config.merchants.push(merchant);
        }
        Self { config, sandbox, seed: 1, store: None, announce: None, tracer: None }
    }

    /// Gives a merchant a limit.
    pub(crate) fn limit(&mut self, merchant: usize, rate: (u32, u32), in_flight: usize) {
        self.config.merchants[merchant].rate_limit =
            Some(RateLimit { rate: per_second(rate), in_flight, operations: vec![] });
    }

    /// Gives an operation of a merchant that has a limit one of its own.
    pub(crate) fn limit_operation(&mut self, merchant: usize, operation: OperationId, rate: (u32, u32)) {
        let limit = self.config.merchants[merchant].rate_limit.as_mut().unwrap();
        limit.operations.push((operation, per_second(rate)));
    }

    /// Builds it; tokio's clock must be paused.
    pub(crate) fn build(self) -> World {
        let clock: SharedClock = Arc::new(TestClock::new(START.parse().unwrap()));
        let random = rand::rngs::StdRng::seed_from_u64(u64::from(self.seed));
        let (switches, time) = (self.sandbox.clone(), Arc::clone(&clock));
        let sandbox = match self.announce.clone() {
            Some(way) => Sandbox::with_transport(switches, time, random, way),
            None => Sandbox::new(switches, time, random),
        };
        let sandbox = sandbox.unwrap();
        self.build_over(sandbox, clock)
    }

    /// Builds another gateway to the upstream of a world, which shares nothing else with it.
    pub(crate) fn build_beside(self, world: &World) -> World {
        self.build_over(world.sandbox.clone(), Arc::clone(&world.clock))
    }

    fn build_over(self, sandbox: Sandbox, clock: SharedClock) -> World {
        let wire = Wire::over(sandbox.clone());
        let store = self.store.unwrap_or_else(|| Arc::new(MemoryStore::new(1 << 26, 1 << 25)));
        let life = Life { transport: Arc::new(wire.clone()), store, seed: self.seed, tracer: self.tracer };
        World::live(life, self.config, clock, (sandbox, wire))
    }
}

/// What one gateway lives on, and another after it.
pub(crate) struct Life {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) seed: u8,
    pub(crate) tracer: SharedTracer,
}

fn per_second((per_second, burst): (u32, u32)) -> Rate {
    Rate { per_second: NonZeroU32::new(per_second).unwrap(), burst: NonZeroU32::new(burst).unwrap() }
}

/// A gateway, what it talks to, and what watches it.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) gateway: Gateway,
    pub(crate) wire: Wire,
    pub(crate) clock: SharedClock,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) bell: Bell,
    config: Config,
    sandbox: Sandbox,
    store: Arc<dyn Store>,
    registry: Arc<Registry>,
}

impl World {
    fn live(life: Life, config: Config, clock: SharedClock, (sandbox, wire): (Sandbox, Wire)) -> Self {
        let Life { transport, store, seed, tracer } = life;
        let mut registry = Registry::default();
        let metrics = Arc::new(Metrics::new(&mut registry));
        let surroundings = Surroundings {
            clock: Arc::clone(&clock),
            entropy: Entropy::from_seed([seed; 32]),
            transport,
            store: Arc::clone(&store),
            metrics: Arc::clone(&metrics),
            tracer,
        };
        let gateway = Gateway::new(&config, &surroundings).unwrap();
        let (bell, registry) = (Bell::default(), Arc::new(registry));
        Self { gateway, wire, clock, metrics, bell, config, sandbox, store, registry }
    }

    /// The operator's pages.
    fn pages(&self) -> Admin {
        let (config, callbacks) = (&self.config, self.config.callbacks.as_ref());
        Admin::new(View {
            gateway: self.gateway.clone(),
            store: Arc::clone(&self.store),
            registry: Arc::clone(&self.registry),
            metrics: Arc::clone(&self.metrics),
            effective: ayova::config::effective(config),
            clock: Arc::clone(&self.clock),
            retry_for: callbacks.map(|callbacks| callbacks.retry_for(&config.merchants)).unwrap_or_default(),
            bell: self.bell.clone(),
            draining: Arc::default(),
        })
    }

    /// This one after a reload of the changed configuration.
    pub(crate) fn renewed(&self, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = self.config.clone();
        change(&mut config);
        let surroundings = self.surroundings(Arc::clone(&self.store));
        let gateway = self.gateway.renewed(&config, &surroundings).unwrap();
        Self { gateway, config, ..self.clone() }
    }

    /// Another gateway over the same upstream, on the same clock; this one is no longer used.
    pub(crate) fn again(&self, life: Life) -> Self {
        let upstream = (self.sandbox.clone(), self.wire.clone());
        Self::live(life, self.config.clone(), Arc::clone(&self.clock), upstream)
    }

    /// What it is configured to do.
    pub(crate) fn config(&self) -> Config {
        self.config.clone()
    }

    /// What its callbacks are put together from.
    pub(crate) fn surroundings(&self, store: Arc<dyn Store>) -> Surroundings {
        Surroundings {
            clock: Arc::clone(&self.clock),
            entropy: Entropy::from_seed([9; 32]),
            transport: Arc::new(self.wire.clone()),
            store,
            metrics: Arc::clone(&self.metrics),
            tracer: None,
        }
    }

    /// One merchant, defaults.
    pub(crate) fn new() -> Self {
        Setup::new(1).build()
    }

    /// Sends a request through the gateway. The future borrows nothing, so that it can be spawned.
    pub(crate) fn send(&self, ask: Ask) -> impl Future<Output = Got> + Send + 'static {
        self.send_request(ask.into_request())
    }

    /// Sends a request with whatever body through the gateway.
    pub(crate) fn send_request<B>(&self, request: Request<B>) -> impl Future<Output = Got> + Send + 'static
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let answering = self.gateway.clone().call(request);
        async move { Got::read(answering.await.unwrap()) }
    }

    /// Uses the sandbox's control interface.
    pub(crate) async fn control(&self, method: &str, path: &str, body: Value) -> Value {
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let request = Request::builder().method(method).uri(path).body(Full::new(body)).unwrap();
        let got = Got::read(self.sandbox.clone().oneshot(request).await.unwrap());
        assert_eq!(got.status, 200, "{method} {path}: {}", got.text());
        got.json()
    }

    /// Sets the sandbox's faults: operation, which of its requests from now on, fault.
    pub(crate) async fn fault(&self, operation: &str, nth: u32, fault: Value) {
        let list = json!([{"match": {"operation": operation, "nth": nth}, "fault": fault}]);
        self.control("PUT", "/_sandbox/faults", list).await;
    }

    /// A figure of the sandbox's ledger.
    pub(crate) async fn stat(&self, name: &str) -> u64 {
        self.control("GET", "/_sandbox/stats", Value::Null).await[name].as_u64().unwrap()
    }

    /// The metrics as they are scraped.
    pub(crate) async fn scrape(&self) -> String {
        let request = Request::builder().uri("/metrics").body(Full::new(Bytes::new())).unwrap();
        Got::read(self.pages().oneshot(request).await.unwrap()).text()
    }

    /// An admin page.
    pub(crate) async fn admin(&self, path: &str) -> Got {
        let request = Request::builder().uri(path).body(Full::new(Bytes::new())).unwrap();
        Got::read(self.pages().oneshot(request).await.unwrap())
    }

    /// An admin page, asked for with a header.
    pub(crate) async fn admin_with(&self, path: &str, (name, value): (&str, &str)) -> Got {
        let request = Request::builder().uri(path).header(name, value).body(Full::new(Bytes::new())).unwrap();
        Got::read(self.pages().oneshot(request).await.unwrap())
    }

    /// An operator's word.
    pub(crate) async fn admin_post(&self, path: &str, body: Value) -> Got {
        let request = Request::builder().method("POST").uri(path).body(Full::from(body.to_string())).unwrap();
        Got::read(self.pages().oneshot(request).await.unwrap())
    }

    /// The value of one series, written as it is scraped; zero where it does not exist.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let text = self.scrape().await;
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Got {
    fn read(response: Response<Full<Bytes>>) -> Self {
        let (head, body) = response.into_parts();
        let body = body.collect().now_or_never().unwrap().unwrap().to_bytes();
        Self { status: head.status.as_u16(), headers: head.headers, body }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// A header's value; empty where there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn source(&self) -> &str {
        self.header("ayova-source")
    }

    pub(crate) fn reason(&self) -> &str {
        self.header("ayova-reason")
    }

    /// Fails unless upstream answered with that status.
    #[track_caller]
    pub(crate) fn expect(&self, status: u16) -> &Self {
        assert_eq!((self.status, self.source()), (status, "upstream"), "{} {}", self.reason(), self.text());
        self
    }

    /// Fails unless the gateway refused with that status and reason.
    #[track_caller]
    pub(crate) fn expect_refusal(&self, status: u16, reason: &str) -> &Self {
        assert_eq!((self.status, self.reason()), (status, reason), "{}", self.text());
        assert_eq!(self.source(), "gateway");
        self
    }

    /// The names in `errors`, in order.
    pub(crate) fn faults(&self) -> Vec<String> {
        let body = self.json();
        let errors = body["errors"].as_array().into_iter().flatten();
        errors.map(|error| error["field"].as_str().unwrap().to_owned()).collect()
    }
}

/// What went upstream, as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Arrived {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) at: Instant,
}

impl Arrived {
    /// A header's value; empty where there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Whether it is a token call of either generation.
    pub(crate) fn is_login(&self) -> bool {
        self.path.ends_with("/access-token/b2b") || self.path.ends_with("/accesstoken")
    }
}

/// What happens to a request on the wire.
#[derive(Clone)]
pub(crate) enum Act {
    /// It arrives and is answered.
    Deliver,
    /// It arrives this much later.
    Late(Duration),
    /// It arrives when the test lets it.
    Hold(Arc<Semaphore>),
    /// No connection.
    NotSent,
    /// The connection breaks; it never arrived, but nobody can tell.
    Broken,
    /// It arrives and its answer is lost.
    Swallow,
    /// Nothing ever comes back.
    Hang,
    /// The transport has a defect.
    Panic,
    /// This comes back, and it never arrives.
    Answer(u16, &'static str),
    /// It arrives, and this comes back instead of its answer.
    Instead(u16, &'static str),
    /// As [`Act::Answer`], this much later.
    AnswerLate(Duration, u16, &'static str),
    /// As [`Act::Answer`], with headers.
    AnswerWith(Box<Response<Bytes>>),
}

type Script = Box<dyn FnMut(&Arrived) -> Act + Send>;

/// The way from the gateway to the sandbox.
#[derive(Clone)]
pub(crate) struct Wire(Arc<Inner>);

struct Inner {
    sandbox: Sandbox,
    arrived: Mutex<Vec<Arrived>>,
    script: Mutex<Script>,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wire")
    }
}

impl Wire {
    fn over(sandbox: Sandbox) -> Self {
        let script: Script = Box::new(|_| Act::Deliver);
        Self(Arc::new(Inner { sandbox, arrived: Mutex::default(), script: Mutex::new(script) }))
    }

    /// From now on this decides about every request, token calls included.
    pub(crate) fn script(&self, script: impl FnMut(&Arrived) -> Act + Send + 'static) {
        *self.0.script.lock().unwrap() = Box::new(script);
    }

    /// From now on these happen to the requests that are no token calls, in order; then all is well.
    pub(crate) fn acts(&self, acts: impl IntoIterator<Item = Act>) {
        let mut acts = acts.into_iter().collect::<Vec<_>>().into_iter();
        self.script(move |arrived| if arrived.is_login() { Act::Deliver } else { acts.next().unwrap_or(Act::Deliver) });
    }

    /// As [`Wire::acts`] for token calls.
    pub(crate) fn login_acts(&self, acts: impl IntoIterator<Item = Act>) {
        let mut acts = acts.into_iter().collect::<Vec<_>>().into_iter();
        self.script(move |arrived| if arrived.is_login() { acts.next().unwrap_or(Act::Deliver) } else { Act::Deliver });
    }

    /// Everything that was sent, token calls included.
    pub(crate) fn all(&self) -> Vec<Arrived> {
        self.0.arrived.lock().unwrap().clone()
    }

    /// Everything that was sent but token calls.
    pub(crate) fn calls(&self) -> Vec<Arrived> {
        self.all().into_iter().filter(|arrived| !arrived.is_login()).collect()
    }

    /// Token calls.
    pub(crate) fn logins(&self) -> Vec<Arrived> {
        self.all().into_iter().filter(Arrived::is_login).collect()
    }

    /// The last that was sent and is no token call.
    pub(crate) fn last(&self) -> Arrived {
        self.calls().pop().unwrap()
    }

    /// Another connection, as it were.
    pub(crate) fn another_way(&self) -> Arc<dyn Transport> {
        Arc::new(self.clone())
    }

    /// Forgets what was sent.
    pub(crate) fn clear(&self) {
        self.0.arrived.lock().unwrap().clear();
    }
}

impl Transport for Wire {
    fn send(&self, request: Request<Full<Bytes>>) -> BoxFuture<'static, Result<Response<Bytes>, TransportError>> {
        let (head, body) = request.into_parts();
        let body = body.collect().now_or_never().unwrap().unwrap().to_bytes();
        let arrived = Arrived {
            method: head.method.to_string(),
            path: head.uri.path().to_owned(),
            query: head.uri.query().map(ToOwned::to_owned),
            headers: head.headers.clone(),
            body: body.clone(),
            at: Instant::now(),
        };
        let act = (self.0.script.lock().unwrap())(&arrived);
        self.0.arrived.lock().unwrap().push(arrived);
        let sandbox = self.0.sandbox.clone();
        let request = Request::from_parts(head, Full::new(body));
        async move { perform(act, sandbox, request).await }.boxed()
    }
}

fn response(status: u16, body: &'static str) -> Response<Bytes> {
    Response::builder().status(status).body(Bytes::from_static(body.as_bytes())).unwrap()
}

async fn perform(act: Act, sandbox: Sandbox, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, TransportError> {
    let broken = |why: &str| TransportError::Broken(why.to_owned());
    match act {
        Act::Deliver => {}
        Act::Late(pause) => tokio::time::sleep(pause).await,
        Act::Hold(gate) => gate.acquire().await.unwrap().forget(),
        Act::NotSent => return Err(TransportError::NotSent("connection refused".to_owned())),
        Act::Broken => return Err(broken("connection reset")),
        Act::Hang => return std::future::pending().await,
        Act::Panic => panic!("the transport has a defect"),
        Act::Answer(status, body) => return Ok(response(status, body)),
        Act::AnswerLate(pause, status, body) => {
            tokio::time::sleep(pause).await;
            return Ok(response(status, body));
        }
        Act::AnswerWith(response) => return Ok(*response),
        Act::Instead(status, body) => {
            sandbox.oneshot(request).await.map_err(|_| TransportError::Broken("closed".to_owned()))?;
            return Ok(Response::builder().status(status).body(Bytes::from_static(body.as_bytes())).unwrap());
        }
        Act::Swallow => {
            sandbox.oneshot(request).await.map_err(|_| broken("closed"))?;
            return Err(broken("connection reset before the answer"));
        }
    }
    let response = sandbox.oneshot(request).await.map_err(|_| broken("closed without an answer"))?;
    let (head, body) = response.into_parts();
    Ok(Response::from_parts(head, body.collect().await.unwrap().to_bytes()))
}
