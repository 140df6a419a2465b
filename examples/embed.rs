//! The gateway inside another program: an axum server that answers ayova's routes beside its own.
//!
//! [`app`] is all there is to it: [`Gateway`] is a tower service, so a router takes it as its fallback.
//! A create gets on while its future is polled, or after it has been dropped: a server does one or the
//! other, and so must whatever else calls it.
//! Without an argument it runs over a simulated Ayoconnect in this process; with one it reads a
//! configuration file and calls what that names.
//!
//! ```sh
//! cargo run --example embed                          # listens on 127.0.0.1:8080
//! cargo run --example embed -- config/ayova.yaml     # listens where the file says
//! ```

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use ayova::clock::SystemClock;
use ayova::config::{Config, SandboxConfig};
use ayova::entropy::Entropy;
use ayova::sandbox::Sandbox;
use ayova::stack::{Gateway, Surroundings};
use ayova::store::memory::MemoryStore;
use ayova::telemetry::metrics::Metrics;
use ayova::upstream::{HyperTransport, Transport, TransportError};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt as _, Full};
use prometheus_client::registry::Registry;
use rand::SeedableRng as _;
use rand::rngs::{StdRng, SysRng};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Fallible<()> {
    let (config, transport) = match std::env::args().nth(1) {
        Some(path) => over_http(Path::new(&path))?,
        None => over_a_simulator()?,
    };
    let gateway = gateway(&config, transport)?;
    let (tasks, stop) = (gateway.tasks().clone(), CancellationToken::new());
    // Asks Ayoconnect about creates and updates whose answer was lost.
    let resolving = tokio::spawn(Arc::clone(gateway.resolver()).run(stop.clone()));
    // axum serves other listeners as well; this example keeps to one kind.
    let address = config.listen.address.tcp().ok_or("listen.address: a TCP address, for this example")?;
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("listening on http://{}; Ctrl-C ends it", listener.local_addr()?);
    axum::serve(listener, app(gateway)).with_graceful_shutdown(tokio::signal::ctrl_c().map(drop)).await?;
    // A create whose caller has left goes on; ending now would leave it in doubt.
    tasks.close();
    tasks.wait().await;
    stop.cancel();
    Ok(resolving.await?)
}

/// The program's own routes, and the gateway for all others.
pub fn app(gateway: Gateway) -> Router {
    Router::new().route("/orders/today", get(|| async { "two orders\n" })).fallback_service(gateway)
}

/// A gateway and what it needs around it. Keep the registry to serve the metrics.
pub fn gateway(config: &Config, transport: Arc<dyn Transport>) -> Fallible<Gateway> {
    let mut registry = Registry::default();
    let surroundings = Surroundings {
        clock: Arc::new(SystemClock),
        entropy: Entropy::from_system()?,
        transport,
        store: Arc::new(MemoryStore::new(config.idempotency.memory_bytes, config.reference.memory_bytes)),
        metrics: Arc::new(Metrics::new(&mut registry)),
        tracer: None,
    };
    Ok(Gateway::new(config, &surroundings)?)
}

/// A configuration file and a client for the upstream it names.
fn over_http(path: &Path) -> Fallible<(Config, Arc<dyn Transport>)> {
    let config = ayova::config::load(path, &|name| std::env::var(name).ok())?;
    let upstream = &config.upstream;
    let transport = HyperTransport::with_tls(&upstream.base_url, upstream.connect_timeout, upstream.tls.as_ref())?;
    Ok((config, Arc::new(transport)))
}

/// The sample merchant and a simulated Ayoconnect that knows it.
pub fn over_a_simulator() -> Fallible<(Config, Arc<dyn Transport>)> {
    let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    // The admin address is not opened, and the upstream's is not called: the transport below is.
    let config = Config::sample(local(8080), local(9080), local(9090))?;
    let random = StdRng::try_from_rng(&mut SysRng)?;
    let sandbox = Sandbox::new(SandboxConfig::default(), Arc::new(SystemClock), random)?;
    Ok((config, Arc::new(InProcess(sandbox))))
}

/// Calls the simulator without a socket. What a transport must tell is what never left from what may
/// have arrived.
#[derive(Debug)]
struct InProcess(Sandbox);

impl Transport for InProcess {
    fn send(
        &self,
        request: http::Request<Full<Bytes>>,
    ) -> BoxFuture<'static, Result<http::Response<Bytes>, TransportError>> {
        let sandbox = self.0.clone();
        async move {
            let broken = |error: &dyn Error| TransportError::Broken(error.to_string());
            let response = sandbox.oneshot(request).await.map_err(|error| broken(&error))?;
            let (head, body) = response.into_parts();
            let body = body.collect().await.map_err(|error| broken(&error))?.to_bytes();
            Ok(http::Response::from_parts(head, body))
        }
        .boxed()
    }
}
