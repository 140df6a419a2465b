//! Looks for payments nobody announced, and says when an account's time is over.
//!
//! Promises that every watched account is asked about while it may be paid and once after its end, that
//! a payment found so is told once even if its callback comes after all, and that the end is told once.
//! When to look is `next_look`'s to say, what an answer means `shown`'s; what was told before is the
//! store's to know.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Mutex;
use tokio::time::{Interval, sleep};
use tokio_util::sync::CancellationToken;

use super::after;
use super::ask::{Asker, Said, pace};
use super::deliver::Bell;
use super::notice::{self, Notice};
use super::shown::{self, Shown, State};
use crate::clock::{SharedClock, iso8601};
use crate::config::Sweep;
use crate::dialect::Dialect;
use crate::dialect::amount::Amount;
use crate::document::Document;
use crate::entropy::Entropy;
use crate::reference::Account;
use crate::store::inbox::{Arrival, EventKind, Origin};
use crate::store::watch::{Counted, Look, Looked, Watch};
use crate::store::{Store, StoreError};
use crate::telemetry::metrics::{Metrics, Sweeping};

/// What a sweeper works with.
#[derive(Clone, Debug)]
pub struct Means {
    /// Knows which accounts are due.
    pub store: Arc<dyn Store>,
    /// Decides what is due.
    pub clock: SharedClock,
    /// Events' ids.
    pub entropy: Entropy,
    /// What came of looks.
    pub metrics: Arc<Metrics>,
    /// Asks.
    pub asker: Arc<Asker>,
    /// Rung when there is something to deliver.
    pub bell: Bell,
}

/// Looks at one merchant's accounts.
#[derive(Debug)]
pub struct Sweeper {
    merchant: Arc<str>,
    sweep: Sweep,
    /// How long its events are tried.
    retry_for: Duration,
    means: Means,
    pace: Mutex<Interval>,
}

impl Sweeper {
    /// A sweeper at rest; [`run`](Self::run) sets it going.
    #[must_use]
    pub fn new(merchant: Arc<str>, sweep: Sweep, retry_for: Duration, means: Means) -> Self {
        Self { merchant, sweep, retry_for, means, pace: Mutex::new(pace(PER_SECOND)) }
    }

    /// Looks until told to stop.
    pub async fn run(&self, stop: CancellationToken) {
        loop {
            let Some(looked_at) = stop.run_until_cancelled(self.look()).await else { return };
            let pause = if looked_at < BATCH { TICK } else { Duration::ZERO };
            if stop.run_until_cancelled(sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// Looks at what is due; how much that was.
    async fn look(&self) -> usize {
        let now = self.means.clock.now();
        let soon = after(now, self.sweep.before_expiry);
        let due = self.means.store.watches().due(&self.merchant, now, soon, BATCH).await;
        let due = due.unwrap_or_else(|error| {
            tracing::warn!(merchant = &*self.merchant, %error, "which accounts are due cannot be read");
            Vec::new()
        });
        let count = due.len();
        futures_util::stream::iter(due).for_each_concurrent(AT_ONCE, |watch| self.look_at(watch)).await;
        count
    }

    async fn look_at(&self, watch: Watch) {
        let now = self.means.clock.now();
        let dialect = watch.account.dialect();
        let recorded = match next_look(&watch, &self.sweep) {
            Some(next) if next > now => self.record(Look::wait(watch, next)).await.map(|_| None),
            Some(_) => self.ask(watch).await.map(Some),
            None => self.record(Look { next: None, ..Look::wait(watch, now) }).await.map(|_| None),
        };
        match recorded {
            Ok(None) => {}
            Ok(Some(result)) => self.means.metrics.swept(&self.merchant, dialect, result),
            Err(error) => {
                tracing::warn!(merchant = &*self.merchant, %error, "a look at an account could not be recorded");
            }
        }
    }

    async fn ask(&self, watch: Watch) -> Result<Sweeping, StoreError> {
        self.pace.lock().await.tick().await;
        // What happens from here on is the next look's to see.
        let at = self.means.clock.now();
        let said = self.means.asker.about(&watch.account).await;
        let now = self.means.clock.now();
        let look = match said {
            Said::Shown(answer) => self.judge(watch, at, &answer),
            Said::Refused | Said::NobodyToAsk => self.own_judgement(watch, at),
            Said::NoAnswer => {
                let again = after(now, self.sweep.every.min(ASK_AGAIN));
                self.record(Look::wait(watch, again)).await?;
                return Ok(Sweeping::Failed);
            }
        };
        let paid = look.found.iter().any(|found| found.kind == EventKind::Paid);
        let over = look.found.iter().any(|found| found.kind == EventKind::Expired);
        match self.record(look).await? {
            Looked::Recorded(new) if new > 0 => {
                self.means.bell.ring();
                if paid {
                    tracing::warn!(merchant = &*self.merchant, "a payment was found that no callback had announced");
                }
                Ok(if paid { Sweeping::Paid } else { Sweeping::Expired })
            }
            Looked::Recorded(_) | Looked::Stale => Ok(if over { Sweeping::Expired } else { Sweeping::Nothing }),
        }
    }

    fn record(&self, look: Look) -> futures_util::future::BoxFuture<'_, Result<Looked, StoreError>> {
        self.means.store.watches().looked(look)
    }

    /// What upstream shows, held against what is known.
    fn judge(&self, watch: Watch, at: Timestamp, answer: &Arc<(Bytes, Document)>) -> Look {
        let (body, document) = &**answer;
        let account = Arc::clone(&watch.account);
        let Some(shown) = shown::read(account.dialect(), document) else { return self.own_judgement(watch, at) };
        let expires = shown.expires.or(watch.expires);
        let mut found = Vec::new();
        let mut before = None;
        if watch.counted.whole {
            let notice = missing(&account, &shown, watch.counted, document);
            found.extend(notice.map(|notice| self.arrival(&account, EventKind::Paid, notice, body.clone())));
        } else {
            before = Some(counted_so_far(&account, &shown, watch.counted));
        }
        let ended = shown.state == State::Expired || is_over(expires, &self.sweep, at);
        if ended && shown.state != State::PaidUp && watch.counted.whole {
            let ends = expires.unwrap_or(at);
            let notice = end(&account, ends, shown.word.clone());
            found.push(self.arrival(&account, EventKind::Expired, notice, body.clone()));
        }
        let looked = Watch { looked: Some(at), expires, ..watch.clone() };
        let next = (!ended && shown.state != State::PaidUp).then(|| next_look(&looked, &self.sweep)).flatten();
        Look { watch, at: Some(at), expires, next, before, found }
    }

    /// Upstream says nothing of it: only its own time counts.
    fn own_judgement(&self, watch: Watch, at: Timestamp) -> Look {
        let expires = watch.expires;
        let ends = expires.filter(|_| is_over(expires, &self.sweep, at) && watch.counted.whole);
        let notice = ends.map(|ends| end(&watch.account, ends, None));
        let account = Arc::clone(&watch.account);
        let found =
            notice.map(|notice| self.arrival(&account, EventKind::Expired, notice, Bytes::from_static(b"null")));
        let looked = Watch { looked: Some(at), ..watch.clone() };
        Look {
            next: next_look(&looked, &self.sweep),
            watch,
            at: Some(at),
            expires,
            before: None,
            found: found.into_iter().collect(),
        }
    }

    fn arrival(&self, account: &Account, kind: EventKind, notice: Notice, body: Bytes) -> Arc<Arrival> {
        let received = self.means.clock.now();
        Arc::new(Arrival {
            id: format!("evt_{}", self.means.entropy.id()),
            merchant: Arc::clone(&account.merchant),
            dialect: account.dialect(),
            kind,
            origin: Origin::Sweep,
            doubt: None,
            confirmed: true,
            received,
            until: after(received, self.retry_for),
            body,
            notice: Ok(notice),
        })
    }
}

impl Look {
    /// Nothing was asked; it is looked at then.
    fn wait(watch: Watch, next: Timestamp) -> Self {
        let expires = watch.expires;
        Self { watch, at: None, expires, next: Some(next), before: None, found: Vec::new() }
    }
}

/// When an account is to be looked at after its last look: regularly while it may be paid, shortly before
/// its end and shortly after. Nothing where its last look came after that.
#[must_use]
pub fn next_look(watch: &Watch, sweep: &Sweep) -> Option<Timestamp> {
    let last = watch.looked.unwrap_or(watch.account.created);
    let routine = after(last, sweep.every);
    let Some(expires) = watch.expires else { return Some(routine) };
    let afterwards = after(expires, sweep.after_expiry);
    let beforehand = before(expires, sweep.before_expiry);
    let looks = [Some(routine).filter(|_| last < expires), Some(beforehand), Some(afterwards)];
    looks.into_iter().flatten().filter(|look| *look > last).min()
}

fn is_over(expires: Option<Timestamp>, sweep: &Sweep, now: Timestamp) -> bool {
    expires.is_some_and(|expires| now >= after(expires, sweep.after_expiry))
}

/// So much earlier, or the beginning of time.
fn before(moment: Timestamp, duration: Duration) -> Timestamp {
    let duration = SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
    moment.checked_sub(duration).unwrap_or(Timestamp::MIN)
}

/// A payment upstream shows and nobody has told of. Of several SNAP payments only the newest is shown,
/// and several classic ones are one sum.
fn missing(account: &Account, shown: &Shown, counted: Counted, answer: &Document) -> Option<Notice> {
    if account.dialect() == Dialect::Snap {
        let (_, moment) = shown.latest.as_ref()?.paid_at.as_ref()?;
        // Known by its time even when its event has been forgotten; known by its key until then.
        let is_new = moment.is_none_or(|moment| counted.latest.is_none_or(|latest| moment > latest));
        return is_new.then(|| notice::read(Dialect::Snap, answer).ok()).flatten();
    }
    let sum = shown::sum(shown, Some(counted), account.amount)?;
    let amount = sum.checked_sub(counted.total.saturating_add(counted.pending)).filter(|left| !left.is_zero())?;
    let account_id = account.value(crate::dialect::Attach::Identity(crate::dialect::Identity::AccountId))?.to_owned();
    Some(Notice {
        key: format!("{account_id}/total/{sum}"),
        account_id: Some(account_id),
        total: Some(sum),
        amount,
        status: shown.word.clone(),
        ..blank(account)
    })
}

/// What had been paid before anybody counted.
fn counted_so_far(account: &Account, shown: &Shown, counted: Counted) -> Counted {
    let latest = shown.latest.as_ref().and_then(|latest| latest.paid_at.as_ref()?.1);
    let sum = shown::sum(shown, Some(counted), account.amount).unwrap_or_default();
    // What is in line will be counted when it ends.
    let total = sum.checked_sub(counted.pending).unwrap_or_default();
    Counted { whole: true, latest, total, pending: counted.pending }
}

/// The end of an account, told once for each time it ends at.
fn end(account: &Account, ends: Timestamp, status: Option<String>) -> Notice {
    let status = status.unwrap_or_else(|| match account.dialect() {
        Dialect::Snap => "Inactive-Expired".to_owned(),
        Dialect::Classic => "EXPIRED".to_owned(),
    });
    let key = format!("expired/{}/{ends}", account.digits());
    Notice { key, paid_at: Some(iso8601(ends)), status: Some(status), ..blank(account) }
}

fn blank(account: &Account) -> Notice {
    Notice {
        number: account.number.clone(),
        amount: Amount::ZERO,
        currency: "IDR".to_owned(),
        paid_at: None,
        status: None,
        trx_id: None,
        reference_no: None,
        account_id: None,
        total: None,
        key: String::new(),
    }
}

/// How often it is looked for what has become due.
const TICK: Duration = Duration::from_secs(1);

/// Accounts that are read at once, and looked at at the same time.
const BATCH: usize = 64;
const AT_ONCE: usize = 4;

/// Questions a second of one merchant's sweeper, whatever its limit.
const PER_SECOND: u32 = 20;

/// Pause after a question without an answer, where the schedule is slower.
const ASK_AGAIN: Duration = Duration::from_secs(60);
