//! Answers to the token call, held against an independent reading of them.
//!
//! Input: a line `snap` or `classic`, then answers: a line with the status, a body, a line `%%` between
//! them. The last one is given to every further call.

use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use ayova::call::Merchant;
use ayova::clock::{SharedClock, TestClock};
use ayova::config::Config;
use ayova::config::sandbox::SAMPLE_KEY_PEM;
use ayova::dialect::Dialect;
use ayova::entropy::Entropy;
use ayova::signature::PrivateKey;
use ayova::telemetry::metrics::Metrics;
use ayova::upstream::token::Source;
use ayova::upstream::{Breakers, ClockSkew, Tokens, Transport, TransportError};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use prometheus_client::registry::Registry;
use serde_json::Value as Json;
use tokio::time::{Instant, sleep_until};

use super::text::{CANARY, line};
use super::wire;

/// The target's body.
pub fn run(data: &[u8]) {
    let (first, rest) = line(data);
    let dialect = if first.starts_with(b"c") { Dialect::Classic } else { Dialect::Snap };
    let answers = answers(rest);
    if !answers.is_empty() {
        wire::paused(fetch(dialect, answers));
    }
}

#[derive(Clone, Debug)]
struct Answer {
    status: StatusCode,
    body: Bytes,
}

fn answers(mut text: &[u8]) -> Vec<Answer> {
    let mut answers = Vec::new();
    while !text.is_empty() && answers.len() < 5 {
        let (status, rest) = line(text);
        let end = rest.windows(4).position(|window| window == b"\n%%\n");
        let body = end.map_or(rest, |end| &rest[..end]);
        text = end.map_or(&[], |end| &rest[end + 4..]);
        let status = std::str::from_utf8(status).ok().and_then(|text| text.parse().ok());
        let status = status.and_then(|code: u16| StatusCode::from_u16(code).ok()).unwrap_or_default();
        answers.push(Answer { status, body: Bytes::copy_from_slice(body) });
    }
    answers
}

/// Gives the answers, then for ever the last; falls silent when told to.
#[derive(Debug)]
struct Upstream {
    answers: Vec<Answer>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    calls: usize,
    silent: bool,
}

impl Transport for Upstream {
    fn send(&self, _: Request<Full<Bytes>>) -> BoxFuture<'static, Result<Response<Bytes>, TransportError>> {
        let mut state = self.state.lock().unwrap();
        if state.silent {
            return std::future::pending().boxed();
        }
        let answer = self.answers[state.calls.min(self.answers.len() - 1)].clone();
        state.calls += 1;
        let response = Response::builder().status(answer.status).body(answer.body).unwrap();
        std::future::ready(Ok(response)).boxed()
    }
}

/// The token and its life in seconds, read by another reader.
fn usable(answer: &Answer) -> Option<(String, u64)> {
    let body: Json = serde_json::from_slice(&answer.body).ok().filter(|_| answer.status.is_success())?;
    let token = body.get("accessToken")?.as_str()?;
    let fits = !token.is_empty() && token.bytes().all(|byte| (0x21..=0x7e).contains(&byte));
    let life = match body.get("expiresIn")? {
        Json::String(text) => text.parse().ok()?,
        other => other.as_u64()?,
    };
    (fits && life > 0).then(|| (token.to_owned(), life))
}

async fn fetch(dialect: Dialect, answers: Vec<Answer>) {
    let upstream = Arc::new(Upstream { answers, state: Mutex::default() });
    let (tokens, merchant) = tokens(&upstream);
    let asked_at = Instant::now();
    let got = tokens.get(&merchant, dialect, asked_at + Duration::from_secs(20)).await;
    let calls = upstream.state.lock().unwrap().calls;
    let attempts = CONFIG.retry.attempts as usize;
    assert!((1..=attempts).contains(&calls), "{calls} calls");
    let tried = upstream.answers.iter().chain(std::iter::repeat(&upstream.answers[upstream.answers.len() - 1]));
    let expected = tried.take(attempts).map(usable).enumerate().find_map(|(n, found)| Some((n, found?)));
    match (got, expected) {
        (Err(error), None) => {
            let told = error.to_string();
            assert!(told.len() < 200 && !told.contains(CANARY), "{told}");
            assert_eq!(calls, attempts);
        }
        (Ok(token), Some((n, (text, life)))) => {
            assert_eq!((token.text.expose(), calls), (&text, n + 1));
            assert_eq!(token.bearer, format!("Bearer {text}").as_str());
            assert!(!format!("{token:?}").contains(CANARY));
            let life = Duration::from_secs(life.min(24 * 60 * 60));
            assert!(token.usable_until > asked_at && token.usable_until <= Instant::now() + life);
            if dialect == Dialect::Classic && life <= Duration::from_secs(3_600) {
                upstream.state.lock().unwrap().silent = true;
                sleep_until(token.usable_until).await;
                let late = tokens.get(&merchant, dialect, Instant::now() + Duration::from_secs(1)).await;
                assert!(late.is_err(), "a token is handed out after its end");
            }
        }
        (got, expected) => panic!("{:?} instead of {:?}", got.map(|_| ()), expected.map(|(n, _)| n)),
    }
}

fn tokens(upstream: &Arc<Upstream>) -> (Tokens, Arc<Merchant>) {
    let clock: SharedClock = Arc::new(TestClock::new(wire::START.parse().unwrap()));
    let metrics = Arc::new(Metrics::new(&mut Registry::default()));
    let source = Source {
        skew: Arc::new(ClockSkew::new(Arc::clone(&clock), Arc::clone(&metrics))),
        upstream: CONFIG.upstream.clone(),
        retry: CONFIG.retry.clone(),
        transport: Arc::clone(upstream) as Arc<dyn Transport>,
        breakers: Arc::new(Breakers::new(&CONFIG.breaker)),
        clock,
        entropy: Entropy::from_seed([1; 32]),
        metrics,
    };
    let merchant = Arc::new(Merchant { private_key: Some(Arc::clone(&KEY)), ..wire::merchant() });
    (Tokens::new(std::slice::from_ref(&merchant), &Arc::new(source)), merchant)
}

static CONFIG: LazyLock<Config> = LazyLock::new(wire::config);
static KEY: LazyLock<Arc<PrivateKey>> = LazyLock::new(|| Arc::new(PrivateKey::from_pem(SAMPLE_KEY_PEM).unwrap()));
