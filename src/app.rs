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
use crate::clock::{SharedClock, SystemClock};
use crate::config::{self, Config};
use crate::entropy::Entropy;
use crate::server::{bind, serve};
use crate::stack::{Gateway, Surroundings};
use crate::store::Store;
use crate::store::memory::MemoryStore;
use crate::store::sqlite::{Options, SqliteStore};
use crate::telemetry::metrics::Metrics;
use crate::upstream::{HyperTransport, Transport};

/// A gateway that is running.
#[derive(Debug)]
pub struct App {
    /// Where apps connect.
    pub listen: SocketAddr,
    /// Where operators connect.
    pub admin: SocketAddr,
    draining: Arc<AtomicBool>,
    stop_serving: CancellationToken,
    stop_admin: CancellationToken,
    serving: JoinHandle<()>,
    admin_serving: JoinHandle<()>,
    resolving: JoinHandle<()>,
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
        let transport = HyperTransport::new(&config.upstream.base_url, config.upstream.connect_timeout)?;
        Self::start_with(config, Arc::new(transport), Arc::new(SystemClock)).await
    }

    /// The same over another way to upstream and another clock.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_with(config: &Config, transport: Arc<dyn Transport>, clock: SharedClock) -> io::Result<Self> {
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
        let (listen, admin) = (bind(config.listen.address).await?, bind(config.admin.address).await?);
        let draining = Arc::clone(gateway.draining());
        let view = View {
            gateway: gateway.clone(),
            store: surroundings.store,
            registry,
            metrics: surroundings.metrics,
            effective: config::effective(config),
            clock: surroundings.clock,
            draining: Arc::clone(&draining),
        };
        let (stop_serving, stop_admin) = (CancellationToken::new(), CancellationToken::new());
        let header_timeout = config.listen.header_timeout;
        let tasks = gateway.tasks().clone();
        let resolving = tokio::spawn(Arc::clone(gateway.resolver()).run(stop_admin.clone()));
        Ok(Self {
            listen: listen.address,
            admin: admin.address,
            draining,
            serving: tokio::spawn(serve(listen, gateway, header_timeout, stop_serving.clone())),
            admin_serving: tokio::spawn(serve(admin, Admin::new(view), header_timeout, stop_admin.clone())),
            resolving,
            stop_serving,
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
        self.tasks.close();
        let served = timeout_at(deadline, self.serving).await.is_ok();
        let finished = timeout_at(deadline, self.tasks.wait()).await.is_ok();
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
