//! What is asked of a store about accounts whose payment may be missed.
//!
//! A store that watches keeps, beside every account, when it is to be looked at next and what of its
//! money has been told to the app, so that a question to upstream shows what has not. It decides
//! neither when to look nor what an answer means.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use jiff::Timestamp;

use super::StoreError;
use super::inbox::Arrival;
use crate::dialect::Dialect;
use crate::dialect::amount::Amount;
use crate::reference::Account;

/// An account that is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// The account.
    pub account: Arc<Account>,
    /// When it can no longer be paid, as far as is known.
    pub expires: Option<Timestamp>,
    /// When it was last looked at.
    pub looked: Option<Timestamp>,
    /// What of its money is known.
    pub counted: Counted,
    /// Looks in a row that showed nothing of it.
    pub misses: Misses,
}

/// Looks at an account that showed nothing of it, one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Misses {
    /// When the first of them was.
    pub since: Option<Timestamp>,
    /// How many.
    pub looks: u32,
    /// How many of them because upstream did not know the account.
    pub refused: u32,
}

/// What of an account's money the app has been told, or is about to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Whether this is all there was: an account that was made elsewhere, or before it was watched, may
    /// have been paid before.
    pub whole: bool,
    /// SNAP: the time of the newest payment that had its end.
    pub latest: Option<Timestamp>,
    /// Classic: the sum of payments that had their end.
    pub total: Amount,
    /// Classic: the sum of payments that are still in line.
    pub pending: Amount,
}

impl Counted {
    /// Of an account that has just been made.
    pub const NOTHING: Self = Self { whole: true, latest: None, total: Amount::ZERO, pending: Amount::ZERO };
}

/// Whether a payment, by its key, is of this life of its number; one that does not say whose it is, or of
/// a SNAP account, which has no id, is of the present one.
pub(super) fn is_of(account_id: Option<&str>, payment: Option<&str>) -> bool {
    match (account_id, payment.and_then(|payment| payment.split_once('/'))) {
        (Some(account_id), Some((paid, _))) => paid == account_id || paid == "meaning",
        _ => true,
    }
}

/// What a look came to.
#[derive(Clone, Debug)]
pub struct Look {
    /// The account as it was listed.
    pub watch: Watch,
    /// When it was looked at; absent where its time has only been set.
    pub at: Option<Timestamp>,
    /// When it can no longer be paid, by now.
    pub expires: Option<Timestamp>,
    /// When it is looked at next; absent: no more, unless it is created or updated again.
    pub next: Option<Timestamp>,
    /// What was paid before anybody counted; absent where that is known.
    pub before: Option<Counted>,
    /// Looks in a row, this one included, that showed nothing.
    pub misses: Misses,
    /// What it brought to light.
    pub found: Vec<Arc<Arrival>>,
}

/// What became of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looked {
    /// It is recorded; so many of its findings were new.
    Recorded(usize),
    /// The account has changed since it was listed; it is due again.
    Stale,
}

/// Keeps what is watched.
pub trait Watches: Send + Sync {
    /// From now on accounts are watched, those that are there already as well.
    fn take_up(&self, now: Timestamp) -> BoxFuture<'_, Result<(), StoreError>>;

    /// A merchant's accounts that are due, at most `limit`; those that end before `soon` come first
    /// and have half of it at most where others are due as well.
    fn due<'a>(
        &'a self,
        merchant: &'a str,
        now: Timestamp,
        soon: Timestamp,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Watch>, StoreError>>;

    /// One account, whether due or not.
    fn watch<'a>(
        &'a self,
        merchant: &'a str,
        dialect: Dialect,
        digits: &'a str,
    ) -> BoxFuture<'a, Result<Option<Watch>, StoreError>>;

    /// Records a look and what it found, in one step.
    fn looked(&self, look: Look) -> BoxFuture<'_, Result<Looked, StoreError>>;
}
