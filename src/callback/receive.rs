//! Takes callbacks in: verify, write to the inbox, then acknowledge (contract section 8).
//!
//! Promises that nothing is acknowledged before it is durable, that a caller without a secret learns
//! nothing, leaves nothing behind and has to connect anew, and the answers that make Ayoconnect try again where it cannot be
//! kept: 503 in SNAP, none at all in classic, where a 5xx would be the end. What is not signed as
//! configured goes into quarantine and is acknowledged: a refusal would be the end of it, and the
//! mistake may be ours. Says in the log, and not too often, while an address from before a change of the
//! secret is still called. Delivers nothing.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::header::{CONNECTION, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use tokio::time::{Instant, timeout};
use tower::Service;

use super::deliver::Bell;
use super::source::Sources;
use super::verify::{self, Check};
use super::{after, notice};
use crate::clock::SharedClock;
use crate::config::{Callbacks, Config, Confirm, Secret};
use crate::crash::{self, Place};
use crate::dialect::Dialect;
use crate::document::Document;
use crate::entropy::Entropy;
use crate::server::Peer;
use crate::store::Store;
use crate::store::inbox::{Arrival, EventKind, Origin, Received};
use crate::telemetry::metrics::{Intake, Metrics};

/// The service Ayoconnect calls.
#[derive(Clone)]
pub struct Receiver(Arc<Receiving>);

/// What it works with.
pub struct Means {
    /// Where callbacks are kept.
    pub store: Arc<dyn Store>,
    /// When they came in.
    pub clock: SharedClock,
    /// Their events' ids.
    pub entropy: Entropy,
    /// What came of them.
    pub metrics: Arc<Metrics>,
    /// Rung when there is something to deliver.
    pub bell: Bell,
}

struct Receiving {
    /// The present one first, then those from before that still count.
    secrets: Vec<Secret<String>>,
    sources: Sources,
    /// Whether a right signature is all the confirmation an event needs.
    signature_confirms: bool,
    /// Generations that are offered. Of the others nobody could be asked whether it is true.
    dialects: Vec<Dialect>,
    /// By merchant code.
    merchants: HashMap<Arc<str>, Merchant>,
    means: Means,
}

#[derive(Debug)]
struct Merchant {
    name: Arc<str>,
    /// How long its events are tried.
    retry_for: Duration,
    /// What its callbacks' signatures are held against, if they are.
    check: Option<Check>,
    /// When it was last said that an address from before is called; of SNAP, then of classic.
    said: [Mutex<Option<Instant>>; 2],
}

impl Merchant {
    /// A callback came by a secret from before, the first or a later one of those.
    fn came_by_previous(&self, previous: usize, dialect: Dialect, now: Instant) {
        let [snap, classic] = &self.said;
        let said = match dialect {
            Dialect::Snap => snap,
            Dialect::Classic => classic,
        };
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_some_and(|said| now < said + PREVIOUS_EVERY) {
            return;
        }
        *said = Some(now);
        drop(said);
        let (merchant, dialect) = (&*self.name, dialect.name());
        tracing::info!(merchant, dialect, previous, "a callback came to the address of a previous secret");
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Receiver")
    }
}

/// The connection is to be closed without an answer.
#[derive(Clone, Copy, Debug)]
pub struct Unanswered;

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a callback could not be kept and is not answered")
    }
}

impl std::error::Error for Unanswered {}

type Answer = Result<Response<Full<Bytes>>, Unanswered>;

impl Receiver {
    /// A receiver for every configured merchant.
    #[must_use]
    pub fn new(config: &Config, callbacks: &Callbacks, means: Means) -> Self {
        let merchants = config.merchants.iter().filter_map(|merchant| {
            let retry_for = callbacks.deliver_to(merchant)?.retry_for;
            let (name, check) = (Arc::clone(&merchant.name), Check::of(&callbacks.verify, merchant));
            let said = Default::default();
            Some((Arc::clone(&merchant.merchant_code), Merchant { name, retry_for, check, said }))
        });
        let upstream = &config.upstream;
        Self(Arc::new(Receiving {
            secrets: std::iter::once(&callbacks.secret).chain(&callbacks.previous_secrets).cloned().collect(),
            sources: callbacks.sources.clone(),
            signature_confirms: callbacks.confirm != Confirm::Always,
            dialects: [(Dialect::Snap, upstream.snap.enabled), (Dialect::Classic, upstream.classic.enabled)]
                .into_iter()
                .filter_map(|(dialect, enabled)| enabled.then_some(dialect))
                .collect(),
            merchants: merchants.collect(),
            means,
        }))
    }

    /// Whether a connection from this address can bring a callback.
    #[must_use]
    pub fn may_connect(&self, peer: IpAddr) -> bool {
        self.0.sources.may_connect(peer)
    }
}

impl<B> Service<Request<B>> for Receiver
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Full<Bytes>>;
    type Error = Unanswered;
    type Future = BoxFuture<'static, Answer>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Unanswered>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let receiving = Arc::clone(&self.0);
        async move {
            let (head, body) = request.into_parts();
            let peer = head.extensions.get::<Peer>().map(|peer| peer.0);
            let known = receiving.recognise(head.uri.path()).filter(|_| receiving.may_come(peer, &head.headers));
            let Some((dialect, merchant, secret)) = known.filter(|_| head.method == Method::POST) else {
                receiving.means.metrics.callback_received(None, Intake::Refused);
                return Ok(unknown());
            };
            if secret > 0 {
                merchant.came_by_previous(secret, dialect, Instant::now());
            }
            let (intake, answer) = match read(body).await {
                Ok(body) => receiving.keep((dialect, merchant), &head, body).await,
                Err(Unread::TooLarge) => (Intake::Refused, Ok(empty(StatusCode::PAYLOAD_TOO_LARGE))),
                Err(Unread::Broken) => (Intake::Unavailable, not_kept(dialect)),
            };
            receiving.means.metrics.callback_received(Some((&merchant.name, dialect)), intake);
            answer
        }
        .boxed()
    }
}

impl Receiving {
    /// The generation and merchant of a path with a right secret, and which one that is.
    fn recognise(&self, path: &str) -> Option<(Dialect, &Merchant, usize)> {
        let mut parts = path.strip_prefix("/callbacks/")?.split('/');
        let (dialect, code, secret) = (parts.next()?, parts.next()?, parts.next()?);
        let which = self.secret(secret)?;
        let dialect = self.dialects.iter().copied().find(|known| known.name() == dialect)?;
        parts.next().is_none().then_some((dialect, self.merchants.get(code)?, which))
    }

    /// Which of ours it is: 0 for the present one. Takes as long whichever it is, and whether or not it is one.
    fn secret(&self, shown: &str) -> Option<usize> {
        // Hashes are of one length whatever was sent, so that comparing tells nothing about either.
        let hash = |text: &str| digest(&SHA256, text.as_bytes());
        let shown = hash(shown);
        let is_this =
            |known: &Secret<String>| verify_slices_are_equal(shown.as_ref(), hash(known.expose()).as_ref()).is_ok();
        // From the last to the first: should one be there twice, the present one is meant.
        let secrets = self.secrets.iter().enumerate().rev();
        secrets.fold(None, |found, (which, known)| is_this(known).then_some(which).or(found))
    }

    fn may_come(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> bool {
        // A value that is no text is nobody's address.
        let forwarded = headers.get_all("x-forwarded-for").iter().map(|value| value.to_str().unwrap_or("?"));
        self.sources.allows(peer, &forwarded.collect::<Vec<_>>())
    }

    /// Keeps a callback, then answers.
    async fn keep(&self, (dialect, merchant): (Dialect, &Merchant), head: &Parts, body: Bytes) -> (Intake, Answer) {
        let received = self.means.clock.now();
        let callback = verify::Callback { path: head.uri.path(), headers: &head.headers, body: &body };
        let signed = merchant.check.as_ref().map(|check| check.check(&callback, received));
        let document = Document::parse(body.clone()).map_err(|_| "it is not JSON, or repeats a member");
        let arrival = Arc::new(Arrival {
            id: format!("evt_{}", self.means.entropy.id()),
            merchant: Arc::clone(&merchant.name),
            dialect,
            kind: EventKind::Paid,
            origin: Origin::Callback,
            received,
            until: after(received, merchant.retry_for),
            body,
            notice: document.and_then(|document| notice::read(dialect, &document)),
            doubt: signed.and_then(Result::err),
            confirmed: signed == Some(Ok(())) && self.signature_confirms,
        });
        match timeout(STORE_PATIENCE, self.means.store.inbox().receive(Arc::clone(&arrival))).await {
            Ok(Ok(Received::Queued)) => {
                crash::pass(Place::Kept);
                self.means.bell.ring();
                (Intake::Stored, acknowledgement(dialect))
            }
            Ok(Ok(Received::Duplicate)) => (Intake::Duplicate, acknowledgement(dialect)),
            Ok(Ok(Received::Quarantined)) => {
                let why = arrival.believed().err().unwrap_or("it contradicts an earlier one");
                let (merchant, dialect_name) = (&*merchant.name, dialect.name());
                tracing::warn!(merchant, dialect = dialect_name, why, "a callback is kept in quarantine");
                (Intake::Quarantined, acknowledgement(dialect))
            }
            Ok(Err(error)) => {
                tracing::warn!(merchant = &*merchant.name, %error, "a callback could not be kept");
                (Intake::Unavailable, not_kept(dialect))
            }
            Err(_) => {
                tracing::warn!(merchant = &*merchant.name, "a callback could not be kept in time");
                (Intake::Unavailable, not_kept(dialect))
            }
        }
    }
}

/// Why there is no whole body.
enum Unread {
    TooLarge,
    Broken,
}

async fn read<B>(body: B) -> Result<Bytes, Unread>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match timeout(BODY_TIME, Limited::new(body, BODY_MAX).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Unread::TooLarge),
        Ok(Err(_)) | Err(_) => Err(Unread::Broken),
    }
}

/// What ends the deliveries well.
fn acknowledgement(dialect: Dialect) -> Answer {
    match dialect {
        Dialect::Snap => Ok(json(StatusCode::OK, r#"{"responseCode":"2003400","responseMessage":"Successful"}"#)),
        Dialect::Classic => Ok(empty(StatusCode::CREATED)),
    }
}

/// What makes Ayoconnect try again.
fn not_kept(dialect: Dialect) -> Answer {
    let body = r#"{"responseCode":"5033400","responseMessage":"Service Unavailable"}"#;
    match dialect {
        Dialect::Snap => Ok(json(StatusCode::SERVICE_UNAVAILABLE, body)),
        Dialect::Classic => Err(Unanswered),
    }
}

fn json(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// To whoever has shown no secret, whose connection ends with it: those of strangers take up room.
fn unknown() -> Response<Full<Bytes>> {
    let mut response = empty(StatusCode::NOT_FOUND);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::default();
    *response.status_mut() = status;
    response
}

/// Between two lines about an address from before, of one merchant and generation.
const PREVIOUS_EVERY: Duration = Duration::from_secs(60);

/// Bytes of a callback; a documented one has about two thousand.
const BODY_MAX: usize = 256 * 1024;

/// Longest time a body may take.
const BODY_TIME: Duration = Duration::from_secs(5);

/// Longest time the store may take; Ayoconnect's own patience is taken to be ten seconds.
const STORE_PATIENCE: Duration = Duration::from_secs(4);
