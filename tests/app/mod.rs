//! A merchant's app on a real socket: takes deliveries, answers as a test says, remembers them all.
//!
//! Every delivery is verified with a Standard Webhooks library that is not ours; one that does not
//! verify fails the test at the next look. Written for tests of the whole program, which outlives none
//! of its apps: dropping one closes its connections.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

/// What the gateway signs with.
pub(crate) const WEBHOOK_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// One delivery.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    /// `webhook-id`.
    pub(crate) id: String,
    /// The body.
    pub(crate) event: Value,
    /// How it was answered; nothing where it never was.
    pub(crate) status: Option<u16>,
}

impl Delivery {
    /// Whether the app has taken it.
    pub(crate) fn is_taken(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status))
    }
}

/// What an app answers; nothing where it never does.
pub(crate) type Answer = Option<Response<Empty<Bytes>>>;

/// Only a status.
pub(crate) fn status(code: u16) -> Answer {
    Some(Response::builder().status(code).body(Empty::new()).unwrap())
}

struct Inside {
    heard: Vec<Delivery>,
    /// Why a delivery was no proper one.
    improper: Option<String>,
    answer: Box<dyn FnMut(&Delivery) -> Answer + Send>,
}

/// An app that listens until it is dropped.
pub(crate) struct App {
    /// Where.
    pub(crate) address: SocketAddr,
    inside: Arc<Mutex<Inside>>,
    serving: JoinHandle<()>,
}

impl Drop for App {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl App {
    /// An app that answers so.
    pub(crate) async fn start(answer: impl FnMut(&Delivery) -> Answer + Send + 'static) -> Self {
        let inside = Arc::new(Mutex::new(Inside { heard: Vec::new(), improper: None, answer: Box::new(answer) }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { address, serving: tokio::spawn(serve(listener, Arc::clone(&inside))), inside }
    }

    /// The value of `callbacks.deliver` that leads here.
    pub(crate) fn deliver(&self) -> String {
        format!("{{ url: \"http://{}/payments\", secret: {WEBHOOK_SECRET} }}", self.address)
    }

    /// Looks at everything it has heard so far, in the order it came in.
    pub(crate) fn look<T>(&self, at: impl FnOnce(&[Delivery]) -> T) -> T {
        let inside = self.inside.lock().unwrap();
        assert_eq!(inside.improper, None, "a delivery is not as Standard Webhooks has it");
        at(&inside.heard)
    }
}

async fn serve(listener: TcpListener, inside: Arc<Mutex<Inside>>) {
    // Ends with this task, and its connections with it.
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        // Small answers must not wait for company.
        let _ = stream.set_nodelay(true);
        let inside = Arc::clone(&inside);
        let answering = service_fn(move |request| take(Arc::clone(&inside), request));
        let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answering);
        connections.spawn(serving);
        while connections.try_join_next().is_some() {}
    }
}

async fn take(
    inside: Arc<Mutex<Inside>>,
    request: Request<Incoming>,
) -> Result<Response<Empty<Bytes>>, Box<dyn std::error::Error + Send + Sync>> {
    let (head, body) = request.into_parts();
    // Whoever was killed while sending has delivered nothing.
    let body = body.collect().await?.to_bytes();
    let library = standardwebhooks::Webhook::new(WEBHOOK_SECRET).unwrap();
    let read = library.verify(&body, &head.headers).map_err(|error| error.to_string());
    let read = read.and_then(|()| serde_json::from_slice(&body).map_err(|error| error.to_string()));
    let answer = {
        let mut inside = inside.lock().unwrap();
        match read {
            Ok(event) => {
                let id = head.headers["webhook-id"].to_str().unwrap().to_owned();
                let mut delivery = Delivery { id, event, status: None };
                let answer = (inside.answer)(&delivery);
                delivery.status = answer.as_ref().map(|answer| answer.status().as_u16());
                inside.heard.push(delivery);
                answer
            }
            Err(why) => {
                inside.improper = Some(why);
                status(400)
            }
        }
    };
    match answer {
        Some(answer) => Ok(answer),
        None => std::future::pending::<Result<_, Infallible>>().await.map_err(Into::into),
    }
}
