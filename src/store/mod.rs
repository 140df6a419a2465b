//! What is asked of a store, in the words of the job.
//!
//! A store remembers intents (a create or update that was begun), their ends, accounts, and payment
//! callbacks ([`inbox`]). It
//! decides nothing: how long things live and what an answer means come from the caller. Every
//! backend passes the same suite. Joining a request in flight is not a store's affair, since
//! flights end with the process.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use jiff::Timestamp;

use crate::call::Reply;
use crate::dialect::{Dialect, OperationId};
use crate::document::Meaning;
use crate::error::Reason;
use crate::reference::{Account, AccountQuery};
use inbox::Inbox;
use watch::Watches;

mod directory;
pub mod inbox;
#[cfg(test)]
mod inbox_suite;
pub mod memory;
mod memory_inbox;
mod memory_watch;
mod shelf;
pub mod sqlite;
#[cfg(test)]
mod suite;
pub mod watch;
#[cfg(test)]
mod watch_suite;

/// A create or update about to be sent.
#[derive(Clone, Debug)]
pub struct Intent {
    /// Whose: ids of two merchants never meet.
    pub merchant: Arc<str>,
    /// Which operation.
    pub operation: OperationId,
    /// What identifies it.
    pub id: Arc<str>,
    /// Of a create: the transaction it is also known by.
    pub transaction: Option<Arc<str>>,
    /// What it says.
    pub meaning: Meaning,
    /// The body as the caller sent it: what a doubt is settled by.
    pub request: Bytes,
    /// The ids that are sent, kept so that a repetition sends the same.
    pub sent: SentIds,
    /// How long its end is kept by id.
    pub retention: Duration,
    /// How long it is known by its transaction.
    pub transaction_retention: Duration,
}

/// The ids a request is sent under.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SentIds {
    /// `X-EXTERNAL-ID` or `A-Correlation-ID`.
    pub header: Option<Arc<str>>,
    /// `trxId` or `transactionId`.
    pub transaction: Option<Arc<str>>,
}

/// What a store knows of an intent.
#[derive(Clone, Debug)]
pub enum Begun {
    /// Nothing: it is recorded now and may be sent.
    Fresh,
    /// It has its answer.
    Answered(Arc<StoredAnswer>),
    /// It was sent and nobody knows what became of it; it may be sent again under these ids.
    InDoubt(SentIds),
    /// The id or transaction belongs to a request that says something else.
    Conflict,
}

/// An answer as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredAnswer {
    /// Upstream's.
    pub status: StatusCode,
    /// Upstream's, without those of one connection.
    pub headers: HeaderMap,
    /// Upstream's, byte for byte; shares no memory but with the headers' values.
    pub body: Bytes,
    /// Members and headers that were attached or replaced.
    pub attached: Vec<&'static str>,
}

/// Marks, among its headers, an answer that was put together and not upstream's own.
const SETTLED: HeaderName = HeaderName::from_static("ayova-reason");

impl StoredAnswer {
    /// Why the gateway answers with it, where it was put together from what an inquiry found.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        self.headers.contains_key(SETTLED).then_some(Reason::SettledByInquiry)
    }
}

impl From<&Reply> for StoredAnswer {
    /// A copy in a piece of memory of its own: what was read from a connection is a slice of a buffer of
    /// many KiB, which would live as long as the answer is kept.
    fn from(reply: &Reply) -> Self {
        // Upstream's word on this does not count.
        let kept = || reply.headers.iter().filter(|(name, _)| **name != SETTLED);
        let length = reply.body.len() + kept().map(|(_, value)| value.len()).sum::<usize>();
        let mut text = BytesMut::with_capacity(length);
        text.extend_from_slice(&reply.body);
        kept().for_each(|(_, value)| text.extend_from_slice(value.as_bytes()));
        let mut text = text.freeze();
        let body = text.split_to(reply.body.len());
        let mut headers = HeaderMap::with_capacity(kept().count() + 1);
        for (name, value) in kept() {
            let piece = text.split_to(value.len());
            // It was a header's value before.
            headers.append(name.clone(), HeaderValue::from_maybe_shared(piece).unwrap_or_else(|_| value.clone()));
        }
        if reply.reason == Some(Reason::SettledByInquiry) {
            headers.insert(SETTLED, HeaderValue::from_static(Reason::SettledByInquiry.code()));
        }
        Self { status: reply.status, headers, body, attached: reply.attached.clone() }
    }
}

/// How an intent ended.
#[derive(Clone, Debug)]
pub enum End {
    /// With an answer that stands.
    Answered(Arc<StoredAnswer>),
    /// Nobody knows.
    InDoubt,
    /// It never left, or was refused in a way that may change: as if it had not been.
    Released,
}

/// A create or update nobody knows the outcome of.
#[derive(Clone, Debug)]
pub struct Doubt {
    /// The whole intent, as it was begun.
    pub intent: Intent,
    /// Since when it has been in doubt.
    pub since: Timestamp,
}

/// A store cannot do its work.
#[derive(Clone, Debug)]
pub struct StoreError(pub String);

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StoreError {}

/// An id as an operator asks for it.
#[derive(Clone, Debug)]
pub struct Known {
    /// Whose.
    pub merchant: Arc<str>,
    /// Which operation.
    pub operation: OperationId,
    /// `answered` or `in_doubt`.
    pub state: &'static str,
    /// The answer's status.
    pub status: Option<u16>,
    /// When it is forgotten.
    pub expires: Timestamp,
}

/// What was written so far: one commit is one wait for the disk, whatever it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Transactions that reached the disk.
    pub commits: u64,
    /// Records in them.
    pub records: u64,
}

/// Remembers intents and accounts.
pub trait Store: Send + Sync + fmt::Debug {
    /// Records the intent, or says what is known of it. What is under way or in doubt is known
    /// whatever its retention: forgetting it is how a second create would come about.
    fn begin<'a>(&'a self, intent: &'a Intent, now: Timestamp) -> BoxFuture<'a, Result<Begun, StoreError>>;

    /// Records an end and, in the same step, what the answer taught. An answer that stands is not
    /// unsaid by a later doubt or release.
    fn finish<'a>(
        &'a self,
        intent: &'a Intent,
        end: End,
        learned: Option<Arc<Account>>,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Records an account; an older create never replaces a newer one, and what was read
    /// ([`Account::READ`]) never a create's.
    fn remember(&self, account: Arc<Account>) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Says that the account still lives, so that its record is kept on; changes nothing else of it. A
    /// store that forgets no account by its age has nothing to do.
    fn touch(&self, account: Arc<Account>) -> BoxFuture<'_, Result<(), StoreError>> {
        let _ = account;
        ready(Ok(())).boxed()
    }

    /// The account a request is about; nothing where it is unknown or several fit. Digits that are one
    /// account's whole number and another's own fit both, unless they are said to be whole.
    fn account<'a>(
        &'a self,
        merchant: &'a str,
        dialect: Dialect,
        query: &'a AccountQuery,
    ) -> BoxFuture<'a, Result<Option<Arc<Account>>, StoreError>>;

    /// The padded prefix of a merchant's SNAP numbers at a bank, learnt from any earlier account.
    fn prefix<'a>(&'a self, merchant: &'a str, bank: &'a str) -> BoxFuture<'a, Result<Option<String>, StoreError>>;

    /// Every account with that number (any form) of any merchant, for operators.
    fn accounts<'a>(&'a self, number: &'a str) -> BoxFuture<'a, Result<Vec<Arc<Account>>, StoreError>>;

    /// What is known under an id or transaction of any merchant, for operators.
    fn known<'a>(&'a self, id: &'a str, now: Timestamp) -> BoxFuture<'a, Result<Vec<Known>, StoreError>>;

    /// Says that a new gateway takes the store over and nothing begun before is under way any more:
    /// what never ended is in doubt from now on. Called before the first request. A store that does
    /// so when it is opened has nothing to do.
    fn take_over(&self, now: Timestamp) -> BoxFuture<'_, Result<(), StoreError>> {
        let _ = now;
        Box::pin(std::future::ready(Ok(())))
    }

    /// Creates and updates in doubt, the oldest first, at most `limit`; those that were under way when
    /// the store was [taken over](Self::take_over) are among them, those under way now are not.
    fn doubts(&self, limit: usize) -> BoxFuture<'_, Result<Vec<Doubt>, StoreError>>;

    /// Where payment callbacks are kept.
    fn inbox(&self) -> &dyn Inbox;

    /// Where it is kept which accounts are to be looked at.
    fn watches(&self) -> &dyn Watches;

    /// Why it cannot work, if it cannot.
    fn problem(&self) -> Option<String>;

    /// What was written since it was opened; nothing where nothing is written.
    fn counters(&self) -> Counters {
        Counters::default()
    }

    /// Writes what is waiting and lets go; whoever asks afterwards is refused.
    fn close(&self) -> BoxFuture<'_, ()> {
        ready(()).boxed()
    }
}
