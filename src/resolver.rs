//! Settles creates and updates in doubt, in the background and by hand.
//!
//! Promises to ask upstream about every doubt whose account can be named, soon at first and then ever
//! more rarely for a day, and to store what it finds, so that the app's repetition gets its answer.
//! What cannot be settled stays in the store and visible. How to ask and what an answer means are
//! `settling`'s and `reference::settle`'s.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderMap, HeaderValue, StatusCode};
use jiff::{SignedDuration, Timestamp};
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::call::{Admission, Ids, Merchant};
use crate::clock::SharedClock;
use crate::dialect::{OperationId, OperationKind};
use crate::document::{Document, Kind};
use crate::flights::Flights;
use crate::inquiry::Errand;
use crate::reference::plan::Asked;
use crate::reference::settle::reread;
use crate::reference::{Account, Lesson, learn_create};
use crate::settling::{Doubtful, Finding, Settler};
use crate::store::{Begun, Doubt, End, Intent, Store, StoreError, StoredAnswer};
use crate::telemetry::metrics::Metrics;

/// Times after the doubt began at which upstream is asked; hourly after the last, for a day.
const FIRST_QUESTIONS: [SignedDuration; 4] = [
    SignedDuration::from_secs(5),
    SignedDuration::from_secs(30),
    SignedDuration::from_mins(2),
    SignedDuration::from_mins(15),
];

/// After this long, an update that upstream does not show did not happen: a request cannot be under
/// way there for so long.
const ABSENT_AFTER: SignedDuration = SignedDuration::from_mins(15);

/// After this long upstream is no longer asked.
const GIVEN_UP_AFTER: SignedDuration = SignedDuration::from_hours(24);

/// Pause between looks at the store.
const TICK: Duration = Duration::from_secs(1);

/// Doubts that are shown at most, and for which one look a second is not too often.
const BATCH: usize = 1_000;

/// Questions that are asked at the same time.
const AT_ONCE: usize = 16;

/// Settles doubts.
#[derive(Debug)]
pub struct Resolver {
    store: Arc<dyn Store>,
    flights: Flights,
    settler: Arc<Settler>,
    merchants: Vec<Arc<Merchant>>,
    clock: SharedClock,
    metrics: Arc<Metrics>,
    /// Longest time one question may take.
    patience: Duration,
    /// When each doubt was last asked about; bounded by the doubts there are.
    asked: Questions,
}

/// When each doubt was last asked about.
#[derive(Clone, Debug, Default)]
pub struct Questions(Arc<Mutex<HashMap<Name, Timestamp>>>);

impl Questions {
    fn lock(&self) -> MutexGuard<'_, HashMap<Name, Timestamp>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a doubt is called.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name {
    /// Whose.
    pub merchant: Arc<str>,
    /// Which operation.
    pub operation: OperationId,
    /// Its `X-EXTERNAL-ID`, `A-Correlation-ID` or, of a classic update, `transactionId`.
    pub id: String,
}

impl Name {
    fn of(intent: &Intent) -> Self {
        Self { merchant: Arc::clone(&intent.merchant), operation: intent.operation, id: (*intent.id).to_owned() }
    }
}

/// What a resolver works with.
#[derive(Clone, Debug)]
pub struct Means {
    /// Where doubts are kept.
    pub store: Arc<dyn Store>,
    /// What is under way is not touched.
    pub flights: Flights,
    /// Asks upstream.
    pub settler: Arc<Settler>,
    /// In whose names.
    pub merchants: Vec<Arc<Merchant>>,
    /// Tells how old a doubt is.
    pub clock: SharedClock,
    /// Where doubts are counted.
    pub metrics: Arc<Metrics>,
    /// Longest time one question may take.
    pub patience: Duration,
    /// When each doubt was last asked about.
    pub asked: Questions,
}

/// How an operator says a doubt ended.
#[derive(Clone, Debug)]
pub enum Decision {
    /// It did not happen: the app's repetition is sent as new.
    Absent,
    /// It happened, with this answer.
    Answered {
        /// Its HTTP status.
        status: StatusCode,
        /// Its body.
        body: Bytes,
    },
}

/// Why a decision could not be carried out.
#[derive(Clone, Debug)]
pub enum Undecided {
    /// There is no such doubt.
    NoSuchDoubt,
    /// A repetition of it is under way just now.
    UnderWay,
    /// The answer is no JSON object.
    BadAnswer,
    /// The store cannot do its work.
    Store(StoreError),
}

impl fmt::Display for Undecided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchDoubt => f.write_str("there is no such outcome in doubt; `ayova outcomes list` shows them"),
            Self::UnderWay => f.write_str("a repetition of it is under way just now; try again in a moment"),
            Self::BadAnswer => f.write_str("the answer is no JSON object"),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Undecided {}

impl Resolver {
    /// A resolver at rest; [`run`](Self::run) sets it going.
    #[must_use]
    pub fn new(means: Means) -> Self {
        let Means { store, flights, settler, merchants, clock, metrics, patience, asked } = means;
        Self { store, flights, settler, merchants, clock, metrics, patience, asked }
    }

    /// Takes over what an earlier gateway left behind in the store: what was under way there is in
    /// doubt now. To be called before the first request, which it would otherwise mistake for one.
    ///
    /// # Errors
    /// Where the store cannot do its work.
    pub async fn take_over(&self) -> Result<(), StoreError> {
        self.store.take_over(self.clock.now()).await?;
        self.count(&self.store.doubts(usize::MAX).await?).await;
        Ok(())
    }

    /// Settles what it can until told to stop.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut pause = TICK;
        while stop.run_until_cancelled(sleep(pause)).await.is_some() {
            let Some(doubts) = stop.run_until_cancelled(self.look()).await else { return };
            // The more there are, the more a look costs.
            pause = TICK * u32::try_from(1 + doubts / BATCH).unwrap_or(u32::MAX);
        }
    }

    /// What is in doubt, the oldest first, as many as anybody would read.
    ///
    /// # Errors
    /// Where the store cannot do its work.
    pub async fn doubts(&self) -> Result<Vec<Doubt>, StoreError> {
        self.store.doubts(BATCH).await
    }

    /// Asks about every doubt that is due, and says how many there are. All of them are looked at:
    /// old ones that nobody can settle must not hide young ones. Requests, which may have to share the one
    /// thread there is, have their turn after every hundred or so.
    pub async fn look(&self) -> usize {
        let Ok(doubts) = self.store.doubts(usize::MAX).await else { return 0 };
        self.count(&doubts).await;
        self.forget_others(&doubts).await;
        let questions = futures_util::stream::iter(&doubts);
        questions.for_each_concurrent(AT_ONCE, |doubt| self.ask_if_due(doubt)).await;
        doubts.len()
    }

    async fn ask_if_due(&self, doubt: &Doubt) {
        consume_budget().await;
        let now = self.clock.now();
        let name = Name::of(&doubt.intent);
        let last = self.asked.lock().get(&name).copied();
        if is_due(doubt.since, last, now) {
            self.asked.lock().insert(name, now);
            self.settle(doubt, now).await;
        }
    }

    /// Puts the gauge right: what has expired, or was not stored, is in doubt no longer.
    async fn count(&self, doubts: &[Doubt]) {
        for operation in OperationId::ALL.into_iter().filter(|id| id.operation().kind != OperationKind::Read) {
            let mut count = 0;
            for doubt in doubts {
                consume_budget().await;
                count += i64::from(doubt.intent.operation == operation);
            }
            self.metrics.doubts(operation, count);
        }
    }

    async fn forget_others(&self, doubts: &[Doubt]) {
        if self.asked.lock().len() > doubts.len() {
            let mut present = HashSet::with_capacity(doubts.len());
            for doubt in doubts {
                consume_budget().await;
                present.insert(Name::of(&doubt.intent));
            }
            self.asked.lock().retain(|name, _| present.contains(name));
        }
    }

    async fn settle(&self, doubt: &Doubt, now: Timestamp) {
        // A repetition that is under way will end the doubt itself; one that comes meanwhile waits.
        let Some(_seat) = self.flights.question(&doubt.intent) else { return };
        if !self.is_still_open(doubt).await {
            return;
        }
        match self.ask(doubt).await {
            Finding::Happened(reply) => {
                let end = End::Answered(Arc::new(StoredAnswer::from(&*reply)));
                self.end(doubt, end, reply.learned, "happened").await;
            }
            // Never a create: an app that then came with new ids would have it twice, should it have
            // happened after all. A repetition of an update carries the same ids in any case.
            Finding::NotSeen if is_update(doubt) && now.duration_since(doubt.since) >= ABSENT_AFTER => {
                self.end(doubt, End::Released, None, "did not happen").await;
            }
            Finding::NotSeen | Finding::NobodyToAsk | Finding::NoAnswer => {}
        }
    }

    /// Whether a doubt has not ended since it was listed; to be asked once its ids are reserved.
    async fn is_still_open(&self, doubt: &Doubt) -> bool {
        let now = self.clock.now();
        match self.store.begin(&doubt.intent, now).await {
            Ok(Begun::InDoubt(_)) => true,
            Ok(Begun::Fresh) => {
                // It was released meanwhile, and asking has just begun it anew.
                let released = self.store.finish(&doubt.intent, End::Released, None, now).await;
                if let Err(error) = released {
                    tracing::warn!(error = %error, "a released outcome could not be stored");
                }
                false
            }
            Ok(Begun::Answered(_) | Begun::Conflict) | Err(_) => false,
        }
    }

    async fn ask(&self, doubt: &Doubt) -> Finding {
        let intent = &doubt.intent;
        let Some(merchant) = self.merchants.iter().find(|merchant| merchant.name == intent.merchant) else {
            return Finding::NobodyToAsk;
        };
        let ids = Ids {
            header: intent.sent.header.clone(),
            header_made: false,
            transaction: intent.sent.transaction.clone(),
            transaction_made: false,
        };
        let Some(checked) = reread(&intent.request, ids) else { return Finding::NobodyToAsk };
        let operation = intent.operation.operation();
        let account = match operation.kind {
            OperationKind::Update => {
                let query = Asked { operation, checked: &checked }.account();
                let found = self.store.account(&intent.merchant, operation.dialect, &query).await.ok().flatten();
                // A life of the number that began later says nothing of this update.
                match found {
                    Some(account) if account.created > doubt.since => return Finding::NobodyToAsk,
                    found => found,
                }
            }
            OperationKind::Create | OperationKind::Read => None,
        };
        let errand = Errand {
            merchant: Arc::clone(merchant),
            deadline: Instant::now() + self.patience,
            admission: Arc::new(Admission::default()),
        };
        let doubtful = Doubtful {
            operation,
            checked: &checked,
            account: account.as_deref(),
            sent_id: intent.sent.header.as_deref().unwrap_or(&intent.id),
            sent_at: doubt.since,
        };
        self.settler.settle(errand, &doubtful).await
    }

    async fn end(&self, doubt: &Doubt, end: End, learned: Option<Arc<Account>>, how: &'static str) {
        match self.store.finish(&doubt.intent, end, learned, self.clock.now()).await {
            Ok(()) => {
                self.metrics.in_doubt(doubt.intent.operation, -1);
                tracing::info!(
                    merchant = &*doubt.intent.merchant,
                    operation = doubt.intent.operation.name(),
                    outcome = how,
                    "an outcome in doubt is settled"
                );
            }
            Err(error) => tracing::warn!(error = %error, "a settled outcome could not be stored"),
        }
    }

    /// Ends a doubt as an operator decides.
    ///
    /// # Errors
    /// [`Undecided`] where there is nothing to decide or it cannot be stored.
    pub async fn decide(&self, name: &Name, decision: Decision) -> Result<(), Undecided> {
        let doubts = self.store.doubts(usize::MAX).await.map_err(Undecided::Store)?;
        let doubt = doubts.into_iter().find(|doubt| Name::of(&doubt.intent) == *name).ok_or(Undecided::NoSuchDoubt)?;
        let seat = self.flights.question(&doubt.intent).ok_or(Undecided::UnderWay)?;
        if !self.is_still_open(&doubt).await {
            return Err(Undecided::NoSuchDoubt);
        }
        let (end, learned) = match decision {
            Decision::Absent => (End::Released, None),
            Decision::Answered { status, body } => self.given(&doubt, status, body)?,
        };
        let stored = self.store.finish(&doubt.intent, end, learned, self.clock.now()).await;
        drop(seat);
        stored.map_err(Undecided::Store)?;
        self.metrics.in_doubt(name.operation, -1);
        tracing::info!(
            merchant = &*name.merchant,
            operation = name.operation.name(),
            "an outcome in doubt is settled by hand"
        );
        Ok(())
    }

    /// The end that an operator's answer makes, and what it teaches where it is a create's.
    fn given(&self, doubt: &Doubt, status: StatusCode, body: Bytes) -> Result<(End, Option<Arc<Account>>), Undecided> {
        let answer = Document::parse(body.clone()).ok().filter(|answer| answer.root().kind() == Kind::Object);
        let answer = answer.ok_or(Undecided::BadAnswer)?;
        let intent = &doubt.intent;
        let request = Document::parse(intent.request.clone()).ok();
        let operation = intent.operation.operation();
        let lesson = Lesson {
            merchant: &intent.merchant,
            request: request.as_ref(),
            answer: &answer,
            sent_id: intent.sent.header.as_deref().unwrap_or_default(),
            transaction: intent.sent.transaction.as_deref().unwrap_or_default(),
            sent_at: doubt.since,
        };
        let creates = operation.kind == OperationKind::Create && status.is_success();
        let learned = creates.then(|| learn_create(operation.dialect, &lesson)).flatten().map(Arc::new);
        let json = HeaderValue::from_static("application/json");
        let headers = HeaderMap::from_iter([(http::header::CONTENT_TYPE, json)]);
        Ok((End::Answered(Arc::new(StoredAnswer { status, headers, body, attached: Vec::new() })), learned))
    }
}

fn is_update(doubt: &Doubt) -> bool {
    doubt.intent.operation.operation().kind == OperationKind::Update
}

/// Whether a question falls between the last one and now.
fn is_due(since: Timestamp, last: Option<Timestamp>, now: Timestamp) -> bool {
    let age = now.duration_since(since);
    let hours = (1..=24).map(SignedDuration::from_hours);
    let latest = FIRST_QUESTIONS.into_iter().chain(hours).rfind(|question| *question <= age);
    match latest {
        None => false,
        Some(_) if age > GIVEN_UP_AFTER + SignedDuration::from_hours(1) => false,
        Some(question) => last.is_none_or(|last| last.duration_since(since) < question),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_grow_rare_and_end() {
        let since = Timestamp::UNIX_EPOCH;
        let mut last = None;
        let mut asked = Vec::new();
        for second in 0..48 * 3600 {
            let now = since + SignedDuration::from_secs(second);
            if is_due(since, last, now) {
                last = Some(now);
                asked.push(second);
            }
        }
        assert_eq!(asked[..6], [5, 30, 120, 900, 3600, 7200]);
        assert_eq!(asked.last(), Some(&(24 * 3600)));
        assert_eq!(asked.len(), 4 + 24);
    }

    #[test]
    fn a_restart_asks_once_and_not_for_every_missed_time() {
        let since = Timestamp::UNIX_EPOCH;
        let now = since + SignedDuration::from_mins(10);
        assert!(is_due(since, None, now));
        assert!(!is_due(since, Some(now), now + SignedDuration::from_secs(60)));
        assert!(is_due(since, Some(now), since + SignedDuration::from_mins(15)));
    }
}
