//! Asks upstream whether what a callback says is true, before the app is told.
//!
//! Promises that what upstream contradicts is never delivered as paid. Upstream may be a moment behind
//! its own callback, so it has to deny it three times at least, and for a while, before that is final;
//! while it cannot be asked the event waits. One answer serves all events that had come in before the
//! question.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::ask::{Asker, Said};
use super::notice::{self, Notice, text};
use super::recent::{About, Heard, Recent};
use super::shown::{self, Known, Verdict};
use crate::clock::SharedClock;
use crate::dialect::amount::Amount;
use crate::dialect::{Attach, Dialect, Identity as Id};
use crate::document::Document;
use crate::reference::{Account, AccountQuery};
use crate::store::inbox::{Doubt, Event, Identity};
use crate::store::{Store, StoreError};
use crate::telemetry::metrics::{Confirmation, Metrics};

/// Asks.
#[derive(Debug)]
pub struct Confirmer {
    asker: Arc<Asker>,
    store: Arc<dyn Store>,
    clock: SharedClock,
    metrics: Arc<Metrics>,
    recent: Recent,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checked {
    /// Upstream says so too.
    Confirmed,
    /// Upstream says so too, and when it was paid, which the callback does not.
    Identified(String),
    /// It can be true, and nobody can tell.
    Hidden,
    /// To be asked again then.
    Later(Timestamp, &'static str, Option<Doubt>),
    /// Upstream says otherwise.
    Contradicted(&'static str),
}

/// An event and what is known of the account it names.
struct Case<'a> {
    event: &'a Event,
    body: Document,
    claim: Notice,
    /// The account's record, if the claim is about that life of the number.
    account: Option<Arc<Account>>,
    about: About,
    /// How long upstream may not know the account.
    known_within: SignedDuration,
}

impl Confirmer {
    /// Asks through this asker.
    #[must_use]
    pub fn new(asker: Arc<Asker>, store: Arc<dyn Store>, clock: SharedClock, metrics: Arc<Metrics>) -> Self {
        Self { asker, store, clock, metrics, recent: Recent::default() }
    }

    /// Asks about one event.
    pub async fn check(&self, event: &Event) -> Checked {
        let checked = match self.find_out(event).await {
            Ok(checked) => checked,
            Err(error) => {
                tracing::warn!(merchant = &*event.merchant, %error, "what is known of an account cannot be read");
                self.later(event, "the store could not be read", event.doubt)
            }
        };
        let result = match &checked {
            Checked::Confirmed | Checked::Identified(_) => Confirmation::Confirmed,
            Checked::Hidden => Confirmation::Hidden,
            Checked::Later(..) => Confirmation::Open,
            Checked::Contradicted(_) => Confirmation::Contradicted,
        };
        self.metrics.confirmed(&event.merchant, event.dialect, result);
        checked
    }

    async fn find_out(&self, event: &Event) -> Result<Checked, StoreError> {
        let Some(case) = self.case(event).await? else { return Ok(Checked::Contradicted(TOO_LITTLE)) };
        // That something was paid stays true; that it was not may be out of date, unless the question was
        // asked late enough.
        if let Some(heard) = self.recent.since(&case.about, event.received) {
            match self.judge(&case, &heard).await? {
                Ok(checked) => return Ok(checked),
                Err((patience, why)) if is_final(&heard, patience) => return Ok(Checked::Contradicted(why)),
                Err(_) => {}
            }
        }
        let asked = self.clock.now();
        let answer = match self.ask(&case).await {
            Said::Shown(answer) => Some(answer),
            Said::Refused | Said::Declined => None,
            Said::NoAnswer => return Ok(self.later(event, "upstream could not be asked", event.doubt)),
            Said::NobodyToAsk => return Ok(Checked::Contradicted(TOO_LITTLE)),
        };
        let heard = self.recent.keep(&case.about, event.received, (asked, answer));
        Ok(match self.judge(&case, &heard).await? {
            Ok(checked) => checked,
            Err(denial) => self.doubt(event, &heard, denial),
        })
    }

    async fn case<'a>(&self, event: &'a Event) -> Result<Option<Case<'a>>, StoreError> {
        let Ok(body) = Document::parse(event.body.clone()) else { return Ok(None) };
        let Ok(mut claim) = notice::read(event.dialect, &body) else { return Ok(None) };
        // Which payment it is may have been found out before.
        claim.paid_at = claim.paid_at.or_else(|| event.paid_at.clone());
        let query = AccountQuery { digits: event.digits.clone(), whole: true, ..AccountQuery::default() };
        let recorded = self.store.account(&event.merchant, event.dialect, &query).await?;
        // Of another life of the number than the recorded one nothing is known.
        let is_other = claim.account_id.as_deref().zip(recorded.as_deref().and_then(id)).is_some_and(|(a, b)| a != b);
        let account = recorded.filter(|_| !is_other);
        let known_within = if account.is_some() { KNOWN_WITHIN } else { SHOWN_WITHIN };
        // A stranger is asked about by what the callback says of it: one that says something else is no
        // answer to this one.
        let customer = || {
            let data = body.root().member("virtualAccountData")?;
            text(data, "customerNo").or_else(|| text(data, "customerId"))
        };
        let customer = if account.is_some() { None } else { customer() }.unwrap_or_default();
        let about = About {
            merchant: Arc::clone(&event.merchant),
            dialect: event.dialect,
            digits: event.digits.clone(),
            account_id: claim.account_id.clone().unwrap_or_default(),
            customer,
        };
        Ok(Some(Case { event, body, claim, account, about, known_within }))
    }

    async fn ask(&self, case: &Case<'_>) -> Said {
        match &case.account {
            Some(account) => self.asker.about(account).await,
            None => self.asker.about_stranger(&case.event.merchant, case.event.dialect, &case.body).await,
        }
    }

    /// What the answer says of the claim; where it denies it, for how long that may be a mistake, and why.
    async fn judge(&self, case: &Case<'_>, heard: &Heard) -> Result<Result<Checked, Denial>, StoreError> {
        let Some(answer) = &heard.answer else { return Ok(Err((case.known_within, NOT_KNOWN))) };
        let Some(shown) = shown::read(case.event.dialect, &answer.1) else { return Ok(Err((SHOWN_WITHIN, NOT_SHOWN))) };
        let Event { merchant, dialect, digits, .. } = case.event;
        let counted = match &case.account {
            Some(_) => self.store.watches().watch(merchant, *dialect, digits).await?.map(|watch| watch.counted),
            None => None,
        };
        let told = match (&case.claim.account_id, dialect) {
            (Some(account_id), Dialect::Classic) => self.store.inbox().told(merchant, account_id).await?,
            _ => Amount::ZERO,
        };
        let known = Known { account: case.account.as_deref(), counted, told };
        Ok(match shown::judge(&shown, &case.claim, &known) {
            Verdict::Confirmed => Ok(Checked::Confirmed),
            Verdict::Hidden => Ok(Checked::Hidden),
            Verdict::NotShown => Err((SHOWN_WITHIN, NOT_SHOWN)),
            Verdict::Newest => match self.identify(case, &shown, counted.and_then(|counted| counted.latest)).await? {
                Some(paid_at) => Ok(Checked::Identified(paid_at)),
                None => Err((SHOWN_WITHIN, NOT_SHOWN)),
            },
        })
    }

    /// Makes the event the newest payment that is shown, unless that is known already; when it was paid.
    async fn identify(
        &self,
        case: &Case<'_>,
        shown: &shown::Shown,
        counted: Option<Timestamp>,
    ) -> Result<Option<String>, StoreError> {
        let Some((paid_at, moment)) = shown.latest.as_ref().and_then(|latest| latest.paid_at.clone()) else {
            return Ok(None);
        };
        if moment.zip(counted).is_some_and(|(moment, counted)| moment <= counted) {
            return Ok(None);
        }
        let payment = notice::payment_key(&case.claim.number, &paid_at, case.claim.amount);
        let identity = Identity { id: case.event.id.clone(), payment, paid_at: paid_at.clone() };
        Ok(self.store.inbox().identify(identity).await?.then_some(paid_at))
    }

    /// Final after a while and three denials, to be asked again before. A denial of another kind than the
    /// last begins anew.
    fn doubt(&self, event: &Event, heard: &Heard, (patience, why): Denial) -> Checked {
        let before = event.doubt.filter(|_| !heard.is_new_kind);
        let doubt = Doubt {
            since: before.map_or(heard.first, |doubt| doubt.since.min(heard.first)),
            denials: before.map_or(heard.times, |doubt| heard.times.max(doubt.denials.saturating_add(1))),
        };
        if doubt.denials >= DENIALS && heard.last.duration_since(doubt.since) >= patience {
            return Checked::Contradicted(why);
        }
        self.later(event, why, Some(doubt))
    }

    /// The longer an event is in doubt, or has waited, the longer the pause.
    fn later(&self, event: &Event, why: &'static str, doubt: Option<Doubt>) -> Checked {
        let now = self.clock.now();
        let since = doubt.map_or(event.received, |doubt| doubt.since);
        let pause = (now.duration_since(since) / 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        Checked::Later(now.checked_add(pause).unwrap_or(Timestamp::MAX), why, doubt)
    }
}

/// For how long a denial may be a mistake, and what was denied.
type Denial = (SignedDuration, &'static str);

/// Which life of its number an account is.
fn id(account: &Account) -> Option<&str> {
    account.value(Attach::Identity(Id::AccountId))
}

/// Whether what was heard after an event had come in is enough to give it up.
fn is_final(heard: &Heard, patience: SignedDuration) -> bool {
    heard.times >= DENIALS && heard.last.duration_since(heard.first) >= patience
}

/// How long upstream may be behind its own callback: its state comes from the same system, and its last
/// try to deliver from the first minute.
const SHOWN_WITHIN: SignedDuration = SignedDuration::from_mins(2);

/// How long upstream may say that it does not know an account: a refusal can have other causes. Of one
/// that has no record, or another id than the recorded one, it may not for longer than that it does not
/// show a payment, or anybody could hold up that number's events.
const KNOWN_WITHIN: SignedDuration = SignedDuration::from_hours(1);

/// Denials it takes at least.
const DENIALS: u32 = 3;

const FIRST_PAUSE: SignedDuration = SignedDuration::from_secs(5);
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_mins(1);

const TOO_LITTLE: &str = "it says too little of its account to ask upstream about it";
const NOT_SHOWN: &str = "upstream does not show this payment";
const NOT_KNOWN: &str = "upstream does not know this account";
