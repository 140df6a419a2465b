//! What is asked of a store about payment callbacks, in the words of the job.
//!
//! The inbox keeps every callback before it is acknowledged and gives it up again only when the app has
//! it or its time is over. A payment is kept once however often it is announced. Events of one account
//! stand in line: only the first of a line is ever due. What an attempt means, when the next one comes
//! and when it is the last are the caller's to say.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use jiff::Timestamp;

use super::StoreError;
use crate::callback::notice::Notice;
use crate::dialect::Dialect;
use crate::dialect::amount::Amount;

/// How long an event is kept after its end: as long as a late copy of its callback may come, and as
/// long as an operator may want to send it again.
pub const RETENTION: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// What one merchant's quarantine holds at most; beyond that its oldest events are forgotten. Whoever can
/// fill it knows the callbacks' address, and must not be able to fill the disk.
pub(in crate::store) const ASIDE_MAX: Aside = Aside { rows: 100_000, bytes: 256 << 20 };

/// A bound of a quarantine.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Aside {
    pub(in crate::store) rows: usize,
    /// Of bodies.
    pub(in crate::store) bytes: usize,
}

/// What an event tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// An account was paid.
    Paid,
    /// An account's time is over.
    Expired,
}

impl EventKind {
    /// Its name, outside as well as in files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Paid => "va.paid",
            Self::Expired => "va.expired",
        }
    }

    /// The kind with that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Paid, Self::Expired].into_iter().find(|kind| kind.name() == name)
    }
}

/// How the gateway came to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Upstream announced it.
    Callback,
    /// The gateway asked.
    Sweep,
}

impl Origin {
    /// Its name, outside as well as in files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Callback => "callback",
            Self::Sweep => "sweep",
        }
    }

    /// The origin with that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Callback, Self::Sweep].into_iter().find(|origin| origin.name() == name)
    }
}

/// A callback that came in, or what a question to upstream brought to light.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The id its event will go by.
    pub id: String,
    /// Whose.
    pub merchant: Arc<str>,
    /// Which generation.
    pub dialect: Dialect,
    /// What its event tells.
    pub kind: EventKind,
    /// How it came to be known.
    pub origin: Origin,
    /// When it came in.
    pub received: Timestamp,
    /// When the last attempt to deliver it may begin.
    pub until: Timestamp,
    /// As it came in.
    pub body: Bytes,
    /// What it says, or why it cannot be understood.
    pub notice: Result<Notice, &'static str>,
    /// Why it is not to be believed whatever it says; it then goes into quarantine.
    pub doubt: Option<&'static str>,
    /// Whether it needs no confirmation any more: its own signature proves where it comes from.
    pub confirmed: bool,
}

impl Arrival {
    /// What it says, unless it is for quarantine; then why.
    ///
    /// # Errors
    /// The reason, in a few words.
    pub fn believed(&self) -> Result<&Notice, &'static str> {
        match (self.doubt, &self.notice) {
            (Some(why), _) => Err(why),
            (None, notice) => notice.as_ref().map_err(|why| *why),
        }
    }
}

/// What became of a callback. In every case it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// Its event is in line.
    Queued,
    /// It has been before.
    Duplicate,
    /// It is kept for a person to look at: it cannot be understood or believed, or it contradicts an earlier
    /// one.
    Quarantined,
}

/// Where an event stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The app is yet to get it.
    Pending,
    /// The app has it.
    Delivered,
    /// The app did not take it in time, or will not.
    Dead,
    /// Never to be delivered as it is.
    Quarantined,
}

impl State {
    /// All.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Delivered, Self::Dead, Self::Quarantined];

    /// Its name, outside as well as in files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
            Self::Quarantined => "quarantined",
        }
    }

    /// The state with that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// Upstream's denials of an event so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// When it denied it first.
    pub since: Timestamp,
    /// How often it has.
    pub denials: u32,
}

/// An event as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its id, the same at every attempt.
    pub id: String,
    /// Whose.
    pub merchant: Arc<str>,
    /// Which generation.
    pub dialect: Dialect,
    /// What it tells.
    pub kind: EventKind,
    /// How it came to be known.
    pub origin: Origin,
    /// The account's number without blanks; empty where the callback could not be understood.
    pub digits: String,
    /// Where it stands.
    pub state: State,
    /// When its callback came in.
    pub received: Timestamp,
    /// When the next attempt begins; absent for what has ended and for what is not the first in line.
    pub due: Option<Timestamp>,
    /// When the last attempt may begin.
    pub until: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// Attempts so far.
    pub attempts: u32,
    /// Whether upstream said so too, or has signed it.
    pub confirmed: bool,
    /// Whether it was told or given up before, and was found true or possible then.
    pub counted: bool,
    /// What upstream has said against it, where it has.
    pub doubt: Option<Doubt>,
    /// The money of this payment.
    pub amount: Option<Amount>,
    /// When it was paid, as written.
    pub paid_at: Option<String>,
    /// The account's status after it.
    pub status: Option<String>,
    /// How the last attempt ended, or why it is in quarantine.
    pub said: Option<String>,
    /// The callback's body.
    pub body: Bytes,
}

/// What follows an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The app has it.
    Delivered,
    /// Another attempt then.
    Postponed(Timestamp),
    /// No more attempts.
    Dead,
    /// It is not true.
    Quarantined,
}

/// What an event that ends so adds to what is known of its account's money.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counts {
    /// Nothing: it was not found true.
    Nothing,
    /// That it was told. Nobody could say that it is true, so it is not among what is
    /// [counted](super::watch::Counted).
    AsTold,
    /// Its money.
    InFull,
}

/// An attempt that ended.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The event's.
    pub id: String,
    /// When it ended.
    pub at: Timestamp,
    /// Attempts so far, this one included where the app was called.
    pub attempts: u32,
    /// What follows.
    pub fate: Fate,
    /// How it ended, in a few words.
    pub said: String,
    /// Whether upstream has confirmed the payment by now.
    pub confirmed: bool,
    /// What it adds, should it end so.
    pub counts: Counts,
    /// What upstream has said against it by now; absent where it does not any more.
    pub doubt: Option<Doubt>,
}

/// Which payment an event turned out to be.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The event's.
    pub id: String,
    /// What all callbacks of that payment have in common.
    pub payment: String,
    /// When it was paid, as upstream writes it.
    pub paid_at: String,
}

/// What became of an operator's wish to send an event again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replayed {
    /// It is in line again.
    Queued,
    /// It is still in line.
    Pending,
    /// There is no such event.
    Unknown,
    /// It could not be understood or believed, so there is nothing to send.
    Unreadable,
}

/// When an event that is sent again is due, and until when.
#[derive(Clone, Copy, Debug)]
pub struct Again {
    /// The present moment.
    pub now: Timestamp,
    /// When the last attempt may begin.
    pub until: Timestamp,
}

/// What waits for one merchant's app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// Whose.
    pub merchant: Arc<str>,
    /// How many.
    pub pending: i64,
    /// When the oldest came in.
    pub oldest: Timestamp,
}

/// Keeps callbacks until the app has them.
pub trait Inbox: Send + Sync {
    /// Keeps a callback. Once this has answered, it is not lost. One in quarantine that is announced again
    /// goes to the end of its line.
    fn receive(&self, arrival: Arc<Arrival>) -> BoxFuture<'_, Result<Received, StoreError>>;

    /// A merchant's events that are due, at most `limit`; of each account only the first in line.
    fn due<'a>(
        &'a self,
        merchant: &'a str,
        now: Timestamp,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Event>, StoreError>>;

    /// Records how an attempt ended; an end lets the next in line come up. An event that is no longer
    /// pending stays as it is.
    fn attempted(&self, attempt: Attempt) -> BoxFuture<'_, Result<(), StoreError>>;

    /// One event.
    fn event<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Event>, StoreError>>;

    /// Events in a state, the newest first, at most `limit`.
    fn events(&self, state: State, limit: usize) -> BoxFuture<'_, Result<Vec<Event>, StoreError>>;

    /// The newest payment of an account that is not in quarantine; what else there is to tell of it is
    /// passed over.
    fn latest<'a>(
        &'a self,
        merchant: &'a str,
        dialect: Dialect,
        digits: &'a str,
    ) -> BoxFuture<'a, Result<Option<Event>, StoreError>>;

    /// What was told of a classic account's payments, as the events say that are still kept.
    fn told<'a>(&'a self, merchant: &'a str, account_id: &'a str) -> BoxFuture<'a, Result<Amount, StoreError>>;

    /// Records which payment an event is that did not say; whether it can be: no other event that stands in
    /// line or was told may be the same.
    fn identify(&self, identity: Identity) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// Puts an event in line again, at the place it had.
    fn replay<'a>(&'a self, id: &'a str, again: Again) -> BoxFuture<'a, Result<Replayed, StoreError>>;

    /// Does so with everything that came in since then and has been delivered or is dead, at most
    /// `limit`, the oldest first; how many there were.
    fn replay_since(&self, since: Timestamp, limit: usize, again: Again) -> BoxFuture<'_, Result<usize, StoreError>>;

    /// What waits, by merchant.
    fn backlog(&self) -> BoxFuture<'_, Result<Vec<Backlog>, StoreError>>;
}
