//! Accounts that are looked at, in memory.
//!
//! Promises the same as the file's, and a bound: where it is reached, an account that is no longer
//! looked at makes room, and where there is none a new account is not watched.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};
use jiff::Timestamp;

use super::StoreError;
use super::inbox::{Arrival, EventKind, Received, State};
use super::memory_inbox::{Events, Line, MemoryInbox};
use super::watch::{Counted, Look, Looked, Misses, Watch, Watches, is_of};
use crate::callback::notice::{self, Notice};
use crate::dialect::Dialect;
use crate::dialect::amount::Amount;
use crate::reference::{Account, Handle};

/// One account.
#[derive(Debug)]
pub(super) struct Watched {
    account: Arc<Account>,
    expires: Option<Timestamp>,
    look_at: Option<Timestamp>,
    looked: Option<Timestamp>,
    whole: bool,
    latest: Option<Timestamp>,
    total: Amount,
    /// The highest sum that was found by asking.
    swept: Option<Amount>,
    misses: Misses,
}

impl Watched {
    fn new(account: Arc<Account>, now: Timestamp, whole: bool) -> Self {
        let expires = account.expires;
        let (looked, latest, total, swept) = (None, None, Amount::ZERO, None);
        Self { account, expires, look_at: Some(now), looked, whole, latest, total, swept, misses: Misses::default() }
    }
}

impl MemoryInbox {
    /// Watches an account from now on, if any are; one that is watched goes on as it does.
    pub(super) fn watch_from(&self, account: &Arc<Account>, now: Timestamp) {
        let whole = account.created != Account::READ;
        self.lock().keep(account, now, whole);
    }

    /// Watches accounts from now on, these at once. They are listed when watching is on, so that one that
    /// comes about meanwhile is either listed or kept by whoever makes it; and without the lock, which is
    /// taken there too.
    pub(super) fn take_up<A>(&self, accounts: impl FnOnce() -> A, now: Timestamp)
    where
        A: Iterator<Item = Arc<Account>>,
    {
        self.lock().watches.get_or_insert_default();
        let accounts = accounts();
        let mut events = self.lock();
        let watched: HashSet<Line> = events.watches.get_or_insert_default().keys().cloned().collect();
        for account in accounts.filter(|account| !watched.contains(&line(account))) {
            events.keep(&account, now, false);
        }
    }
}

impl Events {
    fn keep(&mut self, account: &Arc<Account>, now: Timestamp, whole: bool) {
        let Some(watches) = &mut self.watches else { return };
        let line = line(account);
        if let Some(watched) = watches.get_mut(&line).filter(|watched| same_life(&watched.account, account)) {
            if watched.look_at.is_none() {
                // It lives on beyond the end that was known of it.
                (watched.look_at, watched.expires, watched.misses) = (Some(now), None, Misses::default());
            }
            watched.account = Arc::clone(account);
            return;
        }
        if watches.len() >= WATCHES_MAX {
            let ended = watches.iter().find(|(_, watched)| watched.look_at.is_none()).map(|(line, _)| line.clone());
            let Some(ended) = ended else {
                tracing::warn!(watched = WATCHES_MAX, "an account is not watched: as many as memory has room for are");
                return;
            };
            watches.remove(&ended);
        }
        watches.insert(line, Watched::new(Arc::clone(account), now, whole));
    }

    /// What an asked-for sum says of a classic callback nobody has seen before: whether its payment was
    /// among what was found by asking. Nothing where that cannot be told.
    pub(super) fn found_already(&self, arrival: &Arrival, notice: &Notice) -> Option<bool> {
        let line = (Arc::clone(&arrival.merchant), arrival.dialect, notice.digits().to_owned());
        let Some(watched) = self.watches.as_ref().and_then(|watches| watches.get(&line)) else { return Some(false) };
        match (&watched.account.handle, watched.swept) {
            (Handle::Classic { account_id, .. }, Some(swept)) if notice.account_id.as_ref() == Some(account_id) => {
                notice.total.map(|total| total <= swept)
            }
            _ => Some(false),
        }
    }

    /// Counts a payment that had its end.
    pub(super) fn count(
        &mut self,
        line: &Line,
        payment: Option<&str>,
        (amount, paid_at): (Option<Amount>, Option<String>),
    ) {
        let Some(watched) = self.watches.as_mut().and_then(|watches| watches.get_mut(line)) else { return };
        if is_of(id(&watched.account), payment) {
            let paid_at = paid_at.as_deref().and_then(notice::moment);
            watched.latest = watched.latest.max(paid_at);
            if watched.account.dialect() == Dialect::Classic {
                watched.total = watched.total.saturating_add(amount.unwrap_or_default());
            }
        }
    }

    fn shown_watch(&self, line: &Line, watched: &Watched) -> Watch {
        let pending = match watched.account.dialect() {
            Dialect::Classic => self.pending(line, &watched.account),
            Dialect::Snap => Amount::ZERO,
        };
        let Watched { account, expires, looked, whole, latest, total, misses, .. } = watched;
        Watch {
            account: Arc::clone(account),
            expires: *expires,
            looked: *looked,
            counted: Counted { whole: *whole, latest: *latest, total: *total, pending },
            misses: *misses,
        }
    }

    fn pending(&self, line: &Line, account: &Account) -> Amount {
        let rows = self.lines.get(line).into_iter().flatten().filter_map(|n| self.all.get(n));
        rows.filter(|row| {
            let event = &row.event;
            event.state == State::Pending
                && event.kind == EventKind::Paid
                && !event.counted
                && is_of(id(account), row.key.as_ref().map(|(_, _, payment)| payment.as_str()))
        })
        .fold(Amount::ZERO, |sum, row| sum.saturating_add(row.event.amount.unwrap_or_default()))
    }

    fn watch(&self, line: &Line) -> Option<Watch> {
        Some(self.shown_watch(line, self.watches.as_ref()?.get(line)?))
    }

    fn due_watches(&self, merchant: &str, (now, soon): (Timestamp, Timestamp), limit: usize) -> Vec<Watch> {
        let all = self.watches.iter().flatten().filter(|((whose, ..), _)| **whose == *merchant);
        let mut due: Vec<_> =
            all.filter_map(|(line, watched)| Some((watched.look_at.filter(|at| *at <= now)?, line, watched))).collect();
        due.sort_by_key(|(at, _, watched)| {
            let ending = watched.expires.filter(|expires| *expires <= soon);
            (ending.is_none(), ending.unwrap_or(*at))
        });
        // What ends soon comes first, but leaves room for others: it may be due again and again.
        let ending = due.iter().filter(|(_, _, watched)| watched.expires.is_some_and(|expires| expires <= soon));
        let first = ending.count().min(limit.div_ceil(2));
        let mut rest = due.split_off(first);
        rest.sort_by_key(|(at, ..)| *at);
        due.extend(rest);
        due.into_iter().take(limit).map(|(_, line, watched)| self.shown_watch(line, watched)).collect()
    }

    fn looked(&mut self, look: &Look) -> Result<Looked, StoreError> {
        let line = line(&look.watch.account);
        if self.watch(&line).as_ref() != Some(&look.watch) {
            return Ok(Looked::Stale);
        }
        let mut new = 0;
        for arrival in &look.found {
            new += usize::from(self.receive(arrival)? == Received::Queued);
        }
        let swept = look.found.iter().filter_map(|arrival| arrival.notice.as_ref().ok()?.total).max();
        let watched = self.watches.as_mut().and_then(|watches| watches.get_mut(&line));
        let Some(watched) = watched else { return Ok(Looked::Stale) };
        watched.looked = look.at.or(watched.looked);
        (watched.look_at, watched.expires) = (look.next, look.expires);
        if let Some(before) = look.before {
            (watched.whole, watched.total) = (true, before.total);
            watched.latest = before.latest.or(watched.latest);
        }
        watched.swept = swept.or(watched.swept);
        watched.misses = look.misses;
        Ok(Looked::Recorded(new))
    }
}

fn line(account: &Account) -> Line {
    (Arc::clone(&account.merchant), account.dialect(), account.digits().to_owned())
}

/// What is counted of one life of a number says nothing of the next.
fn same_life(one: &Account, other: &Account) -> bool {
    one.created == other.created && id(one) == id(other)
}

fn id(account: &Account) -> Option<&str> {
    match &account.handle {
        Handle::Classic { account_id, .. } => Some(account_id),
        Handle::Snap { .. } => None,
    }
}

impl Watches for super::memory::MemoryStore {
    fn take_up(&self, now: Timestamp) -> BoxFuture<'_, Result<(), StoreError>> {
        let known = || {
            let by_line = self.every_account().into_iter().map(|account| (line(&account), account));
            by_line.collect::<HashMap<Line, Arc<Account>>>().into_values()
        };
        self.memory_inbox().take_up(known, now);
        ready(Ok(())).boxed()
    }

    fn due<'a>(
        &'a self,
        merchant: &'a str,
        now: Timestamp,
        soon: Timestamp,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Watch>, StoreError>> {
        ready(Ok(self.memory_inbox().lock().due_watches(merchant, (now, soon), limit))).boxed()
    }

    fn watch<'a>(
        &'a self,
        merchant: &'a str,
        dialect: Dialect,
        digits: &'a str,
    ) -> BoxFuture<'a, Result<Option<Watch>, StoreError>> {
        ready(Ok(self.memory_inbox().lock().watch(&(merchant.into(), dialect, digits.to_owned())))).boxed()
    }

    fn looked(&self, look: Look) -> BoxFuture<'_, Result<Looked, StoreError>> {
        ready(self.memory_inbox().lock().looked(&look)).boxed()
    }
}

/// Accounts that are watched at most.
const WATCHES_MAX: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::suite::{account, at};

    #[test]
    fn an_account_that_comes_about_while_others_are_listed_is_watched() {
        let inbox = MemoryInbox::default();
        let [listed, new] = ["12345678901", "12345678902"].map(|own| account(&format!("   14629{own}"), "R", at(1)));
        let listing = || {
            inbox.watch_from(&new, at(1));
            vec![Arc::clone(&listed)].into_iter()
        };
        inbox.take_up(listing, at(1));
        let watched = |account: &Account| inbox.lock().watch(&line(account));
        assert!(watched(&listed).is_some_and(|watch| !watch.counted.whole));
        assert!(watched(&new).is_some_and(|watch| watch.counted.whole), "nobody can have paid it before");
    }
}
