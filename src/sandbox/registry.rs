//! Every account, findable by all its names.
//!
//! Promises that a number leads to its newest life, that an older life is never found again under it,
//! and that no more than [`ACCOUNTS_MAX`] accounts are made between two resets.

use std::collections::HashMap;

use jiff::Timestamp;

use super::record::Account;

/// Accounts held at most; at about two kilobytes each that is what a developer's machine can spare.
pub(super) const ACCOUNTS_MAX: usize = 1_000_000;

/// The accounts in the order they were made.
#[derive(Debug, Default)]
pub(super) struct Registry {
    accounts: Vec<Account>,
    /// Newest life by payable number.
    by_number: HashMap<String, usize>,
    /// By `virtualAccountId`.
    by_id: HashMap<String, usize>,
    /// By merchant and `A-Correlation-ID`.
    by_flow: HashMap<(usize, String), usize>,
}

/// Why an account cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unavailable {
    /// Somebody's number, still in force.
    Occupied,
    /// [`ACCOUNTS_MAX`] reached.
    Full,
}

impl Registry {
    /// Whether a number may be given to a new account.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn admits(&self, payable: &str, now: Timestamp) -> Result<(), Unavailable> {
        if self.accounts.len() >= ACCOUNTS_MAX {
            return Err(Unavailable::Full);
        }
        match self.by_number(payable) {
            Some(account) if !account.is_over(now) => Err(Unavailable::Occupied),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether a number was ever given out.
    #[must_use]
    pub(super) fn knows(&self, payable: &str) -> bool {
        self.by_number.contains_key(payable)
    }

    /// Whether [`ACCOUNTS_MAX`] is reached.
    #[must_use]
    pub(super) const fn is_full(&self) -> bool {
        self.accounts.len() >= ACCOUNTS_MAX
    }

    /// Adds a new account, which becomes its number's newest life.
    pub(super) fn add(&mut self, account: Account) {
        let index = self.accounts.len();
        self.by_number.insert(account.payable(), index);
        if let Account::Classic(classic) = &account {
            self.by_id.insert(classic.id.clone(), index);
            self.by_flow.insert((classic.merchant, classic.correlation_id.clone()), index);
        }
        self.accounts.push(account);
    }

    /// The newest life of a number.
    #[must_use]
    pub(super) fn by_number(&self, payable: &str) -> Option<&Account> {
        self.accounts.get(*self.by_number.get(payable)?)
    }

    /// The newest life of a number, to be changed.
    pub(super) fn by_number_mut(&mut self, payable: &str) -> Option<&mut Account> {
        self.accounts.get_mut(*self.by_number.get(payable)?)
    }

    /// A classic account, to be changed.
    pub(super) fn by_id_mut(&mut self, id: &str) -> Option<&mut Account> {
        self.accounts.get_mut(*self.by_id.get(id)?)
    }

    /// Whether a correlation id already names a flow.
    #[must_use]
    pub(super) fn has_flow(&self, merchant: usize, correlation_id: &str) -> bool {
        self.by_flow.contains_key(&(merchant, correlation_id.to_owned()))
    }

    /// The accounts, newest first.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = &Account> {
        self.accounts.iter().rev()
    }

    /// How many.
    #[must_use]
    pub(super) const fn len(&self) -> usize {
        self.accounts.len()
    }
}
