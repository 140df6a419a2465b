//! Refuses a merchant that asks too often or has too much under way.
//!
//! Stands after `identify`, since limits are per merchant, and before `collect`, so that a flood
//! costs no bodies. The algorithm (GCRA) is governor's; the cell it keeps its state in is ours, so
//! that an admission can be given back when nothing went upstream: joined calls, replays and
//! refusals use no quota (contract section 9). Never waits.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{NotKeyed, StateStore};
use governor::{Quota, RateLimiter};
use http::{HeaderMap, HeaderName, HeaderValue};
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;

use crate::call::{Admission, Call, Held, Inbound, Reply};
use crate::config::{self, Rate};
use crate::dialect::OperationId;
use crate::error::{Error, Failure};
use crate::layers::next::Next;
use crate::notes::Notes;
use crate::telemetry::metrics::Metrics;

/// Everybody's allowances, shared by every connection.
#[derive(Debug)]
pub struct RateLimits {
    by_merchant: HashMap<Arc<str>, Allowance>,
    metrics: Arc<Metrics>,
}

/// One merchant's allowance.
#[derive(Debug)]
struct Allowance {
    merchant: Arc<str>,
    in_flight: Arc<InFlight>,
    /// The merchant's own first, then those of single operations.
    limits: Vec<Limit>,
}

struct Limit {
    /// Name in `RateLimit-Policy`.
    policy: &'static str,
    /// Absent: every operation.
    operation: Option<OperationId>,
    rate: Rate,
    cell: Cell,
    limiter: RateLimiter<NotKeyed, Cell, TokioClock, NoOpMiddleware<Nanos>>,
}

impl fmt::Debug for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Limit({}, {:?})", self.policy, self.rate)
    }
}

/// What is left of a limit, for the response's headers and `/status`.
#[derive(Clone, Copy, Debug)]
pub struct Left {
    /// Name in `RateLimit-Policy`.
    pub policy: &'static str,
    /// The limit.
    pub rate: Rate,
    /// Requests that would be admitted now.
    pub remaining: u32,
}

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

impl RateLimits {
    /// Full allowances for these merchants.
    #[must_use]
    pub fn new(merchants: &[config::MerchantConfig], metrics: Arc<Metrics>) -> Self {
        Self { by_merchant: HashMap::new(), metrics }.renewed(merchants)
    }

    /// The allowances of another configuration: what is under way goes on counting, and what a limit of
    /// the same name has given out stays given out.
    #[must_use]
    pub fn renewed(&self, merchants: &[config::MerchantConfig]) -> Self {
        let allowance = |merchant: &config::MerchantConfig| {
            Allowance::new(merchant, self.by_merchant.get(&merchant.name), &self.metrics)
        };
        let by_merchant: HashMap<_, _> =
            merchants.iter().map(|merchant| (Arc::clone(&merchant.name), allowance(merchant))).collect();
        for left in self.by_merchant.keys().filter(|name| !by_merchant.contains_key(*name)) {
            self.metrics.merchant_left(left);
        }
        Self { by_merchant, metrics: Arc::clone(&self.metrics) }
    }

    /// What every merchant with a limit has left, and what it has under way.
    pub fn status(&self) -> impl Iterator<Item = (&Arc<str>, usize, Vec<Left>)> {
        self.by_merchant.iter().map(|(name, allowance)| {
            let left = allowance.limits.iter().map(Limit::left).collect();
            (name, allowance.in_flight.now.load(Ordering::Relaxed), left)
        })
    }
}

impl Allowance {
    fn new(merchant: &config::MerchantConfig, before: Option<&Self>, metrics: &Arc<Metrics>) -> Self {
        let settings = merchant.rate_limit.as_ref();
        let limit = |policy: &'static str, operation, rate| {
            let known = before.and_then(|before| before.limits.iter().find(|known| known.policy == policy));
            Limit::new(policy, (operation, rate), known.map(|known| known.cell.clone()))
        };
        let own = settings.map(|settings| limit("merchant", None, settings.rate));
        let of_operations = settings.into_iter().flat_map(|settings| {
            settings.operations.iter().map(|(operation, rate)| limit(operation.name(), Some(*operation), *rate))
        });
        Self {
            merchant: Arc::clone(&merchant.name),
            in_flight: Arc::new(InFlight {
                most: settings.map_or(usize::MAX, |settings| settings.in_flight),
                now: before.map(|before| Arc::clone(&before.in_flight.now)).unwrap_or_default(),
                gauge: metrics.in_flight(&merchant.name),
            }),
            limits: own.into_iter().chain(of_operations).collect(),
        }
    }

    /// Admits one request or refuses it; a refusal gives back what it had taken.
    fn admit(&self, operation: OperationId, notes: &Notes) -> Result<Admission, Error> {
        let mut held: Vec<Box<dyn Held>> = Vec::with_capacity(self.limits.len() + 1);
        for limit in self.applying(operation) {
            match limit.take() {
                Ok(taken) => held.push(Box::new(taken)),
                Err(wait) => {
                    drop(Admission::holding(Notes::default(), held));
                    return Err(Error::RateLimited(wait));
                }
            }
        }
        match self.in_flight.enter() {
            Some(slot) => held.push(Box::new(slot)),
            None => {
                drop(Admission::holding(Notes::default(), held));
                return Err(Error::TooManyInFlight);
            }
        }
        Ok(Admission::holding(notes.clone(), held))
    }

    /// What is left for this operation now.
    fn left(&self, operation: OperationId) -> impl Iterator<Item = Left> {
        self.applying(operation).map(Limit::left)
    }

    fn applying(&self, operation: OperationId) -> impl Iterator<Item = &Limit> {
        self.limits.iter().filter(move |limit| limit.operation.is_none_or(|only| only == operation))
    }
}

impl Limit {
    /// `level` is what was given out before.
    fn new(policy: &'static str, (operation, rate): (Option<OperationId>, Rate), level: Option<Cell>) -> Self {
        let quota = Quota::per_second(rate.per_second).allow_burst(rate.burst);
        let fresh = || Cell { time: Arc::default(), clock: TokioClock { origin: Instant::now() } };
        let cell = level.unwrap_or_else(fresh);
        // A faster rate has nothing given out that it could not have given out itself.
        let whole = u64::from(rate.burst.get()).saturating_mul(1_000_000_000 / u64::from(rate.per_second.get()));
        cell.time.fetch_min(cell.clock.now().as_u64().saturating_add(whole), Ordering::Relaxed);
        let limiter = RateLimiter::new(quota, cell.clone(), cell.clock.clone());
        Self { policy, operation, rate, cell, limiter }
    }

    fn interval(&self) -> u64 {
        1_000_000_000 / u64::from(self.rate.per_second.get())
    }

    fn take(&self) -> Result<Taken, Duration> {
        match self.limiter.check() {
            Ok(_) => {
                let paid_off = self.cell.time.load(Ordering::Relaxed);
                Ok(Taken { cell: self.cell.clone(), interval: self.interval(), paid_off })
            }
            Err(refused) => Err(refused.wait_time_from(self.limiter.clock().now())),
        }
    }

    /// Counts down from the cell's theoretical arrival time without taking anything.
    fn left(&self) -> Left {
        let ahead = self.cell.time.load(Ordering::Relaxed).saturating_sub(self.cell.clock.now().as_u64());
        let used = ahead.div_ceil(self.interval().max(1));
        let remaining = self.rate.burst.get().saturating_sub(u32::try_from(used).unwrap_or(u32::MAX));
        Left { policy: self.policy, rate: self.rate, remaining }
    }
}

/// What a request has taken from a limit.
#[derive(Debug)]
struct Taken {
    cell: Cell,
    interval: u64,
    /// When time will have made up for it.
    paid_off: u64,
}

impl Held for Taken {
    fn release(&self, spent: bool) {
        if !spent {
            self.cell.give_back(self.interval, self.paid_off);
        }
    }
}

/// The theoretical arrival time, in nanoseconds since the limiter was made.
#[derive(Clone, Debug)]
struct Cell {
    time: Arc<AtomicU64>,
    clock: TokioClock,
}

impl Cell {
    /// Takes an admission's interval off again, less what time has made up for since: otherwise
    /// whoever holds admissions and gives them back late would be admitted twice for one interval.
    fn give_back(&self, interval: u64, paid_off: u64) {
        let owed = paid_off.saturating_sub(self.clock.now().as_u64()).min(interval);
        let _ = self.time.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |time| Some(time.saturating_sub(owed)));
    }
}

impl StateStore for Cell {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _: &Self::Key, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut previous = self.time.load(Ordering::Relaxed);
        loop {
            let (result, next) = decide((previous > 0).then(|| Nanos::from(previous)))?;
            match self.time.compare_exchange_weak(previous, next.into(), Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(result),
                Err(changed) => previous = changed,
            }
        }
    }
}

/// Tokio's clock for governor, so that tests can pause it.
#[derive(Clone, Debug)]
struct TokioClock {
    origin: Instant,
}

impl Clock for TokioClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::from(self.origin.elapsed())
    }
}

/// Requests of one merchant that are under way.
#[derive(Debug)]
struct InFlight {
    most: usize,
    now: Arc<AtomicUsize>,
    gauge: Gauge,
}

#[derive(Debug)]
struct Slot(Arc<InFlight>);

impl InFlight {
    fn enter(self: &Arc<Self>) -> Option<Slot> {
        let enter = |now: usize| (now < self.most).then_some(now + 1);
        self.now.fetch_update(Ordering::Relaxed, Ordering::Relaxed, enter).ok()?;
        self.gauge.inc();
        Some(Slot(Arc::clone(self)))
    }
}

impl Held for Slot {
    fn release(&self, _: bool) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
        self.0.gauge.dec();
    }
}

/// The layer's step.
pub async fn rate_limit(
    state: Arc<RateLimits>,
    call: Call<Inbound>,
    next: Next<Call<Inbound>, Result<Reply, Error>>,
) -> Result<Reply, Failure> {
    let operation = call.operation().id;
    let Some(allowance) = state.by_merchant.get(&call.merchant.name) else { return Err(Error::UnknownMerchant.into()) };
    let admission = match allowance.admit(operation, call.admission.notes()) {
        Ok(admission) => admission,
        Err(error) => {
            state.metrics.rate_limited(&allowance.merchant, operation);
            let mut failure = Failure::from(error);
            add_headers(&mut failure.headers, allowance.left(operation));
            return Err(failure);
        }
    };
    // Not kept here: whoever joins another request gives it back long before the answer.
    let reply = next.run(Call { admission: Arc::new(admission), ..call }).await;
    match reply {
        Ok(mut reply) => {
            add_headers(&mut reply.headers, allowance.left(operation));
            Ok(reply)
        }
        Err(error) => {
            let mut failure = Failure::from(error);
            add_headers(&mut failure.headers, allowance.left(operation));
            Err(failure)
        }
    }
}

/// Adds `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10): `q` and `r` in
/// requests, `w` and `t` in seconds until a used-up limit is whole again.
fn add_headers(headers: &mut HeaderMap, left: impl Iterator<Item = Left>) {
    let (mut policies, mut limits) = (String::with_capacity(64), String::with_capacity(64));
    let window = |requests: u32, rate: Rate| requests.div_ceil(rate.per_second.get());
    for Left { policy, rate, remaining } in left {
        let comma = if policies.is_empty() { "" } else { ", " };
        let (whole, used) = (window(rate.burst.get(), rate), window(rate.burst.get() - remaining, rate));
        // Writing to a string cannot fail.
        let _ = write!(policies, "{comma}\"{policy}\";q={};w={whole}", rate.burst);
        let _ = write!(limits, "{comma}\"{policy}\";r={remaining};t={used}");
    }
    for (name, value) in [(POLICY, policies), (LIMIT, limits)] {
        if let (false, Ok(value)) = (value.is_empty(), HeaderValue::try_from(value)) {
            headers.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use prometheus_client::registry::Registry;
    use proptest::prelude::*;

    use super::*;

    fn rate(per_second: u32, burst: u32) -> Rate {
        Rate { per_second: NonZeroU32::new(per_second).unwrap(), burst: NonZeroU32::new(burst).unwrap() }
    }

    fn allowance(rate: Rate, in_flight: usize, operations: Vec<(OperationId, Rate)>) -> Allowance {
        let metrics = Arc::new(Metrics::new(&mut Registry::default()));
        let any = "127.0.0.1:0".parse().unwrap();
        let mut merchant = config::Config::sample(any, any, any).unwrap().merchants.remove(0);
        merchant.rate_limit = Some(config::RateLimit { rate, in_flight, operations });
        Allowance::new(&merchant, None, &metrics)
    }

    fn admit(allowance: &Allowance) -> Result<Admission, Error> {
        allowance.admit(OperationId::SnapCreate, &Notes::default())
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_then_the_rate() {
        let allowance = allowance(rate(10, 5), 64, vec![]);
        let spend = || admit(&allowance).inspect(Admission::spend);
        assert!((0..5).all(|_| spend().is_ok()));
        let Err(Error::RateLimited(wait)) = spend() else { panic!() };
        assert!(wait > Duration::ZERO && wait <= Duration::from_millis(100), "{wait:?}");
        tokio::time::advance(wait).await;
        assert!(spend().is_ok());
        assert!(spend().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn what_never_went_upstream_costs_nothing() {
        let allowance = allowance(rate(1, 3), 64, vec![]);
        for _ in 0..100 {
            drop(admit(&allowance).unwrap());
        }
        assert_eq!(allowance.limits[0].left().remaining, 3);
        admit(&allowance).unwrap().spend();
        assert_eq!(allowance.limits[0].left().remaining, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_operations_own_limit_refuses_without_using_the_merchants() {
        let allowance = allowance(rate(100, 100), 64, vec![(OperationId::SnapCreate, rate(1, 1))]);
        admit(&allowance).unwrap().spend();
        assert!(matches!(admit(&allowance), Err(Error::RateLimited(_))));
        assert_eq!(allowance.limits[0].left().remaining, 99);
        assert!(allowance.admit(OperationId::SnapInquiry, &Notes::default()).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn slots_are_freed_and_refusals_give_back() {
        let allowance = allowance(rate(100, 100), 2, vec![]);
        let (one, two) = (admit(&allowance).unwrap(), admit(&allowance).unwrap());
        assert!(matches!(admit(&allowance), Err(Error::TooManyInFlight)));
        assert_eq!(allowance.limits[0].left().remaining, 98);
        one.spend();
        drop(one);
        assert!(admit(&allowance).is_ok());
        drop(two);
    }

    #[tokio::test(start_paused = true)]
    async fn headers_follow_the_draft() {
        let allowance = allowance(rate(50, 100), 64, vec![(OperationId::SnapCreate, rate(10, 20))]);
        let admission = allowance.admit(OperationId::SnapCreate, &Notes::default()).unwrap();
        let headers = |operation| {
            let mut headers = HeaderMap::new();
            add_headers(&mut headers, allowance.left(operation));
            headers
        };
        let inquiry = headers(OperationId::SnapInquiry);
        let headers = headers(OperationId::SnapCreate);
        assert_eq!(headers[POLICY], "\"merchant\";q=100;w=2, \"snap.create\";q=20;w=2");
        assert_eq!(headers[LIMIT], "\"merchant\";r=99;t=1, \"snap.create\";r=19;t=1");
        drop(admission);
        assert_eq!(inquiry[LIMIT], "\"merchant\";r=99;t=1");
    }

    /// Mostly none, so that bursts happen.
    fn pause() -> impl Strategy<Value = u64> {
        prop_oneof![3 => Just(0), 1 => 0u64..600]
    }

    proptest! {
        /// In no stretch of time more than burst and rate allow, in any run of takes, pauses, and
        /// admissions that are given back at once or late.
        #[test]
        fn the_rate_holds(steps in prop::collection::vec((pause(), 0u8..3), 1..200)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            runtime.block_on(async {
                let allowance = allowance(rate(10, 5), usize::MAX, vec![]);
                let start = Instant::now();
                let (mut spent, mut held): (Vec<u64>, Vec<Admission>) = (vec![], vec![]);
                for (pause, choice) in steps {
                    tokio::time::advance(Duration::from_millis(pause)).await;
                    match (admit(&allowance), choice) {
                        (Ok(admission), 0) => {
                            admission.spend();
                            spent.push(start.elapsed().as_millis() as u64);
                        }
                        (Ok(admission), 1) => held.push(admission),
                        _ => held.clear(),
                    }
                }
                for (first, from) in spent.iter().enumerate() {
                    for (last, to) in spent.iter().enumerate().skip(first) {
                        let (count, allowed) = ((last - first + 1) as u64, 5 + (to - from) / 100);
                        assert!(count <= allowed, "{count} of {allowed} from {from} to {to}");
                    }
                }
            });
        }
    }
}
