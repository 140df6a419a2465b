//! Asks upstream whether what a callback says is true, before the app is told.
//!
//! Promises that what upstream contradicts is never delivered as paid. Upstream may be a moment behind
//! its own callback, so it is asked again for a while before that is final; while it cannot be asked
//! the event waits. One answer serves all events that had come in before the question.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use super::ask::{Asker, Said};
use super::shown::{self, Claim, Verdict};
use crate::clock::SharedClock;
use crate::dialect::Dialect;
use crate::document::Document;
use crate::reference::AccountQuery;
use crate::store::inbox::Event;
use crate::store::{Store, StoreError};
use crate::telemetry::metrics::{Confirmation, Metrics};

/// Asks.
#[derive(Debug)]
pub struct Confirmer {
    asker: Arc<Asker>,
    store: Arc<dyn Store>,
    clock: SharedClock,
    metrics: Arc<Metrics>,
    /// Answers of the last moments.
    fresh: Mutex<HashMap<Key, Fresh>>,
}

type Key = (Arc<str>, Dialect, String);

#[derive(Clone, Debug)]
struct Fresh {
    asked: Timestamp,
    answer: Arc<(Bytes, Document)>,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checked {
    /// Upstream says so too.
    Confirmed,
    /// Upstream shows a later payment of the account, before which this one cannot be seen.
    Hidden,
    /// To be asked again then.
    Later(Timestamp, &'static str),
    /// Upstream says otherwise.
    Contradicted(&'static str),
}

impl Confirmer {
    /// Asks through this asker.
    #[must_use]
    pub fn new(asker: Arc<Asker>, store: Arc<dyn Store>, clock: SharedClock, metrics: Arc<Metrics>) -> Self {
        Self { asker, store, clock, metrics, fresh: Mutex::default() }
    }

    /// Asks about one event.
    pub async fn check(&self, event: &Event) -> Checked {
        let checked = match self.find_out(event).await {
            Ok(checked) => checked,
            Err(error) => {
                tracing::warn!(merchant = &*event.merchant, %error, "what is known of an account cannot be read");
                self.later(event, "the store could not be read")
            }
        };
        let result = match &checked {
            Checked::Confirmed => Confirmation::Confirmed,
            Checked::Hidden => Confirmation::Hidden,
            Checked::Later(..) => Confirmation::Open,
            Checked::Contradicted(_) => Confirmation::Contradicted,
        };
        self.metrics.confirmed(&event.merchant, event.dialect, result);
        checked
    }

    async fn find_out(&self, event: &Event) -> Result<Checked, StoreError> {
        let key = (Arc::clone(&event.merchant), event.dialect, event.digits.clone());
        // A denial may be out of date by now; that something was paid stays true.
        if let Some(answer) = self.known(&key, event.received)
            && let verdict @ (Verdict::Confirmed | Verdict::Hidden) = self.judge(event, &answer.1).await?
        {
            return Ok(if verdict == Verdict::Confirmed { Checked::Confirmed } else { Checked::Hidden });
        }
        let asked = self.clock.now();
        Ok(match self.ask(event).await? {
            Said::Shown(answer) => {
                self.keep(key, Fresh { asked, answer: Arc::clone(&answer) });
                match self.judge(event, &answer.1).await? {
                    Verdict::Confirmed => Checked::Confirmed,
                    Verdict::Hidden => Checked::Hidden,
                    Verdict::NotShown => self.doubt(event, SHOWN_WITHIN, "upstream does not show this payment"),
                }
            }
            Said::Refused => self.doubt(event, KNOWN_WITHIN, "upstream does not know this account"),
            Said::NoAnswer => self.later(event, "upstream could not be asked"),
            Said::NobodyToAsk => Checked::Contradicted("it says too little of its account to ask upstream about it"),
        })
    }

    async fn ask(&self, event: &Event) -> Result<Said, StoreError> {
        let query = AccountQuery { digits: event.digits.clone(), whole: true, ..AccountQuery::default() };
        if let Some(account) = self.store.account(&event.merchant, event.dialect, &query).await? {
            return Ok(self.asker.about(&account).await);
        }
        let Ok(callback) = Document::parse(event.body.clone()) else { return Ok(Said::NobodyToAsk) };
        Ok(self.asker.about_stranger(&event.merchant, event.dialect, &callback).await)
    }

    async fn judge(&self, event: &Event, answer: &Document) -> Result<Verdict, StoreError> {
        let watch = self.store.watches().watch(&event.merchant, event.dialect, &event.digits).await?;
        let claim = Claim { amount: event.amount.unwrap_or_default(), paid_at: event.paid_at.as_deref() };
        let counted = watch.as_ref().map(|watch| watch.counted);
        let asked = watch.and_then(|watch| watch.account.amount);
        let shown = shown::read(event.dialect, answer);
        Ok(shown.map_or(Verdict::NotShown, |shown| shown::judge(&shown, claim, counted, asked)))
    }

    /// Final after a while, to be asked again before.
    fn doubt(&self, event: &Event, patience: SignedDuration, why: &'static str) -> Checked {
        if self.clock.now().duration_since(event.received) >= patience {
            return Checked::Contradicted(why);
        }
        self.later(event, why)
    }

    /// The older an event is, the longer the pause.
    fn later(&self, event: &Event, why: &'static str) -> Checked {
        let now = self.clock.now();
        let pause = (now.duration_since(event.received) / 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        Checked::Later(now.checked_add(pause).unwrap_or(Timestamp::MAX), why)
    }

    /// An answer to a question that was asked after the event had come in.
    fn known(&self, key: &Key, received: Timestamp) -> Option<Arc<(Bytes, Document)>> {
        let fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        fresh.get(key).filter(|fresh| fresh.asked > received).map(|fresh| Arc::clone(&fresh.answer))
    }

    fn keep(&self, key: Key, answer: Fresh) {
        let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        if fresh.len() >= FRESH_MAX {
            fresh.retain(|_, known| answer.asked.duration_since(known.asked) < FRESH_FOR);
        }
        if fresh.len() < FRESH_MAX {
            fresh.insert(key, answer);
        }
    }
}

/// How long upstream may be behind its own callback: its state comes from the same system, and its last
/// try to deliver from the first minute.
const SHOWN_WITHIN: SignedDuration = SignedDuration::from_mins(2);

/// How long upstream may say that it does not know an account: a refusal can have other causes.
const KNOWN_WITHIN: SignedDuration = SignedDuration::from_hours(1);

const FIRST_PAUSE: SignedDuration = SignedDuration::from_secs(5);
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_mins(1);

/// Answers that are kept at most, and for how long where there are more.
const FRESH_MAX: usize = 1_024;
const FRESH_FOR: SignedDuration = SignedDuration::from_secs(30);
