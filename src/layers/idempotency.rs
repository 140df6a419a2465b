//! The same request twice is one request.
//!
//! A create or update is recorded before it is passed on and its end before it is answered; who
//! comes with the same id and the same meaning joins it or gets the stored answer, who comes with
//! another meaning is refused. The work goes on in a task of its own if the caller leaves, so that it ends whether or not
//! the caller stays (contract section 5 rule 4). Stands behind `validate`, since the ids come from
//! there, and before everything that changes the body, since meaning is what the caller said. Does
//! not know which store it has.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::TaskTracker;

use crate::call::{About, Call, Checked, Reply, Source};
use crate::clock::SharedClock;
use crate::config::{self, SameTrxId};
use crate::crash::{self, Place};
use crate::dialect::{Dialect, Fault, OperationId, OperationKind};
use crate::document::{Document, Meaning};
use crate::error::{Error, Reason};
use crate::flights::{Boarding, Flights, Landing, Seat, boarded, landed};
use crate::layers::next::Next;
use crate::notes::{Notes, Part};
use crate::outlive::outlive;
use crate::reference::Account;
use crate::store::{Begun, End, Intent, SentIds, Store, StoreError, StoredAnswer};
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
    /// What reads teach.
    pub learning: Learning,
}

/// What reads teach and what waits of it for the store.
#[derive(Debug)]
pub struct Learning {
    room: Arc<Semaphore>,
    /// Said once, until there is room again.
    forgets: AtomicBool,
}

impl Default for Learning {
    fn default() -> Self {
        Self { room: Arc::new(Semaphore::new(LEARNING_MAX)), forgets: AtomicBool::new(false) }
    }
}

/// Accounts that wait for the store at most, and how long the answer that taught one waits with it.
const LEARNING_MAX: usize = 256;
const LEARNING_PATIENCE: Duration = Duration::from_millis(100);

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
    let mut patience = None;
    loop {
        match state.flights.board(&intent) {
            Boarding::Lead(seat) => {
                let leading = Arc::clone(&state);
                let notes = call.admission.notes().clone();
                return outlive(&state.tasks, async move {
                    let work = AssertUnwindSafe(leading.lead(call, intent, next, &seat)).catch_unwind().await;
                    let result = work.unwrap_or_else(|_| crashed(&notes));
                    seat.land(&result);
                    result
                })
                .await;
            }
            Boarding::Follow(landing) => {
                // A follower uses no quota and no slot.
                drop(call);
                return state.follow(operation.id, landing).await;
            }
            // Whatever was found out is in the store when the wait is over.
            Boarding::Wait(other) => {
                let until = *patience.get_or_insert_with(|| Instant::now() + state.settings.wait);
                if timeout_at(until, boarded(other)).await.is_err() {
                    state.metrics.recognised(operation.id, Recognition::InProgress);
                    return Err(Error::IdempotencyInProgress);
                }
            }
            Boarding::Conflict => {
                state.metrics.recognised(operation.id, Recognition::Conflict);
                return Err(Error::IdempotencyConflict);
            }
        }
    }
}

impl Idempotency {
    /// Reads have no ids to recognise; what they teach is kept.
    async fn pass(&self, call: Call<Checked>, next: &Next<Call<Checked>, Result<Reply>>) -> Result<Reply> {
        let mut reply = next.run(call).await?;
        if let Some(account) = reply.learned.take() {
            self.learn(account).await;
        }
        Ok(reply)
    }

    /// Records an account beside the answer that taught it: a store that hangs must not hold up a read.
    async fn learn(&self, account: Arc<Account>) {
        let Ok(place) = Arc::clone(&self.learning.room).try_acquire_owned() else {
            if !self.learning.forgets.swap(true, Ordering::Relaxed) {
                tracing::warn!(waiting = LEARNING_MAX, "what reads teach is not recorded: the store does not keep up");
            }
            return;
        };
        self.learning.forgets.store(false, Ordering::Relaxed);
        let store = Arc::clone(&self.store);
        // Not among the tasks an end waits for: what is handed over is recorded when the store closes, and
        // the rest can be asked for again. A store that fails says so itself.
        let recording = tokio::spawn(async move {
            let _held = place;
            let _ = store.remember(account).await;
        });
        // An update right after the answer finds the reference, unless the store is slow.
        let _ = timeout(LEARNING_PATIENCE, recording).await;
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
                Ok(Reply { source: Source::Replay, ..reply })
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
        &self,
        mut call: Call<Checked>,
        mut intent: Intent,
        next: Next<Call<Checked>, Result<Reply>>,
        seat: &Seat,
    ) -> Result<Reply> {
        let operation = intent.operation;
        // A store that finds out too late whether it could record has recorded at most a doubt.
        let asked = Instant::now();
        let begun = timeout_at(call.deadline, self.store.begin(&intent, self.clock.now())).await;
        call.admission.notes().spent(Part::Store, asked);
        let doubted = match begun.unwrap_or_else(|_| Err(StoreError("the request's time is over".to_owned()))) {
            // The store says once what is wrong with it, and the request's line that this was the reason.
            Err(_) => return Err(Error::StoreUnavailable),
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
                call.body.in_doubt = true;
                true
            }
            Ok(Begun::Fresh) if !call.body.overdue.is_empty() => {
                return self.refuse(&intent, std::mem::take(&mut call.body.overdue)).await;
            }
            Ok(Begun::Fresh) => false,
        };
        seat.fly();
        self.metrics.recognised(operation, Recognition::New);
        crash::pass(Place::Begun);
        let notes = call.admission.notes().clone();
        let result = AssertUnwindSafe(next.run(call)).catch_unwind().await.unwrap_or_else(|_| crashed(&notes));
        crash::pass(Place::Answered);
        let handed_over = Instant::now();
        let finished = self.finish(&intent, result, doubted).await;
        notes.spent(Part::Store, handed_over);
        finished
    }

    /// Turns away what may not be sent as new.
    async fn refuse(&self, intent: &Intent, faults: Vec<Fault>) -> Result<Reply> {
        let released = self.store.finish(intent, End::Released, None, self.clock.now()).await;
        match released {
            Ok(()) => Err(Error::InvalidRequest(faults)),
            Err(_) => Err(Error::StoreUnavailable),
        }
    }

    async fn finish(&self, intent: &Intent, result: Result<Reply>, doubted: bool) -> Result<Reply> {
        let (end, learned) = match &result {
            Ok(reply) if is_definite(reply.status) && !reply.doubt_remains => {
                (End::Answered(Arc::new(StoredAnswer::from(reply))), reply.learned.clone())
            }
            Err(Error::OutcomeUnknown) => (End::InDoubt, None),
            // What was in doubt stays so until an answer says otherwise; a repetition of our own may have
            // been refused for what the try before it did.
            Ok(reply) if doubted || reply.doubt_remains => (End::InDoubt, None),
            Err(_) if doubted => (End::InDoubt, None),
            Ok(_) | Err(_) => (End::Released, None),
        };
        let in_doubt = matches!(end, End::InDoubt);
        if in_doubt != doubted {
            self.metrics.in_doubt(intent.operation, if in_doubt { 1 } else { -1 });
        }
        let stored = self.store.finish(intent, end, learned, self.clock.now()).await;
        crash::pass(Place::Stored);
        match (result, stored) {
            (Ok(reply), Ok(())) => Ok(Reply { learned: None, ..reply }),
            (Ok(reply), Err(_)) => Ok(Reply { learned: None, reason: Some(Reason::NotStored), ..reply }),
            // That this try never left says nothing about the earlier one.
            (Err(_), _) if doubted => Err(Error::OutcomeUnknown),
            (Err(error), _) => Err(error),
        }
    }
}

/// What is said after a panic: only where something may have left is there a doubt.
fn crashed(notes: &Notes) -> Result<Reply> {
    tracing::error!("a create or update ended in a panic");
    Err(if notes.sent() > 0 { Error::OutcomeUnknown } else { Error::Internal })
}

/// A classic create without a correlation id has nothing else to be known by (contract section 9).
fn known_by_transaction_alone(call: &Call<Checked>) -> bool {
    call.operation().dialect == Dialect::Classic && call.body.ids.header_made
}

/// The ids by which a request is known and sent.
struct Ids {
    id: Arc<str>,
    transaction: Option<Arc<str>>,
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

fn replay(answer: &StoredAnswer) -> Reply {
    Reply {
        status: answer.status,
        headers: answer.headers.clone(),
        body: answer.body.clone(),
        source: Source::Replay,
        reason: answer.reason(),
        attached: answer.attached.clone(),
        learned: None,
        doubt_remains: false,
        about: About::default(),
    }
}
