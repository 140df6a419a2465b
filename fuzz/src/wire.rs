//! What surrounds a gateway in memory: time that stands still, the sample's configuration, and the way to
//! a simulated upstream, which notes what arrived and what was answered.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};

use ayova::call::Merchant;
use ayova::config::{Config, Secret};
use ayova::sandbox::Sandbox;
use ayova::signature::HmacKey;
use ayova::upstream::{Transport, TransportError};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::request::Parts;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use tower::ServiceExt as _;

use super::script::Act;

/// When every run's day begins: the moment of the vectors.
pub const START: &str = "2026-01-05T03:00:00Z";

/// Runs to the end on one thread, on a clock that moves only when everybody waits.
pub fn paused(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(work);
}

/// What `ayova dev` uses.
pub fn config() -> Config {
    let any = "127.0.0.1:0".parse().unwrap();
    Config::sample(any, any, any).unwrap()
}

/// The sample's merchant as the layers see it, without its RSA key.
pub fn merchant() -> Merchant {
    Merchant {
        name: Arc::from("sample"),
        code: Arc::from("AYOTST"),
        code_header: HeaderValue::from_static("AYOTST"),
        channel_header: HeaderValue::from_static("95221"),
        client_id: Secret::new("sandbox-client".to_owned()),
        client_secret: Secret::new("sandbox-secret".to_owned()),
        hmac_key: HmacKey::new(b"sandbox-secret"),
        private_key: None,
    }
}

/// A call that left the gateway.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// As it came.
    pub head: Parts,
    /// As it came.
    pub body: Bytes,
    /// What was answered; absent where nothing came back.
    pub answer: Option<(u16, Bytes)>,
}

impl Arrived {
    /// Whether it is a token call of either generation.
    pub fn is_login(&self) -> bool {
        is_login(&self.head)
    }

    /// A header's value; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.head.headers.get(name).map_or("", |value| value.to_str().unwrap_or_default())
    }
}

fn is_login(head: &Parts) -> bool {
    let path = head.uri.path();
    path.ends_with("/access-token/b2b") || path.ends_with("/accesstoken")
}

/// The way from the gateway to the simulator.
#[derive(Clone)]
pub struct Wire {
    sandbox: Sandbox,
    state: Arc<Mutex<State>>,
}

struct State {
    acts: VecDeque<Act>,
    arrived: Vec<Arrived>,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wire")
    }
}

impl Wire {
    /// Does these first, then delivers.
    pub fn new(sandbox: Sandbox, acts: Vec<Act>) -> Self {
        Self { sandbox, state: Arc::new(Mutex::new(State { acts: acts.into(), arrived: Vec::new() })) }
    }

    /// Everything that left so far.
    pub fn arrived(&self) -> Vec<Arrived> {
        self.state.lock().unwrap().arrived.clone()
    }

    fn answered(&self, number: usize, status: u16, body: &Bytes) {
        self.state.lock().unwrap().arrived[number].answer = Some((status, body.clone()));
    }
}

impl Transport for Wire {
    fn send(&self, request: Request<Full<Bytes>>) -> BoxFuture<'static, Result<Response<Bytes>, TransportError>> {
        let (head, body) = request.into_parts();
        let body = body.collect().now_or_never().unwrap().unwrap().to_bytes();
        let (act, number) = {
            let mut state = self.state.lock().unwrap();
            let act = if is_login(&head) { None } else { state.acts.pop_front() };
            state.arrived.push(Arrived { head: head.clone(), body: body.clone(), answer: None });
            (act, state.arrived.len() - 1)
        };
        let wire = self.clone();
        let request = Request::from_parts(head, Full::new(body));
        async move {
            let lost = matches!(act, Some(Act::Lost));
            let response = match act {
                Some(Act::Broken) => return Err(TransportError::Broken("connection reset".to_owned())),
                Some(Act::Refused) => return Err(TransportError::NotSent("connection refused".to_owned())),
                Some(Act::Hang) => return std::future::pending().await,
                Some(Act::Answer(status, kind, body)) => {
                    let mut response = Response::new(body);
                    *response.status_mut() = status;
                    if let Ok(kind) = HeaderValue::try_from(kind) {
                        response.headers_mut().insert("content-type", kind);
                    }
                    response
                }
                Some(Act::Lost) | None => {
                    let response =
                        wire.sandbox.clone().oneshot(request).await.expect("it closes no connection unasked");
                    let (head, body) = response.into_parts();
                    Response::from_parts(head, body.collect().await.unwrap().to_bytes())
                }
            };
            if lost {
                return Err(TransportError::Broken("connection reset before the answer".to_owned()));
            }
            wire.answered(number, response.status().as_u16(), response.body());
            Ok(response)
        }
        .boxed()
    }
}
