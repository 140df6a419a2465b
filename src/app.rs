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
use crate::server::certificates::Certificates;
use crate::server::{Address, Bound, Terms, bind, connections, serve};
use crate::stack::{Gateway, Surroundings};
use crate::store::Store;
use crate::store::memory::MemoryStore;
use crate::store::sqlite::{Options, SqliteStore};
use crate::telemetry::metrics::Metrics;
use crate::tls::ServerFiles;
use crate::upstream::{HyperTransport, Transport};

/// A gateway that is running.
#[derive(Debug)]
pub struct App {
    /// Where apps connect.
    pub listen: Address,
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
        Self::start_on(config, None).await
    }

    /// The same with the app's listener there already, where the process was given it.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_on(config: &Config, listener: Option<Bound>) -> io::Result<Self> {
        let upstream = &config.upstream;
        let transport = HyperTransport::with_tls(&upstream.base_url, upstream.connect_timeout, upstream.tls.as_ref())?;
        Self::launch(config, Arc::new(transport), Arc::new(SystemClock), listener).await
    }

    /// The same over another way to upstream and another clock.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_with(config: &Config, transport: Arc<dyn Transport>, clock: SharedClock) -> io::Result<Self> {
        Self::launch(config, transport, clock, None).await
    }

    async fn launch(
        config: &Config,
        transport: Arc<dyn Transport>,
        clock: SharedClock,
        listener: Option<Bound>,
    ) -> io::Result<Self> {
        let mut registry = Registry::default();
        let metrics = Arc::new(Metrics::new(&mut registry));
        let surroundings = Surroundings {
            entropy: Entropy::from_system()?,
            transport,
            store: open_store(config, &clock)?,
            clock,
            metrics,
        };
        let store = Arc::clone(&surroundings.store);
        let gateway = Gateway::new(config, &surroundings).map_err(io::Error::other)?;
        gateway.resolver().take_over().await.map_err(io::Error::other)?;
        let listeners = Listeners::open(config, &surroundings.metrics, listener).await?;
        let draining = Arc::clone(gateway.draining());
        let calling_back = CallingBack::start(config, &surroundings, &gateway, listeners.callbacks).await?;
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
        let tasks = gateway.tasks().clone();
        let (app, admin) = (listeners.app, listeners.admin);
        let stop_admin = admin.terms.stop.clone();
        let resolving = tokio::spawn(Arc::clone(gateway.resolver()).run(stop_admin.clone()));
        Ok(Self {
            listen: app.bound.address.clone(),
            admin: listeners.admin_address,
            draining,
            stop_serving: app.terms.stop.clone(),
            serving: tokio::spawn(serve(app.bound, gateway, app.terms)),
            admin_serving: tokio::spawn(serve(admin.bound, Admin::new(view), admin.terms)),
            resolving,
            callbacks: calling_back.address,
            calling_back,
            stop_admin,
            tasks,
            store,
            grace: config.shutdown.grace,
        })
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
        // A scraper that keeps its connection busy must not hold up the end.
        let _ = timeout_at(deadline.max(Instant::now() + ADMIN_GRACE), self.admin_serving).await;
        if served && finished { Ok(()) } else { Err(Unfinished { tasks: self.tasks.len() }) }
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
        let terms = |name: &'static str, eighths: usize, tls: Option<&ServerFiles>| {
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
                connections: connections(eighths),
                certificates,
                metrics,
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
                Some(Ready { bound, terms: terms("callbacks", 1, callbacks.tls.as_ref())? })
            }
            None => None,
        };
        Ok(Self {
            app: Ready { bound: app, terms: terms("app", 5, config.listen.tls.as_ref())? },
            admin_address: admin.address.tcp().unwrap_or(config.admin.address),
            admin: Ready { bound: admin, terms: terms("admin", 1, None)? },
            callbacks,
        })
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
        listener: Option<Ready>,
    ) -> io::Result<Self> {
        let (bell, tasks) = (Bell::default(), TaskTracker::new());
        let stop = listener.as_ref().map(|listener| listener.terms.stop.clone()).unwrap_or_default();
        let address = listener.as_ref().and_then(|listener| listener.bound.address.tcp());
        if let (Some(callbacks), Some(Ready { bound, terms })) = (&config.callbacks, listener) {
            let post: Arc<dyn Post> = Arc::new(HyperPost::new()?);
            let circle = Circle { config, callbacks, surroundings, gateway, post: &post, bell: &bell };
            let receiver = circle.start(&tasks, &stop).await.map_err(io::Error::other)?;
            tasks.spawn(serve(bound, receiver, terms));
        }
        tasks.close();
        Ok(Self { address, bell, stop, tasks })
    }
}

/// Time the admin listener gets to answer a last request.
const ADMIN_GRACE: Duration = Duration::from_millis(500);

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
