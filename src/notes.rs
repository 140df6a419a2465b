//! What is noted about a request on its way, for its one log line and its spans.
//!
//! Made by `observe`, carried by the request's admission, written to by whichever layer knows, and read
//! by `observe` at the end, even when the caller has left before. Promises to hold nothing that may not
//! be logged: of a number only its last four digits. What the gateway does on its own has notes that
//! nobody reads.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use crate::call::{Cause, Route};
use crate::dialect::OperationKind;
use crate::telemetry::trace::Context;

/// The notes of one request; clones write on the same page.
#[derive(Clone, Debug, Default)]
pub struct Notes(Arc<Page>);

#[derive(Debug, Default)]
struct Page {
    sent: AtomicU32,
    times: [AtomicU64; Part::ALL.len()],
    bytes_in: AtomicU64,
    trace: Option<Context>,
    findings: Mutex<Findings>,
}

/// What only some requests come to know.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// How the last try ended.
    pub ended: Option<Ended>,
    /// The number's last four digits.
    pub digits: Option<[u8; 4]>,
    /// Where the request went.
    pub route: Option<Arc<Route>>,
}

/// How a try ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// What was tried.
    pub kind: OperationKind,
    /// The HTTP status received.
    pub status: Option<StatusCode>,
    /// The `responseCode` received.
    pub code: Option<u32>,
    /// What went wrong.
    pub cause: Option<Cause>,
}

/// Where a request's time goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Waiting for upstream's answers.
    Upstream,
    /// Waiting for a token.
    Token,
    /// Waiting for the store.
    Store,
}

impl Part {
    const ALL: [Self; 3] = [Self::Upstream, Self::Token, Self::Store];
}

impl Notes {
    /// Notes of a request that belongs to a trace, or to none.
    #[must_use]
    pub fn new(trace: Option<Context>) -> Self {
        Self(Arc::new(Page { trace, ..Page::default() }))
    }

    /// The trace the request belongs to; tries are its children.
    #[must_use]
    pub fn trace(&self) -> Option<&Context> {
        self.0.trace.as_ref()
    }

    /// Tries that may have reached upstream so far.
    #[must_use]
    pub fn sent(&self) -> u32 {
        self.0.sent.load(Ordering::Relaxed)
    }

    /// Something may go upstream now.
    pub fn sending(&self) {
        self.0.sent.fetch_add(1, Ordering::Relaxed);
    }

    /// What was about to go never left.
    pub fn not_sent(&self) {
        self.0.sent.fetch_sub(1, Ordering::Relaxed);
    }

    /// Nothing was tried, for this reason.
    pub fn unproven(&self, cause: Cause) {
        self.findings_mut().ended =
            Some(Ended { kind: OperationKind::Read, status: None, code: None, cause: Some(cause) });
    }

    /// A try has ended. A question about a create or update does not hide why it had to be asked.
    pub fn ended(&self, ended: Ended) {
        let last = &mut self.findings_mut().ended;
        let asks = ended.kind == OperationKind::Read && last.is_some_and(|before| before.kind != OperationKind::Read);
        if !asks {
            *last = Some(ended);
        }
    }

    /// Time that went by since `from` belongs to this part.
    pub fn spent(&self, part: Part, from: Instant) {
        self.add(part, from.elapsed());
    }

    /// So much time belongs to this part.
    pub fn add(&self, part: Part, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.time(part).fetch_add(nanos, Ordering::Relaxed);
    }

    /// Time of this part so far.
    #[must_use]
    pub fn time_of(&self, part: Part) -> Duration {
        Duration::from_nanos(self.time(part).load(Ordering::Relaxed))
    }

    fn time(&self, part: Part) -> &AtomicU64 {
        let [upstream, token, store] = &self.0.times;
        match part {
            Part::Upstream => upstream,
            Part::Token => token,
            Part::Store => store,
        }
    }

    /// The body was read.
    pub fn received(&self, bytes: usize) {
        self.0.bytes_in.store(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Bytes of the body that was read.
    #[must_use]
    pub fn bytes_in(&self) -> u64 {
        self.0.bytes_in.load(Ordering::Relaxed)
    }

    /// It is about this number, of which the last digits are kept where they do not give it away.
    pub fn number(&self, number: &str) {
        if let Some((rest, digits)) = number.as_bytes().split_last_chunk::<4>()
            && rest.len() >= HIDDEN_MIN
            && digits.iter().all(u8::is_ascii_digit)
        {
            self.findings_mut().digits = Some(*digits);
        }
    }

    /// It is for this route.
    pub fn routed(&self, route: &Arc<Route>) {
        self.findings_mut().route = Some(Arc::clone(route));
    }

    /// What was found out.
    #[must_use]
    pub fn findings(&self) -> Findings {
        self.findings_mut().clone()
    }

    fn findings_mut(&self) -> MutexGuard<'_, Findings> {
        self.0.findings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Digits of a number that must stay hidden for the last four to be shown.
const HIDDEN_MIN: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_number_only_the_end_is_kept() {
        let digits = |number: &str| {
            let notes = Notes::default();
            notes.number(number);
            notes.findings().digits
        };
        assert_eq!(digits("   1462912345678901"), Some(*b"8901"));
        assert_eq!(digits("12345678"), Some(*b"5678"));
        assert_eq!(digits("1234567"), None, "half of it would be shown");
        assert_eq!(digits("Budi Santoso"), None);
        assert_eq!(digits(""), None);
    }

    #[test]
    fn a_question_about_a_create_does_not_hide_why_it_was_asked() {
        let notes = Notes::default();
        let ended = |kind, cause| notes.ended(Ended { kind, status: None, code: None, cause });
        ended(OperationKind::Create, Some(Cause::Timeout));
        ended(OperationKind::Read, None);
        assert_eq!(notes.findings().ended.unwrap().cause, Some(Cause::Timeout));
    }
}
