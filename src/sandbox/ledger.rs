//! Counts what a client must not do twice.
//!
//! Promises the figures of `GET /_sandbox/stats`: a duplicate is a second account made for the same
//! merchant and key, whatever the idempotency rules let through (contract section 9).

use std::collections::HashSet;

use serde_json::{Value, json};

/// What names one create: the merchant, then `X-EXTERNAL-ID` and `trxId` in SNAP, the correlation id
/// and nothing in classic.
pub(super) type CreateKey = (usize, String, Option<String>);

/// The counts since the last reset.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    creates: u64,
    duplicate_creates: u64,
    tokens_issued: u64,
    keys: HashSet<CreateKey>,
}

impl Ledger {
    /// An account was made. Bounded, since accounts are.
    pub(super) fn created(&mut self, key: CreateKey) {
        self.creates += 1;
        if !self.keys.insert(key) {
            self.duplicate_creates += 1;
        }
    }

    /// A token was given out.
    pub(super) const fn token_issued(&mut self) {
        self.tokens_issued += 1;
    }

    /// The figures.
    #[must_use]
    pub(super) fn stats(&self) -> Value {
        json!({
            "creates": self.creates,
            "distinct_keys": self.keys.len(),
            "duplicate_creates": self.duplicate_creates,
            "tokens_issued": self.tokens_issued,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_account_for_one_key_is_a_duplicate() {
        let mut ledger = Ledger::default();
        ledger.token_issued();
        let key = |merchant, id: &str, trx: Option<&str>| (merchant, id.to_owned(), trx.map(str::to_owned));
        for (merchant, id, trx) in [(0, "E1", "T1"), (0, "E1", "T2"), (1, "E1", "T1"), (0, "E1", "T1")] {
            ledger.created(key(merchant, id, Some(trx)));
        }
        ledger.created(key(0, "E1", None));
        let expected = json!({"creates": 5, "distinct_keys": 4, "duplicate_creates": 1, "tokens_issued": 1});
        assert_eq!(ledger.stats(), expected);
    }
}
