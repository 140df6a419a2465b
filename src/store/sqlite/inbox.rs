//! The inbox over the file: callbacks share the writer's groups with everything else that waits.
//!
//! Promises that a callback is on the disk before it is acknowledged, and that room is left for the
//! ends of what has been sent upstream however many callbacks come in.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use jiff::Timestamp;

use super::events::{self, Told, Work};
use super::job::Job;
use super::trouble::closed;
use super::{SqliteStore, WAITING_MAX, watches};
use crate::dialect::Dialect;
use crate::dialect::amount::Amount;
use crate::store::StoreError;
use crate::store::inbox::{Again, Arrival, Attempt, Backlog, Event, Identity, Inbox, Received, Replayed, State};
use crate::store::watch::{Look, Looked, Watch, Watches};

impl SqliteStore {
    async fn record(&self, work: Work) -> Result<Told, StoreError> {
        let place = self.place().await?;
        self.ask(place, |waiting| Job::Inbox(work, waiting)).await
    }
}

impl Inbox for SqliteStore {
    fn receive(&self, arrival: Arc<Arrival>) -> BoxFuture<'_, Result<Received, StoreError>> {
        async move {
            if self.room.available_permits() <= WAITING_MAX / 4 {
                return Err(StoreError(format!("{WAITING_MAX} records wait for the disk already")));
            }
            match self.record(Work::Receive(arrival)).await? {
                Told::Received(received) => Ok(received),
                _ => Err(closed()),
            }
        }
        .boxed()
    }

    fn due<'a>(
        &'a self,
        merchant: &'a str,
        now: Timestamp,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Event>, StoreError>> {
        let merchant = merchant.to_owned();
        self.reader.ask(move |db| events::due(db, &merchant, now, limit))
    }

    fn attempted(&self, attempt: Attempt) -> BoxFuture<'_, Result<(), StoreError>> {
        async move { self.record(Work::Attempted(attempt)).await.map(|_| ()) }.boxed()
    }

    fn event<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Event>, StoreError>> {
        let id = id.to_owned();
        self.reader.ask(move |db| events::one(db, &id))
    }

    fn events(&self, state: State, limit: usize) -> BoxFuture<'_, Result<Vec<Event>, StoreError>> {
        self.reader.ask(move |db| events::list(db, state, limit))
    }

    fn latest<'a>(
        &'a self,
        merchant: &'a str,
        dialect: Dialect,
        digits: &'a str,
    ) -> BoxFuture<'a, Result<Option<Event>, StoreError>> {
        let (merchant, digits) = (merchant.to_owned(), digits.to_owned());
        self.reader.ask(move |db| events::latest(db, &merchant, dialect, &digits))
    }

    fn told<'a>(&'a self, merchant: &'a str, account_id: &'a str) -> BoxFuture<'a, Result<Amount, StoreError>> {
        let (merchant, account_id) = (merchant.to_owned(), account_id.to_owned());
        self.reader.ask(move |db| events::told(db, &merchant, &account_id))
    }

    fn identify(&self, identity: Identity) -> BoxFuture<'_, Result<bool, StoreError>> {
        async move {
            match self.record(Work::Identify(identity)).await? {
                Told::Identified(known) => Ok(known),
                _ => Err(closed()),
            }
        }
        .boxed()
    }

    fn replay<'a>(&'a self, id: &'a str, again: Again) -> BoxFuture<'a, Result<Replayed, StoreError>> {
        async move {
            match self.record(Work::Replay(id.to_owned(), again)).await? {
                Told::Replayed(replayed) => Ok(replayed),
                _ => Err(closed()),
            }
        }
        .boxed()
    }

    fn replay_since(&self, since: Timestamp, limit: usize, again: Again) -> BoxFuture<'_, Result<usize, StoreError>> {
        async move {
            match self.record(Work::ReplaySince(since, limit, again)).await? {
                Told::Count(count) => Ok(count),
                _ => Err(closed()),
            }
        }
        .boxed()
    }

    fn backlog(&self) -> BoxFuture<'_, Result<Vec<Backlog>, StoreError>> {
        self.reader.ask(events::backlog)
    }
}

impl Watches for SqliteStore {
    fn take_up(&self, now: Timestamp) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            // Set first: what is learnt meanwhile is watched, and taking up passes it over. A store that
            // watches has nothing left to take up, and looking for it is a look at every account.
            if self.watching.swap(true, Ordering::Relaxed) {
                return Ok(());
            }
            let taken_up = self.record(Work::Watch(now)).await.map(|_| ());
            if taken_up.is_err() {
                self.watching.store(false, Ordering::Relaxed);
            }
            taken_up
        }
        .boxed()
    }

    fn due<'a>(
        &'a self,
        merchant: &'a str,
        now: Timestamp,
        soon: Timestamp,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Watch>, StoreError>> {
        let merchant = merchant.to_owned();
        self.reader.ask(move |db| watches::due(db, &merchant, (now, soon), limit))
    }

    fn watch<'a>(
        &'a self,
        merchant: &'a str,
        dialect: Dialect,
        digits: &'a str,
    ) -> BoxFuture<'a, Result<Option<Watch>, StoreError>> {
        let (merchant, digits) = (merchant.to_owned(), digits.to_owned());
        self.reader.ask(move |db| watches::one(db, &merchant, dialect, &digits))
    }

    fn looked(&self, look: Look) -> BoxFuture<'_, Result<Looked, StoreError>> {
        async move {
            match self.record(Work::Looked(Box::new(look))).await? {
                Told::Looked(looked) => Ok(looked),
                _ => Err(closed()),
            }
        }
        .boxed()
    }
}
