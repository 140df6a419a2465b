//! Every metric, named once (contract section 6), against a registry that is passed in.
//!
//! Labels come from closed sets: merchants by configured name, operations, statuses, reasons. A gauge of a
//! merchant that is configured no longer goes, so that none keeps a value that is not true any more; what
//! was counted stays. A test has a registry of its own.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::call::Seen;
use crate::dialect::{Dialect, OperationId, OperationKind};
use crate::store::inbox::EventKind;
use crate::supervise::Task;
use crate::telemetry::kept::Kept;
use crate::telemetry::shown::Shown;
use crate::upstream::Outcome;

/// Upper bounds in seconds: a replay takes microseconds, a bank may take ten seconds.
const BUCKETS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Sizes of closed sets: operations, who answers, and at least as many as there are kinds of results.
const OPERATIONS: usize = OperationId::ALL.len();
const SOURCES: usize = 3;
const RESULTS: usize = 8;

type Seconds = Gauge<f64, AtomicU64>;

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    requests: Family<Request, Counter>,
    request_duration: Kept<Duration, Histogram>,
    attempts: Kept<Attempt, Counter>,
    upstream_duration: Kept<Operation, Histogram>,
    in_flight: Family<Merchant, Gauge>,
    rate_limited: Family<MerchantOperation, Counter>,
    idempotency: Kept<OperationResult, Counter>,
    reference: Kept<OperationResult, Counter>,
    token_refreshes: Family<TokenResult, Counter>,
    token_seconds_left: Family<MerchantDialect, Seconds>,
    tokens_shown: Shown<MerchantDialect>,
    unknown_outcomes: Family<Operation, Gauge>,
    clock_skew: Seconds,
    config_reloads: Family<ResultOnly, Counter>,
    task_panics: Family<TaskOnly, Counter>,
    callbacks_received: Family<TokenResult, Counter>,
    events_delivered: Family<EventResult, Counter>,
    events_pending: Family<Merchant, Gauge>,
    event_age: Family<Merchant, Seconds>,
    events_shown: Shown<Merchant>,
    events_dead: Family<Merchant, Counter>,
    confirmations: Family<TokenResult, Counter>,
    sweeps: Family<TokenResult, Counter>,
    connections_shut: Family<ListenerCause, Counter>,
    certificate_reloads: Family<ListenerResult, Counter>,
}

/// A label value without an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Word(&'static str);

impl EncodeLabelValue for Word {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        EncodeLabelValue::encode(&self.0, encoder)
    }
}

/// A merchant's name without an allocation, or `none` before it is known.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Name(Option<Arc<str>>);

impl Name {
    fn of(name: &Arc<str>) -> Self {
        Self(Some(Arc::clone(name)))
    }
}

impl EncodeLabelValue for Name {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        EncodeLabelValue::encode(&self.0.as_deref().unwrap_or("none"), encoder)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    merchant: Name,
    operation: Word,
    status: u16,
    source: Word,
    reason: Word,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Duration {
    operation: Word,
    source: Word,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Attempt {
    operation: Word,
    outcome: Word,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    operation: Word,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Merchant {
    merchant: Name,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MerchantOperation {
    merchant: Name,
    operation: Word,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MerchantDialect {
    merchant: Name,
    dialect: Word,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationResult {
    operation: Word,
    result: Word,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokenResult {
    merchant: Name,
    dialect: Word,
    result: Word,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventResult {
    merchant: Name,
    r#type: Word,
    result: Word,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultOnly {
    result: Word,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ListenerCause {
    listener: Word,
    cause: Word,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ListenerResult {
    listener: Word,
    result: Word,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TaskOnly {
    task: Word,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Version {
    version: Word,
}

/// What waits for a merchant's app.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// Whose events they are.
    pub merchant: Arc<str>,
    /// How many.
    pub pending: i64,
    /// Of the oldest.
    pub age_seconds: f64,
}

/// How a create or update fared with its ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recognition {
    /// Seen for the first time.
    New,
    /// Joined one under way.
    Joined,
    /// Got a stored answer.
    Replayed,
    /// Its id belongs to another request.
    Conflict,
    /// Waited too long for the one under way.
    InProgress,
}

/// Where an account's members came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReferenceSource {
    /// The record.
    Store,
    /// Asked of upstream.
    Inquiry,
    /// The caller, there being no record or the caller being believed.
    Caller,
    /// Nowhere.
    Missing,
}

/// What became of a callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intake {
    /// Kept, and on its way to the app.
    Stored,
    /// Known already.
    Duplicate,
    /// Kept aside.
    Quarantined,
    /// Not taken: no secret, no merchant, a source that may not, a body that is too large.
    Refused,
    /// Not kept; Ayoconnect tries again.
    Unavailable,
}

/// How an attempt to deliver an event ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The app has it.
    Delivered,
    /// Another attempt follows.
    Failed,
    /// No other attempt follows.
    Dead,
    /// It was not sent: upstream says otherwise.
    Contradicted,
}

/// What upstream said of a payment that was announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmation {
    /// It shows it too.
    Confirmed,
    /// It shows a later one.
    Hidden,
    /// Not yet known.
    Open,
    /// It says otherwise.
    Contradicted,
}

/// What a question about a watched account brought to light.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sweeping {
    /// A payment nobody had announced.
    Paid,
    /// That its time is over.
    Expired,
    /// Nothing new.
    Nothing,
    /// No answer.
    Failed,
}

/// Why a listener ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shut {
    /// There are as many as there may be, and each has a request under way.
    TooMany,
    /// It had no request under way, for longer than any other, when another one wanted its place.
    Evicted,
    /// It comes from an address that may not connect.
    NotAllowed,
    /// It did not come to TLS.
    Handshake,
    /// What came was no proper HTTP, or too much of it.
    Malformed,
    /// A head took too long.
    TooSlow,
}

/// How a reload of the configuration ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// The new one is in force.
    Applied,
    /// The new one cannot be used; the old one stays.
    Rejected,
    /// They are the same.
    Unchanged,
}

impl Reload {
    const ALL: [Self; 3] = [Self::Applied, Self::Rejected, Self::Unchanged];

    fn label(self) -> ResultOnly {
        let result = Word(match self {
            Self::Applied => "applied",
            Self::Rejected => "rejected",
            Self::Unchanged => "unchanged",
        });
        ResultOnly { result }
    }
}

impl Metrics {
    /// Registers everything under its contract name.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(BUCKETS);
        let metrics = Self {
            requests: Family::default(),
            request_duration: Kept::new(Family::new_with_constructor(histogram), (OPERATIONS + 1) * SOURCES),
            attempts: Kept::new(Family::default(), OPERATIONS * Outcome::LABELS.len()),
            upstream_duration: Kept::new(Family::new_with_constructor(histogram), OPERATIONS),
            in_flight: Family::default(),
            rate_limited: Family::default(),
            idempotency: Kept::new(Family::default(), OPERATIONS * RESULTS),
            reference: Kept::new(Family::default(), OPERATIONS * RESULTS),
            token_refreshes: Family::default(),
            token_seconds_left: Family::default(),
            tokens_shown: Shown::default(),
            unknown_outcomes: Family::default(),
            clock_skew: Seconds::default(),
            config_reloads: Family::default(),
            task_panics: Family::default(),
            callbacks_received: Family::default(),
            events_delivered: Family::default(),
            events_pending: Family::default(),
            event_age: Family::default(),
            events_shown: Shown::default(),
            events_dead: Family::default(),
            confirmations: Family::default(),
            sweeps: Family::default(),
            connections_shut: Family::default(),
            certificate_reloads: Family::default(),
        };
        metrics.register(registry.sub_registry_with_prefix("ayova"));
        metrics.register_callbacks(registry.sub_registry_with_prefix("ayova"));
        metrics.register_listeners(registry.sub_registry_with_prefix("ayova"));
        metrics.begin_at_zero();
        metrics
    }

    /// What an alert looks at exists before it has happened: a first event would otherwise be no change.
    fn begin_at_zero(&self) {
        for reload in Reload::ALL {
            drop(self.config_reloads.get_or_create(&reload.label()));
        }
        for task in Task::ALL {
            drop(self.task_panics.get_or_create(&TaskOnly { task: Word(task.name()) }));
        }
        for id in OperationId::ALL {
            let operation = Word(id.name());
            for outcome in Outcome::LABELS {
                drop(self.attempts.family().get_or_create(&Attempt { operation, outcome: Word(outcome) }));
            }
            if id.operation().kind != OperationKind::Read {
                drop(self.unknown_outcomes.get_or_create(&Operation { operation }));
            }
        }
    }

    /// The encoder appends `_total` to counters and nothing to the others.
    fn register(&self, registry: &mut Registry) {
        registry.register("requests", "Requests answered", self.requests.clone());
        registry.register(
            "request_duration_seconds",
            "From the request's head to its answer",
            self.request_duration.family().clone(),
        );
        registry.register("upstream_attempts", "Tries upstream by outcome", self.attempts.family().clone());
        registry.register("upstream_duration_seconds", "One try upstream", self.upstream_duration.family().clone());
        registry.register("in_flight", "Requests under way", self.in_flight.clone());
        registry.register("rate_limited", "Requests refused for the merchant's limit", self.rate_limited.clone());
        registry.register(
            "idempotency",
            "How creates and updates fared with their ids",
            self.idempotency.family().clone(),
        );
        registry.register("reference", "Where an account's members came from", self.reference.family().clone());
        registry.register("token_refreshes", "Token calls by result", self.token_refreshes.clone());
        registry.register("token_seconds_left", "Time a token is still good for", self.token_seconds_left.clone());
        registry.register(
            "unknown_outcomes",
            "Creates and updates nobody knows the outcome of",
            self.unknown_outcomes.clone(),
        );
        registry.register("clock_skew_seconds", "Upstream's clock less ours", self.clock_skew.clone());
        registry.register("config_reloads", "Reloads of the configuration by result", self.config_reloads.clone());
        registry.register(
            "task_panics",
            "Panics of tasks in the background, which start again",
            self.task_panics.clone(),
        );
        let build: Family<Version, Gauge> = Family::default();
        build.get_or_create(&Version { version: Word(env!("CARGO_PKG_VERSION")) }).set(1);
        registry.register("build_info", "The running version", build);
    }

    fn register_callbacks(&self, registry: &mut Registry) {
        registry.register(
            "callbacks_received",
            "Payment callbacks by what became of them",
            self.callbacks_received.clone(),
        );
        registry.register("events_delivered", "Attempts to deliver an event to the app", self.events_delivered.clone());
        registry.register("events_pending", "Events the app is yet to get", self.events_pending.clone());
        registry.register("event_age_seconds", "Age of the oldest event the app is yet to get", self.event_age.clone());
        registry.register("events_dead", "Events the app did not take", self.events_dead.clone());
        registry.register(
            "confirmations",
            "Questions to upstream whether a payment is true, by its answer",
            self.confirmations.clone(),
        );
        registry.register("sweeps", "Looks at watched accounts by what they brought to light", self.sweeps.clone());
    }

    fn register_listeners(&self, registry: &mut Registry) {
        registry.register(
            "connections_refused",
            "Connections ended for what came over them, where they came from, or their number",
            self.connections_shut.clone(),
        );
        registry.register("certificate_reloads", "New certificates by result", self.certificate_reloads.clone());
    }

    /// A listener ended a connection.
    pub fn connection_shut(&self, listener: &'static str, why: Shut) {
        let cause = Word(match why {
            Shut::TooMany => "too_many",
            Shut::Evicted => "evicted",
            Shut::NotAllowed => "not_allowed",
            Shut::Handshake => "handshake",
            Shut::Malformed => "malformed",
            Shut::TooSlow => "too_slow",
        });
        self.connections_shut.get_or_create(&ListenerCause { listener: Word(listener), cause }).inc();
    }

    /// A listener's certificate files have changed.
    pub fn certificates_reloaded(&self, listener: &'static str, is_applied: bool) {
        let result = Word(if is_applied { "applied" } else { "rejected" });
        self.certificate_reloads.get_or_create(&ListenerResult { listener: Word(listener), result }).inc();
    }

    /// A callback came in.
    pub fn callback_received(&self, whose: Option<(&Arc<str>, Dialect)>, intake: Intake) {
        let result = Word(match intake {
            Intake::Stored => "stored",
            Intake::Duplicate => "duplicate",
            Intake::Quarantined => "quarantined",
            Intake::Refused => "refused",
            Intake::Unavailable => "unavailable",
        });
        let (merchant, dialect) =
            whose.map_or((Name(None), "none"), |(merchant, dialect)| (Name::of(merchant), dialect.name()));
        let labels = TokenResult { merchant, dialect: Word(dialect), result };
        self.callbacks_received.get_or_create(&labels).inc();
    }

    /// An attempt to deliver an event ended.
    pub fn event_delivered(&self, merchant: &Arc<str>, kind: EventKind, delivery: Delivery) {
        let result = Word(match delivery {
            Delivery::Delivered => "delivered",
            Delivery::Failed => "failed",
            Delivery::Dead => "dead",
            Delivery::Contradicted => "contradicted",
        });
        let labels = EventResult { merchant: Name::of(merchant), r#type: Word(kind.name()), result };
        self.events_delivered.get_or_create(&labels).inc();
        if delivery == Delivery::Dead {
            self.events_dead.get_or_create(&Merchant { merchant: Name::of(merchant) }).inc();
        }
    }

    /// Upstream was asked whether a payment is true.
    pub fn confirmed(&self, merchant: &Arc<str>, dialect: Dialect, confirmation: Confirmation) {
        let result = Word(match confirmation {
            Confirmation::Confirmed => "confirmed",
            Confirmation::Hidden => "hidden",
            Confirmation::Open => "open",
            Confirmation::Contradicted => "contradicted",
        });
        let labels = TokenResult { merchant: Name::of(merchant), dialect: Word(dialect.name()), result };
        self.confirmations.get_or_create(&labels).inc();
    }

    /// A watched account was looked at.
    pub fn swept(&self, merchant: &Arc<str>, dialect: Dialect, sweeping: Sweeping) {
        let result = Word(match sweeping {
            Sweeping::Paid => "paid",
            Sweeping::Expired => "expired",
            Sweeping::Nothing => "nothing",
            Sweeping::Failed => "failed",
        });
        let labels = TokenResult { merchant: Name::of(merchant), dialect: Word(dialect.name()), result };
        self.sweeps.get_or_create(&labels).inc();
    }

    /// What waits for all merchants' apps; read when scraped. Nobody else's has a series any more.
    pub fn events_waiting(&self, waiting: impl IntoIterator<Item = Waiting>) {
        let waiting = waiting.into_iter().map(|waiting| (Merchant { merchant: Name::of(&waiting.merchant) }, waiting));
        let set = |labels: &Merchant, waiting: Waiting| {
            self.events_pending.get_or_create(labels).set(waiting.pending);
            self.event_age.get_or_create(labels).set(waiting.age_seconds);
        };
        self.events_shown.scraped(waiting, set, |labels| {
            self.events_pending.remove(labels);
            self.event_age.remove(labels);
        });
    }

    /// A request was answered.
    pub fn answered(&self, seen: &Seen, status: u16, seconds: f64) {
        let operation = Word(seen.about.operation.map_or("none", |operation| operation.id.name()));
        let source = Word(seen.source.name());
        let merchant = Name(seen.about.merchant.as_ref().map(|merchant| Arc::clone(&merchant.name)));
        let reason = Word(seen.reason.map_or("none", crate::error::Reason::code));
        self.requests.get_or_create(&Request { merchant, operation, status, source, reason }).inc();
        let place = seen.about.operation.map_or(OPERATIONS, |operation| operation.id as usize) * SOURCES;
        let place = place + seen.source as usize;
        self.request_duration.with(place, || Duration { operation, source }, |series| series.observe(seconds));
    }

    /// One try upstream ended.
    pub fn attempted(&self, operation: OperationId, outcome: &'static str, seconds: f64) {
        let (name, first) = (Word(operation.name()), operation as usize * Outcome::LABELS.len());
        let which = Outcome::LABELS.iter().position(|label| *label == outcome).map_or(usize::MAX, |at| first + at);
        let labels = || Attempt { operation: name, outcome: Word(outcome) };
        self.attempts.with(which, labels, |series| {
            series.inc();
        });
        let labels = || Operation { operation: name };
        self.upstream_duration.with(operation as usize, labels, |series| series.observe(seconds));
    }

    /// A merchant's gauge of requests under way, to be kept: it moves twice a request.
    #[must_use]
    pub fn in_flight(&self, merchant: &Arc<str>) -> Gauge {
        self.in_flight.get_or_create_owned(&Merchant { merchant: Name::of(merchant) })
    }

    /// A merchant is configured no longer; what of its requests is still under way is not shown.
    pub fn merchant_left(&self, merchant: &Arc<str>) {
        self.in_flight.remove(&Merchant { merchant: Name::of(merchant) });
    }

    /// A reload of the configuration ended.
    pub fn config_reloaded(&self, reload: Reload) {
        self.config_reloads.get_or_create(&reload.label()).inc();
    }

    /// A background task ended in a panic.
    pub fn task_panicked(&self, task: Task) {
        self.task_panics.get_or_create(&TaskOnly { task: Word(task.name()) }).inc();
    }

    /// A merchant was refused for its limit.
    pub fn rate_limited(&self, merchant: &Arc<str>, operation: OperationId) {
        let labels = MerchantOperation { merchant: Name::of(merchant), operation: Word(operation.name()) };
        self.rate_limited.get_or_create(&labels).inc();
    }

    /// A create or update was held against what is known.
    pub fn recognised(&self, operation: OperationId, recognition: Recognition) {
        let result = match recognition {
            Recognition::New => "new",
            Recognition::Joined => "joined",
            Recognition::Replayed => "replayed",
            Recognition::Conflict => "conflict",
            Recognition::InProgress => "in_progress",
        };
        let labels = || OperationResult { operation: Word(operation.name()), result: Word(result) };
        let place = operation as usize * RESULTS + recognition as usize;
        self.idempotency.with(place, labels, |series| {
            series.inc();
        });
    }

    /// An account was looked up.
    pub fn referenced(&self, operation: OperationId, source: ReferenceSource) {
        let result = match source {
            ReferenceSource::Store => "store",
            ReferenceSource::Inquiry => "inquiry",
            ReferenceSource::Caller => "caller",
            ReferenceSource::Missing => "missing",
        };
        let labels = || OperationResult { operation: Word(operation.name()), result: Word(result) };
        let place = operation as usize * RESULTS + source as usize;
        self.reference.with(place, labels, |series| {
            series.inc();
        });
    }

    /// A token call ended.
    pub fn token_refreshed(&self, merchant: &Arc<str>, dialect: Dialect, success: bool) {
        let result = Word(if success { "success" } else { "failure" });
        let labels = TokenResult { merchant: Name::of(merchant), dialect: Word(dialect.name()), result };
        self.token_refreshes.get_or_create(&labels).inc();
    }

    /// What all merchants' tokens are still good for; read when scraped. A merchant that never had one has
    /// no series, one that lost its own shows zero, and nobody else's has a series any more.
    pub fn token_seconds_left<'a>(&self, left: impl IntoIterator<Item = (&'a Arc<str>, Dialect, Option<f64>)>) {
        let left = left.into_iter().map(|(merchant, dialect, seconds)| {
            (MerchantDialect { merchant: Name::of(merchant), dialect: Word(dialect.name()) }, seconds)
        });
        let set = |labels: &MerchantDialect, seconds: Option<f64>| match seconds {
            Some(seconds) => {
                self.token_seconds_left.get_or_create(labels).set(seconds);
            }
            None => {
                if let Some(known) = self.token_seconds_left.get(labels) {
                    known.set(0.0);
                }
            }
        };
        self.tokens_shown.scraped(left, set, |labels| {
            self.token_seconds_left.remove(labels);
        });
    }

    /// A create or update fell into doubt, or out of it.
    pub fn in_doubt(&self, operation: OperationId, change: i64) {
        self.unknown_outcomes.get_or_create(&Operation { operation: Word(operation.name()) }).inc_by(change);
    }

    /// So many are in doubt.
    pub fn doubts(&self, operation: OperationId, count: i64) {
        self.unknown_outcomes.get_or_create(&Operation { operation: Word(operation.name()) }).set(count);
    }

    /// Upstream's clock was seen.
    pub fn clock_skew(&self, seconds: f64) {
        self.clock_skew.set(seconds);
    }
}
