//! What upstream has lately said of accounts, so that one answer serves many events.
//!
//! Promises to keep, of each account, the last answer and when answers of its kind were asked for since
//! the first of them; and a bound, beyond which what was asked about longest ago is forgotten. Judges
//! nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use crate::dialect::Dialect;
use crate::document::Document;

/// Whom a question was about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct About {
    /// Whose account.
    pub(super) merchant: Arc<str>,
    /// Of which generation.
    pub(super) dialect: Dialect,
    /// Its number.
    pub(super) digits: String,
    /// Which life of it, where that was said.
    pub(super) account_id: String,
    /// What else the question named that only the callback says: of an account without a record.
    pub(super) customer: String,
}

/// An answer; absent where upstream does not know the account.
type Answer = Option<Arc<(Bytes, Document)>>;

/// What was heard since a moment.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    /// The last answer.
    pub(super) answer: Answer,
    /// When the first of these answers was asked for.
    pub(super) first: Timestamp,
    /// When the last was.
    pub(super) last: Timestamp,
    /// How many there were.
    pub(super) times: u32,
    /// Whether the last is of another kind than the one before: the account is known no more, or again.
    pub(super) is_new_kind: bool,
}

/// Answers of the last moments.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<HashMap<About, Row>>);

#[derive(Debug)]
struct Row {
    answer: Answer,
    /// When answers of this kind were asked for, in order.
    asked: VecDeque<Timestamp>,
}

impl Row {
    fn last(&self) -> Timestamp {
        self.asked.back().copied().unwrap_or(Timestamp::MIN)
    }

    /// What was heard of questions asked after that moment.
    fn since(&self, moment: Timestamp) -> Option<Heard> {
        let after = || self.asked.iter().filter(move |asked| **asked > moment);
        let times = u32::try_from(after().count()).unwrap_or(u32::MAX);
        Some(Heard {
            answer: self.answer.clone(),
            first: *after().next()?,
            last: self.last(),
            times,
            is_new_kind: false,
        })
    }
}

impl Recent {
    /// What was heard in answer to questions that were asked after that moment.
    pub(super) fn since(&self, about: &About, moment: Timestamp) -> Option<Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(about)?.since(moment)
    }

    /// Keeps an answer; what was heard since that moment.
    pub(super) fn keep(&self, about: &About, moment: Timestamp, (at, answer): (Timestamp, Answer)) -> Heard {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if rows.len() >= ROWS_MAX && !rows.contains_key(about) {
            make_room(&mut rows, at);
        }
        let row = rows.entry(about.clone()).or_insert_with(|| Row { answer: answer.clone(), asked: VecDeque::new() });
        let is_new_kind = row.answer.is_some() != answer.is_some();
        if is_new_kind {
            row.asked.clear();
        }
        if row.asked.len() >= ASKED_MAX {
            row.asked.pop_front();
        }
        row.answer.clone_from(&answer);
        row.asked.push_back(at);
        let heard = row.since(moment);
        let heard = heard.unwrap_or(Heard { answer, first: at, last: at, times: 1, is_new_kind });
        Heard { is_new_kind, ..heard }
    }
}

fn make_room(rows: &mut HashMap<About, Row>, now: Timestamp) {
    rows.retain(|_, row| now.duration_since(row.last()) < KEPT);
    if rows.len() >= ROWS_MAX
        && let Some(oldest) = rows.iter().min_by_key(|(_, row)| row.last()).map(|(about, _)| about.clone())
    {
        rows.remove(&oldest);
    }
}

/// Accounts whose answers are kept at most, and for how long where there are more.
const ROWS_MAX: usize = 1_024;
const KEPT: SignedDuration = SignedDuration::from_mins(5);

/// Questions about one account that are remembered: an hour of them, one a minute, and the first quick ones.
const ASKED_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn about(digits: &str) -> About {
        let account_id = String::new();
        let (digits, customer) = (digits.to_owned(), String::new());
        About { merchant: "sample".into(), dialect: Dialect::Snap, digits, account_id, customer }
    }

    fn answer() -> Answer {
        Some(Arc::new((Bytes::new(), Document::parse(Bytes::from_static(b"{}")).unwrap())))
    }

    #[test]
    fn only_what_was_asked_afterwards_counts() {
        let recent = Recent::default();
        for second in [1, 5, 9] {
            recent.keep(&about("1"), at(0), (at(second), answer()));
        }
        let heard = recent.since(&about("1"), at(1)).unwrap();
        assert_eq!((heard.first, heard.last, heard.times), (at(5), at(9), 2));
        assert!(recent.since(&about("1"), at(9)).is_none());
        assert!(recent.since(&about("2"), at(0)).is_none());
        // A refusal is no continuation of what was shown.
        let heard = recent.keep(&about("1"), at(0), (at(12), None));
        assert!(heard.is_new_kind && heard.answer.is_none());
        assert_eq!((heard.first, heard.times), (at(12), 1));
    }

    #[test]
    fn the_oldest_makes_room() {
        let recent = Recent::default();
        for n in 0..i64::try_from(ROWS_MAX).unwrap() + 3 {
            recent.keep(&about(&n.to_string()), at(0), (at(1 + n / 100), answer()));
        }
        assert_eq!(recent.0.lock().unwrap().len(), ROWS_MAX);
        recent.keep(&about("late"), at(0), (at(1_000), answer()));
        assert_eq!(recent.0.lock().unwrap().len(), 1);
    }
}
