//! One request to upstream and its whole answer, or where it broke.
//!
//! Promises to tell what never left from what may have arrived, to give up a connection that is not
//! ready (name, TCP and TLS together) within the connect timeout, and to hold no more of an answer than
//! [`ANSWER_MAX`]. Retries nothing; timeouts over the whole try are the `client` layer's.

use std::fmt;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::uri::{Authority, Scheme};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, ResponseFuture};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::timeout;
use tower::Service;

use crate::tls::{ClientFiles, client_config};

/// Bytes of an answer that are read at most; Ayoconnect's have about a thousand.
pub const ANSWER_MAX: usize = 1 << 20;

/// How long a connection may wait for its next request. Load balancers and NAT forget idle connections,
/// many after 60 s, and do not say so: a request sent into one is lost without a word, which for a create
/// is a doubt. Half of that leaves room.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// Connections that may wait at once. How many are in use is bounded by the requests under way.
const IDLE_CONNECTIONS: usize = 256;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Where a try broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransportError {
    /// Before the first byte left.
    NotSent(String),
    /// Afterwards.
    Broken(String),
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSent(why) => write!(f, "not sent: {why}"),
            Self::Broken(why) => write!(f, "broken: {why}"),
        }
    }
}

impl std::error::Error for TransportError {}

/// Sends one request, whose URI has a path only, and reads the whole answer.
pub trait Transport: Send + Sync + fmt::Debug {
    /// Sends it once.
    fn send(
        &self,
        request: http::Request<Full<Bytes>>,
    ) -> BoxFuture<'static, Result<http::Response<Bytes>, TransportError>>;
}

/// The real thing: pooled HTTP/1.1 connections, TLS by the platform's roots or the configured ones.
#[derive(Clone)]
pub struct HyperTransport {
    client: HttpsClient,
    scheme: Scheme,
    authority: Authority,
}

impl fmt::Debug for HyperTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HyperTransport({}://{})", self.scheme, self.authority)
    }
}

impl HyperTransport {
    /// A client of `base_url`, an origin.
    ///
    /// # Errors
    /// Where the origin has no scheme or host, or the platform's certificate store cannot be used.
    pub fn new(base_url: &http::Uri, connect_timeout: Duration) -> std::io::Result<Self> {
        Self::with_tls(base_url, connect_timeout, None)
    }

    /// The same with authorities and a client certificate of one's own.
    ///
    /// # Errors
    /// As [`new`](Self::new), and what is wrong with the files.
    pub fn with_tls(
        base_url: &http::Uri,
        connect_timeout: Duration,
        tls: Option<&ClientFiles>,
    ) -> std::io::Result<Self> {
        let parts = base_url.clone().into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
            return Err(std::io::Error::other("upstream.base_url needs a scheme and a host"));
        };
        Ok(Self { client: https_client(connect_timeout, tls)?, scheme, authority })
    }

    fn address(&self, uri: &http::Uri) -> Result<http::Uri, TransportError> {
        let mut parts = uri.clone().into_parts();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        http::Uri::from_parts(parts).map_err(|error| TransportError::NotSent(error.to_string()))
    }
}

/// A connector with a limit over everything it does. Its own bounds TCP alone: a name server or a TLS
/// handshake that hangs would last until the try's timeout, which cannot know that nothing was sent.
#[derive(Clone)]
struct Bounded<C> {
    connector: C,
    limit: Duration,
}

impl<C> Service<http::Uri> for Bounded<C>
where
    C: Service<http::Uri, Future: Send + 'static, Error: Into<BoxError>>,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<C::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.connector.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: http::Uri) -> Self::Future {
        let connecting = timeout(self.limit, self.connector.call(uri));
        async move { connecting.await.map_err(|_| "no connection in time")?.map_err(Into::into) }.boxed()
    }
}

impl Transport for HyperTransport {
    fn send(
        &self,
        mut request: http::Request<Full<Bytes>>,
    ) -> BoxFuture<'static, Result<http::Response<Bytes>, TransportError>> {
        match self.address(request.uri()) {
            Ok(uri) => *request.uri_mut() = uri,
            Err(error) => return futures_util::future::ready(Err(error)).boxed(),
        }
        let sending = self.client.request(request);
        async move {
            let response = sending.await.map_err(|error| {
                if error.is_connect() {
                    TransportError::NotSent(chain(&error))
                } else {
                    TransportError::Broken(chain(&error))
                }
            })?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_MAX).collect().await;
            let body = body.map_err(|error| TransportError::Broken(error.to_string()))?.to_bytes();
            Ok(http::Response::from_parts(head, body))
        }
        .boxed()
    }
}

/// A pooled HTTP/1.1 client whose connecting, TLS included, is bounded in time.
#[derive(Clone)]
pub struct HttpsClient(Client<Bounded<HttpsConnector<HttpConnector>>, Full<Bytes>>);

impl fmt::Debug for HttpsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpsClient")
    }
}

impl HttpsClient {
    /// Sends a request, whose URI is absolute, once.
    pub fn request(&self, request: http::Request<Full<Bytes>>) -> ResponseFuture {
        self.0.request(request)
    }
}

/// A pooled HTTP/1.1 client, TLS by the platform's roots or by files.
///
/// # Errors
/// Where the platform's certificate store cannot be used, or a file cannot.
pub fn https_client(connect_timeout: Duration, tls: Option<&ClientFiles>) -> std::io::Result<HttpsClient> {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    // Divided among the host's addresses, so that a dead one leaves time for the next.
    connector.set_connect_timeout(Some(connect_timeout));
    connector.set_keepalive(Some(Duration::from_secs(60)));
    let tls = client_config(tls)?;
    let connector =
        HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(connector);
    let client = Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_MAX)
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .build(Bounded { connector, limit: connect_timeout });
    Ok(HttpsClient(client))
}

/// An error with its causes, since hyper's own text stops at the first.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
