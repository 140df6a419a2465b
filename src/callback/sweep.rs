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
use crate::store::watch::{Counted, Look, Looked, Misses, Watch};
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
        // Of one whose looks showed nothing, the last of them said when to look again.
        let planned = if watch.misses.looks > 0 { Some(now) } else { next_look(&watch, &self.sweep) };
        let recorded = match planned {
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
            Said::Shown(answer) => match shown::read(watch.account.dialect(), &answer.1) {
                Some(shown) => self.judge(watch, at, (&shown, &answer)),
                None => return self.missed(watch, now, false).await,
            },
            Said::NobodyToAsk => self.own_judgement(watch, at),
            Said::Refused if watch.misses.refused > 0 && is_over(watch.expires, &self.sweep, at) => {
                self.own_judgement(watch, at)
            }
            Said::Refused => return self.missed(watch, now, true).await,
            Said::Declined | Said::NoAnswer => return self.missed(watch, now, false).await,
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

    /// The look showed nothing: the longer that goes on, the longer until the next one, and after a week
    /// nobody looks any more.
    async fn missed(&self, watch: Watch, now: Timestamp, refused: bool) -> Result<Sweeping, StoreError> {
        let misses = watch.misses;
        let since = misses.since.unwrap_or(now);
        let misses = Misses {
            since: Some(since),
            looks: misses.looks.saturating_add(1),
            refused: if refused { misses.refused.saturating_add(1) } else { misses.refused },
        };
        let over = is_over(watch.expires, &self.sweep, now);
        let next = if now >= after(since, MISSED_MAX) && (over || watch.expires.is_none()) {
            let merchant = &*self.merchant;
            tracing::error!(merchant, "an account that ayoconnect does not show is not looked at any more: ask for it");
            None
        } else {
            let regular = if refused && !over { self.sweep.every } else { self.sweep.every.min(ASK_AGAIN) };
            Some(after(now, back_off(regular, misses.looks)))
        };
        self.record(Look { next, misses, ..Look::wait(watch, now) }).await?;
        Ok(Sweeping::Failed)
    }

    fn record(&self, look: Look) -> futures_util::future::BoxFuture<'_, Result<Looked, StoreError>> {
        self.means.store.watches().looked(look)
    }

    /// What upstream shows, held against what is known.
    fn judge(&self, watch: Watch, at: Timestamp, (shown, answer): (&Shown, &(Bytes, Document))) -> Look {
        let (body, document) = answer;
        let account = Arc::clone(&watch.account);
        let expires = ends(&account, shown.expires, watch.expires);
        // What is in line may be true or not: until that is known nothing is settled for good.
        let unsettled = !watch.counted.pending.is_zero();
        let mut found = Vec::new();
        let mut before = None;
        if watch.counted.whole {
            let notice = missing(&account, shown, watch.counted, document);
            found.extend(notice.map(|notice| self.arrival(&account, EventKind::Paid, notice, body.clone())));
        } else if !unsettled {
            before = Some(counted_so_far(&account, shown, watch.counted));
        }
        let ended = shown.state == State::Expired || is_over(expires, &self.sweep, at);
        if ended && shown.state != State::PaidUp && watch.counted.whole && !unsettled {
            let notice = end(&account, expires.filter(|ends| *ends <= at).unwrap_or(at), shown.word.clone());
            found.push(self.arrival(&account, EventKind::Expired, notice, body.clone()));
        }
        let looked = Watch { looked: Some(at), expires, ..watch.clone() };
        let next = (!ended && shown.state != State::PaidUp).then(|| next_look(&looked, &self.sweep)).flatten();
        let misses = Misses::default();
        if next.is_none() && unsettled {
            let next = after(at, self.sweep.every);
            return Look { expires, misses, found, ..Look::wait(watch, next) };
        }
        Look { watch, at: Some(at), expires, next, before, misses, found }
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
            misses: Misses::default(),
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
        let (expires, misses) = (watch.expires, watch.misses);
        Self { watch, at: None, expires, next: Some(next), before: None, misses, found: Vec::new() }
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

/// When an account ends. In SNAP the answer says so. In classic what it says may be no clock's time
/// (`protocol/README.md` row 24), and what was asked for may be from before an update: the later counts.
fn ends(account: &Account, shown: Option<Timestamp>, known: Option<Timestamp>) -> Option<Timestamp> {
    match account.dialect() {
        Dialect::Snap => shown.or(known),
        Dialect::Classic => shown.max(known),
    }
}

/// The pause after so many looks in a row that showed nothing: twice as long each time, up to a bound.
fn back_off(regular: Duration, looks: u32) -> Duration {
    let doubled = regular.saturating_mul(1_u32.checked_shl(looks.saturating_sub(1)).unwrap_or(u32::MAX));
    doubled.min(regular.max(BACK_OFF_MAX))
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

/// First pause after a question without an answer, where the schedule is slower, and the longest.
const ASK_AGAIN: Duration = Duration::from_secs(60);
const BACK_OFF_MAX: Duration = Duration::from_secs(60 * 60);

/// How long an account that upstream does not show is looked at beyond its end.
const MISSED_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_an_hour() {
        let minutes: Vec<u64> = (1..=9).map(|looks| back_off(ASK_AGAIN, looks).as_secs() / 60).collect();
        assert_eq!(minutes, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(back_off(ASK_AGAIN, u32::MAX), BACK_OFF_MAX);
        assert_eq!(back_off(Duration::from_secs(7_200), 3).as_secs(), 7_200, "never sooner than it is regularly");
    }
}
