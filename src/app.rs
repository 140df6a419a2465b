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
use crate::callback::circle::Circle;
use crate::callback::deliver::{Bell, HyperPost, Post};
use crate::clock::{SharedClock, SystemClock};
use crate::config::{self, Config};
use crate::entropy::Entropy;
use crate::server::{Bound, bind, serve};
use crate::stack::{Gateway, Surroundings};
use crate::store::Store;
use crate::store::memory::MemoryStore;
use crate::store::sqlite::{Options, SqliteStore};
use crate::supervise::{Task, attend, supervise};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::SharedTracer;
use crate::upstream::{HyperTransport, Transport};

/// A gateway that is running.
#[derive(Debug)]
pub struct App {
    /// Where apps connect.
    pub listen: SocketAddr,
    /// Where operators connect.
    pub admin: SocketAddr,
    /// Where Ayoconnect connects, if it does.
    pub callbacks: Option<SocketAddr>,
    draining: Arc<AtomicBool>,
    stop_serving: CancellationToken,
    stop_admin: CancellationToken,
    serving: JoinHandle<()>,
    admin_serving: JoinHandle<()>,
    resolving: JoinHandle<()>,
    calling_back: CallingBack,
    tasks: TaskTracker,
    store: Arc<dyn Store>,
    grace: Duration,
    broken: CancellationToken,
    tracer: SharedTracer,
}

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
        Self::start_traced(config, None).await
    }

    /// The same, with spans of requests and tries.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_traced(config: &Config, tracer: SharedTracer) -> io::Result<Self> {
        let transport = HyperTransport::new(&config.upstream.base_url, config.upstream.connect_timeout)?;
        Self::start_with(config, Arc::new(transport), Arc::new(SystemClock), tracer).await
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
        let mut registry = Registry::default();
        let metrics = Arc::new(Metrics::new(&mut registry));
        let surroundings = Surroundings {
            entropy: Entropy::from_system()?,
            transport,
            store: open_store(config, &clock)?,
            clock,
            metrics: Arc::clone(&metrics),
            tracer: tracer.clone(),
        };
        let store = Arc::clone(&surroundings.store);
        let gateway = Gateway::new(config, &surroundings).map_err(io::Error::other)?;
        gateway.resolver().take_over().await.map_err(io::Error::other)?;
        let (listen, admin) = (bind(config.listen.address).await?, bind(config.admin.address).await?);
        let draining = Arc::clone(gateway.draining());
        let callbacks = match &config.callbacks {
            Some(callbacks) => Some(bind(callbacks.listen).await?),
            None => None,
        };
        let broken = CancellationToken::new();
        let calling_back = CallingBack::start(config, &surroundings, &gateway, (callbacks, &broken)).await?;
        let view = View {
            gateway: gateway.clone(),
            store: surroundings.store,
            registry,
            metrics: surroundings.metrics,
            effective: config::effective(config),
            clock: surroundings.clock,
            retry_for: config
                .callbacks
                .as_ref()
                .map(|callbacks| callbacks.retry_for(&config.merchants))
                .unwrap_or_default(),
            bell: calling_back.bell.clone(),
            draining: Arc::clone(&draining),
        };
        let (stop_serving, stop_admin) = (CancellationToken::new(), CancellationToken::new());
        let header_timeout = config.listen.header_timeout;
        let tasks = gateway.tasks().clone();
        let resolving = tokio::spawn(resolve(gateway.clone(), Arc::clone(&metrics), stop_admin.clone()));
        Ok(Self {
            listen: listen.address,
            admin: admin.address,
            draining,
            serving: listening(&metrics, &broken, serve(listen, gateway, header_timeout, stop_serving.clone())),
            admin_serving: listening(
                &metrics,
                &broken,
                serve(admin, Admin::new(view), header_timeout, stop_admin.clone()),
            ),
            resolving,
            callbacks: calling_back.address,
            calling_back,
            stop_serving,
            stop_admin,
            tasks,
            store,
            grace: config.shutdown.grace,
            broken,
            tracer,
        })
    }

    /// Waits until a listener has ended in a panic: nothing but another process mends that.
    pub async fn broken(&self) {
        self.broken.cancelled().await;
    }

    /// Ends: not ready, no new connections, what is under way finishes. The admin listener stays up
    /// until then, so that probes see the drain.
    ///
    /// # Errors
    /// [`Unfinished`] where the grace was over first; what then was under way may be in doubt.
    pub async fn stop(self) -> Result<(), Unfinished> {
        let deadline = Instant::now() + self.grace;
        self.draining.store(true, Ordering::Relaxed);
        self.stop_serving.cancel();
        self.calling_back.stop.cancel();
        self.tasks.close();
        let served = timeout_at(deadline, self.serving).await.is_ok();
        let finished = timeout_at(deadline, self.tasks.wait()).await.is_ok();
        // What is not delivered by then is delivered by the next process.
        let _ = timeout_at(deadline, self.calling_back.tasks.wait()).await;
        // After the last end has been handed over. A disk that hangs must not hold up the end for ever.
        if timeout_at(deadline.max(Instant::now() + CLOSING_GRACE), self.store.close()).await.is_err() {
            tracing::warn!("the store did not close in time");
        }
        self.stop_admin.cancel();
        let _ = self.resolving.await;
        export_the_rest(self.tracer, deadline).await;
        // A scraper that keeps its connection busy must not hold up the end.
        let _ = timeout_at(deadline.max(Instant::now() + ADMIN_GRACE), self.admin_serving).await;
        if served && finished { Ok(()) } else { Err(Unfinished { tasks: self.tasks.len() }) }
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
    let (metrics, broken) = (Arc::clone(metrics), broken.clone());
    tokio::spawn(async move { attend(Task::Listener, &metrics, &broken, serving).await })
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
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl CallingBack {
    /// Sets receiver and deliverers going.
    async fn start(
        config: &Config,
        surroundings: &Surroundings,
        gateway: &Gateway,
        (bound, broken): (Option<Bound>, &CancellationToken),
    ) -> io::Result<Self> {
        let (bell, stop, tasks) = (Bell::default(), CancellationToken::new(), TaskTracker::new());
        let address = bound.as_ref().map(|bound| bound.address);
        if let (Some(callbacks), Some(bound)) = (&config.callbacks, bound) {
            let post: Arc<dyn Post> = Arc::new(HyperPost::new()?);
            let circle = Circle { config, callbacks, surroundings, gateway, post: &post, bell: &bell };
            let receiver = circle.start(&tasks, &stop).await.map_err(io::Error::other)?;
            let serving = serve(bound, receiver, config.listen.header_timeout, stop.clone());
            let (metrics, broken) = (Arc::clone(&surroundings.metrics), broken.clone());
            tasks.spawn(async move { attend(Task::Listener, &metrics, &broken, serving).await });
        }
        tasks.close();
        Ok(Self { address, bell, stop, tasks })
    }
}

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
