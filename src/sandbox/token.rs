//! Tokens that were given out, and how long they are good.
//!
//! Promises that a token is good for one merchant and one generation until its moment of expiry by
//! real time, and that no more than [`TOKENS_MAX`] are remembered. The calls that give them out are
//! in `calls::login`.

use std::collections::{HashMap, VecDeque};

use jiff::Timestamp;

use crate::dialect::Dialect;

/// Tokens remembered at most; beyond it the oldest stops being good.
pub(super) const TOKENS_MAX: usize = 100_000;

/// Every token that may still be good.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    by_text: HashMap<String, Token>,
    /// In the order they were given out.
    order: VecDeque<String>,
}

#[derive(Debug)]
struct Token {
    merchant: usize,
    dialect: Dialect,
    expires_at: Timestamp,
}

impl Tokens {
    /// Remembers a new token.
    pub(super) fn issue(&mut self, text: String, merchant: usize, dialect: Dialect, expires_at: Timestamp) {
        while self.order.len() >= TOKENS_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.by_text.remove(&oldest);
            }
        }
        self.order.push_back(text.clone());
        self.by_text.insert(text, Token { merchant, dialect, expires_at });
    }

    /// Whose token it is, while it is good.
    #[must_use]
    pub(super) fn owner(&self, text: &str, dialect: Dialect, now: Timestamp) -> Option<usize> {
        let token = self.by_text.get(text)?;
        (token.dialect == dialect && now < token.expires_at).then_some(token.merchant)
    }

    /// Ends one token before its time.
    pub(super) fn expire(&mut self, text: &str) {
        self.by_text.remove(text);
    }

    /// Ends the token given out last.
    pub(super) fn expire_newest(&mut self) {
        if let Some(newest) = self.order.back() {
            self.by_text.remove(newest);
        }
    }
}

/// The token of an `Authorization` header.
#[must_use]
pub(super) fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_token_is_good_for_one_merchant_one_generation_and_its_life() {
        let mut tokens = Tokens::default();
        tokens.issue("t".to_owned(), 3, Dialect::Snap, at(100));
        assert_eq!(tokens.owner("t", Dialect::Snap, at(99)), Some(3));
        assert_eq!(tokens.owner("t", Dialect::Snap, at(100)), None);
        assert_eq!(tokens.owner("t", Dialect::Classic, at(99)), None);
        assert_eq!(tokens.owner("u", Dialect::Snap, at(99)), None);
        tokens.expire("t");
        assert_eq!(tokens.owner("t", Dialect::Snap, at(99)), None);
    }

    #[test]
    fn memory_is_bounded() {
        let mut tokens = Tokens::default();
        for number in 0..=TOKENS_MAX {
            tokens.issue(number.to_string(), 0, Dialect::Snap, at(100));
        }
        assert_eq!((tokens.by_text.len(), tokens.order.len()), (TOKENS_MAX, TOKENS_MAX));
        assert_eq!(tokens.owner("0", Dialect::Snap, at(1)), None);
    }

    #[test]
    fn only_bearer_tokens_are_read() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bearer abc"), Some("abc"));
        for text in ["", "Bearer", "Bearer ", "Basic abc", "abc"] {
            assert_eq!(bearer(text), None, "{text:?}");
        }
    }
}
