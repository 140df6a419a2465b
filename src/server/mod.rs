//! Accepts connections, serves each in a task of its own, and ends gracefully.
//!
//! Knows no routes: it is given a tower service and gives it requests, over HTTP/1.1 and HTTP/2, with
//! TLS (by ALPN) or without (prior knowledge). Requests that are no proper HTTP are refused before the
//! service sees them, by hyper or, where hyper would guess, here. Promises that no connection holds up
//! another, shaking hands included, and that there is a bound to everything one may hold: its number,
//! heads, streams, and the time it may be quiet. The app's, the callbacks' and the admin listener are all
//! this one; the sandbox has its own, which can also break connections on purpose.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::OptionFuture;
use http::header::{CONNECTION, HOST};
use http::{HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::{Service, ServiceExt as _};

use crate::telemetry::metrics::{Metrics, Shut};
pub use crate::wire::Kept;
use crate::wire::{Requests, Wire};

pub mod certificates;
mod departure;
mod door;
mod listener;
mod parking;
mod room;

use certificates::{Certificates, Shown};
pub use departure::Departure;
pub use door::Door;
pub use listener::{Address, Bound, Inherited, bind, connections, raise_descriptors};
pub(crate) use listener::{CannotListen, cannot_listen};
use listener::{Plain, Stream};
use parking::{Ended, Protocols};
use room::{Room, Seat};

/// How long a connection without a request stays when the listener has left.
pub const LINGER: Duration = Duration::from_millis(300);

/// How long connections that wait to be accepted are waited for.
const BACKLOG: Duration = Duration::from_millis(1);
const BACKLOG_MOST: Duration = Duration::from_millis(50);

/// Pause after an accept that failed: it fails for want of file descriptors, which takes a moment to
/// change, and spinning would not help.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where a request's connection comes from; among its extensions unless it came over a unix socket.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// The DNS and URI names of the client's certificate, which has been verified; among the extensions of
/// every request whose connection showed one, for as long as an authority vouches for it.
#[derive(Clone, Debug)]
pub struct ClientNames(pub Arc<[String]>);

/// How a listener is served.
#[derive(Clone, Debug)]
pub struct Terms {
    /// In metrics and logs.
    pub name: &'static str,
    /// Longest time a head may take, and a TLS handshake.
    pub header_timeout: Duration,
    /// Connections at once.
    pub connections: usize,
    /// How long one may be quiet.
    pub kept: Kept,
    /// Who may connect.
    pub door: Door,
    /// Absent: no TLS.
    pub certificates: Option<Arc<Certificates>>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// How it leaves before that.
    pub departure: Departure,
    /// Ends it.
    pub stop: CancellationToken,
}

/// What all connections of a listener have in common.
struct Serving<S> {
    service: S,
    protocols: Protocols,
    terms: Terms,
}

/// Serves until told to stop, then lets what is under way end.
///
/// A request the service gives no answer to has its connection closed, and so has one whose answer says
/// `Connection: close`, in HTTP/2 too.
///
/// Stopping closes the listener at once and idle connections with it; the future ends when the last
/// request has been answered. Bounding that in time is the caller's affair.
pub async fn serve<S>(bound: Bound, service: S, terms: Terms)
where
    S: Service<Request<Incoming>, Response = Response<Full<Bytes>>> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (connections, room) = (TaskTracker::new(), Arc::new(Room::new(terms.connections)));
    let serving = Arc::new(Serving { service, protocols: Protocols::default(), terms });
    let terms = &serving.terms;
    loop {
        let (stream, peer) = tokio::select! {
            accepted = bound.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            () = terms.stop.cancelled() => break,
        };
        if let Some(seat) = terms.admit(&room, peer).await {
            connections.spawn(Arc::clone(&serving).converse(stream, peer, seat));
        }
    }
    // Whoever has connected by now gets an answer; closing would reset them.
    let until = Instant::now() + BACKLOG_MOST;
    while terms.departure.has_begun() && Instant::now() < until {
        let Ok(Ok((stream, peer))) = timeout(BACKLOG, bound.accept()).await else { break };
        if let Some(seat) = terms.admit(&room, peer).await {
            connections.spawn(Arc::clone(&serving).converse(stream, peer, seat));
        }
    }
    drop(bound);
    connections.close();
    connections.wait().await;
}

impl<S> Serving<S>
where
    S: Service<Request<Incoming>, Response = Response<Full<Bytes>>> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// One connection, until it ends or its place is wanted. The place is free once its socket is closed.
    async fn converse(self: Arc<Self>, stream: Plain, peer: Option<Peer>, seat: Seat) {
        tokio::select! {
            // What has come is looked at first: it may be a request.
            biased;
            () = self.talk(stream, peer, seat.requests()) => {}
            () = seat.wanted() => {
                self.terms.metrics.connection_shut(self.terms.name, Shut::Evicted);
                tracing::debug!(listener = self.terms.name, "an idle connection has made room");
            }
        }
    }

    /// From its first byte to its last.
    async fn talk(&self, stream: Plain, peer: Option<Peer>, requests: &Requests) {
        let terms = &self.terms;
        let Some((stream, shown)) = terms.secure(stream).await else { return };
        let wire = Wire::new(stream, terms.header_timeout, requests.clone());
        let answering = |request| self.answer(request, requests, (peer, shown.as_ref()));
        let ended = self.protocols.converse(wire, answering, terms.over(shown.as_deref())).await;
        terms.tell(ended, requests.is_too_slow());
    }

    /// The service's answer, or a refusal of what it may not see.
    fn answer(
        &self,
        mut request: Request<Incoming>,
        requests: &Requests,
        (peer, shown): (Option<Peer>, Option<&Arc<Shown>>),
    ) -> impl Future<Output = Result<Response<Full<Bytes>>, S::Error>> + use<S> {
        let under_way = (requests.begin(), self.terms.departure.board());
        let leaving = self.terms.departure.clone();
        // HTTP/2 says so by itself, without a header.
        let header_says = request.version() < Version::HTTP_2;
        let told = (!header_says).then(|| requests.clone());
        let shown = shown.cloned();
        let answer = if is_proper(&request, requests) {
            if let Some(peer) = peer {
                request.extensions_mut().insert(peer);
            }
            if let Some(names) = shown.as_deref().and_then(Shown::names) {
                request.extensions_mut().insert(names.clone());
            }
            Some(self.service.clone().oneshot(request))
        } else {
            self.terms.metrics.connection_shut(self.terms.name, Shut::Malformed);
            None
        };
        async move {
            let _under_way = under_way;
            let mut answer = match answer {
                Some(answer) => answer.await?,
                None => improper(),
            };
            if let Some(requests) = told.filter(|_| answer.headers_mut().remove(CONNECTION).is_some()) {
                requests.dismiss();
            }
            let is_withdrawn = shown.is_some_and(|shown| shown.names().is_none());
            if header_says && (is_withdrawn || leaving.has_begun()) {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(answer)
        }
    }
}

impl Terms {
    /// A place for a connection that is looked at; it is closed otherwise.
    async fn admit(&self, room: &Arc<Room>, peer: Option<Peer>) -> Option<Seat> {
        if !self.admits(peer) {
            return None;
        }
        let seat = room.enter(Requests::new(self.kept)).await;
        if seat.is_none() {
            // Closed at once: whoever waits in line waits for those who flood it.
            self.metrics.connection_shut(self.name, Shut::TooMany);
        }
        if room.is_full_anew() {
            let most = self.connections;
            tracing::warn!(listener = self.name, most, "too many connections; idle ones make room, more are closed");
        }
        seat
    }

    /// Whether its address may connect.
    fn admits(&self, peer: Option<Peer>) -> bool {
        let is_admitted = self.door.admits(peer);
        if !is_admitted {
            self.metrics.connection_shut(self.name, Shut::NotAllowed);
            tracing::debug!(listener = self.name, ?peer, "a connection from an address that may not connect");
        }
        is_admitted
    }

    /// Waits until a connection is to end once no request is under way: its client's certificate does not
    /// count any more, or all are to. A client that has just connected may be about to ask.
    async fn over(&self, shown: Option<&Shown>) {
        let withdrawn = OptionFuture::from(shown.map(|shown| Box::pin(shown.withdrawn())));
        tokio::select! {
            () = self.stop.cancelled() => {}
            Some(()) = withdrawn => return,
        }
        if self.departure.has_begun() {
            sleep(LINGER).await;
        }
    }

    /// Waits until nobody new is served. Who shakes hands while a listener departs has connected in time.
    async fn cut_off(&self) {
        self.stop.cancelled().await;
        if self.departure.has_begun() {
            std::future::pending::<()>().await;
        }
    }

    /// Shakes hands, where there is TLS; nothing of a connection that does not come to it.
    async fn secure(&self, stream: Plain) -> Option<(Stream, Option<Arc<Shown>>)> {
        let Some(certificates) = &self.certificates else { return Some((Stream::Plain(stream), None)) };
        // Boxed, since it is larger than all that a connection keeps later on.
        let (config, doorkeeper) = certificates.current();
        let shaking = Box::pin(TlsAcceptor::from(config).accept(stream));
        let shaken = tokio::select! {
            shaken = timeout(self.header_timeout, shaking) => shaken,
            () = self.cut_off() => return None,
        };
        let too_slow = |_| Err(io::Error::new(io::ErrorKind::TimedOut, "the client took too long"));
        match shaken.unwrap_or_else(too_slow) {
            Ok(stream) => {
                let shown = stream.get_ref().1.peer_certificates().and_then(|chain| doorkeeper.verified(chain));
                Some((Stream::Secure(Box::new(stream)), shown))
            }
            Err(error) => {
                self.metrics.connection_shut(self.name, Shut::Handshake);
                tracing::debug!(listener = self.name, %error, "a TLS handshake failed");
                None
            }
        }
    }

    /// Counts a connection that was ended for what came over it. Clients that go away are not.
    fn tell(&self, ended: Ended, is_too_slow: bool) {
        if is_too_slow {
            self.metrics.connection_shut(self.name, Shut::TooSlow);
        }
        let Err(error) = ended else { return };
        if is_malformed(&*error) {
            self.metrics.connection_shut(self.name, Shut::Malformed);
        }
        tracing::debug!(error, "a connection ended badly");
    }
}

/// Whether it is the bytes that were wrong, and not the connection that broke.
fn is_malformed(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    let broke = causes.any(|cause| {
        cause.is::<io::Error>()
            || cause
                .downcast_ref::<hyper::Error>()
                .is_some_and(|error| error.is_incomplete_message() || error.is_user())
    });
    !broke
}

/// Whether there is no doubt where the body ends and whom it is for. HTTP/2 has frames and one
/// authority.
fn is_proper(request: &Request<Incoming>, requests: &Requests) -> bool {
    let hosts = request.headers().get_all(HOST).iter().count();
    match request.version() {
        Version::HTTP_2 | Version::HTTP_3 => hosts <= 1,
        Version::HTTP_11 => hosts == 1 && !requests.is_flawed(),
        _ => hosts <= 1 && !requests.is_flawed(),
    }
}

/// As hyper answers what it cannot read; what follows on the connection is anybody's guess.
fn improper() -> Response<Full<Bytes>> {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}
