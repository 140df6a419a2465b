//! What a repeated pair of `X-EXTERNAL-ID` and `trxId` meets (`snap.md` section 7).
//!
//! Promises the two readings of the contradicting pages as one pure decision, [`judge`], and a bounded
//! memory of the calls that changed something. A refused call takes no id: what was wrong with it
//! can be put right under the same one.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use jiff::Timestamp;

use crate::clock::JAKARTA;
use crate::config::sandbox::IdempotencyMode;
use crate::dialect::OperationId;
use crate::document::Meaning;

/// Calls remembered at most; beyond it the oldest is forgotten.
pub(super) const CALLS_MAX: usize = 1_000_000;

/// What makes a call the same call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// Which operation.
    pub(super) operation: OperationId,
    /// `trxId`.
    pub(super) trx_id: String,
    /// What the body says.
    pub(super) meaning: Meaning,
}

/// A call that changed something.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    identity: Identity,
    /// When, by real time.
    at: Timestamp,
    body: Bytes,
}

/// What a call with a known `X-EXTERNAL-ID` meets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is done.
    New,
    /// The first answer's body again.
    Replay(Bytes),
    /// 409.
    Conflict,
}

/// Decides.
#[must_use]
pub(super) fn judge(mode: IdempotencyMode, kept: Option<&Kept>, identity: &Identity, now: Timestamp) -> Verdict {
    let Some(kept) = kept else { return Verdict::New };
    match mode {
        IdempotencyMode::Replay if kept.identity == *identity => Verdict::Replay(kept.body.clone()),
        IdempotencyMode::Replay => Verdict::Conflict,
        IdempotencyMode::Conflict => {
            let day = |moment| JAKARTA.to_datetime(moment).date();
            if day(kept.at) == day(now) { Verdict::Conflict } else { Verdict::New }
        }
    }
}

/// The calls that changed something, by merchant and `X-EXTERNAL-ID`.
#[derive(Debug, Default)]
pub(super) struct Calls {
    by_id: HashMap<(usize, String), Kept>,
    order: VecDeque<(usize, String)>,
}

impl Calls {
    /// The call of that id.
    #[must_use]
    pub(super) fn find(&self, merchant: usize, external_id: &str) -> Option<&Kept> {
        self.by_id.get(&(merchant, external_id.to_owned()))
    }

    /// Remembers a call and the body of its answer.
    pub(super) fn keep(
        &mut self,
        (merchant, external_id): (usize, &str),
        identity: Identity,
        at: Timestamp,
        body: Bytes,
    ) {
        let id = (merchant, external_id.to_owned());
        if self.by_id.insert(id.clone(), Kept { identity, at, body }).is_none() {
            self.order.push_back(id);
        }
        while self.order.len() > CALLS_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.by_id.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(trx_id: &str, meaning: u8) -> Identity {
        Identity { operation: OperationId::SnapCreate, trx_id: trx_id.to_owned(), meaning: Meaning([meaning; 32]) }
    }

    #[test]
    fn both_readings() {
        let at: Timestamp = "2026-01-05T16:59:00Z".parse().unwrap();
        let kept = Kept { identity: identity("T1", 1), at, body: Bytes::from_static(b"first") };
        let verdict = |mode, identity: &Identity, now| judge(mode, Some(&kept), identity, now);
        let replay = IdempotencyMode::Replay;
        let next_day: Timestamp = "2026-01-05T17:00:00Z".parse().unwrap();
        assert_eq!(judge(replay, None, &identity("T1", 1), at), Verdict::New);
        let body = Bytes::from_static(b"first");
        assert_eq!(verdict(replay, &identity("T1", 1), next_day), Verdict::Replay(body));
        assert_eq!(verdict(replay, &identity("T2", 1), at), Verdict::Conflict);
        assert_eq!(verdict(replay, &identity("T1", 2), at), Verdict::Conflict);
        let update = Identity { operation: OperationId::SnapUpdate, ..identity("T1", 1) };
        assert_eq!(verdict(replay, &update, at), Verdict::Conflict);
        // Midnight in Jakarta is 17:00 UTC.
        assert_eq!(verdict(IdempotencyMode::Conflict, &identity("T1", 1), at), Verdict::Conflict);
        assert_eq!(verdict(IdempotencyMode::Conflict, &identity("T1", 1), next_day), Verdict::New);
    }

    #[test]
    fn an_id_belongs_to_one_merchant() {
        let mut calls = Calls::default();
        calls.keep((0, "E1"), identity("T1", 1), Timestamp::UNIX_EPOCH, Bytes::new());
        assert!(calls.find(0, "E1").is_some());
        assert!(calls.find(1, "E1").is_none());
    }
}
