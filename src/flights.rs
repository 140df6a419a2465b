//! Creates and updates under way in this process: whoever comes second joins the first.
//!
//! Promises that at most one flight is under way for an id or transaction, and that nobody waits for
//! ever: a flight that vanishes ends as "nobody knows". A question about an outcome in doubt is a
//! flight too, which nobody joins: whoever comes meanwhile waits and then boards, since the question
//! is not his request. What is done on a flight, and what was known before this process, are others'
//! affairs.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::call::Reply;
use crate::dialect::OperationId;
use crate::document::Meaning;
use crate::error::Error;
use crate::store::Intent;

/// Where the progress of a flight is seen.
pub type Landing = watch::Receiver<Progress>;

/// How far a flight has come.
#[derive(Clone, Debug)]
pub enum Progress {
    /// It has its ids here, and does not know yet whether they are another request's.
    Boarding,
    /// They are its own: it is recorded.
    Flying,
    /// It is over.
    Landed(Result<Reply, Error>),
}

/// Waits for the end of a flight.
///
/// # Errors
/// The flight's own, or that nobody knows where it vanished without a word.
pub async fn landed(mut landing: Landing) -> Result<Reply, Error> {
    let landed = landing.wait_for(|progress| matches!(progress, Progress::Landed(_))).await;
    match landed.as_deref() {
        Ok(Progress::Landed(result)) => result.clone(),
        // A flight that vanished without a word may have been sent.
        Ok(Progress::Boarding | Progress::Flying) | Err(_) => Err(Error::OutcomeUnknown),
    }
}

/// Waits until a flight has its ids for its own, or for its end.
pub async fn boarded(mut landing: Landing) {
    let _ = landing.wait_for(|progress| !matches!(progress, Progress::Boarding)).await;
}

/// Creates and updates under way in this process, by every id they are known by.
#[derive(Clone, Debug, Default)]
pub struct Flights(Arc<Mutex<HashMap<String, Flight>>>);

#[derive(Clone, Debug)]
struct Flight {
    operation: OperationId,
    meaning: Meaning,
    purpose: Purpose,
    progress: Arc<watch::Sender<Progress>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// The request itself is sent.
    Request,
    /// Upstream is asked, or an operator says, what became of it.
    Question,
}

/// What boarding has come to.
#[derive(Debug)]
pub enum Boarding {
    /// Nobody is on the way: do the work and land.
    Lead(Seat),
    /// Wait for whoever is.
    Follow(Landing),
    /// Board again once that one has boarded: it is being found out what became of an earlier try, or
    /// somebody with something else has yet to learn whether the ids are his.
    Wait(Landing),
    /// Somebody is on the way with something else.
    Conflict,
}

impl Flights {
    /// How many are under way.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Boards the flight of an intent: the one under way, or a new one.
    #[must_use]
    pub fn board(&self, intent: &Intent) -> Boarding {
        self.enter(intent, Purpose::Request)
    }

    /// Reserves an intent while it is found out what became of it; nothing where somebody is on the
    /// way. Ends when the seat is dropped.
    #[must_use]
    pub fn question(&self, intent: &Intent) -> Option<Seat> {
        match self.enter(intent, Purpose::Question) {
            Boarding::Lead(seat) => Some(seat),
            Boarding::Follow(_) | Boarding::Wait(_) | Boarding::Conflict => None,
        }
    }

    fn enter(&self, intent: &Intent, purpose: Purpose) -> Boarding {
        let keys = keys(intent);
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = keys.iter().find_map(|key| flights.get(key)) {
            let same = flight.meaning == intent.meaning && flight.operation == intent.operation;
            let flying = matches!(*flight.progress.borrow(), Progress::Flying);
            return match (flight.purpose, same) {
                (Purpose::Request, true) => Boarding::Follow(flight.progress.subscribe()),
                (Purpose::Request, false) if flying => Boarding::Conflict,
                (Purpose::Request | Purpose::Question, _) => Boarding::Wait(flight.progress.subscribe()),
            };
        }
        let progress = Arc::new(watch::Sender::new(Progress::Boarding));
        for key in &keys {
            let (operation, meaning) = (intent.operation, intent.meaning);
            let flight = Flight { operation, meaning, purpose, progress: Arc::clone(&progress) };
            if let Entry::Vacant(place) = flights.entry(key.clone()) {
                place.insert(flight);
            }
        }
        Boarding::Lead(Seat { flights: Arc::clone(&self.0), keys, progress })
    }
}

fn keys(intent: &Intent) -> Vec<String> {
    let space = match intent.operation {
        OperationId::ClassicUpdate => "classic.update",
        other => other.operation().dialect.name(),
    };
    let by_id = [&*intent.merchant, space, &intent.id].join("\n");
    let by_transaction = intent.transaction.as_ref().map(|id| [&*intent.merchant, space, "transaction", id].join("\n"));
    [Some(by_id), by_transaction].into_iter().flatten().collect()
}

/// The duty to end a flight; ends it when dropped, so that a panic leaves nobody waiting.
#[derive(Debug)]
pub struct Seat {
    flights: Arc<Mutex<HashMap<String, Flight>>>,
    keys: Vec<String>,
    progress: Arc<watch::Sender<Progress>>,
}

impl Seat {
    /// Says that the ids are the flight's own.
    pub fn fly(&self) {
        self.progress.send_replace(Progress::Flying);
    }

    /// Ends the flight, whose end is stored: whoever boards from now on finds that.
    pub fn land(mut self, result: &Result<Reply, Error>) {
        self.leave();
        // Nobody can have come since.
        if self.progress.receiver_count() > 0 {
            self.progress.send_replace(Progress::Landed(result.clone()));
        }
    }

    fn leave(&mut self) {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        for key in self.keys.drain(..) {
            flights.remove(&key);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.leave();
    }
}
