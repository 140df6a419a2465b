//! Payment callbacks in the table `events`.
//!
//! Each function is a part of somebody's transaction. Of the pending events of one account only the
//! first has a `due_at`, so that what is due is found by an index however many wait behind. The end of
//! one gives the next its turn in the same step.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, named_params, params};

use super::text::{iso, moment, unreadable};
use super::watches::{self, Settled};
use crate::dialect::Dialect;
use crate::dialect::amount::Amount;
use crate::store::inbox::{
    ASIDE_MAX, Again, Arrival, Aside, Attempt, Backlog, Counts, Doubt, Event, EventKind, Fate, Identity, Origin,
    RETENTION, Received, Replayed, State,
};
use crate::store::memory::after;
use crate::store::memory_inbox::{DIFFERS, PERHAPS_FOUND};
use crate::store::watch::{Look, Looked};

/// What the writer is asked to record of callbacks.
#[derive(Debug)]
pub(super) enum Work {
    Receive(Arc<Arrival>),
    Attempted(Attempt),
    Identify(Identity),
    Replay(String, Again),
    ReplaySince(Timestamp, usize, Again),
    Watch(Timestamp),
    Looked(Box<Look>),
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Told {
    Received(Received),
    Recorded,
    Replayed(Replayed),
    Identified(bool),
    Count(usize),
    Looked(Looked),
}

impl Work {
    /// Records it as a part of the open transaction.
    pub(super) fn record(&self, db: &Connection) -> rusqlite::Result<Told> {
        match self {
            Self::Receive(arrival) => receive(db, arrival).map(Told::Received),
            Self::Attempted(attempt) => attempted(db, attempt).map(|()| Told::Recorded),
            Self::Identify(identity) => identify(db, identity).map(Told::Identified),
            Self::Replay(id, again) => replay(db, id, *again).map(Told::Replayed),
            Self::ReplaySince(since, limit, again) => replay_since(db, *since, *limit, *again).map(Told::Count),
            Self::Watch(now) => watches::take_up(db, *now).map(|()| Told::Recorded),
            Self::Looked(look) => watches::looked(db, look).map(Told::Looked),
        }
    }
}

pub(super) fn receive(db: &Connection, arrival: &Arrival) -> rusqlite::Result<Received> {
    let notice = match arrival.believed() {
        Ok(notice) => notice,
        Err(why) => {
            insert(db, arrival, Some(why))?;
            return Ok(Received::Quarantined);
        }
    };
    let by_payment = params![&*arrival.merchant, arrival.dialect.name(), notice.key];
    let known =
        db.prepare_cached(BY_PAYMENT)?.query_row(by_payment, |row| Ok((row.get("n")?, read(row)?))).optional()?;
    let Some((n, known)) = known else {
        match arrival.origin {
            Origin::Callback => match watches::found_already(db, arrival, notice)? {
                Some(false) => {}
                Some(true) => return Ok(Received::Duplicate),
                None => {
                    insert(db, arrival, Some(PERHAPS_FOUND))?;
                    return Ok(Received::Quarantined);
                }
            },
            Origin::Sweep => {}
        }
        insert(db, arrival, None)?;
        give_turn(db, &Line::of(arrival, notice.digits()), arrival.received)?;
        return Ok(Received::Queued);
    };
    if known.state == State::Quarantined {
        // What was not true then may be now. What has come in meanwhile goes first.
        reopen(db, n, arrival)?;
        give_turn(db, &Line::of(arrival, notice.digits()), arrival.received)?;
        return Ok(Received::Queued);
    }
    if known.amount == Some(notice.amount) {
        return Ok(Received::Duplicate);
    }
    insert(db, arrival, Some(DIFFERS))?;
    Ok(Received::Quarantined)
}

/// Inserts it, pending or for the given reason in quarantine.
fn insert(db: &Connection, arrival: &Arrival, quarantine: Option<&str>) -> rusqlite::Result<()> {
    bound_aside(db, &arrival.merchant, arrival.body.len())?;
    let notice = arrival.notice.as_ref().ok();
    let state = if quarantine.is_some() { State::Quarantined } else { State::Pending };
    let paid = notice.filter(|_| arrival.kind == EventKind::Paid);
    let ended = quarantine.map(|_| arrival.received);
    db.prepare_cached(INSERT)?.execute(named_params! {
        ":id": arrival.id,
        ":kind": arrival.kind.name(),
        ":origin": arrival.origin.name(),
        ":confirmed": arrival.confirmed,
        ":merchant": &*arrival.merchant,
        ":dialect": arrival.dialect.name(),
        ":digits": notice.map(|notice| notice.digits()).unwrap_or_default(),
        ":payment": notice.filter(|_| quarantine.is_none()).map(|notice| &notice.key),
        ":state": state.name(),
        ":received_at": iso(arrival.received),
        ":until": iso(arrival.until),
        ":ended_at": ended.map(iso),
        ":forget_at": ended.map(|ended| iso(after(ended, RETENTION))),
        ":amount": paid.map(|notice| notice.amount.to_string()),
        ":paid_at": notice.and_then(|notice| notice.paid_at.as_ref()),
        ":status": notice.and_then(|notice| notice.status.as_ref()),
        ":confirmed": arrival.confirmed,
        ":said": quarantine,
        ":body": &*arrival.body,
    })?;
    Ok(())
}

/// Every so many events: forgets what there is too much of in quarantine. To find that takes a look at all
/// that is there.
fn bound_aside(db: &Connection, merchant: &str, size: usize) -> rusqlite::Result<()> {
    let newest: Option<i64> = db.prepare_cached(NEWEST)?.query_row([], |row| row.get(0))?;
    let between = if size > LARGE { BETWEEN_BOUNDS } else { BETWEEN_BOUNDS * 16 };
    if newest.is_some_and(|newest| newest % between == 0) {
        forget_aside(db, merchant, ASIDE_MAX)?;
    }
    Ok(())
}

pub(super) fn forget_aside(db: &Connection, merchant: &str, most: Aside) -> rusqlite::Result<usize> {
    db.prepare_cached(FORGET_ASIDE)?.execute(params![merchant, rows(most.rows), rows(most.bytes)])
}

/// A payment that was in quarantine is announced again.
fn reopen(db: &Connection, n: i64, arrival: &Arrival) -> rusqlite::Result<()> {
    let notice = arrival.notice.as_ref().ok();
    db.prepare_cached(REOPEN)?.execute(named_params! {
        ":n": n,
        ":origin": arrival.origin.name(),
        ":confirmed": arrival.confirmed,
        ":digits": notice.map(|notice| notice.digits()).unwrap_or_default(),
        ":received_at": iso(arrival.received),
        ":until": iso(arrival.until),
        ":amount": notice.map(|notice| notice.amount.to_string()),
        ":paid_at": notice.and_then(|notice| notice.paid_at.as_ref()),
        ":status": notice.and_then(|notice| notice.status.as_ref()),
        ":confirmed": arrival.confirmed,
        ":body": &*arrival.body,
    })?;
    Ok(())
}

fn attempted(db: &Connection, attempt: &Attempt) -> rusqlite::Result<()> {
    let state = match attempt.fate {
        Fate::Postponed(then) => {
            db.prepare_cached(POSTPONE)?.execute(named_params! {
                ":id": attempt.id,
                ":due_at": iso(then),
                ":said": attempt.said,
                ":confirmed": attempt.confirmed,
                ":attempts": attempt.attempts,
                ":doubted_at": attempt.doubt.map(|doubt| iso(doubt.since)),
                ":denials": attempt.doubt.map_or(0, |doubt| doubt.denials),
            })?;
            return Ok(());
        }
        Fate::Delivered => State::Delivered,
        Fate::Dead => State::Dead,
        Fate::Quarantined => State::Quarantined,
    };
    let ended = named_params! {
        ":id": attempt.id,
        ":state": state.name(),
        ":ended_at": iso(attempt.at),
        ":forget_at": iso(after(attempt.at, RETENTION)),
        ":said": attempt.said,
        ":confirmed": attempt.confirmed,
        ":attempts": attempt.attempts,
    };
    let ending = |row: &Row<'_>| Ok((Line::read(row)?, settled(row)?));
    let Some((line, settled)) = db.prepare_cached(END)?.query_row(ended, ending).optional()? else { return Ok(()) };
    if let Some(settled) = settled.filter(|_| attempt.counts != Counts::Nothing) {
        if attempt.counts == Counts::InFull {
            watches::count(db, &settled)?;
        }
        db.prepare_cached(COUNTED)?.execute([&attempt.id])?;
    }
    give_turn(db, &line, attempt.at)
}

/// The payment of a row, unless it is none or counted already.
fn settled(row: &Row<'_>) -> rusqlite::Result<Option<Settled>> {
    if row.get_ref("kind")?.as_str()? != EventKind::Paid.name() || row.get::<_, bool>("counted")? {
        return Ok(None);
    }
    Ok(Some(Settled {
        merchant: row.get("merchant")?,
        dialect: row.get("dialect")?,
        digits: row.get("digits")?,
        payment: row.get("payment")?,
        amount: row.get("amount")?,
        paid_at: row.get("paid_at")?,
    }))
}

/// What was told of a classic account's payments.
pub(super) fn told(db: &Connection, merchant: &str, account_id: &str) -> rusqlite::Result<Amount> {
    let mut told = db.prepare_cached(TOLD)?;
    // '0' is the next character after '/': these are the texts that begin with the id and a stroke.
    let of_account = params![merchant, format!("{account_id}/"), format!("{account_id}0")];
    let mut sum = Amount::ZERO;
    for amount in told.query_map(of_account, |row| row.get::<_, String>("amount"))? {
        sum = sum.saturating_add(Amount::parse(&amount?).unwrap_or_default());
    }
    Ok(sum)
}

/// Records which payment an event is; whether no other is the same.
fn identify(db: &Connection, identity: &Identity) -> rusqlite::Result<bool> {
    let Identity { id, payment, paid_at } = identity;
    let Some(event) = one(db, id)? else { return Ok(false) };
    let by_payment = params![&*event.merchant, event.dialect.name(), payment];
    let other = db.prepare_cached(BY_PAYMENT)?.query_row(by_payment, read).optional()?;
    match other.filter(|other| other.id != *id) {
        Some(other) if other.state != State::Quarantined => return Ok(false),
        Some(other) => db.prepare_cached(RELEASE)?.execute([other.id]).map(|_| ())?,
        None => {}
    }
    db.prepare_cached(IDENTIFY)?.execute(params![id, payment, paid_at])?;
    Ok(true)
}

fn replay(db: &Connection, id: &str, again: Again) -> rusqlite::Result<Replayed> {
    let known = |row: &Row<'_>| Ok((row.get::<_, String>("state")?, row.get_ref("payment")?.as_str().is_ok()));
    match db.prepare_cached(BY_ID)?.query_row([id], known).optional()? {
        None => Ok(Replayed::Unknown),
        Some((state, _)) if state == State::Pending.name() => Ok(Replayed::Pending),
        Some((_, false)) => Ok(Replayed::Unreadable),
        Some((_, true)) => {
            let line = db.prepare_cached(AGAIN)?.query_row(params![id, iso(again.until)], Line::read)?;
            take_turns(db, &line, again.now)?;
            Ok(Replayed::Queued)
        }
    }
}

fn replay_since(db: &Connection, since: Timestamp, limit: usize, again: Again) -> rusqlite::Result<usize> {
    let ids: Vec<String> = db
        .prepare_cached(ENDED_SINCE)?
        .query_map(params![iso(since), rows(limit)], |row| row.get("id"))?
        .collect::<rusqlite::Result<_>>()?;
    let mut queued = 0;
    for id in &ids {
        queued += usize::from(replay(db, id, again)? == Replayed::Queued);
    }
    Ok(queued)
}

/// Whose events stand behind each other.
struct Line {
    merchant: String,
    dialect: String,
    digits: String,
}

impl Line {
    fn of(arrival: &Arrival, digits: &str) -> Self {
        let merchant = arrival.merchant.as_ref().to_owned();
        Self { merchant, dialect: arrival.dialect.name().to_owned(), digits: digits.to_owned() }
    }

    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self { merchant: row.get("merchant")?, dialect: row.get("dialect")?, digits: row.get("digits")? })
    }
}

/// Makes the first in line due, unless it is.
fn give_turn(db: &Connection, line: &Line, now: Timestamp) -> rusqlite::Result<()> {
    let turn = params![line.merchant, line.dialect, line.digits, iso(now)];
    db.prepare_cached(TURN)?.execute(turn)?;
    Ok(())
}

/// The same where the first may have come in before one that had its turn already.
fn take_turns(db: &Connection, line: &Line, now: Timestamp) -> rusqlite::Result<()> {
    db.prepare_cached(LOSE_TURN)?.execute(params![line.merchant, line.dialect, line.digits])?;
    give_turn(db, line, now)
}

/// Deletes what is over, at most `limit` rows; how many there were.
pub(super) fn prune(db: &Connection, now: Timestamp, limit: usize) -> rusqlite::Result<usize> {
    db.prepare_cached(PRUNE)?.execute(params![iso(now), rows(limit)])
}

pub(super) fn due(db: &Connection, merchant: &str, now: Timestamp, limit: usize) -> rusqlite::Result<Vec<Event>> {
    let mut due = db.prepare_cached(DUE)?;
    readable(due.query_map(params![merchant, iso(now), rows(limit)], read)?, "an event")
}

pub(super) fn one(db: &Connection, id: &str) -> rusqlite::Result<Option<Event>> {
    db.prepare_cached(BY_ID)?.query_row([id], read).optional()
}

pub(super) fn list(db: &Connection, state: State, limit: usize) -> rusqlite::Result<Vec<Event>> {
    db.prepare_cached(BY_STATE)?.query_map(params![state.name(), rows(limit)], read)?.collect()
}

pub(super) fn latest(
    db: &Connection,
    merchant: &str,
    dialect: Dialect,
    digits: &str,
) -> rusqlite::Result<Option<Event>> {
    db.prepare_cached(LATEST)?.query_row(params![merchant, dialect.name(), digits], read).optional()
}

pub(super) fn backlog(db: &Connection) -> rusqlite::Result<Vec<Backlog>> {
    let backlog = |row: &Row<'_>| {
        let merchant = row.get::<_, String>("merchant")?.into();
        Ok(Backlog { merchant, pending: row.get("pending")?, oldest: moment(row, "oldest")? })
    };
    db.prepare_cached(BACKLOG)?.query_map([], backlog)?.collect()
}

fn read(row: &Row<'_>) -> rusqlite::Result<Event> {
    let maybe = |column: &'static str| match row.get_ref(column)? {
        rusqlite::types::ValueRef::Null => Ok(None),
        _ => moment(row, column).map(Some),
    };
    let dialect = row.get_ref("dialect")?.as_str()?;
    let amount: Option<String> = row.get("amount")?;
    let denials = row.get("denials")?;
    Ok(Event {
        id: row.get("id")?,
        merchant: row.get::<_, String>("merchant")?.into(),
        dialect: Dialect::ALL.into_iter().find(|known| known.name() == dialect).ok_or_else(|| unreadable("dialect"))?,
        kind: EventKind::from_name(row.get_ref("kind")?.as_str()?).ok_or_else(|| unreadable("kind"))?,
        origin: Origin::from_name(row.get_ref("origin")?.as_str()?).ok_or_else(|| unreadable("origin"))?,
        digits: row.get("digits")?,
        state: State::from_name(row.get_ref("state")?.as_str()?).ok_or_else(|| unreadable("state"))?,
        received: moment(row, "received_at")?,
        due: maybe("due_at")?,
        until: moment(row, "until")?,
        ended: maybe("ended_at")?,
        attempts: row.get("attempts")?,
        confirmed: row.get("confirmed")?,
        counted: row.get("counted")?,
        doubt: maybe("doubted_at")?.map(|since| Doubt { since, denials }),
        amount: amount.map(|text| Amount::parse(&text).ok_or_else(|| unreadable("amount"))).transpose()?,
        paid_at: row.get("paid_at")?,
        status: row.get("status")?,
        said: row.get("said")?,
        body: Bytes::from(row.get::<_, Vec<u8>>("body")?),
    })
}

/// What can be read of these rows. One that somebody else has written holds up no other.
pub(super) fn readable<T>(
    rows: impl Iterator<Item = rusqlite::Result<T>>,
    what: &'static str,
) -> rusqlite::Result<Vec<T>> {
    let mut found = Vec::new();
    for row in rows {
        match row {
            Ok(row) => found.push(row),
            Err(error) if error.sqlite_error_code().is_some() => return Err(error),
            Err(error) => tracing::error!(what, %error, "a row of the store cannot be read and is passed over"),
        }
    }
    Ok(found)
}

fn rows(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

const INSERT: &str = "
INSERT INTO events (id, merchant, dialect, digits, payment, state, received_at, until, ended_at, forget_at, attempts,
    confirmed, amount, paid_at, status, said, body, kind, origin)
VALUES (:id, :merchant, :dialect, :digits, :payment, :state, :received_at, :until, :ended_at, :forget_at, 0,
    :confirmed, :amount, :paid_at, :status, :said, :body, :kind, :origin)";

const REOPEN: &str = "
UPDATE events SET n = (SELECT max(n) + 1 FROM events), doubted_at = NULL, denials = 0, digits = :digits, state = 'pending', received_at = :received_at, until = :until, ended_at = NULL,
    forget_at = NULL, attempts = 0, confirmed = :confirmed, origin = :origin, amount = :amount, paid_at = :paid_at,
    status = :status, said = NULL, body = :body
WHERE n = :n";

const POSTPONE: &str = "
UPDATE events SET due_at = iif(due_at IS NULL, NULL, :due_at), attempts = :attempts, said = :said,
    confirmed = :confirmed, doubted_at = :doubted_at, denials = :denials
WHERE id = :id AND state = 'pending'";

const END: &str = "
UPDATE events SET state = :state, due_at = NULL, ended_at = :ended_at, forget_at = :forget_at,
    attempts = :attempts, said = :said, confirmed = :confirmed
WHERE id = :id AND state = 'pending' RETURNING *";

const COUNTED: &str = "UPDATE events SET counted = 1 WHERE id = ?1";

/// What is in quarantine may have been made up, and stands in no other's way.
pub(super) const RELEASE: &str = "UPDATE events SET payment = NULL WHERE id = ?1 AND state = 'quarantined'";

const IDENTIFY: &str = "UPDATE events SET payment = ?2, paid_at = ?3 WHERE id = ?1";

pub(super) const TOLD: &str = "
SELECT amount FROM events
WHERE payment >= ?2 AND payment < ?3 AND merchant = ?1 AND dialect = 'classic' AND counted = 1 AND amount IS NOT NULL";

const AGAIN: &str = "
UPDATE events SET state = 'pending', ended_at = NULL, forget_at = NULL, attempts = 0, until = ?2, doubted_at = NULL,
    denials = 0
WHERE id = ?1 RETURNING merchant, dialect, digits";

macro_rules! first_in_line {
    () => {
        "(SELECT n FROM events WHERE state = 'pending' AND merchant = ?1 AND dialect = ?2 AND digits = ?3
          ORDER BY n LIMIT 1)"
    };
}

pub(super) const TURN: &str = concat!("UPDATE events SET due_at = ?4 WHERE due_at IS NULL AND n = ", first_in_line!());

pub(super) const LOSE_TURN: &str = concat!(
    "UPDATE events SET due_at = NULL
     WHERE state = 'pending' AND merchant = ?1 AND dialect = ?2 AND digits = ?3 AND due_at IS NOT NULL AND n > ",
    first_in_line!()
);

pub(super) const BY_PAYMENT: &str = "SELECT * FROM events WHERE merchant = ?1 AND dialect = ?2 AND payment = ?3";

pub(super) const BY_ID: &str = "SELECT * FROM events WHERE id = ?1";

pub(super) const DUE: &str =
    "SELECT * FROM events WHERE due_at IS NOT NULL AND merchant = ?1 AND due_at <= ?2 ORDER BY due_at LIMIT ?3";

pub(super) const BY_STATE: &str = "SELECT * FROM events WHERE state = ?1 ORDER BY n DESC LIMIT ?2";

pub(super) const LATEST: &str = "
SELECT * FROM events WHERE merchant = ?1 AND dialect = ?2 AND digits = ?3 AND state <> 'quarantined' AND kind = 'va.paid'
ORDER BY n DESC LIMIT 1";

pub(super) const ENDED_SINCE: &str = "
SELECT id FROM events WHERE received_at >= ?1 AND state IN ('delivered', 'dead') ORDER BY received_at LIMIT ?2";

pub(super) const BACKLOG: &str = "
SELECT merchant, count(*) AS pending, min(received_at) AS oldest FROM events WHERE state = 'pending' GROUP BY merchant";

const NEWEST: &str = "SELECT max(n) FROM events";

/// Numbers of events between two looks at how much is in quarantine: fewer where large bodies come.
const BETWEEN_BOUNDS: i64 = 256;

/// Bytes of a body that is larger than any documented one.
const LARGE: usize = 16 * 1024;

pub(super) const FORGET_ASIDE: &str = "
DELETE FROM events WHERE n IN (
    SELECT n FROM (
        SELECT n, row_number() OVER newest AS place, sum(length(body)) OVER newest AS bytes
        FROM events WHERE state = 'quarantined' AND merchant = ?1 WINDOW newest AS (ORDER BY n DESC)
    ) WHERE place > ?2 OR bytes > ?3
)";

pub(super) const PRUNE: &str =
    "DELETE FROM events WHERE n IN (SELECT n FROM events WHERE forget_at <= ?1 ORDER BY forget_at LIMIT ?2)";
