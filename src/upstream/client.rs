//! One request to upstream and its whole answer, or where it broke.
//!
//! Promises to tell what never left from what may have arrived, and to hold no more of an answer
//! than [`ANSWER_MAX`]. Retries nothing; timeouts over the whole try are the `client` layer's.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::uri::{Authority, Scheme};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

/// Bytes of an answer that are read at most; Ayoconnect's have about a thousand.
pub const ANSWER_MAX: usize = 1 << 20;

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

/// The real thing: pooled HTTP/1.1 connections, TLS by the platform's roots.
#[derive(Clone)]
pub struct HyperTransport {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
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
        let parts = base_url.clone().into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
            return Err(std::io::Error::other("upstream.base_url needs a scheme and a host"));
        };
        Ok(Self { client: https_client(connect_timeout)?, scheme, authority })
    }

    fn address(&self, uri: &http::Uri) -> Result<http::Uri, TransportError> {
        let mut parts = uri.clone().into_parts();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        http::Uri::from_parts(parts).map_err(|error| TransportError::NotSent(error.to_string()))
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

/// A pooled HTTP/1.1 client, TLS by the platform's roots.
///
/// # Errors
/// Where the platform's certificate store cannot be used.
pub fn https_client(connect_timeout: Duration) -> std::io::Result<Client<HttpsConnector<HttpConnector>, Full<Bytes>>> {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(connect_timeout));
    connector.set_keepalive(Some(Duration::from_secs(60)));
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let tls = rustls::ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .map_err(std::io::Error::other)?
        .try_with_platform_verifier()
        .map_err(std::io::Error::other)?
        .with_no_client_auth();
    let connector =
        HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(connector);
    Ok(Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector))
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
