//! One request from arrival to answer: body, route, fault, call, request list.
//!
//! Promises that a request is done in one go under the lock (no two interleave), that faults act
//! before or after that and never in between, and that a fault of the connection is an error of the
//! service or a future that never ends, so that it can be felt in memory and over a socket alike.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use serde_json::{Value, json};

use super::answer::Answer;
use super::fault::Fault;
use super::journal::{Checks, End, Entry};
use super::route::{Route, Target, route};
use super::token::bearer;
use super::{Sandbox, Shared, calls, control};
use crate::dialect::check::single_header;

/// Largest request body.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// Longest time a request body may take.
const BODY_TIME_MAX: Duration = Duration::from_secs(30);

/// The connection ends without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionReset;

impl fmt::Display for ConnectionReset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the simulator closed the connection without an answer")
    }
}

impl std::error::Error for ConnectionReset {}

/// A request whose body has come in.
#[derive(Clone, Debug)]
pub(super) struct Received {
    /// Its method.
    pub(super) method: Method,
    /// Its path as it came.
    pub(super) path: String,
    /// Its query, without the question mark.
    pub(super) query: Option<String>,
    /// Its headers.
    pub(super) headers: HeaderMap,
    /// Its body.
    pub(super) body: Bytes,
}

impl<B> tower::Service<Request<B>> for Sandbox
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Full<Bytes>>;
    type Error = ConnectionReset;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let answer = match receive(request).await? {
                Ok(received) => answer(&shared, received).await?,
                Err(refused) => refused,
            };
            Ok(answer.into_response())
        })
    }
}

/// Reads the body; a client that goes away has nobody to answer.
async fn receive<B>(request: Request<B>) -> Result<Result<Received, Answer>, ConnectionReset>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (head, body) = request.into_parts();
    let body = tokio::time::timeout(BODY_TIME_MAX, Limited::new(body, BODY_BYTES_MAX).collect()).await;
    let body = match body {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let message = format!("the body is longer than {BODY_BYTES_MAX} bytes");
            return Ok(Err(Answer::json(StatusCode::PAYLOAD_TOO_LARGE, &json!({"message": message}))));
        }
        Ok(Err(_)) => return Err(ConnectionReset),
        Err(_) => {
            let message = json!({"message": "the body took too long"});
            return Ok(Err(Answer::json(StatusCode::REQUEST_TIMEOUT, &message)));
        }
    };
    Ok(Ok(Received {
        method: head.method,
        path: head.uri.path().to_owned(),
        query: head.uri.query().map(str::to_owned),
        headers: head.headers,
        body,
    }))
}

async fn answer(shared: &Arc<Shared>, received: Received) -> Result<Answer, ConnectionReset> {
    match route(&received.method, &received.path, &shared.config) {
        Route::Control => Ok(control::answer(shared, &received)),
        Route::Api(target) => api(shared, target, received).await,
        Route::NotAllowed { allow, service } => {
            Ok(refuse(shared, received, Answer::not_allowed(&allow, &not_supported(service))))
        }
        Route::Unknown => {
            let message = json!({"message": "no such path"});
            Ok(refuse(shared, received, Answer::json(StatusCode::NOT_FOUND, &message)))
        }
    }
}

fn not_supported(service: &str) -> Value {
    let message = "Requested Function Is Not Supported";
    if service.is_empty() {
        json!({"responseCode": 405, "responseMessage": message})
    } else {
        json!({"responseCode": format!("405{service}00"), "responseMessage": message})
    }
}

/// Notes and answers what reaches no call.
fn refuse(shared: &Shared, received: Received, answer: Answer) -> Answer {
    let end = End::Answered(answer.clone());
    let entry =
        Entry { at: shared.clock.now(), received, operation: None, fault: None, checks: Checks::default(), end };
    shared.lock().journal.add(entry);
    answer
}

async fn api(shared: &Arc<Shared>, target: Target, received: Received) -> Result<Answer, ConnectionReset> {
    let (end, delay) = act(shared, target, received);
    if let Some(delay) = delay {
        tokio::time::sleep(delay).await;
    }
    match end {
        End::Answered(answer) => Ok(answer),
        End::Reset => Err(ConnectionReset),
        End::Hanging => match std::future::pending::<Infallible>().await {},
    }
}

/// Everything that happens under the lock.
fn act(shared: &Shared, target: Target, received: Received) -> (End, Option<Duration>) {
    let mut guard = shared.lock();
    let state = &mut *guard;
    let mut checks = Checks::default();
    let fault = state.faults.pick(target, &mut state.random);
    let at = shared.clock.now();
    if fault == Some(Fault::ExpireToken)
        && let Ok(Some(authorization)) = single_header(&received.headers, "Authorization")
        && let Some(token) = bearer(authorization)
    {
        state.tokens.expire(token);
    }
    let mut done = || calls::answer(shared, state, target, &received, &mut checks);
    let (end, delay) = match &fault {
        None => (End::Answered(done()), None),
        Some(Fault::Latency(delay)) => (End::Answered(done()), Some(*delay)),
        Some(Fault::Status(status, body)) => (End::Answered(verbatim(*status, body)), None),
        Some(Fault::ResetBefore) => (End::Reset, None),
        Some(Fault::Hang) => (End::Hanging, None),
        Some(Fault::ResetAfterCommit) => {
            done();
            (End::Reset, None)
        }
        Some(Fault::Empty200) => {
            done();
            (End::Answered(Answer::bytes(StatusCode::OK, Bytes::new())), None)
        }
        Some(Fault::MalformedJson) => (End::Answered(broken_off(done())), None),
        Some(Fault::ExpireToken) => {
            let answer = done();
            if matches!(target, Target::Token(_)) && answer.status == StatusCode::OK {
                state.tokens.expire_newest();
            }
            (End::Answered(answer), None)
        }
    };
    let shown = match &end {
        End::Answered(answer) => End::Answered(answer.clone()),
        End::Reset => End::Reset,
        End::Hanging => End::Hanging,
    };
    let (operation, fault) = (Some(target.name()), fault.as_ref().map(Fault::name));
    state.journal.add(Entry { at, received, operation, fault, checks, end: shown });
    (end, delay)
}

/// An answer as a fault words it: a proxy's page is no JSON and does not say so.
fn verbatim(status: StatusCode, body: &str) -> Answer {
    let answer = Answer::bytes(status, body.to_owned());
    let is_json = serde_json::from_str::<serde::de::IgnoredAny>(body).is_ok();
    if is_json { answer } else { answer.with(CONTENT_TYPE, "text/plain; charset=utf-8".to_owned()) }
}

/// The first half of a body.
fn broken_off(answer: Answer) -> Answer {
    let half = answer.body.slice(..answer.body.len() / 2);
    Answer { body: half, ..answer }
}
