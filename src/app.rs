//! Configuration in, running servers out: the one place that wires everything together.
//!
//! Opens nothing before all of it is known to work, and says where it listens. Decides nothing about
//! a request. Ends on request: not ready, no new connections, what is under way finishes within the
//! grace.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::{Admin, View};
use crate::callback::deliver::{Bell, HyperPost, Post};
use crate::callback::receive::Receiver;
use crate::callback::rounds::{Parts, Rounds};
use crate::clock::{SharedClock, SystemClock};
use crate::config::{self, Config};
use crate::entropy::Entropy;
use crate::live::Live;
use crate::server::certificates::Certificates;
use crate::server::{Address, Bound, Departure, Door, Kept, LINGER, Terms, bind, connections, serve};
use crate::stack::{Gateway, Surroundings};
use crate::store::memory::MemoryStore;
use crate::store::sqlite::{Options, SqliteStore};
use crate::store::{Store, StoreError};
use crate::supervise::{Task, attend, supervise};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::SharedTracer;
use crate::tls::ServerFiles;
use crate::upstream::{HyperTransport, Transport};
use crate::wire::KEPT;

/// A gateway that is running.
#[derive(Debug)]
pub struct App {
    /// Where apps connect.
    pub listen: Address,
    /// Where operators connect.
    pub admin: SocketAddr,
    /// Where Ayoconnect connects, if it does.
    pub callbacks: Option<SocketAddr>,
    config: Config,
    surroundings: Surroundings,
    registry: Arc<Registry>,
    gateway: Live<Gateway>,
    pages: Live<Admin>,
    departure: Departure,
    /// Seen by probes.
    leaving: Arc<AtomicBool>,
    stop_serving: CancellationToken,
    stop_admin: CancellationToken,
    serving: JoinHandle<()>,
    admin_serving: JoinHandle<()>,
    resolving: Resolving,
    calling_back: CallingBack,
    /// Whether the way upstream was handed in, and stays whatever the configuration says.
    given_transport: bool,
    /// A listener has ended in a panic.
    broken: CancellationToken,
}

/// The resolver at work.
#[derive(Debug)]
struct Resolving {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Resolving {
    fn start(gateway: &Gateway, metrics: &Arc<Metrics>) -> Self {
        let stop = CancellationToken::new();
        Self { task: tokio::spawn(resolve(gateway.clone(), Arc::clone(metrics), stop.clone())), stop }
    }
}

/// Why another configuration cannot take the place of the present one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// These keys only count at the start.
    Fixed(Vec<&'static str>),
    /// It cannot be put to work.
    Unusable(String),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(keys) => write!(f, "only a restart can change {}", keys.join(", ")),
            Self::Unusable(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Refused {}

/// Work that did not end within the grace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// Creates and updates that were still under way.
    pub tasks: usize,
}

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shutdown.grace is over with work under way ({} creates and updates)", self.tasks)
    }
}

impl std::error::Error for Unfinished {}

impl App {
    /// Starts serving a configuration.
    ///
    /// # Errors
    /// Addresses that are taken, no system randomness, no certificate store, records that cannot be
    /// opened.
    pub async fn start(config: &Config) -> io::Result<Self> {
        Self::start_on(config, None, None).await
    }

    /// The same with the app's listener there already, where the process was given it, and with spans of
    /// requests and tries.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_on(config: &Config, listener: Option<Bound>, tracer: SharedTracer) -> io::Result<Self> {
        Self::launch(config, (transport(config)?, false), (Arc::new(SystemClock), tracer), listener).await
    }

    /// The same over another way to upstream and another clock.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_with(
        config: &Config,
        transport: Arc<dyn Transport>,
        clock: SharedClock,
        tracer: SharedTracer,
    ) -> io::Result<Self> {
        Self::launch(config, (transport, true), (clock, tracer), None).await
    }

    async fn launch(
        config: &Config,
        (transport, given_transport): (Arc<dyn Transport>, bool),
        (clock, tracer): (SharedClock, SharedTracer),
        listener: Option<Bound>,
    ) -> io::Result<Self> {
        let mut registry = Registry::default();
        let metrics = Arc::new(Metrics::new(&mut registry));
        let registry = Arc::new(registry);
        let surroundings = Surroundings {
            entropy: Entropy::from_system()?,
            transport,
            store: open_store(config, &clock)?,
            clock,
            metrics: Arc::clone(&metrics),
            tracer,
        };
        let broken = CancellationToken::new();
        let gateway = Gateway::new(config, &surroundings).map_err(io::Error::other)?;
        gateway.resolver().take_over().await.map_err(io::Error::other)?;
        let listeners = Listeners::open(config, &surroundings.metrics, listener).await?;
        let calling_back = CallingBack::start(config, &surroundings, &gateway, (listeners.callbacks, &broken)).await?;
        let leaving = Arc::default();
        let pages = Live::new(admin_pages(config, &surroundings, (&gateway, &registry, &calling_back.bell, &leaving)));
        let resolving = Resolving::start(&gateway, &metrics);
        let gateway = Live::new(gateway);
        let (app, admin) = (listeners.app, listeners.admin);
        Ok(Self {
            listen: app.bound.address.clone(),
            admin: listeners.admin_address,
            callbacks: calling_back.address,
            departure: app.terms.departure.clone(),
            leaving,
            stop_serving: app.terms.stop.clone(),
            serving: listening(&metrics, &broken, serve(app.bound, gateway.clone(), app.terms)),
            stop_admin: admin.terms.stop.clone(),
            admin_serving: listening(&metrics, &broken, serve(admin.bound, pages.clone(), admin.terms)),
            config: config.clone(),
            surroundings,
            registry,
            gateway,
            pages,
            resolving,
            calling_back,
            given_transport,
            broken,
        })
    }

    /// Goes on with another configuration: what comes from now on is its, what is under way ends as it
    /// began. Nothing changes where it is refused.
    ///
    /// # Errors
    /// [`Refused`] where it changes what only counts at the start, or cannot be put to work.
    pub async fn reload(&mut self, config: Config) -> Result<(), Refused> {
        let fixed = fixed(&self.config, &config);
        if !fixed.is_empty() {
            return Err(Refused::Fixed(fixed));
        }
        let unusable = |error: &dyn fmt::Display| Refused::Unusable(error.to_string());
        let mut surroundings = self.surroundings.clone();
        if !self.given_transport && !same_transport(&self.config, &config) {
            surroundings.transport = transport(&config).map_err(|error| unusable(&error))?;
        }
        // Last of what may fail: from here on the new one is in force.
        let before = self.gateway.now();
        self.calling_back.watch(&config, &surroundings, &before).await.map_err(|error| unusable(&error))?;
        let gateway = before.renewed(&config, &surroundings).map_err(|error| unusable(&error))?;
        self.calling_back.renew(&config, &surroundings, &gateway);
        let shown = (&gateway, &self.registry, &self.calling_back.bell, &self.leaving);
        self.pages.replace(admin_pages(&config, &surroundings, shown));
        // The new one asks about doubts before the old one stops, and each leaves the other's alone.
        let resolving = std::mem::replace(&mut self.resolving, Resolving::start(&gateway, &surroundings.metrics));
        resolving.stop.cancel();
        self.gateway.replace(gateway);
        (self.config, self.surroundings) = (config, surroundings);
        Ok(())
    }

    /// Waits until a listener has ended in a panic: nothing but another process mends that.
    pub async fn broken(&self) {
        self.broken.cancelled().await;
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.surroundings.metrics)
    }

    /// How long its end may take.
    #[must_use]
    pub const fn grace(&self) -> Duration {
        self.config.shutdown.grace
    }

    /// Ends: not ready, no new connections, what is under way finishes. The admin listener stays up
    /// until then, so that probes see the drain.
    ///
    /// # Errors
    /// [`Unfinished`] where the grace was over first; what then was under way may be in doubt.
    pub async fn stop(self) -> Result<(), Unfinished> {
        let began = Instant::now();
        let deadline = began + self.config.shutdown.grace;
        let gateway = self.gateway.now();
        let tasks = gateway.tasks();
        self.leaving.store(true, Ordering::Relaxed);
        self.departure.begin();
        self.calling_back.departure.begin();
        // Its app may end later than the gateway is told to, and is served until then; what comes at the
        // very end has half of the grace to itself.
        let _ = timeout_at(began + self.config.shutdown.grace / 2, self.departure.quiet(QUIET)).await;
        self.stop_serving.cancel();
        self.calling_back.stop.cancel();
        let mut serving = self.serving;
        // Who has just connected is served, too.
        let lingering = timeout_at(deadline.min(Instant::now() + LINGER * 2), &mut serving).await.is_ok();
        gateway.draining().store(true, Ordering::Relaxed);
        tasks.close();
        let served = lingering || timeout_at(deadline, serving).await.is_ok();
        let finished = timeout_at(deadline, tasks.wait()).await.is_ok();
        // What is not delivered by then is delivered by the next process.
        let _ = timeout_at(deadline, self.calling_back.ended()).await;
        // After the last end has been handed over. A disk that hangs must not hold up the end for ever.
        let closed = self.surroundings.store.close();
        if timeout_at(deadline.max(Instant::now() + CLOSING_GRACE), closed).await.is_err() {
            tracing::warn!("the store did not close in time");
        }
        self.stop_admin.cancel();
        self.resolving.stop.cancel();
        let _ = self.resolving.task.await;
        export_the_rest(self.surroundings.tracer, deadline).await;
        // A scraper that keeps its connection busy must not hold up the end.
        let _ = timeout_at(deadline.max(Instant::now() + ADMIN_GRACE), self.admin_serving).await;
        if served && finished { Ok(()) } else { Err(Unfinished { tasks: tasks.len() }) }
    }
}

/// Everything that listens, bound and not yet served.
struct Listeners {
    app: Ready,
    admin: Ready,
    admin_address: SocketAddr,
    callbacks: Option<Ready>,
}

/// One of them, and how it is to be served.
struct Ready {
    bound: Bound,
    terms: Terms,
}

impl Listeners {
    /// Opens them; `app` is there already where the process was given it.
    async fn open(config: &Config, metrics: &Arc<Metrics>, app: Option<Bound>) -> io::Result<Self> {
        let header_timeout = config.listen.header_timeout;
        // The last eighth is for the store and the way upstream.
        let terms = |name: &'static str, held: Held, tls: Option<&ServerFiles>| {
            let (metrics, stop) = (Arc::clone(metrics), CancellationToken::new());
            let certificates = match tls {
                Some(files) => {
                    let (certificates, watch) = Certificates::open(files.clone())?;
                    tokio::spawn(watch.run(name, Arc::clone(&metrics), stop.clone()));
                    Some(certificates)
                }
                None => None,
            };
            io::Result::Ok(Terms {
                name,
                header_timeout,
                connections: connections(held.most, held.eighths),
                kept: held.kept,
                door: Door::default(),
                certificates,
                metrics,
                departure: Departure::default(),
                stop,
            })
        };
        let app = match app {
            Some(bound) => bound,
            None => bind(&config.listen.address).await?,
        };
        let admin = bind(&config.admin.address.into()).await?;
        let callbacks = match &config.callbacks {
            Some(callbacks) => {
                let bound = bind(&callbacks.listen.into()).await?;
                Some(Ready { bound, terms: terms("callbacks", CALLBACKS, callbacks.tls.as_ref())? })
            }
            None => None,
        };
        Ok(Self {
            app: Ready { bound: app, terms: terms("app", APP, config.listen.tls.as_ref())? },
            admin_address: admin.address.tcp().unwrap_or(config.admin.address),
            admin: Ready { bound: admin, terms: terms("admin", ADMIN, None)? },
            callbacks,
        })
    }
}

/// Settles outcomes in doubt until told to stop, whatever happens.
async fn resolve(gateway: Gateway, metrics: Arc<Metrics>, stop: CancellationToken) {
    let run = || Arc::clone(gateway.resolver()).run(stop.clone());
    supervise(Task::Resolver, &metrics, &stop, run).await;
}

fn listening(
    metrics: &Arc<Metrics>,
    broken: &CancellationToken,
    serving: impl Future<Output = ()> + Send + 'static,
) -> JoinHandle<()> {
    tokio::spawn(attended(metrics, broken, serving))
}

/// A listener's work, whose panic is noticed.
fn attended<F: Future<Output = ()> + Send + 'static>(
    metrics: &Arc<Metrics>,
    broken: &CancellationToken,
    serving: F,
) -> impl Future<Output = ()> + Send + use<F> {
    let (metrics, broken) = (Arc::clone(metrics), broken.clone());
    async move { attend(Task::Listener, &metrics, &broken, serving).await }
}

/// The spans of the last requests, within what is left of the grace.
async fn export_the_rest(tracer: SharedTracer, deadline: Instant) {
    let Some(tracer) = tracer else { return };
    let patience = deadline.saturating_duration_since(Instant::now()).clamp(ADMIN_GRACE, EXPORT_GRACE);
    let exporting = tokio::task::spawn_blocking(move || tracer.end(patience));
    if exporting.await.is_err() {
        tracing::warn!("the last spans could not be exported");
    }
}

/// Receiving and delivering callbacks; nothing of it where they are off.
#[derive(Debug)]
struct CallingBack {
    address: Option<SocketAddr>,
    bell: Bell,
    departure: Departure,
    stop: CancellationToken,
    /// The listener.
    tasks: TaskTracker,
    receiver: Option<Live<Receiver>>,
    post: Option<Arc<dyn Post>>,
    rounds: Rounds,
}

impl CallingBack {
    /// Sets receiver and deliverers going.
    async fn start(
        config: &Config,
        surroundings: &Surroundings,
        gateway: &Gateway,
        (listener, broken): (Option<Ready>, &CancellationToken),
    ) -> io::Result<Self> {
        let stop = listener.as_ref().map(|listener| listener.terms.stop.clone()).unwrap_or_default();
        let mut started = Self {
            address: listener.as_ref().and_then(|listener| listener.bound.address.tcp()),
            bell: Bell::default(),
            departure: listener.as_ref().map(|listener| listener.terms.departure.clone()).unwrap_or_default(),
            rounds: Rounds::new(stop.clone()),
            stop,
            tasks: TaskTracker::new(),
            receiver: None,
            post: None,
        };
        let Some(Ready { bound, terms }) = listener else { return Ok(started) };
        started.post = Some(Arc::new(HyperPost::new()?));
        started.watch(config, surroundings, gateway).await.map_err(io::Error::other)?;
        if let Some(receiver) = started.renew(config, surroundings, gateway).map(Live::new) {
            let present = receiver.clone();
            let door = Door::new(move |peer| present.now().may_connect(peer));
            let serving = serve(bound, receiver.clone(), Terms { door, ..terms });
            started.tasks.spawn(attended(&surroundings.metrics, broken, serving));
            started.receiver = Some(receiver);
        }
        Ok(started)
    }

    /// Lets the store watch accounts for a configuration; to be called before [`renew`](Self::renew).
    async fn watch(&self, config: &Config, surroundings: &Surroundings, gateway: &Gateway) -> Result<(), StoreError> {
        let Some(parts) = self.parts(config, surroundings, gateway) else { return Ok(()) };
        match parts.circle() {
            Some(circle) => circle.watch().await,
            None => Ok(()),
        }
    }

    /// Goes on with another configuration; its receiver, which takes the place of the present one.
    fn renew(&self, config: &Config, surroundings: &Surroundings, gateway: &Gateway) -> Option<Receiver> {
        let parts = self.parts(config, surroundings, gateway)?;
        let receiver = parts.circle()?.receiver();
        if let Some(present) = &self.receiver {
            present.replace(receiver.clone());
        }
        self.rounds.begin(parts);
        Some(receiver)
    }

    /// Nothing where there is no listener.
    fn parts(&self, config: &Config, surroundings: &Surroundings, gateway: &Gateway) -> Option<Parts> {
        Some(Parts {
            config: config.clone(),
            surroundings: surroundings.clone(),
            gateway: gateway.clone(),
            post: self.post.clone()?,
            bell: self.bell.clone(),
        })
    }

    /// Waits for the end of everything; to be told to stop before.
    async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.rounds.ended().await;
    }
}

/// The operator's pages about one configuration.
fn admin_pages(
    config: &Config,
    surroundings: &Surroundings,
    (gateway, registry, bell, leaving): (&Gateway, &Arc<Registry>, &Bell, &Arc<AtomicBool>),
) -> Admin {
    let callbacks = config.callbacks.as_ref();
    Admin::new(View {
        gateway: gateway.clone(),
        store: Arc::clone(&surroundings.store),
        registry: Arc::clone(registry),
        metrics: Arc::clone(&surroundings.metrics),
        effective: config::effective(config),
        clock: Arc::clone(&surroundings.clock),
        retry_for: callbacks.map(|callbacks| callbacks.retry_for(&config.merchants)).unwrap_or_default(),
        bell: bell.clone(),
        draining: Arc::clone(leaving),
    })
}

/// The way upstream of a configuration.
fn transport(config: &Config) -> io::Result<Arc<dyn Transport>> {
    let upstream = &config.upstream;
    let transport = HyperTransport::with_tls(&upstream.base_url, upstream.connect_timeout, upstream.tls.as_ref())?;
    Ok(Arc::new(transport))
}

/// Whether connections upstream can go on being used. Files may have changed behind their names.
fn same_transport(before: &Config, now: &Config) -> bool {
    let (before, now) = (&before.upstream, &now.upstream);
    before.base_url == now.base_url
        && before.connect_timeout == now.connect_timeout
        && before.tls.is_none()
        && now.tls.is_none()
}

/// The keys that differ and only count at the start: listeners, and what the store was opened with.
fn fixed(before: &Config, now: &Config) -> Vec<&'static str> {
    let listeners =
        |config: &Config| config.callbacks.as_ref().map(|callbacks| (callbacks.listen, callbacks.tls.clone()));
    let (one, other) = (listeners(before), listeners(now));
    let both = one.as_ref().zip(other.as_ref());
    [
        ("listen.address", before.listen.address != now.listen.address),
        ("listen.tls", before.listen.tls != now.listen.tls),
        ("listen.header_timeout", before.listen.header_timeout != now.listen.header_timeout),
        ("admin.address", before.admin.address != now.admin.address),
        ("store", before.store != now.store),
        ("idempotency.memory", before.idempotency.memory_bytes != now.idempotency.memory_bytes),
        ("reference.memory", before.reference.memory_bytes != now.reference.memory_bytes),
        ("log.format", before.log.format != now.log.format),
        ("merchants[].name", renames(before, now)),
        ("callbacks", one.is_some() != other.is_some()),
        ("callbacks.listen.address", both.is_some_and(|(one, other)| one.0 != other.0)),
        ("callbacks.listen.tls", both.is_some_and(|(one, other)| one.1 != other.1)),
    ]
    .into_iter()
    .filter_map(|(key, differs)| differs.then_some(key))
    .collect()
}

/// Whether a name and a code that belonged together do not any more. What is kept is kept under the name:
/// under another one a repetition would be new, and under somebody else's it would get his answer.
fn renames(before: &Config, now: &Config) -> bool {
    now.merchants.iter().any(|merchant| {
        before.merchants.iter().any(|known| {
            let (name, code) = (known.name == merchant.name, known.merchant_code == merchant.merchant_code);
            name != code
        })
    })
}

/// The connections of a listener.
struct Held {
    most: usize,
    /// Of the descriptors.
    eighths: usize,
    kept: Kept,
}

/// An app in the same pod has as many as it likes; Ayoconnect and who scrapes have few, and a stranger must
/// not fill the memory with his. Who has shown no secret yet (an answer that was refused one ends its
/// connection) is kept for moments only, and so is a probe.
const APP: Held = Held { most: 16_384, eighths: 5, kept: Kept { unasked: KEPT, asked: KEPT } };
const CALLBACKS: Held = Held { most: 1_024, eighths: 1, kept: Kept { unasked: KEPT_BRIEFLY, asked: KEPT } };
const ADMIN: Held = Held { most: 64, eighths: 1, kept: Kept { unasked: KEPT_BRIEFLY, asked: KEPT_BRIEFLY } };
const KEPT_BRIEFLY: Duration = Duration::from_secs(5);

/// Without a request for so long, the app needs the gateway no more.
const QUIET: Duration = Duration::from_secs(1);

/// Time the admin listener gets to answer a last request.
const ADMIN_GRACE: Duration = Duration::from_millis(500);

/// Time a collector of spans gets at most.
const EXPORT_GRACE: Duration = Duration::from_secs(5);

/// Time the store gets for what waits, whatever is left of the grace.
const CLOSING_GRACE: Duration = Duration::from_secs(5);

fn open_store(config: &Config, clock: &SharedClock) -> io::Result<Arc<dyn Store>> {
    let (answers_bytes, accounts_bytes) = (config.idempotency.memory_bytes, config.reference.memory_bytes);
    match &config.store {
        config::Store::Memory => Ok(Arc::new(MemoryStore::new(answers_bytes, accounts_bytes))),
        config::Store::Sqlite(path) => {
            let options = Options { path: path.clone(), answers_bytes, accounts_bytes, clock: Arc::clone(clock) };
            Ok(Arc::new(SqliteStore::open(&options).map_err(io::Error::other)?))
        }
    }
}
