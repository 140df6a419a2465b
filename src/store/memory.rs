//! The store that ends with the process, bounded in bytes.
//!
//! Promises that memory stays within the two configured bounds. Of answers and accounts what does not
//! fit is forgotten, the longest unused first. What is begun or in doubt is never forgotten, since that
//! is how a second create would come about: it has a quarter of the bytes for answers to itself, and
//! nothing new is begun while that is full. Everything is behind one lock, held for some hundred
//! nanoseconds; operators' questions, which look at every entry, hold it longer.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};
use jiff::{SignedDuration, Timestamp};

use super::directory::{Directory, Named};
use super::inbox::Inbox;
use super::memory_inbox::MemoryInbox;
use super::shelf::Shelf;
use super::watch::Watches;
use super::{Begun, Doubt, End, Intent, Known, Store, StoreError, StoredAnswer};
use crate::dialect::{Dialect, OperationId};
use crate::document::Meaning;
use crate::reference::{Account, AccountQuery, Handle};

/// Bytes an entry costs besides its texts: its key's and its own piece of memory, and its place.
const ENTRY_OVERHEAD: usize = 512;

/// Accounts that may share own digits before looking them up by these is given up.
const NAMESAKES_MAX: usize = 8;

/// Prefixes that are kept at most.
const PREFIXES_MAX: usize = 4_096;

/// Memory for intents and accounts.
pub struct MemoryStore {
    kept: Mutex<Kept>,
    inbox: MemoryInbox,
}

/// What is behind the lock.
#[derive(Debug)]
struct Kept {
    /// What has not ended. An id or transaction that is here and among the answers too was answered
    /// earlier, and that answer's time is over.
    open: Directory<Entry>,
    /// Bytes of what has not ended beyond which nothing new is begun.
    open_most: usize,
    /// What was answered.
    answers: Directory<Answered>,
    /// By whole number.
    accounts: Shelf<Arc<Account>>,
    by_own_digits: Shelf<Namesakes>,
    /// Of the classic generation, by `virtualAccountId`. Whether it is the number's newest is to be asked.
    by_account_id: Shelf<Arc<Account>>,
    /// As many as there are merchants and banks.
    prefixes: Shelf<Prefix>,
}

/// What has no answer.
#[derive(Debug)]
struct Entry {
    intent: Intent,
    /// Since when it is in doubt. Without that it is under way; should its gateway lose it, it is in doubt.
    in_doubt: Option<Timestamp>,
    expires: Timestamp,
    transaction_expires: Timestamp,
}

impl Entry {
    fn new(intent: &Intent, in_doubt: Option<Timestamp>, now: Timestamp) -> Arc<Self> {
        let expires = after(now, intent.retention);
        let transaction_expires = after(now, intent.transaction_retention);
        Arc::new(Self { intent: intent.clone(), in_doubt, expires, transaction_expires })
    }

    /// Bytes it costs.
    fn bytes(&self) -> usize {
        self.intent.id.len() * 2 + self.intent.request.len() + ENTRY_OVERHEAD
    }
}

/// What has one.
#[derive(Debug)]
struct Answered {
    merchant: Arc<str>,
    operation: OperationId,
    id: Arc<str>,
    transaction: Option<Arc<str>>,
    meaning: Meaning,
    answer: Arc<StoredAnswer>,
    expires: Timestamp,
    transaction_expires: Timestamp,
}

/// Accounts of one merchant and generation that share own digits: one, but for chance.
#[derive(Debug)]
struct Namesakes {
    /// As it was when it was entered: only its number counts.
    first: Arc<Account>,
    others: Vec<Arc<Account>>,
}

impl Namesakes {
    fn iter(&self) -> impl Iterator<Item = &Arc<Account>> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

/// The padded prefix of a merchant's numbers at a bank.
#[derive(Debug)]
struct Prefix {
    merchant: Arc<str>,
    bank: Box<str>,
    prefix: Box<str>,
}

/// Whose an id or transaction is.
enum Owner {
    Open(Arc<Entry>),
    Answered(Arc<Answered>),
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = self.lock();
        f.debug_struct("MemoryStore")
            .field("answers", &kept.answers.by_id.len())
            .field("accounts", &kept.accounts.len())
            .finish_non_exhaustive()
    }
}

impl MemoryStore {
    /// An empty store; `answers_bytes` and `accounts_bytes` bound what it keeps.
    #[must_use]
    pub fn new(answers_bytes: u64, accounts_bytes: u64) -> Self {
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let open = answers_bytes / 4;
        let answers = size((answers_bytes - open) / 2);
        let index = size(accounts_bytes / 4);
        Self {
            kept: Mutex::new(Kept {
                // Nothing makes room there: what is new is refused.
                open: Directory::new(usize::MAX),
                open_most: size(open),
                answers: Directory::new(answers),
                accounts: Shelf::new(size(accounts_bytes / 2)),
                by_own_digits: Shelf::new(index),
                by_account_id: Shelf::new(index),
                prefixes: Shelf::new(PREFIXES_MAX),
            }),
            inbox: MemoryInbox::default(),
        }
    }

    /// Bytes that count against the bounds.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let kept = self.lock();
        let accounts = kept.accounts.bytes() + kept.by_own_digits.bytes() + kept.by_account_id.bytes();
        let all = kept.open.by_id.bytes() + kept.answers.by_id.bytes() + kept.answers.by_transaction.bytes() + accounts;
        u64::try_from(all).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where callbacks are.
    pub(super) const fn memory_inbox(&self) -> &MemoryInbox {
        &self.inbox
    }

    /// Every account it has.
    pub(super) fn every_account(&self) -> Vec<Arc<Account>> {
        self.lock().accounts.iter().cloned().collect()
    }

    fn keep(&self, kept: &mut Kept, account: Arc<Account>) {
        if kept.keep(&account) {
            // Due at once: whoever looks decides when it is time.
            self.inbox.watch_from(&account, account.created);
        }
    }
}

impl Named for Entry {
    fn merchant(&self) -> &str {
        &self.intent.merchant
    }

    fn operation(&self) -> OperationId {
        self.intent.operation
    }

    fn id(&self) -> &str {
        &self.intent.id
    }

    fn transaction(&self) -> Option<&str> {
        self.intent.transaction.as_deref()
    }
}

impl Named for Answered {
    fn merchant(&self) -> &str {
        &self.merchant
    }

    fn operation(&self) -> OperationId {
        self.operation
    }

    fn id(&self) -> &str {
        &self.id
    }

    fn transaction(&self) -> Option<&str> {
        self.transaction.as_deref()
    }
}

/// Whether an account is a merchant's of that generation.
fn is_of(account: &Account, merchant: &str, dialect: Dialect) -> bool {
    *account.merchant == *merchant && account.dialect() == dialect
}

impl Kept {
    fn owner(&mut self, intent: &Intent, now: Timestamp) -> Option<Owner> {
        if let Some(entry) = self.open.by_id(intent) {
            return Some(Owner::Open(Arc::clone(entry)));
        }
        if let Some(answered) = self.answers.by_id(intent).filter(|answered| now < answered.expires) {
            return Some(Owner::Answered(Arc::clone(answered)));
        }
        if let Some(entry) = self.open.by_transaction(intent) {
            return Some(Owner::Open(Arc::clone(entry)));
        }
        let answered = self.answers.by_transaction(intent).filter(|answered| now < answered.transaction_expires)?;
        Some(Owner::Answered(Arc::clone(answered)))
    }

    fn look_up(&mut self, intent: &Intent, now: Timestamp) -> Begun {
        let same = |operation, meaning| operation == intent.operation && meaning == intent.meaning;
        match self.owner(intent, now) {
            None => Begun::Fresh,
            Some(Owner::Open(entry)) if same(entry.intent.operation, entry.intent.meaning) => {
                Begun::InDoubt(entry.intent.sent.clone())
            }
            Some(Owner::Answered(answered)) if same(answered.operation, answered.meaning) => {
                Begun::Answered(Arc::clone(&answered.answer))
            }
            Some(Owner::Open(_) | Owner::Answered(_)) => Begun::Conflict,
        }
    }

    /// Records what is new, where there is room.
    fn admit(&mut self, intent: &Intent, now: Timestamp) -> Result<(), StoreError> {
        let entry = Entry::new(intent, None, now);
        if self.open.by_id.bytes() + entry.bytes() > self.open_most {
            let (many, bytes) = (self.open.by_id.len(), self.open_most);
            return Err(StoreError(format!(
                "{many} creates and updates are under way or in doubt, as many as fit into {bytes} bytes \
                 (a quarter of idempotency.memory)"
            )));
        }
        self.open.put(intent, &entry, (entry.bytes(), 0));
        Ok(())
    }

    fn answer(&mut self, intent: &Intent, answer: Arc<StoredAnswer>, now: Timestamp) {
        self.open.remove(intent);
        let bytes = intent.id.len() * 2 + answer_bytes(&answer) + ENTRY_OVERHEAD;
        let answered = Arc::new(Answered {
            merchant: Arc::clone(&intent.merchant),
            operation: intent.operation,
            id: Arc::clone(&intent.id),
            transaction: intent.transaction.clone(),
            meaning: intent.meaning,
            answer,
            expires: after(now, intent.retention),
            transaction_expires: after(now, intent.transaction_retention),
        });
        self.answers.put(intent, &answered, (bytes, bytes));
        self.answers.by_id.make_room(|answered| answered.expires <= now);
        self.answers.by_transaction.make_room(|answered| answered.transaction_expires <= now);
    }

    fn doubt(&mut self, intent: &Intent, now: Timestamp) {
        let since = self.open.by_id(intent).and_then(|entry| entry.in_doubt).unwrap_or(now);
        let entry = Entry::new(intent, Some(since), now);
        self.open.put(intent, &entry, (entry.bytes(), 0));
    }

    fn forget(&mut self, intent: &Intent) {
        self.open.remove(intent);
        self.answers.remove(intent);
    }

    fn account(&mut self, merchant: &str, dialect: Dialect, digits: &str) -> Option<&Arc<Account>> {
        let place = self.accounts.place((merchant, dialect, digits));
        self.accounts.get(place, |account| account.digits() == digits && is_of(account, merchant, dialect))
    }

    /// Whether it is the newest of its number.
    fn keep(&mut self, account: &Arc<Account>) -> bool {
        let (merchant, dialect, digits) = (&*account.merchant, account.dialect(), account.digits());
        let is_current = self.account(merchant, dialect, digits).is_none_or(|known| known.created <= account.created);
        if is_current {
            let place = self.accounts.place((merchant, dialect, digits));
            let is_meant = |known: &Arc<Account>| known.digits() == digits && is_of(known, merchant, dialect);
            self.accounts.put(place, Arc::clone(account), account_bytes(account), is_meant);
        }
        if !account.own_digits.is_empty() {
            self.index_own_digits(account);
        }
        match &account.handle {
            Handle::Classic { account_id, .. } => {
                let place = self.by_account_id.place((merchant, account_id));
                let is_meant = |known: &Arc<Account>| is_called(known, merchant, account_id);
                self.by_account_id.put(place, Arc::clone(account), ENTRY_OVERHEAD, is_meant);
            }
            Handle::Snap { partner_service_id, .. } => self.learn_prefix(account, partner_service_id),
        }
        is_current
    }

    fn index_own_digits(&mut self, account: &Arc<Account>) {
        let (merchant, dialect, own) = (&*account.merchant, account.dialect(), account.own_digits.as_str());
        let place = self.by_own_digits.place((merchant, dialect, own));
        let is_meant = |known: &Namesakes| known.first.own_digits == own && is_of(&known.first, merchant, dialect);
        let known = self.by_own_digits.remove(place, is_meant);
        let mut others: Vec<_> =
            known.into_iter().flat_map(|known| std::iter::once(known.first).chain(known.others)).collect();
        others.retain(|other| other.digits() != account.digits());
        others.truncate(NAMESAKES_MAX - 1);
        let bytes = (others.len() + 1) * ENTRY_OVERHEAD;
        self.by_own_digits.put(place, Namesakes { first: Arc::clone(account), others }, bytes, is_meant);
    }

    fn learn_prefix(&mut self, account: &Account, prefix: &str) {
        let (merchant, Some(bank)) = (&account.merchant, account.bank_code.as_deref()) else { return };
        let place = self.prefixes.place((&**merchant, bank));
        let is_meant = |known: &Prefix| *known.bank == *bank && known.merchant == *merchant;
        if self.prefixes.get(place, is_meant).is_none_or(|known| *known.prefix != *prefix) {
            let learnt = Prefix { merchant: Arc::clone(merchant), bank: bank.into(), prefix: prefix.into() };
            self.prefixes.put(place, learnt, 1, is_meant);
        }
    }

    fn find(&mut self, merchant: &str, dialect: Dialect, query: &AccountQuery) -> Option<Arc<Account>> {
        if !query.account_id.is_empty() {
            let place = self.by_account_id.place((merchant, &query.account_id));
            let known = self.by_account_id.get(place, |known| is_called(known, merchant, &query.account_id))?;
            let known = Arc::clone(known);
            let account = self.account(merchant, dialect, known.digits())?;
            // A newer life of the number has another id; the old id then finds nothing.
            return is_called(account, merchant, &query.account_id).then(|| Arc::clone(account));
        }
        let account = self.account(merchant, dialect, &query.digits).cloned();
        if query.whole {
            return account;
        }
        let own = query.digits.as_str();
        let place = self.by_own_digits.place((merchant, dialect, own));
        let is_meant = |known: &Namesakes| known.first.own_digits == own && is_of(&known.first, merchant, dialect);
        let only = {
            let namesakes = self.by_own_digits.get(place, is_meant);
            let mut others = namesakes.into_iter().flat_map(Namesakes::iter).filter(|other| other.digits() != own);
            (others.next().cloned(), others.next().is_some())
        };
        match (account, only) {
            (Some(account), (None, _)) => Some(account),
            (None, (Some(only), false)) => self.account(merchant, dialect, only.digits()).cloned(),
            _ => None,
        }
    }

    /// Everything whose id or transaction is asked for, and until when it is known by that.
    fn known(&self, id: &str, now: Timestamp) -> Vec<Known> {
        let is_asked = |given: &Option<Arc<str>>| given.as_deref() == Some(id);
        let by_id = self.open.by_id.iter().filter(|entry| *entry.intent.id == *id).map(|entry| (entry, entry.expires));
        let by_transaction = self.open.by_transaction.iter().filter(|entry| is_asked(&entry.intent.transaction));
        let open = by_id.chain(by_transaction.map(|entry| (entry, entry.transaction_expires)));
        let open = open.map(|(entry, expires)| Known {
            merchant: Arc::clone(&entry.intent.merchant),
            operation: entry.intent.operation,
            state: "in_doubt",
            status: None,
            expires,
        });
        let by_id = self.answers.by_id.iter().filter(|answered| *answered.id == *id);
        let by_transaction = self.answers.by_transaction.iter().filter(|answered| is_asked(&answered.transaction));
        let answered = by_id
            .map(|answered| (answered, answered.expires))
            .chain(by_transaction.map(|answered| (answered, answered.transaction_expires)))
            .filter(|(_, expires)| now < *expires);
        let answered = answered.map(|(answered, expires)| Known {
            merchant: Arc::clone(&answered.merchant),
            operation: answered.operation,
            state: "answered",
            status: Some(answered.answer.status.as_u16()),
            expires,
        });
        answered.chain(open).collect()
    }
}

fn is_called(account: &Account, merchant: &str, id: &str) -> bool {
    matches!(&account.handle, Handle::Classic { account_id, .. } if account_id == id) && *account.merchant == *merchant
}

impl Store for MemoryStore {
    fn begin<'a>(&'a self, intent: &'a Intent, now: Timestamp) -> BoxFuture<'a, Result<Begun, StoreError>> {
        let mut kept = self.lock();
        let begun = kept.look_up(intent, now);
        let admitted = if matches!(begun, Begun::Fresh) { kept.admit(intent, now) } else { Ok(()) };
        ready(admitted.map(|()| begun)).boxed()
    }

    fn finish<'a>(
        &'a self,
        intent: &'a Intent,
        end: End,
        learned: Option<Arc<Account>>,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        let mut kept = self.lock();
        match end {
            End::Answered(answer) => kept.answer(intent, answer, now),
            End::InDoubt | End::Released
                if matches!(kept.look_up(intent, now), Begun::Answered(_) | Begun::Conflict) => {}
            End::InDoubt => kept.doubt(intent, now),
            End::Released => kept.forget(intent),
        }
        if let Some(account) = learned {
            self.keep(&mut kept, account);
        }
        ready(Ok(())).boxed()
    }

    fn remember(&self, account: Arc<Account>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.keep(&mut self.lock(), account);
        ready(Ok(())).boxed()
    }

    fn account<'a>(
        &'a self,
        merchant: &'a str,
        dialect: Dialect,
        query: &'a AccountQuery,
    ) -> BoxFuture<'a, Result<Option<Arc<Account>>, StoreError>> {
        ready(Ok(self.lock().find(merchant, dialect, query))).boxed()
    }

    fn prefix<'a>(&'a self, merchant: &'a str, bank: &'a str) -> BoxFuture<'a, Result<Option<String>, StoreError>> {
        let mut kept = self.lock();
        let place = kept.prefixes.place((merchant, bank));
        let known = kept.prefixes.get(place, |known| *known.bank == *bank && *known.merchant == *merchant);
        let prefix = known.map(|known| known.prefix.as_ref().to_owned());
        ready(Ok(prefix)).boxed()
    }

    fn accounts<'a>(&'a self, number: &'a str) -> BoxFuture<'a, Result<Vec<Arc<Account>>, StoreError>> {
        let mut found = self.every_account();
        found.retain(|account| account.digits() == number || account.own_digits == number);
        ready(Ok(found)).boxed()
    }

    fn known<'a>(&'a self, id: &'a str, now: Timestamp) -> BoxFuture<'a, Result<Vec<Known>, StoreError>> {
        ready(Ok(self.lock().known(id, now))).boxed()
    }

    fn take_over(&self, now: Timestamp) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut kept = self.lock();
        let lost: Vec<_> = kept.open.by_id.iter().filter(|entry| entry.in_doubt.is_none()).cloned().collect();
        for entry in lost {
            kept.doubt(&entry.intent, now);
        }
        ready(Ok(())).boxed()
    }

    fn doubts(&self, limit: usize) -> BoxFuture<'_, Result<Vec<Doubt>, StoreError>> {
        let kept = self.lock();
        let open = kept.open.by_id.iter();
        let mut doubts: Vec<_> = open.filter_map(|entry| Some((entry.in_doubt?, entry))).collect();
        doubts.sort_by_key(|(since, _)| *since);
        doubts.truncate(limit);
        let doubts = doubts.into_iter().map(|(since, entry)| Doubt { intent: entry.intent.clone(), since }).collect();
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
    [&*intent.merchant, space(intent.operation), &*intent.id].join("\n")
}

pub(super) fn account_key(merchant: &str, dialect: Dialect, handle: &str) -> String {
    [merchant, dialect.name(), handle].join("\n")
}

pub(super) fn after(now: Timestamp, duration: Duration) -> Timestamp {
    let duration = SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
    now.checked_add(duration).unwrap_or(Timestamp::MAX)
}

/// Bytes of an answer, about.
pub(super) fn answer_bytes(answer: &StoredAnswer) -> usize {
    let headers: usize = answer.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 64).sum();
    answer.body.len() + headers
}

/// Bytes of an account, about.
pub(super) fn account_bytes(account: &Account) -> usize {
    account.number.len() * 3 + 256 + ENTRY_OVERHEAD
}

/// What the cache in front of a file counts.
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
        assert_eq!((&*doubt.intent.id, doubt.since), ("E1", at(5)));
        assert_eq!((&doubt.intent.request, &doubt.intent.sent), (&left.request, &left.sent));
        assert!(matches!(store.begin(&create("E9", "T1"), at(6)).await, Ok(Begun::InDoubt(sent)) if sent == left.sent));
        assert!(matches!(store.begin(&ended, at(6)).await, Ok(Begun::Answered(_))));
        store.take_over(at(7)).await.unwrap();
        assert_eq!(store.doubts(9).await.unwrap()[0].since, at(5), "a doubt keeps its age");
    }
}
