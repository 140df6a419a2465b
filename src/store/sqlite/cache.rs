//! The fast path in front of the file: answers by id and accounts, bounded in bytes.
//!
//! Promises that nothing is in here that is not in the file, and that what is in here is the newest:
//! the writer enters what it has committed, and what a reader found is entered only if the writer
//! entered nothing in the meantime. What is evicted is read from the file again.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use moka::policy::EvictionPolicy;
use moka::sync::Cache as Moka;

use crate::dialect::{Dialect, OperationId};
use crate::document::Meaning;
use crate::reference::{Account, AccountQuery, Handle};
use crate::store::memory::{account_bytes, account_key, answer_bytes, id_key, weight};
use crate::store::{Begun, Intent, StoredAnswer};

/// See the module.
#[derive(Debug)]
pub(super) struct Cache {
    answers: Moka<String, Arc<Answered>>,
    /// By whole number.
    accounts: Moka<String, Arc<Account>>,
    /// Whole numbers by what else was asked for: digits that may be own ones, classic ids.
    aliases: Moka<String, Arc<str>>,
    /// How often the writer entered something about accounts. Held while entering, so that a reader's
    /// finding is either before a change or dropped.
    epoch: Mutex<u64>,
}

#[derive(Debug)]
struct Answered {
    operation: OperationId,
    meaning: Meaning,
    expires: Timestamp,
    answer: Arc<StoredAnswer>,
}

/// What a committed record means to the cache.
#[derive(Debug)]
pub(super) enum Effect {
    /// The id has this answer until then.
    Answered(String, OperationId, Meaning, Timestamp, Arc<StoredAnswer>),
    /// This is the account now.
    Account(Arc<Account>),
    /// This account is forgotten.
    Forgotten(Account),
}

impl Cache {
    pub(super) fn new(answers_bytes: u64, accounts_bytes: u64) -> Self {
        let aliases = accounts_bytes / 4;
        // What was just written is what is asked for next; the default policy refuses it once full.
        let lru = EvictionPolicy::lru;
        Self {
            answers: Moka::builder()
                .eviction_policy(lru())
                .max_capacity(answers_bytes)
                .weigher(|key: &String, known: &Arc<Answered>| weight(key.len() + answer_bytes(&known.answer)))
                .build(),
            accounts: Moka::builder()
                .eviction_policy(lru())
                .max_capacity(accounts_bytes - aliases)
                .weigher(|_: &String, account: &Arc<Account>| u32::try_from(account_bytes(account)).unwrap_or(u32::MAX))
                .build(),
            aliases: Moka::builder()
                .eviction_policy(lru())
                .max_capacity(aliases)
                .weigher(|key: &String, number: &Arc<str>| weight(key.len() + number.len()))
                .build(),
            epoch: Mutex::new(0),
        }
    }

    /// What is known by the id alone. Nothing where that has to be asked of the file: a transaction
    /// counts only where the id is unknown, which a cache cannot tell.
    pub(super) fn recognise(&self, intent: &Intent, now: Timestamp) -> Option<Begun> {
        let known = self.answers.get(&id_key(intent)).filter(|known| now < known.expires)?;
        let same = known.meaning == intent.meaning && known.operation == intent.operation;
        Some(if same { Begun::Answered(Arc::clone(&known.answer)) } else { Begun::Conflict })
    }

    pub(super) fn account(&self, merchant: &str, dialect: Dialect, query: &AccountQuery) -> Option<Arc<Account>> {
        let whole = |digits: &str| self.accounts.get(&account_key(merchant, dialect, digits));
        if query.account_id.is_empty() && query.whole {
            return whole(&query.digits);
        }
        let number = self.aliases.get(&alias_key(merchant, dialect, query))?;
        whole(&number).filter(|account| match &account.handle {
            Handle::Classic { account_id, .. } if !query.account_id.is_empty() => *account_id == query.account_id,
            Handle::Classic { .. } | Handle::Snap { .. } => account.is_called(&query.digits),
        })
    }

    /// To be asked before the file is read, and handed to [`found`](Self::found).
    pub(super) fn epoch(&self) -> u64 {
        *self.epoch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A reader found this; kept if nothing has been written since `epoch`.
    pub(super) fn found(&self, epoch: u64, query: &AccountQuery, account: &Arc<Account>) {
        let current = self.epoch.lock().unwrap_or_else(PoisonError::into_inner);
        if *current != epoch {
            return;
        }
        let (dialect, digits) = (account.dialect(), account.digits());
        self.accounts.insert(account_key(&account.merchant, dialect, digits), Arc::clone(account));
        if !query.account_id.is_empty() || !query.whole {
            self.aliases.insert(alias_key(&account.merchant, dialect, query), digits.into());
        }
    }

    /// Enters what has been committed.
    pub(super) fn committed(&self, effects: Vec<Effect>) {
        let mut epoch = self.epoch.lock().unwrap_or_else(PoisonError::into_inner);
        for effect in effects {
            match effect {
                Effect::Answered(id, operation, meaning, expires, answer) => {
                    self.answers.insert(id, Arc::new(Answered { operation, meaning, expires, answer }));
                }
                Effect::Account(account) => {
                    *epoch += 1;
                    self.forget_own_digits(&account);
                    let key = account_key(&account.merchant, account.dialect(), account.digits());
                    self.accounts.insert(key, account);
                }
                Effect::Forgotten(account) => {
                    *epoch += 1;
                    self.forget_own_digits(&account);
                    self.accounts.invalidate(&account_key(&account.merchant, account.dialect(), account.digits()));
                }
            }
        }
    }

    /// Digits that fitted one account, as whole number or own ones, may now fit two.
    fn forget_own_digits(&self, account: &Account) {
        for digits in [account.own_digits.as_str(), account.digits()] {
            let query = AccountQuery { digits: digits.to_owned(), ..AccountQuery::default() };
            self.aliases.invalidate(&alias_key(&account.merchant, account.dialect(), &query));
        }
    }

    /// Bytes that count against the bounds.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> u64 {
        self.answers.run_pending_tasks();
        self.accounts.run_pending_tasks();
        self.aliases.run_pending_tasks();
        self.answers.weighted_size() + self.accounts.weighted_size() + self.aliases.weighted_size()
    }

    /// Forgets everything, so that the file has to be asked.
    #[cfg(test)]
    pub(super) fn clear(&self) {
        self.answers.invalidate_all();
        self.accounts.invalidate_all();
        self.aliases.invalidate_all();
    }
}

fn alias_key(merchant: &str, dialect: Dialect, query: &AccountQuery) -> String {
    let (kind, handle) = if query.account_id.is_empty() { ("own", &query.digits) } else { ("id", &query.account_id) };
    account_key(merchant, dialect, &format!("{kind}\n{handle}"))
}
