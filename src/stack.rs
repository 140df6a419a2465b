//! THE list of layers, top to bottom in the order a request passes them.
//!
//! Nothing here decides about a request. The shapes in `call.rs` keep a layer from standing before
//! what it needs; between layers of one shape this list decides, and a test pins it.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body::Body;
use http_body_util::{BodyExt as _, Full};
use tokio_util::task::TaskTracker;
use tower::{Service, ServiceBuilder};

use crate::call::{BodyError, Inbound, Merchant, Route};
use crate::clock::SharedClock;
use crate::config::{Config, MerchantConfig};
use crate::entropy::Entropy;
use crate::flights::Flights;
use crate::inquiry::Inquirer;
use crate::layers::breaker::{Breaking, breaker};
use crate::layers::client::{Client, client};
use crate::layers::collect::{Collect, collect};
use crate::layers::dispatch::{Dispatch, dispatch};
use crate::layers::idempotency::{Idempotency, Learning, idempotency};
use crate::layers::identify::{Identify, identify};
use crate::layers::next::{Next, Pending, layer};
use crate::layers::observe::{Observe, observe};
use crate::layers::rate_limit::{RateLimits, rate_limit};
use crate::layers::reference::{References, reference};
use crate::layers::render::{Render, render};
use crate::layers::retry::{Retry, retry};
use crate::layers::sign::{Sign, sign};
use crate::layers::token::token;
use crate::layers::validate::{Validate, validate};
use crate::resolver::{Means, Resolver};
use crate::settling::Settler;
use crate::signature::HmacKey;
use crate::store::Store;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::{Server, SharedTracer};
use crate::upstream::{Breakers, ClockSkew, Tokens, Transport, token::Source};

/// What a stack is built from besides its configuration; handed in, so that a test brings its own.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Wall time.
    pub clock: SharedClock,
    /// Ids and jitter.
    pub entropy: Entropy,
    /// The way to upstream.
    pub transport: Arc<dyn Transport>,
    /// What is remembered.
    pub store: Arc<dyn Store>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Where spans go; nothing where they are not exported.
    pub tracer: SharedTracer,
}

/// The complete gateway as a tower service over `http::Request`: mount it in any server.
///
/// Cloning is cheap and shares everything. It is always ready and never fails: what goes wrong
/// becomes a response.
#[derive(Clone, Debug)]
pub struct Gateway {
    top: Next<Request<Inbound>, Response<Full<Bytes>>>,
    parts: Arc<Parts>,
}

/// What is worth seeing of a running stack.
#[derive(Debug)]
struct Parts {
    routes: Vec<Arc<Route>>,
    limits: Arc<RateLimits>,
    tokens: Arc<Tokens>,
    breakers: Arc<Breakers>,
    skew: Arc<ClockSkew>,
    tasks: TaskTracker,
    resolver: Arc<Resolver>,
    inquirer: Arc<Inquirer>,
    merchants: Vec<Arc<Merchant>>,
    draining: Arc<AtomicBool>,
}

impl Gateway {
    /// Builds the stack of a configuration.
    ///
    /// # Errors
    /// Where a merchant's code, channel or client id is no header value; `config` lets none through.
    pub fn new(config: &Config, surroundings: &Surroundings) -> Result<Self, http::header::InvalidHeaderValue> {
        let Surroundings { clock, entropy, store, metrics, tracer, .. } = surroundings;
        let merchants = config.merchants.iter().map(merchant).collect::<Result<Vec<_>, _>>()?;
        let breakers = Arc::new(Breakers::new(&config.breaker));
        let dispatching = Dispatch::new(&config.upstream, Arc::clone(clock));
        let routes = dispatching.routes().to_vec();
        let draining = Arc::clone(dispatching.draining());
        let skew = Arc::new(ClockSkew::new(Arc::clone(clock), Arc::clone(metrics)));
        let source = token_source(config, surroundings, (&breakers, &skew));
        let tokens = Arc::new(Tokens::new(&merchants, &Arc::new(source)));
        let limits = Arc::new(RateLimits::new(&config.merchants, Arc::clone(metrics)));
        let tasks = TaskTracker::new();
        let flights = Flights::default();
        let recognising = Idempotency {
            store: Arc::clone(store),
            settings: config.idempotency.clone(),
            clock: Arc::clone(clock),
            metrics: Arc::clone(metrics),
            tasks: tasks.clone(),
            flights: flights.clone(),
            learning: Learning::default(),
        };
        let trying = trying(config, surroundings, &skew);
        let breaking = Breaking { breakers: Arc::clone(&breakers), tokens: Arc::clone(&tokens) };
        // The lower half first, since the gateway's own inquiries enter there.
        let lower = ServiceBuilder::new()
            .layer(layer(Arc::new(Retry::new(&config.retry, entropy.clone())), retry))
            .layer(layer(Arc::clone(&tokens), token))
            .layer(layer(Arc::new(Sign { clock: Arc::clone(clock), settings: config.upstream.snap.signature }), sign))
            .layer(layer(Arc::new(breaking), breaker))
            .service(Next::last(Arc::new(trying), client));
        let inquirer = Arc::new(Inquirer::new(&routes, entropy.clone(), lower.clone()));
        let settler = Arc::new(Settler { inquirer: Arc::clone(&inquirer), store: Arc::clone(store) });
        let resolver = Arc::new(Resolver::new(Means {
            store: Arc::clone(store),
            flights,
            settler: Arc::clone(&settler),
            merchants: merchants.clone(),
            clock: Arc::clone(clock),
            metrics: Arc::clone(metrics),
            // An app's repetition waits as long, so it is one try and not a whole request's time.
            patience: config.upstream.attempt_timeout,
        }));
        let attaching = References {
            store: Arc::clone(store),
            settings: config.reference.clone(),
            inquirer: Arc::clone(&inquirer),
            settler: Arc::clone(&settler),
            clock: Arc::clone(clock),
            entropy: entropy.clone(),
            metrics: Arc::clone(metrics),
        };
        let classic_validation_status = config.errors.classic_validation_status;
        let watching = Observe { metrics: Arc::clone(metrics), entropy: entropy.clone(), tracer: tracer.clone() };
        let top = ServiceBuilder::new()
            .layer(layer(Arc::new(watching), observe))
            .layer(layer(Arc::new(Render { clock: Arc::clone(clock), classic_validation_status }), render))
            .layer(layer(Arc::new(dispatching), dispatch))
            .layer(layer(Arc::new(Identify::new(&merchants)), identify))
            .layer(layer(Arc::clone(&limits), rate_limit))
            .layer(layer(Arc::new(collecting(config)), collect))
            .layer(layer(Arc::new(validating(config, surroundings)), validate))
            .layer(layer(Arc::new(recognising), idempotency))
            .layer(layer(Arc::new(attaching), reference))
            .service(lower);
        let parts = Parts { routes, limits, tokens, breakers, skew, tasks, resolver, inquirer, merchants, draining };
        Ok(Self { top, parts: Arc::new(parts) })
    }

    /// The routes of the enabled generations.
    #[must_use]
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.parts.routes
    }

    /// The merchants' allowances.
    #[must_use]
    pub fn limits(&self) -> &RateLimits {
        &self.parts.limits
    }

    /// The merchants' tokens.
    #[must_use]
    pub fn tokens(&self) -> &Tokens {
        &self.parts.tokens
    }

    /// Whether upstream is worth trying.
    #[must_use]
    pub fn breakers(&self) -> &Breakers {
        &self.parts.breakers
    }

    /// How far upstream's clock is from ours.
    #[must_use]
    pub fn skew(&self) -> &ClockSkew {
        &self.parts.skew
    }

    /// Settles outcomes in doubt; somebody has to let it [`take_over`](Resolver::take_over) before the
    /// first request, and [`run`](Resolver::run) it.
    #[must_use]
    pub fn resolver(&self) -> &Arc<Resolver> {
        &self.parts.resolver
    }

    /// Asks upstream questions of the gateway's own.
    #[must_use]
    pub fn inquirer(&self) -> &Arc<Inquirer> {
        &self.parts.inquirer
    }

    /// In whose names it works.
    #[must_use]
    pub fn merchants(&self) -> &[Arc<Merchant>] {
        &self.parts.merchants
    }

    /// Set it before the end: what comes from then on is refused as `SHUTTING_DOWN`.
    #[must_use]
    pub fn draining(&self) -> &Arc<AtomicBool> {
        &self.parts.draining
    }

    /// Creates and updates whose callers may have left; await them before the process ends.
    #[must_use]
    pub fn tasks(&self) -> &TaskTracker {
        &self.parts.tasks
    }
}

impl<B> Service<Request<B>> for Gateway
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Answering {
        let request = request.map(|body| body.map_err(|error| BodyError(error.into())).boxed_unsync());
        Answering(self.top.run(request))
    }
}

/// A response on its way.
pub struct Answering(Pending<Response<Full<Bytes>>>);

impl fmt::Debug for Answering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answering")
    }
}

impl Future for Answering {
    type Output = Result<Response<Full<Bytes>>, Infallible>;

    fn poll(mut self: std::pin::Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context).map(Ok)
    }
}

fn merchant(config: &MerchantConfig) -> Result<Arc<Merchant>, http::header::InvalidHeaderValue> {
    Ok(Arc::new(Merchant {
        name: Arc::clone(&config.name),
        code: Arc::clone(&config.merchant_code),
        code_header: HeaderValue::try_from(&*config.merchant_code)?,
        channel_header: HeaderValue::try_from(&*config.channel_id)?,
        client_id: config.client_id.clone(),
        client_secret: config.client_secret.clone(),
        hmac_key: HmacKey::new(config.client_secret.expose().as_bytes()),
        private_key: config.private_key.clone(),
    }))
}

fn trying(config: &Config, surroundings: &Surroundings, skew: &Arc<ClockSkew>) -> Client {
    Client {
        transport: Arc::clone(&surroundings.transport),
        attempt_timeout: config.upstream.attempt_timeout,
        skew: Arc::clone(skew),
        metrics: Arc::clone(&surroundings.metrics),
        tracer: surroundings.tracer.clone(),
        entropy: surroundings.entropy.clone(),
        server: Server::of(&config.upstream.base_url),
    }
}

fn token_source(
    config: &Config,
    surroundings: &Surroundings,
    (breakers, skew): (&Arc<Breakers>, &Arc<ClockSkew>),
) -> Source {
    Source {
        upstream: config.upstream.clone(),
        retry: config.retry.clone(),
        transport: Arc::clone(&surroundings.transport),
        breakers: Arc::clone(breakers),
        clock: Arc::clone(&surroundings.clock),
        entropy: surroundings.entropy.clone(),
        metrics: Arc::clone(&surroundings.metrics),
        skew: Arc::clone(skew),
    }
}

fn collecting(config: &Config) -> Collect {
    Collect { max_bytes: config.listen.max_body_bytes, timeout: config.listen.body_timeout }
}

fn validating(config: &Config, surroundings: &Surroundings) -> Validate {
    Validate {
        clock: Arc::clone(&surroundings.clock),
        entropy: surroundings.entropy.clone(),
        missing_key: config.idempotency.key,
    }
}
