//! Creates and updates under way in this process: whoever comes second joins the first.
//!
//! Promises that at most one flight is under way for an id or transaction, and that nobody waits for
//! ever: a flight that vanishes ends as "nobody knows". What is done on a flight, and what was known
//! before this process, are others' affairs.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::call::Reply;
use crate::dialect::OperationId;
use crate::document::Meaning;
use crate::error::Error;
use crate::store::Intent;

/// Where the end of a flight will be seen.
pub type Landing = watch::Receiver<Option<Result<Reply, Error>>>;

/// Waits for the end of a flight.
///
/// # Errors
/// The flight's own, or that nobody knows where it vanished without a word.
pub async fn landed(mut landing: Landing) -> Result<Reply, Error> {
    let landed = landing.wait_for(Option::is_some).await;
    // A flight that vanished without a word may have been sent.
    landed.ok().and_then(|result| result.clone()).unwrap_or(Err(Error::OutcomeUnknown))
}

/// Creates and updates under way in this process, by every id they are known by.
#[derive(Clone, Debug, Default)]
pub struct Flights(Arc<Mutex<HashMap<String, Flight>>>);

#[derive(Clone, Debug)]
struct Flight {
    operation: OperationId,
    meaning: Meaning,
    landing: Landing,
}

/// What boarding has come to.
#[derive(Debug)]
pub enum Boarding {
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

    /// Boards the flight of an intent: the one under way, or a new one.
    #[must_use]
    pub fn board(&self, intent: &Intent) -> Boarding {
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
pub struct Seat {
    flights: Arc<Mutex<HashMap<String, Flight>>>,
    keys: Vec<String>,
    landed: watch::Sender<Option<Result<Reply, Error>>>,
}

impl Seat {
    /// Ends the flight.
    pub fn land(self, result: Result<Reply, Error>) {
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
