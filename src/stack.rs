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
use crate::resolver::{Means, Questions, Resolver};
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
///
/// A response is worked on where it is polled. A create or update goes on as well once its [`Answering`]
/// is dropped, in a task of its own among [`tasks`](Self::tasks); one that is kept and not polled stands
/// still, and its time limits with it. To be called, polled and dropped within a tokio runtime.
#[derive(Clone, Debug)]
pub struct Gateway {
    top: Next<Request<Inbound>, Response<Full<Bytes>>>,
    parts: Arc<Parts>,
}

/// What is worth seeing of a running stack.
#[derive(Debug)]
struct Parts {
    routes: Vec<Arc<Route>>,
    kept: Kept,
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
        Self::assemble(config, surroundings, None)
    }

    /// Builds the stack of another configuration, which takes over from this one at once: what is under way
    /// here is joined there, and levels of limits, tokens and breakers go on where they still mean the same.
    /// With another transport, what a breaker keeps closed to calls is probed at once.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn renewed(
        &self,
        config: &Config,
        surroundings: &Surroundings,
    ) -> Result<Self, http::header::InvalidHeaderValue> {
        Self::assemble(config, surroundings, Some(&self.parts))
    }

    fn assemble(
        config: &Config,
        surroundings: &Surroundings,
        before: Option<&Parts>,
    ) -> Result<Self, http::header::InvalidHeaderValue> {
        let Surroundings { clock, entropy, store, metrics, tracer, .. } = surroundings;
        let merchants = config.merchants.iter().map(merchant).collect::<Result<Vec<_>, _>>()?;
        let kept = Kept::new(config, surroundings, &merchants, before);
        let Kept { limits, tokens, breakers, skew, .. } = &kept;
        let mut dispatching = Dispatch::new(&config.upstream, Arc::clone(clock));
        if let Some(before) = before {
            dispatching = dispatching.ending_with(Arc::clone(&before.draining));
        }
        let routes = dispatching.routes().to_vec();
        let draining = Arc::clone(dispatching.draining());
        let trying = trying(config, surroundings, skew);
        let breaking = Breaking { breakers: Arc::clone(breakers), tokens: Arc::clone(tokens) };
        // The lower half first, since the gateway's own inquiries enter there.
        let lower = ServiceBuilder::new()
            .layer(layer(Arc::new(Retry::new(&config.retry, entropy.clone())), retry))
            .layer(layer(Arc::clone(tokens), token))
            .layer(layer(Arc::new(Sign { clock: Arc::clone(clock), settings: config.upstream.snap.signature }), sign))
            .layer(layer(Arc::new(breaking), breaker))
            .service(Next::last(Arc::new(trying), client));
        let inquirer = Arc::new(Inquirer::new(&routes, entropy.clone(), lower.clone()));
        let settler = Arc::new(Settler { inquirer: Arc::clone(&inquirer), store: Arc::clone(store) });
        let resolver = Arc::new(Resolver::new(Means {
            store: Arc::clone(store),
            flights: kept.flights.clone(),
            settler: Arc::clone(&settler),
            merchants: merchants.clone(),
            clock: Arc::clone(clock),
            metrics: Arc::clone(metrics),
            // An app's repetition waits as long, so it is one try and not a whole request's time.
            patience: config.upstream.attempt_timeout,
            asked: kept.asked.clone(),
        }));
        let classic_validation_status = config.errors.classic_validation_status;
        let watching = Observe { metrics: Arc::clone(metrics), entropy: entropy.clone(), tracer: tracer.clone() };
        let top = ServiceBuilder::new()
            .layer(layer(Arc::new(watching), observe))
            .layer(layer(Arc::new(Render { clock: Arc::clone(clock), classic_validation_status }), render))
            .layer(layer(Arc::new(dispatching), dispatch))
            .layer(layer(Arc::new(Identify::new(config, &merchants)), identify))
            .layer(layer(Arc::clone(limits), rate_limit))
            .layer(layer(Arc::new(collecting(config)), collect))
            .layer(layer(Arc::new(validating(config, surroundings)), validate))
            .layer(layer(Arc::new(recognising(config, surroundings, &kept)), idempotency))
            .layer(layer(Arc::new(attaching(config, surroundings, (&inquirer, &settler))), reference))
            .service(lower);
        let parts = Parts { routes, kept, resolver, inquirer, merchants, draining };
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
        &self.parts.kept.limits
    }

    /// The merchants' tokens.
    #[must_use]
    pub fn tokens(&self) -> &Tokens {
        &self.parts.kept.tokens
    }

    /// Whether upstream is worth trying.
    #[must_use]
    pub fn breakers(&self) -> &Breakers {
        &self.parts.kept.breakers
    }

    /// How far upstream's clock is from ours.
    #[must_use]
    pub fn skew(&self) -> &ClockSkew {
        &self.parts.kept.skew
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
        &self.parts.kept.tasks
    }
}

/// What goes on from one configuration to the next.
#[derive(Debug)]
struct Kept {
    limits: Arc<RateLimits>,
    tokens: Arc<Tokens>,
    breakers: Arc<Breakers>,
    skew: Arc<ClockSkew>,
    tasks: TaskTracker,
    flights: Flights,
    asked: Questions,
    /// Where the breakers' upstream is, and the way there.
    base_url: http::Uri,
    transport: Arc<dyn Transport>,
}

impl Kept {
    fn new(config: &Config, surroundings: &Surroundings, merchants: &[Arc<Merchant>], before: Option<&Parts>) -> Self {
        let (base_url, transport) = (config.upstream.base_url.clone(), Arc::clone(&surroundings.transport));
        let Some(Parts { kept: before, .. }) = before else {
            let breakers = Arc::new(Breakers::new(&config.breaker));
            let Surroundings { clock, metrics, .. } = surroundings;
            let skew = Arc::new(ClockSkew::new(Arc::clone(clock), Arc::clone(metrics)));
            let source = Arc::new(token_source(config, surroundings, (&breakers, &skew)));
            return Self {
                skew,
                limits: Arc::new(RateLimits::new(&config.merchants, Arc::clone(&surroundings.metrics))),
                tokens: Arc::new(Tokens::new(merchants, &source)),
                breakers,
                tasks: TaskTracker::new(),
                flights: Flights::default(),
                asked: Questions::default(),
                base_url,
                transport,
            };
        };
        let breakers = Arc::new(if before.base_url != base_url {
            Breakers::new(&config.breaker)
        } else if Arc::ptr_eq(&before.transport, &transport) {
            before.breakers.renewed(&config.breaker)
        } else {
            before.breakers.over_another_way(&config.breaker)
        });
        let skew = Arc::clone(&before.skew);
        let source = Arc::new(token_source(config, surroundings, (&breakers, &skew)));
        Self {
            skew,
            limits: Arc::new(before.limits.renewed(&config.merchants)),
            tokens: Arc::new(before.tokens.renewed(merchants, &source)),
            breakers,
            tasks: before.tasks.clone(),
            flights: before.flights.clone(),
            asked: before.asked.clone(),
            base_url,
            transport,
        }
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

fn recognising(config: &Config, surroundings: &Surroundings, kept: &Kept) -> Idempotency {
    Idempotency {
        store: Arc::clone(&surroundings.store),
        settings: config.idempotency.clone(),
        clock: Arc::clone(&surroundings.clock),
        metrics: Arc::clone(&surroundings.metrics),
        tasks: kept.tasks.clone(),
        flights: kept.flights.clone(),
        learning: Learning::default(),
    }
}

fn attaching(
    config: &Config,
    surroundings: &Surroundings,
    (inquirer, settler): (&Arc<Inquirer>, &Arc<Settler>),
) -> References {
    References {
        store: Arc::clone(&surroundings.store),
        settings: config.reference.clone(),
        inquirer: Arc::clone(inquirer),
        settler: Arc::clone(settler),
        clock: Arc::clone(&surroundings.clock),
        entropy: surroundings.entropy.clone(),
        metrics: Arc::clone(&surroundings.metrics),
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
