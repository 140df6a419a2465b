//! A whole gateway whose upstream answers at once, and requests as apps make them.
//!
//! Promises the same work in every run: ids come from a seed, wall time from a clock that begins at one
//! moment, and requests and upstream's answers, of the sizes Ayoconnect's have, are made before anything is
//! measured. All layers are at work: callers show API keys, merchants have limits, everything is counted;
//! nothing is logged. One request at a time, on one thread.

mod asks;

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use ayova::caller::KeyDigest;
use ayova::clock::TestClock;
use ayova::config::{Auth, Config, Rate, RateLimit};
use ayova::entropy::Entropy;
use ayova::stack::{Gateway, Surroundings};
use ayova::store::memory::MemoryStore;
use ayova::telemetry::metrics::Metrics;
use ayova::upstream::{Transport, TransportError};
use bytes::Bytes;
use futures_util::future::{BoxFuture, ready};
use http::{Request, Response};
use http_body_util::Full;
use prometheus_client::registry::Registry;
use tokio::runtime::Runtime;
use tower::Service as _;

pub(crate) use asks::{Asks, Operation, START};

/// How much is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Requests that are measured at once.
    pub(crate) requests: usize,
    /// Bytes of a create's body at least; those of others follow from it.
    pub(crate) body: usize,
    /// Merchants, who take turns.
    pub(crate) merchants: usize,
    /// Creates that went before; updates, inquiries and replays are about these.
    pub(crate) accounts: usize,
}

impl Sizes {
    /// Where they are told.
    pub(crate) const VARIABLES: [&str; 4] =
        ["AYOVA_BENCH_REQUESTS", "AYOVA_BENCH_BODY", "AYOVA_BENCH_MERCHANTS", "AYOVA_BENCH_ACCOUNTS"];

    /// What the counts in the repository were made with.
    pub(crate) const USUAL: Self = Self { requests: 200, body: 620, merchants: 16, accounts: 200 };

    /// For a test run.
    pub(crate) const TINY: Self = Self { requests: 2, body: 620, merchants: 2, accounts: 4 };

    /// From the environment; what is not told there is as `otherwise`.
    pub(crate) fn told(otherwise: Self) -> Self {
        let [requests, body, merchants, accounts] = Self::VARIABLES.map(|name| {
            let text = std::env::var(name).ok()?;
            Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number, and not {text:?}")))
        });
        Self {
            requests: requests.unwrap_or(otherwise.requests).max(1),
            body: body.unwrap_or(otherwise.body),
            merchants: merchants.unwrap_or(otherwise.merchants).max(1),
            accounts: accounts.unwrap_or(otherwise.accounts).max(1),
        }
    }
}

/// A gateway, what it runs on and what it talks to.
pub(crate) struct World {
    runtime: Runtime,
    gateway: Gateway,
    upstream: Arc<Upstream>,
    asks: Asks,
    /// Requests made so far, by operation: each is a new one.
    made: [usize; Operation::ALL.len()],
}

impl World {
    /// A gateway that knows as many accounts as `sizes` says and has its tokens.
    pub(crate) fn new(sizes: Sizes) -> Self {
        let upstream = Arc::new(Upstream::default());
        let surroundings = Surroundings {
            clock: Arc::new(TestClock::new(START.parse().unwrap())),
            entropy: Entropy::from_seed([1; 32]),
            transport: Arc::<Upstream>::clone(&upstream),
            store: Arc::new(MemoryStore::new(1 << 28, 1 << 27)),
            metrics: Arc::new(Metrics::new(&mut Registry::default())),
            tracer: None,
        };
        let gateway = Gateway::new(&config(sizes.merchants), &surroundings).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut world = Self { runtime, gateway, upstream, asks: Asks::new(sizes), made: Default::default() };
        let known = world.prepare(Operation::SnapCreate, sizes.accounts);
        assert_eq!(world.serve(known), sizes.accounts, "creates beforehand");
        world
    }

    /// New requests; upstream will have their answers ready.
    pub(crate) fn prepare(&mut self, operation: Operation, count: usize) -> Vec<Request<Full<Bytes>>> {
        let made = &mut self.made[operation as usize];
        let numbers: Range<usize> = *made..*made + count;
        *made = numbers.end;
        let answers = numbers.clone().filter_map(|number| self.asks.answer(operation, number));
        self.upstream.answers.lock().unwrap().extend(answers);
        numbers.map(|number| self.asks.request(operation, number)).collect()
    }

    /// Has requests answered one after the other; says how many went well.
    #[inline(never)]
    pub(crate) fn serve(&mut self, requests: Vec<Request<Full<Bytes>>>) -> usize {
        let gateway = &mut self.gateway;
        self.runtime.block_on(async move {
            let mut good = 0;
            for request in requests {
                let response = match gateway.call(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                };
                good += usize::from(response.status().is_success());
            }
            good
        })
    }

    /// Fails unless the gateway does with such requests what is to be measured.
    pub(crate) fn rehearse(&mut self, operation: Operation, count: usize) {
        let requests = self.prepare(operation, count);
        let gateway = &mut self.gateway;
        self.runtime.block_on(async move {
            for request in requests {
                let response = gateway.call(request).await.unwrap();
                let header = |name: &str| response.headers().get(name).map_or("", |value| value.to_str().unwrap());
                let seen = (response.status().as_u16(), header("ayova-source"), header("ayova-attached"));
                assert_eq!(seen, operation.expected(), "{operation:?}: {}", header("ayova-reason"));
            }
        });
    }

    /// What the layers of its stack are given.
    pub(crate) const fn gateway(&self) -> &Gateway {
        &self.gateway
    }
}

/// The sample's configuration with more merchants, who have keys and limits that are never reached.
pub(crate) fn config(merchants: usize) -> Config {
    let any = "127.0.0.1:0".parse().unwrap();
    let mut config = Config::sample(any, any, any).unwrap();
    config.listen.auth = Auth::ApiKey;
    let plenty = Rate { per_second: NonZeroU32::MAX, burst: NonZeroU32::MAX };
    let sample = config.merchants.remove(0);
    config.merchants = (0..merchants)
        .map(|number| {
            let mut merchant = sample.clone();
            merchant.name = format!("merchant{number}").into();
            merchant.merchant_code = format!("AYO{number:03}").into();
            merchant.api_keys = vec![KeyDigest::of(&asks::key(number))];
            merchant.rate_limit = Some(RateLimit { rate: plenty, in_flight: 10_000, operations: vec![] });
            merchant
        })
        .collect();
    config
}

/// Gives the answers that were prepared, in order; token calls are answered whenever they come.
#[derive(Debug, Default)]
struct Upstream {
    answers: Mutex<VecDeque<Response<Bytes>>>,
}

impl Transport for Upstream {
    fn send(&self, request: Request<Full<Bytes>>) -> BoxFuture<'static, Result<Response<Bytes>, TransportError>> {
        let path = request.uri().path();
        let is_login = path.ends_with("/access-token/b2b") || path.ends_with("/accesstoken");
        let prepared = if is_login { Some(asks::login()) } else { self.answers.lock().unwrap().pop_front() };
        Box::pin(ready(prepared.ok_or_else(|| TransportError::Broken("no answer was prepared".to_owned()))))
    }
}
