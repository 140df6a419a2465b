//! Accepts connections, serves each in a task of its own, and ends gracefully.
//!
//! Knows no routes: it is given a tower service and gives it requests, over HTTP/1.1 and HTTP/2
//! without TLS (prior knowledge). Requests that are no proper HTTP are refused before the service sees
//! them, by hyper or, where hyper would guess, here. The app's and the admin listener are both this
//! one; the sandbox has its own, which can also break connections on purpose.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt as _};

use crate::wire::{Requests, Wire};

/// Pause after an accept that failed: it fails for want of file descriptors, which takes a moment to
/// change, and spinning would not help.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where a request's connection comes from; among its extensions.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// DNS names and URIs of the verified client certificate; among a request's extensions where its
/// connection has one.
#[derive(Clone, Debug)]
pub struct ClientNames(pub Arc<[String]>);

/// A listener that is bound and not yet served.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    /// Where it is, also where port 0 was asked for.
    pub address: SocketAddr,
}

/// Binds an address.
///
/// # Errors
/// Where the address is taken or not ours, with the address in the message.
pub async fn bind(address: SocketAddr) -> io::Result<Bound> {
    let listener = TcpListener::bind(address).await.map_err(|error| cannot_listen(address, &error))?;
    let address = listener.local_addr().map_err(|error| cannot_listen(address, &error))?;
    Ok(Bound { listener, address })
}

/// The system's error with the address and, where there is one, the way out.
pub(crate) fn cannot_listen(address: SocketAddr, error: &io::Error) -> io::Error {
    let way_out = match error.kind() {
        io::ErrorKind::AddrInUse => "; something else listens there: end it, or give another address",
        io::ErrorKind::AddrNotAvailable => "; this machine does not have that address: give one it has",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need a privilege: give a higher one",
        _ => "",
    };
    let message = format!("cannot listen on {address}: {error}{way_out}");
    io::Error::new(error.kind(), CannotListen { address, message })
}

/// Why there is no listener; inside the [`io::Error`], for whoever wants to say where the address is set.
#[derive(Debug)]
pub(crate) struct CannotListen {
    /// The address that was asked for.
    pub(crate) address: SocketAddr,
    message: String,
}

impl fmt::Display for CannotListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CannotListen {}

/// Serves until told to stop, then lets what is under way end.
///
/// A request the service gives no answer to has its connection closed.
///
/// Stopping closes the listener at once and idle connections with it; the future ends when the last
/// request has been answered. Bounding that in time is the caller's affair.
pub async fn serve<S>(bound: Bound, service: S, header_timeout: Duration, stop: CancellationToken)
where
    S: Service<Request<Incoming>, Response = Response<Full<Bytes>>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut builder = Builder::new(TokioExecutor::new());
    // Heads and idle connections have their limits in `wire`.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None).half_close(true);
    builder.http2().timer(TokioTimer::new());
    let graceful = GracefulShutdown::new();
    loop {
        let (stream, peer) = tokio::select! {
            accepted = bound.listener.accept() => match accepted {
                Ok((stream, peer)) => (stream, Peer(peer.ip())),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            () = stop.cancelled() => break,
        };
        connect(&builder, &graceful, Wire::new(nodelay(stream), header_timeout), (peer, service.clone()));
    }
    drop(bound);
    graceful.shutdown().await;
}

/// Answers are small and written at once; waiting for more to send would only delay them.
fn nodelay(stream: TcpStream) -> TcpStream {
    // Only speed is lost where it does not work.
    let _ = stream.set_nodelay(true);
    stream
}

fn connect<S>(
    builder: &Builder<TokioExecutor>,
    graceful: &GracefulShutdown,
    wire: Wire<TcpStream>,
    (peer, service): (Peer, S),
) where
    S: Service<Request<Incoming>, Response = Response<Full<Bytes>>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let requests = wire.requests();
    let answering = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        let under_way = requests.begin();
        let answer = is_proper(&request, &requests).then(|| service.clone().oneshot(request));
        async move {
            let _under_way = under_way;
            match answer {
                Some(answer) => answer.await,
                None => Ok(improper()),
            }
        }
    });
    let connection = builder.serve_connection(TokioIo::new(wire), answering).into_owned();
    let watched = graceful.watch(connection);
    tokio::spawn(async move {
        if let Err(error) = watched.await {
            tracing::debug!(error, "a connection ended badly");
        }
    });
}

/// Whether there is no doubt where the body ends. HTTP/2 has frames for that.
fn is_proper(request: &Request<Incoming>, requests: &Requests) -> bool {
    request.version() >= Version::HTTP_2 || !requests.is_contradictory()
}

/// As hyper answers what it cannot read. It also closes the connection after such a head.
fn improper() -> Response<Full<Bytes>> {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response
}
