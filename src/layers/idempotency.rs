//! The same request twice is one request.
//!
//! A create or update is recorded before it is passed on and its end before it is answered; who
//! comes with the same id and the same meaning joins it or gets the stored answer, who comes with
//! another meaning is refused. The work runs in a task of its own, so that it ends whether or not
//! the caller stays (contract section 5 rule 4). Stands behind `validate`, since the ids come from
//! there, and before everything that changes the body, since meaning is what the caller said. Does
//! not know which store it has.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::call::{About, Call, Checked, Reply, Source, Trace};
use crate::clock::SharedClock;
use crate::config::{self, SameTrxId};
use crate::dialect::{Dialect, OperationId, OperationKind};
use crate::document::{Document, Meaning};
use crate::error::{Error, Reason};
use crate::layers::next::Next;
use crate::store::{Begun, End, Intent, SentIds, Store, StoredAnswer};
use crate::telemetry::metrics::{Metrics, Recognition};
use crate::upstream::outcome::is_definite;

/// What recognising repetitions needs.
#[derive(Debug)]
pub struct Idempotency {
    /// Where intents and answers are kept.
    pub store: Arc<dyn Store>,
    /// How long, and what counts as the same.
    pub settings: config::Idempotency,
    /// For retentions.
    pub clock: SharedClock,
    /// Where recognition is counted.
    pub metrics: Arc<Metrics>,
    /// Work that outlives its caller; awaited at shutdown.
    pub tasks: TaskTracker,
    /// What is under way.
    pub flights: Flights,
}

type Result<T, E = Error> = std::result::Result<T, E>;

/// The layer's step.
pub async fn idempotency(
    state: Arc<Idempotency>,
    call: Call<Checked>,
    next: Next<Call<Checked>, Result<Reply>>,
) -> Result<Reply> {
    let operation = call.operation();
    if operation.kind == OperationKind::Read {
        return state.pass(call, &next).await;
    }
    let intent = state.intent(&call);
    match state.flights.board(&intent) {
        Boarding::Lead(seat, landing) => {
            let work = Arc::clone(&state).lead(call, intent, next);
            state.tasks.spawn(async move { seat.land(work.await) });
            landed(landing).await
        }
        Boarding::Follow(landing) => {
            // A follower uses no quota and no slot.
            drop(call);
            state.follow(operation.id, landing).await
        }
        Boarding::Conflict => {
            state.metrics.recognised(operation.id, Recognition::Conflict);
            Err(Error::IdempotencyConflict)
        }
    }
}

impl Idempotency {
    /// Reads have no ids to recognise; what they teach is kept.
    async fn pass(&self, call: Call<Checked>, next: &Next<Call<Checked>, Result<Reply>>) -> Result<Reply> {
        let mut reply = next.run(call).await?;
        if let Some(account) = reply.learned.take()
            && let Err(error) = self.store.remember(account).await
        {
            tracing::warn!(error = %error, "what a read taught could not be stored");
        }
        Ok(reply)
    }

    fn intent(&self, call: &Call<Checked>) -> Intent {
        let operation = call.operation();
        let Ids { id, transaction, sent } = ids(call);
        let by_transaction = operation.kind == OperationKind::Create
            && (self.settings.same_trx_id == SameTrxId::Replay || known_by_transaction_alone(call));
        Intent {
            merchant: Arc::clone(&call.merchant.name),
            operation: operation.id,
            id,
            transaction: transaction.filter(|_| by_transaction),
            meaning: call.body.document.as_ref().map_or(Meaning([0; 32]), Document::meaning),
            request: call.body.document.as_ref().map(|document| document.text().clone()).unwrap_or_default(),
            sent,
            retention: self.settings.retention,
            transaction_retention: self.settings.trx_id_retention,
        }
    }

    async fn follow(&self, operation: OperationId, landing: Landing) -> Result<Reply> {
        match timeout(self.settings.wait, landed(landing)).await {
            Ok(Ok(reply)) => {
                self.metrics.recognised(operation, Recognition::Joined);
                Ok(Reply { source: Source::Replay, trace: Trace::default(), ..reply })
            }
            Ok(Err(error)) => {
                self.metrics.recognised(operation, Recognition::Joined);
                Err(error)
            }
            Err(_) => {
                self.metrics.recognised(operation, Recognition::InProgress);
                Err(Error::IdempotencyInProgress)
            }
        }
    }

    /// The work of whoever came first: record, pass on, record the end.
    async fn lead(
        self: Arc<Self>,
        mut call: Call<Checked>,
        mut intent: Intent,
        next: Next<Call<Checked>, Result<Reply>>,
    ) -> Result<Reply> {
        let operation = intent.operation;
        let begun = self.store.begin(&intent, self.clock.now()).await;
        let doubted = match begun {
            Err(error) => {
                tracing::error!(error = %error, "a request could not be recorded");
                return Err(Error::StoreUnavailable);
            }
            Ok(Begun::Conflict) => {
                self.metrics.recognised(operation, Recognition::Conflict);
                return Err(Error::IdempotencyConflict);
            }
            Ok(Begun::Answered(answer)) => {
                self.metrics.recognised(operation, Recognition::Replayed);
                return Ok(replay(&answer));
            }
            Ok(Begun::InDoubt(sent)) => {
                resume(&mut call, &mut intent, sent);
                true
            }
            Ok(Begun::Fresh) => false,
        };
        self.metrics.recognised(operation, Recognition::New);
        let result = next.run(call).await;
        let result = settle(result, doubted);
        self.finish(&intent, result, doubted).await
    }

    async fn finish(&self, intent: &Intent, result: Result<Reply>, doubted: bool) -> Result<Reply> {
        let (end, learned) = match &result {
            Ok(reply) if is_definite(reply.status) => (End::Answered(Arc::new(keep(reply))), reply.learned.clone()),
            Err(Error::OutcomeUnknown) => (End::InDoubt, None),
            // What was in doubt stays so until an answer says otherwise.
            Ok(_) | Err(_) if doubted => (End::InDoubt, None),
            Ok(_) | Err(_) => (End::Released, None),
        };
        let in_doubt = matches!(end, End::InDoubt);
        if in_doubt != doubted {
            self.metrics.in_doubt(intent.operation, if in_doubt { 1 } else { -1 });
        }
        let stored = self.store.finish(intent, end, learned, self.clock.now()).await;
        match (result, stored) {
            (Ok(reply), Ok(())) => Ok(Reply { learned: None, ..reply }),
            (Ok(reply), Err(error)) => {
                tracing::error!(error = %error, "an answer could not be stored");
                Ok(Reply { learned: None, reason: Some(Reason::NotStored), ..reply })
            }
            (Err(error), _) => Err(error),
        }
    }
}

/// A classic create without a correlation id has nothing else to be known by (contract section 9).
fn known_by_transaction_alone(call: &Call<Checked>) -> bool {
    call.operation().dialect == Dialect::Classic && call.body.ids.header_made
}

/// The ids by which a request is known and sent.
struct Ids {
    id: String,
    transaction: Option<String>,
    sent: SentIds,
}

fn ids(call: &Call<Checked>) -> Ids {
    let ids = &call.body.ids;
    let sent = SentIds { header: ids.header.clone(), transaction: ids.transaction.clone() };
    // In classic an update is known by its transaction: its header names the flow.
    let id = match call.operation().id {
        OperationId::ClassicUpdate => ids.transaction.clone(),
        _ => ids.header.clone(),
    };
    Ids { id: id.unwrap_or_default(), transaction: ids.transaction.clone(), sent }
}

/// Goes on under the first one's ids, so that upstream recognises the repetition.
fn resume(call: &mut Call<Checked>, intent: &mut Intent, sent: SentIds) {
    let ids = &mut call.body.ids;
    if let (Some(first), true) = (&sent.header, intent.operation != OperationId::ClassicUpdate) {
        ids.header_made |= ids.header.as_ref() != Some(first);
        intent.id.clone_from(first);
        ids.header = Some(first.clone());
    }
    if let Some(first) = &sent.transaction {
        ids.transaction = Some(first.clone());
    }
    intent.sent = sent;
}

/// A conflict with our own earlier try says only that it arrived, not how it ended.
fn settle(result: Result<Reply>, doubted: bool) -> Result<Reply> {
    match result {
        Ok(reply) if doubted && reply.status.as_u16() == 409 => Err(Error::OutcomeUnknown),
        other => other,
    }
}

fn keep(reply: &Reply) -> StoredAnswer {
    StoredAnswer {
        status: reply.status,
        headers: reply.headers.clone(),
        body: reply.body.clone(),
        attached: reply.attached.clone(),
    }
}

fn replay(answer: &StoredAnswer) -> Reply {
    Reply {
        status: answer.status,
        headers: answer.headers.clone(),
        body: answer.body.clone(),
        source: Source::Replay,
        reason: None,
        attached: answer.attached.clone(),
        learned: None,
        trace: Trace::default(),
        about: About::default(),
    }
}

type Landing = watch::Receiver<Option<Result<Reply>>>;

async fn landed(mut landing: Landing) -> Result<Reply> {
    let landed = landing.wait_for(Option::is_some).await;
    // A flight that vanished without a word may have been sent.
    landed.ok().and_then(|result| result.clone()).unwrap_or(Err(Error::OutcomeUnknown))
}

/// Creates and updates under way in this process, by every id they are known by.
#[derive(Debug, Default)]
pub struct Flights(Arc<Mutex<HashMap<String, Flight>>>);

#[derive(Clone, Debug)]
struct Flight {
    operation: OperationId,
    meaning: Meaning,
    landing: Landing,
}

enum Boarding {
    /// Nobody is on the way: do the work and land.
    Lead(Seat, Landing),
    /// Wait for whoever is.
    Follow(Landing),
    /// Somebody is on the way with something else.
    Conflict,
}

impl Flights {
    /// How many are under way.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn board(&self, intent: &Intent) -> Boarding {
        let keys = keys(intent);
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = keys.iter().find_map(|key| flights.get(key)) {
            let same = flight.meaning == intent.meaning && flight.operation == intent.operation;
            return if same { Boarding::Follow(flight.landing.clone()) } else { Boarding::Conflict };
        }
        let (landed, landing) = watch::channel(None);
        for key in &keys {
            let flight = Flight { operation: intent.operation, meaning: intent.meaning, landing: landing.clone() };
            if let Entry::Vacant(place) = flights.entry(key.clone()) {
                place.insert(flight);
            }
        }
        Boarding::Lead(Seat { flights: Arc::clone(&self.0), keys, landed }, landing)
    }
}

fn keys(intent: &Intent) -> Vec<String> {
    let space = match intent.operation {
        OperationId::ClassicUpdate => "classic.update",
        other => other.operation().dialect.name(),
    };
    let by_id = format!("{}\n{space}\n{}", intent.merchant, intent.id);
    let by_transaction =
        intent.transaction.as_ref().map(|id| format!("{}\n{space}\ntransaction\n{id}", intent.merchant));
    [Some(by_id), by_transaction].into_iter().flatten().collect()
}

/// The duty to end a flight; ends it when dropped, so that a panic leaves nobody waiting.
#[derive(Debug)]
struct Seat {
    flights: Arc<Mutex<HashMap<String, Flight>>>,
    keys: Vec<String>,
    landed: watch::Sender<Option<Result<Reply>>>,
}

impl Seat {
    fn land(self, result: Result<Reply>) {
        // Before the ids are free again, so that whoever boards next finds the stored end.
        self.landed.send_replace(Some(result));
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        self.keys.iter().for_each(|key| {
            flights.remove(key);
        });
    }
}
