//! The store that ends with the process: moka caches, bounded in bytes, beside what has not ended.
//!
//! Promises that memory stays within the two configured bounds. Of answers and accounts what does not
//! fit is forgotten, the longest unused first. What is begun or in doubt is never forgotten, since that
//! is how a second create would come about: it has a quarter of the bytes for answers to itself, and
//! nothing new is begun while that is full. Time of day decides what has expired, moka's own clock
//! only when memory is given back.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};
use jiff::{SignedDuration, Timestamp};
use moka::Expiry;
use moka::ops::compute::Op;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::inbox::Inbox;
use super::memory_inbox::MemoryInbox;
use super::watch::Watches;
use super::{Begun, Doubt, End, Intent, Known, Store, StoreError, StoredAnswer};
use crate::dialect::{Dialect, OperationId};
use crate::reference::{Account, AccountQuery, Handle};

/// Bytes an entry costs besides its texts: keys, counters and moka's own nodes.
const ENTRY_OVERHEAD: usize = 512;

/// Accounts that may share own digits before looking them up by these is given up.
const NAMESAKES_MAX: usize = 8;

/// Prefixes that are kept at most.
const PREFIXES_MAX: u64 = 4_096;

/// Memory for intents and accounts.
pub struct MemoryStore {
    /// What was answered, by id.
    by_id: Cache<String, Arc<Entry>>,
    /// Answered creates, by their transaction.
    by_transaction: Cache<String, Arc<Entry>>,
    /// What has not ended. An id or transaction that is here and in a cache too was answered earlier,
    /// and that answer's time is over.
    open: Mutex<Open>,
    /// Bytes of what has not ended beyond which nothing new is begun.
    open_max: usize,
    accounts: Cache<String, Arc<Account>>,
    /// Whole numbers by own digits.
    by_own_digits: Cache<String, Arc<[String]>>,
    /// Whole numbers by `virtualAccountId`.
    by_account_id: Cache<String, Arc<str>>,
    /// Padded prefixes by merchant and bank; as many as there are merchants and banks.
    prefixes: Cache<String, Arc<str>>,
    inbox: MemoryInbox,
}

/// What is begun or in doubt.
#[derive(Debug, Default)]
struct Open {
    by_id: HashMap<String, Arc<Entry>>,
    /// Creates only.
    by_transaction: HashMap<String, Arc<Entry>>,
    bytes: usize,
}

impl Open {
    fn insert(&mut self, entry: &Arc<Entry>) {
        self.remove(&entry.intent);
        self.bytes += entry.bytes();
        self.by_id.insert(id_key(&entry.intent), Arc::clone(entry));
        if let Some(key) = transaction_key(&entry.intent) {
            self.by_transaction.insert(key, Arc::clone(entry));
        }
    }

    fn remove(&mut self, intent: &Intent) {
        if let Some(entry) = self.by_id.remove(&id_key(intent)) {
            self.bytes = self.bytes.saturating_sub(entry.bytes());
        }
        if let Some(key) = transaction_key(intent) {
            self.by_transaction.remove(&key);
        }
    }
}

#[derive(Debug)]
struct Entry {
    /// Without its request once it is answered.
    intent: Intent,
    state: State,
    expires: Timestamp,
    transaction_expires: Timestamp,
}

#[derive(Clone, Debug)]
enum State {
    /// Under way. Should its gateway lose it, it is in doubt.
    Begun,
    /// Nobody knows, since then.
    InDoubt(Timestamp),
    Answered(Arc<StoredAnswer>),
}

impl Entry {
    /// Bytes it costs while it has no answer.
    fn bytes(&self) -> usize {
        self.intent.id.len() * 2 + self.intent.request.len() + ENTRY_OVERHEAD
    }

    fn answer(&self) -> Option<&Arc<StoredAnswer>> {
        match &self.state {
            State::Answered(answer) => Some(answer),
            State::Begun | State::InDoubt(_) => None,
        }
    }

    /// Known by its id. What has no answer never expires.
    fn is_known(&self, now: Timestamp) -> bool {
        now < self.expires || self.answer().is_none()
    }

    /// Known by its transaction.
    fn is_known_by_transaction(&self, now: Timestamp) -> bool {
        now < self.transaction_expires || self.answer().is_none()
    }
}

/// Keeps an entry for the retention its intent names, from its answer on; without one, for ever.
struct AnsweredFor(fn(&Intent) -> Duration);

impl AnsweredFor {
    fn left(&self, entry: &Entry) -> Option<Duration> {
        entry.answer().map(|_| (self.0)(&entry.intent))
    }
}

impl Expiry<String, Arc<Entry>> for AnsweredFor {
    fn expire_after_create(&self, _: &String, entry: &Arc<Entry>, _: std::time::Instant) -> Option<Duration> {
        self.left(entry)
    }

    fn expire_after_update(
        &self,
        _: &String,
        entry: &Arc<Entry>,
        _: std::time::Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.left(entry)
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("answers", &self.by_id.entry_count())
            .field("accounts", &self.accounts.entry_count())
            .finish_non_exhaustive()
    }
}

impl MemoryStore {
    /// An empty store; `answers_bytes` and `accounts_bytes` bound what it keeps.
    #[must_use]
    pub fn new(answers_bytes: u64, accounts_bytes: u64) -> Self {
        // The default policy refuses what is new once a cache is full.
        let lru = EvictionPolicy::lru;
        let open = answers_bytes / 4;
        let answers =
            || Cache::builder().eviction_policy(lru()).max_capacity((answers_bytes - open) / 2).weigher(weigh_entry);
        let index = accounts_bytes / 4;
        Self {
            by_id: answers().expire_after(AnsweredFor(|intent| intent.retention)).build(),
            by_transaction: answers().expire_after(AnsweredFor(|intent| intent.transaction_retention)).build(),
            open: Mutex::default(),
            open_max: usize::try_from(open).unwrap_or(usize::MAX),
            accounts: Cache::builder()
                .eviction_policy(lru())
                .max_capacity(accounts_bytes / 2)
                .weigher(weigh_account)
                .build(),
            by_own_digits: Cache::builder()
                .eviction_policy(lru())
                .max_capacity(index)
                .weigher(|key: &String, numbers: &Arc<[String]>| weight(key.len() + numbers.len() * 48))
                .build(),
            by_account_id: Cache::builder()
                .eviction_policy(lru())
                .max_capacity(index)
                .weigher(|key: &String, number: &Arc<str>| weight(key.len() + number.len()))
                .build(),
            prefixes: Cache::builder().eviction_policy(lru()).max_capacity(PREFIXES_MAX).build(),
            inbox: MemoryInbox::default(),
        }
    }

    /// Lets moka finish what it does in the background; for tests, which measure.
    #[cfg(test)]
    fn settle(&self) {
        self.by_id.run_pending_tasks();
        self.by_transaction.run_pending_tasks();
        self.accounts.run_pending_tasks();
        self.by_own_digits.run_pending_tasks();
        self.by_account_id.run_pending_tasks();
    }

    /// Bytes that count against the bounds.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let open = u64::try_from(self.lock_open().bytes).unwrap_or(u64::MAX);
        open + self.by_id.weighted_size()
            + self.by_transaction.weighted_size()
            + self.accounts.weighted_size()
            + self.by_own_digits.weighted_size()
            + self.by_account_id.weighted_size()
    }

    fn look_up(&self, intent: &Intent, now: Timestamp) -> Begun {
        let transaction = transaction_key(intent);
        let by_id = {
            let key = id_key(intent);
            let open = self.lock_open().by_id.get(&key).cloned();
            open.or_else(|| self.by_id.get(&key).filter(|entry| entry.is_known(now)))
        };
        let by_transaction = || {
            let key = transaction?;
            let open = self.lock_open().by_transaction.get(&key).cloned();
            open.or_else(|| self.by_transaction.get(&key).filter(|entry| entry.is_known_by_transaction(now)))
        };
        let Some(entry) = by_id.or_else(by_transaction) else { return Begun::Fresh };
        let known = &entry.intent;
        if known.meaning != intent.meaning || known.operation != intent.operation {
            return Begun::Conflict;
        }
        entry.answer().map_or_else(|| Begun::InDoubt(known.sent.clone()), |answer| Begun::Answered(Arc::clone(answer)))
    }

    fn write(&self, intent: &Intent, state: State, now: Timestamp) {
        let entry = Arc::new(entry(intent, state, now));
        let mut open = self.lock_open();
        if entry.answer().is_none() {
            return open.insert(&entry);
        }
        // Entered before it leaves the other place, so that it is never in neither.
        self.by_id.insert(id_key(intent), Arc::clone(&entry));
        if let Some(key) = transaction_key(intent) {
            self.by_transaction.insert(key, entry);
        }
        open.remove(intent);
    }

    /// Records what is new, where there is room.
    fn admit(&self, intent: &Intent, now: Timestamp) -> Result<(), StoreError> {
        let entry = Arc::new(entry(intent, State::Begun, now));
        let mut open = self.lock_open();
        if open.bytes + entry.bytes() > self.open_max {
            let (many, bytes) = (open.by_id.len(), self.open_max);
            return Err(StoreError(format!(
                "{many} creates and updates are under way or in doubt, as many as fit into {bytes} bytes \
                 (a quarter of idempotency.memory)"
            )));
        }
        open.insert(&entry);
        Ok(())
    }

    /// Since when it is in doubt, if it is.
    fn since(&self, intent: &Intent) -> Option<Timestamp> {
        match self.lock_open().by_id.get(&id_key(intent))?.state {
            State::InDoubt(since) => Some(since),
            State::Begun | State::Answered(_) => None,
        }
    }

    fn forget(&self, intent: &Intent) {
        self.lock_open().remove(intent);
        self.by_id.invalidate(&id_key(intent));
        if let Some(key) = transaction_key(intent) {
            self.by_transaction.invalidate(&key);
        }
    }

    fn lock_open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has not ended.
    fn unfinished(&self) -> Vec<Arc<Entry>> {
        self.lock_open().by_id.values().cloned().collect()
    }

    /// Where callbacks are.
    pub(super) const fn memory_inbox(&self) -> &MemoryInbox {
        &self.inbox
    }

    /// Every account it has.
    pub(super) fn every_account(&self) -> impl Iterator<Item = Arc<Account>> {
        self.accounts.iter().map(|(_, account)| account)
    }

    fn keep(&self, account: Arc<Account>) {
        let dialect = account.dialect();
        let key = account_key(&account.merchant, dialect, account.digits());
        let newer = Arc::clone(&account);
        let mut is_current = true;
        self.accounts.entry(key).and_compute_with(|known| match known {
            Some(known) if known.value().created > newer.created => {
                is_current = false;
                Op::Nop
            }
            _ => Op::Put(newer),
        });
        if is_current {
            // Due at once: whoever looks decides when it is time.
            self.inbox.watch_from(&account, account.created);
        }
        if !account.own_digits.is_empty() {
            self.index_own_digits(&account, dialect);
        }
        match &account.handle {
            Handle::Classic { account_id, .. } => {
                let key = account_key(&account.merchant, dialect, account_id);
                self.by_account_id.insert(key, account.digits().into());
            }
            Handle::Snap { partner_service_id, .. } => {
                if let Some(bank) = &account.bank_code {
                    self.prefixes.insert(prefix_key(&account.merchant, bank), partner_service_id.as_str().into());
                }
            }
        }
    }

    fn index_own_digits(&self, account: &Account, dialect: Dialect) {
        let key = account_key(&account.merchant, dialect, &account.own_digits);
        self.by_own_digits.entry(key).and_compute_with(|known| {
            let known = known.map(moka::Entry::into_value);
            let numbers = known.as_deref().unwrap_or_default();
            if numbers.iter().any(|number| number == account.digits()) || numbers.len() >= NAMESAKES_MAX {
                return Op::Nop;
            }
            Op::Put(numbers.iter().cloned().chain([account.digits().to_owned()]).collect())
        });
    }

    fn find(&self, merchant: &str, dialect: Dialect, query: &AccountQuery) -> Option<Arc<Account>> {
        let whole = |digits: &str| self.accounts.get(&account_key(merchant, dialect, digits));
        if !query.account_id.is_empty() {
            let number = self.by_account_id.get(&account_key(merchant, dialect, &query.account_id))?;
            let account = whole(&number)?;
            // A newer life of the number has another id; the old id then finds nothing.
            let current =
                matches!(&account.handle, Handle::Classic { account_id, .. } if *account_id == query.account_id);
            return current.then_some(account);
        }
        let account = whole(&query.digits);
        if query.whole {
            return account;
        }
        let namesakes = self.by_own_digits.get(&account_key(merchant, dialect, &query.digits));
        let mut others = namesakes.iter().flat_map(|numbers| numbers.iter()).filter(|number| **number != query.digits);
        match (account, others.next(), others.next()) {
            (Some(account), None, _) => Some(account),
            (None, Some(only), None) => whole(only),
            _ => None,
        }
    }
}

impl Store for MemoryStore {
    fn begin<'a>(&'a self, intent: &'a Intent, now: Timestamp) -> BoxFuture<'a, Result<Begun, StoreError>> {
        let begun = self.look_up(intent, now);
        let admitted = if matches!(begun, Begun::Fresh) { self.admit(intent, now) } else { Ok(()) };
        ready(admitted.map(|()| begun)).boxed()
    }

    fn finish<'a>(
        &'a self,
        intent: &'a Intent,
        end: End,
        learned: Option<Arc<Account>>,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        let stands = matches!(self.look_up(intent, now), Begun::Answered(_) | Begun::Conflict);
        match end {
            End::Answered(answer) => self.write(intent, State::Answered(answer), now),
            End::InDoubt | End::Released if stands => {}
            End::InDoubt => self.write(intent, State::InDoubt(self.since(intent).unwrap_or(now)), now),
            End::Released => self.forget(intent),
        }
        if let Some(account) = learned {
            self.keep(account);
        }
        ready(Ok(())).boxed()
    }

    fn remember(&self, account: Arc<Account>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.keep(account);
        ready(Ok(())).boxed()
    }

    fn account<'a>(
        &'a self,
        merchant: &'a str,
        dialect: Dialect,
        query: &'a AccountQuery,
    ) -> BoxFuture<'a, Result<Option<Arc<Account>>, StoreError>> {
        ready(Ok(self.find(merchant, dialect, query))).boxed()
    }

    fn prefix<'a>(&'a self, merchant: &'a str, bank: &'a str) -> BoxFuture<'a, Result<Option<String>, StoreError>> {
        let prefix = self.prefixes.get(&prefix_key(merchant, bank));
        ready(Ok(prefix.map(|prefix| prefix.as_ref().to_owned()))).boxed()
    }

    fn accounts<'a>(&'a self, number: &'a str) -> BoxFuture<'a, Result<Vec<Arc<Account>>, StoreError>> {
        let found = self
            .accounts
            .iter()
            .map(|(_, account)| account)
            .filter(|account| account.digits() == number || account.own_digits == number)
            .collect();
        ready(Ok(found)).boxed()
    }

    fn known<'a>(&'a self, id: &'a str, now: Timestamp) -> BoxFuture<'a, Result<Vec<Known>, StoreError>> {
        let wanted = |key: &str| key.rsplit('\n').next() == Some(id);
        let open = {
            let open = self.lock_open();
            let by_id = open.by_id.iter().filter(|(key, _)| wanted(key)).map(|(_, entry)| (entry.expires, entry));
            let by_transaction = open.by_transaction.iter().filter(|(key, _)| wanted(key));
            let by_transaction = by_transaction.map(|(_, entry)| (entry.transaction_expires, entry));
            by_id.chain(by_transaction).map(|(expires, entry)| (expires, Arc::clone(entry))).collect::<Vec<_>>()
        };
        let by_id = self.by_id.iter().filter(|(key, entry)| wanted(key) && entry.is_known(now));
        let by_transaction =
            self.by_transaction.iter().filter(|(key, entry)| wanted(key) && entry.is_known_by_transaction(now));
        let found = by_id
            .map(|(_, entry)| (entry.expires, entry))
            .chain(by_transaction.map(|(_, entry)| (entry.transaction_expires, entry)))
            .chain(open)
            .map(|(expires, entry)| Known {
                merchant: Arc::clone(&entry.intent.merchant),
                operation: entry.intent.operation,
                state: if entry.answer().is_some() { "answered" } else { "in_doubt" },
                status: entry.answer().map(|answer| answer.status.as_u16()),
                expires,
            })
            .collect();
        ready(Ok(found)).boxed()
    }

    fn take_over(&self, now: Timestamp) -> BoxFuture<'_, Result<(), StoreError>> {
        for entry in self.unfinished() {
            if matches!(entry.state, State::Begun) {
                self.write(&entry.intent, State::InDoubt(now), now);
            }
        }
        ready(Ok(())).boxed()
    }

    fn doubts(&self, limit: usize) -> BoxFuture<'_, Result<Vec<Doubt>, StoreError>> {
        let mut doubts: Vec<Doubt> = self
            .unfinished()
            .into_iter()
            .filter_map(|entry| match entry.state {
                State::InDoubt(since) => Some(Doubt { intent: entry.intent.clone(), since }),
                State::Begun | State::Answered(_) => None,
            })
            .collect();
        doubts.sort_by_key(|doubt| doubt.since);
        doubts.truncate(limit);
        ready(Ok(doubts)).boxed()
    }

    fn inbox(&self) -> &dyn Inbox {
        &self.inbox
    }

    fn watches(&self) -> &dyn Watches {
        self
    }

    fn problem(&self) -> Option<String> {
        None
    }
}

fn entry(intent: &Intent, state: State, now: Timestamp) -> Entry {
    let request = match &state {
        State::Begun | State::InDoubt(_) => intent.request.clone(),
        State::Answered(_) => Bytes::new(),
    };
    Entry {
        intent: Intent { request, ..intent.clone() },
        state,
        expires: after(now, intent.retention),
        transaction_expires: after(now, intent.transaction_retention),
    }
}

/// Ids of the two generations are different things; so are those of classic updates and creates,
/// which apps reuse.
pub(super) const fn space(operation: OperationId) -> &'static str {
    match operation {
        OperationId::SnapCreate | OperationId::SnapUpdate | OperationId::SnapInquiry => "snap",
        OperationId::ClassicCreate | OperationId::ClassicGet => "classic",
        OperationId::ClassicUpdate => "classic.update",
    }
}

pub(super) fn id_key(intent: &Intent) -> String {
    format!("{}\n{}\n{}", intent.merchant, space(intent.operation), intent.id)
}

fn transaction_key(intent: &Intent) -> Option<String> {
    let transaction = intent.transaction.as_ref()?;
    Some(format!("{}\n{}\n{transaction}", intent.merchant, intent.operation))
}

fn prefix_key(merchant: &str, bank: &str) -> String {
    format!("{merchant}\n{bank}")
}

pub(super) fn account_key(merchant: &str, dialect: Dialect, handle: &str) -> String {
    format!("{merchant}\n{}\n{handle}", dialect.name())
}

pub(super) fn after(now: Timestamp, duration: Duration) -> Timestamp {
    let duration = SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
    now.checked_add(duration).unwrap_or(Timestamp::MAX)
}

#[expect(clippy::ptr_arg, reason = "moka's weigher gets the key as it is stored")]
fn weigh_entry(key: &String, entry: &Arc<Entry>) -> u32 {
    weight(key.len() + entry.intent.request.len() + entry.answer().map_or(0, |answer| answer_bytes(answer)))
}

/// Bytes of an answer, about.
pub(super) fn answer_bytes(answer: &StoredAnswer) -> usize {
    let headers: usize = answer.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 64).sum();
    answer.body.len() + headers
}

#[expect(clippy::ptr_arg, reason = "moka's weigher gets the key as it is stored")]
pub(super) fn weigh_account(key: &String, account: &Arc<Account>) -> u32 {
    weight(key.len() + account.number.len() * 2 + 256)
}

pub(super) fn weight(bytes: usize) -> u32 {
    u32::try_from(bytes + ENTRY_OVERHEAD).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::suite::{account, answer, at, create};

    #[tokio::test]
    async fn memory_is_bounded() {
        let store = MemoryStore::new(256 * 1024, 256 * 1024);
        for n in 0..20_000 {
            let intent = create(&format!("E{n}"), &format!("T{n}"));
            store.begin(&intent, at(0)).await.unwrap();
            store.finish(&intent, End::Answered(answer("one")), None, at(0)).await.unwrap();
            store.remember(account(&format!("   14629{n:011}"), "R", at(0))).await.unwrap();
        }
        store.settle();
        assert!(store.bytes() <= 512 * 1024, "{}", store.bytes());
        assert!(store.bytes() > 64 * 1024, "{}", store.bytes());
    }

    #[tokio::test]
    async fn what_is_new_is_kept_when_memory_is_full() {
        let store = MemoryStore::new(256 * 1024, 256 * 1024);
        for n in 0..2_000_u32 {
            let intent = create(&format!("E{n}"), &format!("T{n}"));
            store.begin(&intent, at(0)).await.unwrap();
            let learned = account(&format!("   14629{n:011}"), "R", at(0));
            store.finish(&intent, End::Answered(answer("one")), Some(learned), at(0)).await.unwrap();
            // Those before are in use meanwhile.
            for earlier in 0..n.min(20) {
                let query = AccountQuery { digits: format!("14629{earlier:011}"), ..AccountQuery::default() };
                store.account("sample", Dialect::Snap, &query).await.unwrap();
            }
            store.settle();
            for newest in n.saturating_sub(50)..=n {
                let query = AccountQuery { digits: format!("14629{newest:011}"), ..AccountQuery::default() };
                assert!(store.account("sample", Dialect::Snap, &query).await.unwrap().is_some(), "{newest} of {n}");
                let again = create(&format!("E{newest}"), &format!("T{newest}"));
                assert!(matches!(store.begin(&again, at(1)).await, Ok(Begun::Answered(_))), "{newest} of {n}");
            }
        }
    }

    #[tokio::test]
    async fn what_has_not_ended_is_never_forgotten_and_bounded_by_refusing() {
        let store = MemoryStore::new(256 * 1024, 256 * 1024);
        let one = |n: usize| create(&format!("E{n}"), &format!("T{n}"));
        let mut open = 0;
        while store.begin(&one(open), at(0)).await.is_ok() {
            if open % 2 == 0 {
                store.finish(&one(open), End::InDoubt, None, at(0)).await.unwrap();
            }
            open += 1;
        }
        assert!((64..1_000).contains(&open), "{open}");
        for n in 100_000..102_000 {
            store.finish(&one(n), End::Answered(answer("one")), None, at(0)).await.unwrap();
        }
        store.settle();
        assert!(store.bytes() <= 512 * 1024, "{}", store.bytes());
        for n in 0..open {
            assert!(matches!(store.begin(&one(n), at(1)).await, Ok(Begun::InDoubt(_))), "{n} of {open}");
        }
        assert_eq!(store.doubts(usize::MAX).await.unwrap().len(), open.div_ceil(2));
        // An end makes room, whichever it is.
        for (n, end) in [(0, End::Answered(answer("one"))), (1, End::Released)] {
            assert!(store.begin(&one(open + n), at(1)).await.is_err());
            store.finish(&one(n), end, None, at(1)).await.unwrap();
            assert!(matches!(store.begin(&one(open + n), at(1)).await, Ok(Begun::Fresh)));
        }
    }

    #[tokio::test]
    async fn what_was_under_way_at_a_takeover_is_in_doubt() {
        let store = MemoryStore::new(1 << 20, 1 << 20);
        let (left, ended) = (create("E1", "T1"), create("E2", "T2"));
        store.begin(&left, at(0)).await.unwrap();
        store.begin(&ended, at(0)).await.unwrap();
        store.finish(&ended, End::Answered(answer("two")), None, at(1)).await.unwrap();
        assert!(store.doubts(9).await.unwrap().is_empty(), "what is under way is not in doubt");
        store.take_over(at(5)).await.unwrap();
        let doubts = store.doubts(9).await.unwrap();
        let [doubt] = doubts.as_slice() else { panic!("{doubts:?}") };
        assert_eq!((doubt.intent.id.as_str(), doubt.since), ("E1", at(5)));
        assert_eq!((&doubt.intent.request, &doubt.intent.sent), (&left.request, &left.sent));
        assert!(matches!(store.begin(&create("E9", "T1"), at(6)).await, Ok(Begun::InDoubt(sent)) if sent == left.sent));
        assert!(matches!(store.begin(&ended, at(6)).await, Ok(Begun::Answered(_))));
        store.take_over(at(7)).await.unwrap();
        assert_eq!(store.doubts(9).await.unwrap()[0].since, at(5), "a doubt keeps its age");
    }
}
