//! The inbox that ends with the process.
//!
//! Promises the same lines and the same order as the file's, and a bound: what has ended is forgotten
//! first, and where nothing has ended a new callback is refused rather than an old one lost.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};
use jiff::Timestamp;

use super::StoreError;
use super::inbox::{
    ASIDE_MAX, Again, Arrival, Attempt, Backlog, Counts, Event, EventKind, Fate, Identity, Inbox, Origin, Received,
    Replayed, State,
};
use super::memory_watch::Watched;
use crate::dialect::Dialect;
use crate::dialect::amount::Amount;

/// Events in memory.
#[derive(Debug, Default)]
pub(super) struct MemoryInbox(Mutex<Events>);

#[derive(Debug, Default)]
pub(super) struct Events {
    next: u64,
    /// In the order they came in.
    pub(super) all: BTreeMap<u64, Row>,
    by_id: HashMap<String, u64>,
    by_key: HashMap<Key, u64>,
    /// Pending ones of each account, in order.
    pub(super) lines: HashMap<Line, BTreeSet<u64>>,
    /// Those in quarantine, by merchant, with the bytes of their bodies.
    aside: HashMap<Arc<str>, (BTreeSet<u64>, usize)>,
    /// Accounts that are looked at; none where nobody asked for it.
    pub(super) watches: Option<HashMap<Line, Watched>>,
}

type Key = (Arc<str>, Dialect, String);
pub(super) type Line = (Arc<str>, Dialect, String);

#[derive(Debug)]
pub(super) struct Row {
    /// `due` is when it would be, were it the first in line.
    pub(super) event: Event,
    pub(super) key: Option<Key>,
}

impl MemoryInbox {
    pub(super) fn lock(&self) -> MutexGuard<'_, Events> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Events {
    pub(super) fn receive(&mut self, arrival: &Arrival) -> Result<Received, StoreError> {
        let notice = match arrival.believed() {
            Ok(notice) => notice,
            Err(why) => {
                self.insert(quarantined(arrival, why), None)?;
                return Ok(Received::Quarantined);
            }
        };
        let key = (Arc::clone(&arrival.merchant), arrival.dialect, notice.key.clone());
        let known = self.by_key.get(&key).copied();
        let Some((n, row)) = known.and_then(|n| Some((n, self.all.get_mut(&n)?))) else {
            match (arrival.origin, self.found_already(arrival, notice)) {
                (Origin::Sweep, _) | (Origin::Callback, Some(false)) => {}
                (Origin::Callback, Some(true)) => return Ok(Received::Duplicate),
                (Origin::Callback, None) => {
                    self.insert(quarantined(arrival, PERHAPS_FOUND), None)?;
                    return Ok(Received::Quarantined);
                }
            }
            self.insert(pending(arrival), Some(key))?;
            return Ok(Received::Queued);
        };
        if row.event.state == State::Quarantined {
            // What was not true then may be now. What has come in meanwhile goes first.
            let counted = row.event.counted;
            let Some(Row { event, .. }) = self.forget(n) else { return Ok(Received::Duplicate) };
            self.insert(Event { id: event.id, counted, ..pending(arrival) }, Some(key))?;
            return Ok(Received::Queued);
        }
        if row.event.amount == Some(notice.amount) {
            return Ok(Received::Duplicate);
        }
        self.insert(quarantined(arrival, DIFFERS), None)?;
        Ok(Received::Quarantined)
    }

    fn insert(&mut self, event: Event, key: Option<Key>) -> Result<(), StoreError> {
        if self.all.len() >= EVENTS_MAX {
            self.forget_oldest()?;
        }
        let n = self.next;
        self.next += 1;
        self.by_id.insert(event.id.clone(), n);
        if let Some(key) = &key {
            self.by_key.insert(key.clone(), n);
        }
        let (merchant, bytes, state) = (Arc::clone(&event.merchant), event.body.len(), event.state);
        if state == State::Pending {
            self.lines.entry(line(&event)).or_default().insert(n);
        }
        self.all.insert(n, Row { event, key });
        if state == State::Quarantined {
            self.put_aside(n, &merchant, bytes);
        }
        Ok(())
    }

    fn forget_oldest(&mut self) -> Result<(), StoreError> {
        let aside = self.aside.values().filter_map(|(numbers, _)| numbers.first()).min().copied();
        let ended = || self.all.iter().find(|(_, row)| row.event.state != State::Pending).map(|(n, _)| *n);
        match aside.or_else(ended).and_then(|n| self.forget(n)) {
            Some(_) => Ok(()),
            None => Err(StoreError(format!("{EVENTS_MAX} events wait for the app already"))),
        }
    }

    fn put_aside(&mut self, n: u64, merchant: &Arc<str>, bytes: usize) {
        let (numbers, sum) = self.aside.entry(Arc::clone(merchant)).or_default();
        numbers.insert(n);
        *sum += bytes;
        while let Some(oldest) = self.too_much_aside(merchant) {
            self.forget(oldest);
        }
    }

    /// What has to go of a merchant's quarantine.
    fn too_much_aside(&self, merchant: &Arc<str>) -> Option<u64> {
        let (numbers, bytes) = self.aside.get(merchant)?;
        let too_much = numbers.len() > ASIDE_MAX.rows || *bytes > ASIDE_MAX.bytes;
        numbers.first().copied().filter(|_| too_much)
    }

    fn take_back(&mut self, n: u64, merchant: &Arc<str>, bytes: usize) {
        if let Some((numbers, sum)) = self.aside.get_mut(merchant)
            && numbers.remove(&n)
        {
            *sum = sum.saturating_sub(bytes);
        }
    }

    /// Takes out an event that stands in no line.
    fn forget(&mut self, n: u64) -> Option<Row> {
        let row = self.all.remove(&n)?;
        self.take_back(n, &row.event.merchant, row.event.body.len());
        self.by_id.remove(&row.event.id);
        if let Some(key) = &row.key {
            self.by_key.remove(key);
        }
        Some(row)
    }

    fn told(&self, merchant: &str, account_id: &str) -> Amount {
        let is_of = |(whose, dialect, payment): &Key| {
            let paid = payment.split_once('/').map(|(paid, _)| paid);
            **whose == *merchant && *dialect == Dialect::Classic && paid == Some(account_id)
        };
        let rows = self.all.values().filter(|row| row.event.counted && row.key.as_ref().is_some_and(is_of));
        rows.fold(Amount::ZERO, |sum, row| sum.saturating_add(row.event.amount.unwrap_or_default()))
    }

    fn identify(&mut self, identity: Identity) -> bool {
        let Identity { id, payment, paid_at } = identity;
        let Some(n) = self.by_id.get(&id).copied() else { return false };
        let Some(event) = self.all.get(&n).map(|row| &row.event) else { return false };
        let key = (Arc::clone(&event.merchant), event.dialect, payment);
        let other = self.by_key.get(&key).copied().filter(|other| *other != n);
        if let Some(other) = other.and_then(|other| self.all.get_mut(&other)) {
            if other.event.state != State::Quarantined {
                return false;
            }
            other.key = None;
        }
        let Some(row) = self.all.get_mut(&n) else { return false };
        row.event.paid_at = Some(paid_at);
        if let Some(before) = row.key.replace(key.clone()) {
            self.by_key.remove(&before);
        }
        self.by_key.insert(key, n);
        true
    }

    fn due(&self, merchant: &str, now: Timestamp, limit: usize) -> Vec<Event> {
        let lines = self.lines.iter().filter(|((whose, ..), _)| **whose == *merchant);
        let heads = lines.filter_map(|(_, line)| Some((line.first()?, self.all.get(line.first()?)?)));
        let mut due: Vec<_> = heads.filter(|(_, row)| row.event.due.is_some_and(|due| due <= now)).collect();
        due.sort_by_key(|(n, row)| (row.event.due, **n));
        due.into_iter().take(limit).map(|(_, row)| row.event.clone()).collect()
    }

    fn attempted(&mut self, attempt: Attempt) {
        let Some(n) = self.by_id.get(&attempt.id).copied() else { return };
        let Some(row) = self.all.get_mut(&n).filter(|row| row.event.state == State::Pending) else { return };
        let event = &mut row.event;
        event.attempts = attempt.attempts;
        event.confirmed = attempt.confirmed;
        event.said = Some(attempt.said);
        event.doubt = attempt.doubt;
        let end = match attempt.fate {
            Fate::Postponed(then) => {
                event.due = Some(then);
                return;
            }
            Fate::Delivered => State::Delivered,
            Fate::Dead => State::Dead,
            Fate::Quarantined => State::Quarantined,
        };
        (event.state, event.due, event.ended) = (end, None, Some(attempt.at));
        let line = line(event);
        let aside = (end == State::Quarantined).then(|| (Arc::clone(&event.merchant), event.body.len()));
        if attempt.counts != Counts::Nothing && event.kind == EventKind::Paid && !event.counted {
            event.counted = true;
            let payment = row.key.as_ref().map(|(_, _, payment)| payment.clone());
            let (amount, paid_at) = (event.amount, event.paid_at.clone());
            if attempt.counts == Counts::InFull {
                self.count(&line, payment.as_deref(), (amount, paid_at));
            }
        }
        if let Some(waiting) = self.lines.get_mut(&line) {
            waiting.remove(&n);
            if waiting.is_empty() {
                self.lines.remove(&line);
            }
        }
        if let Some((merchant, bytes)) = aside {
            self.put_aside(n, &merchant, bytes);
        }
    }

    fn replay(&mut self, id: &str, again: Again) -> Replayed {
        let Some(n) = self.by_id.get(id).copied() else { return Replayed::Unknown };
        let Some(row) = self.all.get_mut(&n) else { return Replayed::Unknown };
        let event = &mut row.event;
        if event.state == State::Pending {
            return Replayed::Pending;
        }
        if row.key.is_none() {
            return Replayed::Unreadable;
        }
        (event.state, event.due, event.ended) = (State::Pending, Some(again.now), None);
        (event.attempts, event.until, event.doubt) = (0, again.until, None);
        let (line, merchant, bytes) = (line(event), Arc::clone(&event.merchant), event.body.len());
        self.take_back(n, &merchant, bytes);
        self.lines.entry(line).or_default().insert(n);
        Replayed::Queued
    }

    fn replay_since(&mut self, since: Timestamp, limit: usize, again: Again) -> usize {
        let ended = |event: &Event| matches!(event.state, State::Delivered | State::Dead) && event.received >= since;
        let rows = self.all.values().map(|row| &row.event).filter(|event| ended(event)).take(limit);
        let ids: Vec<String> = rows.map(|event| event.id.clone()).collect();
        ids.iter().filter(|id| self.replay(id, again) == Replayed::Queued).count()
    }

    fn backlog(&self) -> Vec<Backlog> {
        let mut backlog: BTreeMap<Arc<str>, Backlog> = BTreeMap::new();
        for event in self.lines.values().flatten().filter_map(|n| Some(&self.all.get(n)?.event)) {
            let merchant = Arc::clone(&event.merchant);
            let entry = backlog.entry(Arc::clone(&merchant));
            let known = entry.or_insert(Backlog { merchant, pending: 0, oldest: event.received });
            known.pending += 1;
            known.oldest = known.oldest.min(event.received);
        }
        backlog.into_values().collect()
    }

    /// As others see it: only the first in line is due.
    fn shown(&self, n: u64, event: &Event) -> Event {
        let first = self.lines.get(&line(event)).and_then(|line| line.first()) == Some(&n);
        Event { due: event.due.filter(|_| first), ..event.clone() }
    }
}

fn line(event: &Event) -> Line {
    (Arc::clone(&event.merchant), event.dialect, event.digits.clone())
}

fn pending(arrival: &Arrival) -> Event {
    let notice = arrival.notice.as_ref().ok();
    Event {
        id: arrival.id.clone(),
        merchant: Arc::clone(&arrival.merchant),
        dialect: arrival.dialect,
        kind: arrival.kind,
        origin: arrival.origin,
        digits: notice.map(|notice| notice.digits().to_owned()).unwrap_or_default(),
        state: State::Pending,
        received: arrival.received,
        due: Some(arrival.received),
        until: arrival.until,
        ended: None,
        attempts: 0,
        confirmed: arrival.confirmed,
        counted: false,
        doubt: None,
        amount: notice.filter(|_| arrival.kind == EventKind::Paid).map(|notice| notice.amount),
        paid_at: notice.and_then(|notice| notice.paid_at.clone()),
        status: notice.and_then(|notice| notice.status.clone()),
        said: None,
        body: arrival.body.clone(),
    }
}

fn quarantined(arrival: &Arrival, why: &str) -> Event {
    let (state, said) = (State::Quarantined, Some(why.to_owned()));
    Event { state, said, due: None, ended: Some(arrival.received), ..pending(arrival) }
}

/// Why a second callback of a payment is not simply a repetition.
pub(super) const DIFFERS: &str = "it announces a payment that was announced before with another amount";

/// Why a callback is kept aside although nothing like it has come before.
pub(super) const PERHAPS_FOUND: &str = "it may be among the payments that were found by asking; it does not say";

/// Events in all.
const EVENTS_MAX: usize = 100_000;

impl Inbox for MemoryInbox {
    fn receive(&self, arrival: Arc<Arrival>) -> BoxFuture<'_, Result<Received, StoreError>> {
        ready(self.lock().receive(&arrival)).boxed()
    }

    fn due<'a>(
        &'a self,
        merchant: &'a str,
        now: Timestamp,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Event>, StoreError>> {
        ready(Ok(self.lock().due(merchant, now, limit))).boxed()
    }

    fn attempted(&self, attempt: Attempt) -> BoxFuture<'_, Result<(), StoreError>> {
        self.lock().attempted(attempt);
        ready(Ok(())).boxed()
    }

    fn event<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Event>, StoreError>> {
        let events = self.lock();
        let found = events.by_id.get(id).and_then(|n| Some(events.shown(*n, &events.all.get(n)?.event)));
        ready(Ok(found)).boxed()
    }

    fn events(&self, state: State, limit: usize) -> BoxFuture<'_, Result<Vec<Event>, StoreError>> {
        let events = self.lock();
        let found = events.all.iter().rev().filter(|(_, row)| row.event.state == state).take(limit);
        ready(Ok(found.map(|(n, row)| events.shown(*n, &row.event)).collect())).boxed()
    }

    fn latest<'a>(
        &'a self,
        merchant: &'a str,
        dialect: Dialect,
        digits: &'a str,
    ) -> BoxFuture<'a, Result<Option<Event>, StoreError>> {
        let events = self.lock();
        let wanted = |event: &Event| {
            event.digits == digits
                && event.dialect == dialect
                && *event.merchant == *merchant
                && event.state != State::Quarantined
                && event.kind == EventKind::Paid
        };
        let found = events.all.iter().rev().find(|(_, row)| wanted(&row.event));
        ready(Ok(found.map(|(n, row)| events.shown(*n, &row.event)))).boxed()
    }

    fn told<'a>(&'a self, merchant: &'a str, account_id: &'a str) -> BoxFuture<'a, Result<Amount, StoreError>> {
        ready(Ok(self.lock().told(merchant, account_id))).boxed()
    }

    fn identify(&self, identity: Identity) -> BoxFuture<'_, Result<bool, StoreError>> {
        ready(Ok(self.lock().identify(identity))).boxed()
    }

    fn replay<'a>(&'a self, id: &'a str, again: Again) -> BoxFuture<'a, Result<Replayed, StoreError>> {
        ready(Ok(self.lock().replay(id, again))).boxed()
    }

    fn replay_since(&self, since: Timestamp, limit: usize, again: Again) -> BoxFuture<'_, Result<usize, StoreError>> {
        ready(Ok(self.lock().replay_since(since, limit, again))).boxed()
    }

    fn backlog(&self) -> BoxFuture<'_, Result<Vec<Backlog>, StoreError>> {
        ready(Ok(self.lock().backlog())).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::inbox_suite::paid;

    #[test]
    fn a_quarantine_is_bounded_and_forgets_its_oldest() {
        let inbox = MemoryInbox::default();
        let mut events = inbox.lock();
        let body = bytes::Bytes::from(vec![b' '; 200 << 10]);
        let forged = |n: usize| {
            let paid = paid(&n.to_string(), "   1462912345678901", 0, "5000.00");
            Arrival { doubt: Some("it is not signed"), body: body.clone(), ..(*paid).clone() }
        };
        let fit = ASIDE_MAX.bytes / body.len();
        events.receive(&paid("e", "   1462912345678901", 0, "5000.00")).unwrap();
        for n in 0..fit + 5 {
            events.receive(&forged(n)).unwrap();
        }
        assert_eq!(events.all.len(), 1 + fit);
        let kept = |id: &str| events.by_id.contains_key(id);
        assert_eq!((kept("e"), kept("4"), kept("5"), kept(&(fit + 4).to_string())), (true, false, true, true));
    }
}
