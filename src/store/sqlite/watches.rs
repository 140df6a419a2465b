//! Accounts that are looked at, in the table `watches`.
//!
//! Each function is a part of somebody's transaction. A row says when its account is to be looked at
//! and what of its money is counted; it begins anew with every new life of the number and goes with
//! the account's record.

use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, named_params, params};

use super::text::{iso, moment, unreadable};
use super::{accounts, events};
use crate::callback::notice::{self, Notice};
use crate::dialect::Dialect;
use crate::dialect::amount::Amount;
use crate::reference::{Account, Handle};
use crate::store::inbox::{Arrival, Received};
use crate::store::watch::{Counted, Look, Looked, Misses, Watch, is_of};

/// Which life of its number an account is: what is counted of one says nothing of the next.
pub(in crate::store) fn life(account: &Account) -> String {
    match &account.handle {
        Handle::Snap { .. } => iso(account.created),
        Handle::Classic { account_id, .. } => format!("{} {account_id}", iso(account.created)),
    }
}

/// Watches an account from now on; one that is watched goes on as it does, and of one whose watch had
/// ended it is not known any more when it ends.
pub(super) fn keep(db: &Connection, account: &Account, now: Timestamp) -> rusqlite::Result<()> {
    let (life, dialect) = (life(account), account.dialect().name());
    let key = params![account.digits(), &*account.merchant, dialect, life, iso(now)];
    if db.prepare_cached(GO_ON)?.execute(key)? == 1 {
        return Ok(());
    }
    db.prepare_cached(KEEP)?.execute(named_params! {
        ":digits": account.digits(),
        ":merchant": &*account.merchant,
        ":dialect": dialect,
        ":life": life,
        ":expires_at": account.expires.map(iso),
        ":look_at": iso(now),
        ":whole": account.created != Account::READ,
        ":nothing": Amount::ZERO.to_string(),
    })?;
    Ok(())
}

/// Watches every account that is not watched yet, or was in an earlier life of its number. What was paid
/// of them before is not known.
pub(super) fn take_up(db: &Connection, now: Timestamp) -> rusqlite::Result<()> {
    let unwatched: Vec<Account> =
        db.prepare_cached(UNWATCHED)?.query_map([], accounts::read)?.collect::<rusqlite::Result<_>>()?;
    for account in &unwatched {
        keep(db, account, now)?;
        let key = params![account.digits(), &*account.merchant, account.dialect().name()];
        db.prepare_cached(DOUBT)?.execute(key)?;
    }
    Ok(())
}

/// Forgets what belongs to a record that is gone.
pub(super) fn forget(db: &Connection, account: &Account) -> rusqlite::Result<()> {
    let key = params![account.digits(), &*account.merchant, account.dialect().name()];
    db.prepare_cached(FORGET)?.execute(key).map(|_| ())
}

pub(super) fn due(
    db: &Connection,
    merchant: &str,
    (now, soon): (Timestamp, Timestamp),
    limit: usize,
) -> rusqlite::Result<Vec<Watch>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut ending = db.prepare_cached(ENDING)?;
    // What ends soon comes first, but leaves room for others: it may be due again and again.
    let ending = ending.query_map(params![merchant, iso(now), iso(soon), (limit + 1) / 2], |row| read(db, row))?;
    let mut due = events::readable(ending, "a watched account")?;
    if due.len() < usize::try_from(limit).unwrap_or(usize::MAX) {
        let mut others = db.prepare_cached(DUE)?;
        let others = others.query_map(params![merchant, iso(now), limit], |row| read(db, row))?;
        for watch in events::readable(others, "a watched account")? {
            if !due.iter().any(|known| known.account == watch.account) {
                due.push(watch);
            }
        }
    }
    due.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(due)
}

pub(super) fn one(db: &Connection, merchant: &str, dialect: Dialect, digits: &str) -> rusqlite::Result<Option<Watch>> {
    db.prepare_cached(ONE)?.query_row(params![digits, merchant, dialect.name()], |row| read(db, row)).optional()
}

/// Records a look and what it found, unless the account changed since.
pub(super) fn looked(db: &Connection, look: &Look) -> rusqlite::Result<Looked> {
    let account = &look.watch.account;
    let dialect = account.dialect();
    if one(db, &account.merchant, dialect, account.digits())?.as_ref() != Some(&look.watch) {
        return Ok(Looked::Stale);
    }
    let mut new = 0;
    for arrival in &look.found {
        new += usize::from(events::receive(db, arrival)? == Received::Queued);
    }
    let swept = look.found.iter().filter_map(|arrival| arrival.notice.as_ref().ok()?.total).max();
    db.prepare_cached(LOOKED)?.execute(named_params! {
        ":digits": account.digits(),
        ":merchant": &*account.merchant,
        ":dialect": dialect.name(),
        ":looked_at": look.at.map(iso),
        ":look_at": look.next.map(iso),
        ":expires_at": look.expires.map(iso),
        ":whole": look.before.is_some(),
        ":paid_latest": look.before.and_then(|before| before.latest).map(iso),
        ":paid_total": look.before.map(|before| before.total.to_string()),
        ":swept": swept.map(|total| total.to_string()),
        ":missed_since": look.misses.since.map(iso),
        ":missed": look.misses.looks,
        ":refused": look.misses.refused,
    })?;
    Ok(Looked::Recorded(new))
}

/// What an asked-for sum says of a classic callback nobody has seen before: whether its payment was
/// among what was found by asking. Nothing where that cannot be told.
pub(super) fn found_already(db: &Connection, arrival: &Arrival, notice: &Notice) -> rusqlite::Result<Option<bool>> {
    let (Dialect::Classic, Some(account)) = (arrival.dialect, &notice.account_id) else { return Ok(Some(false)) };
    let key = params![notice.digits(), &*arrival.merchant, arrival.dialect.name()];
    let swept = |row: &Row<'_>| Ok((row.get::<_, String>("life")?, row.get::<_, Option<String>>("swept")?));
    let Some((life, Some(swept))) = db.prepare_cached(SWEPT)?.query_row(key, swept).optional()? else {
        return Ok(Some(false));
    };
    if id_of(&life) != Some(account.as_str()) {
        return Ok(Some(false));
    }
    let swept = Amount::parse(&swept).ok_or_else(|| unreadable("swept"))?;
    Ok(notice.total.map(|total| total <= swept))
}

/// A payment that had its end.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) merchant: String,
    pub(super) dialect: String,
    pub(super) digits: String,
    pub(super) payment: Option<String>,
    pub(super) amount: Option<String>,
    pub(super) paid_at: Option<String>,
}

/// Counts a payment that had its end.
pub(super) fn count(db: &Connection, settled: &Settled) -> rusqlite::Result<()> {
    let Settled { merchant, dialect, digits, payment, amount, paid_at } = settled;
    let key = params![digits, merchant, dialect];
    let row = |row: &Row<'_>| {
        let latest: Option<String> = row.get("paid_latest")?;
        Ok((row.get::<_, String>("life")?, latest, row.get::<_, String>("paid_total")?))
    };
    let Some((life, latest, total)) = db.prepare_cached(SWEPT)?.query_row(key, row).optional()? else {
        return Ok(());
    };
    if !is_of(id_of(&life), payment.as_deref()) {
        return Ok(());
    }
    let paid = paid_at.as_deref().and_then(notice::moment).map(iso);
    let latest = paid.into_iter().chain(latest).max();
    let Some(total) = Amount::parse(&total) else {
        tracing::error!("what is counted of an account cannot be read; a payment is told and not counted");
        return Ok(());
    };
    // SNAP's payments are told apart by their times; only classic has sums.
    let amount = amount.as_deref().filter(|_| dialect == Dialect::Classic.name());
    let total = total.saturating_add(amount.and_then(Amount::parse).unwrap_or_default());
    let counted = params![digits, merchant, dialect, latest, total.to_string()];
    db.prepare_cached(COUNT)?.execute(counted).map(|_| ())
}

/// The account id in what tells lives apart.
fn id_of(life: &str) -> Option<&str> {
    life.split_once(' ').map(|(_, id)| id)
}

fn read(db: &Connection, row: &Row<'_>) -> rusqlite::Result<Watch> {
    let maybe = |column: &'static str| match row.get_ref(column)? {
        rusqlite::types::ValueRef::Null => Ok(None),
        _ => moment(row, column).map(Some),
    };
    let account = accounts::read(row)?;
    let total: String = row.get("paid_total")?;
    let counted = Counted {
        whole: row.get("whole")?,
        latest: maybe("paid_latest")?,
        total: Amount::parse(&total).ok_or_else(|| unreadable("paid_total"))?,
        pending: match account.dialect() {
            Dialect::Classic => pending(db, &account)?,
            Dialect::Snap => Amount::ZERO,
        },
    };
    let misses = Misses { since: maybe("missed_since")?, looks: row.get("missed")?, refused: row.get("refused")? };
    let (expires, looked) = (maybe("watched_until")?, maybe("looked_at")?);
    Ok(Watch { account: Arc::new(account), expires, looked, counted, misses })
}

/// The sum of payments that are in line and not counted.
fn pending(db: &Connection, account: &Account) -> rusqlite::Result<Amount> {
    let life = life(account);
    let mut sum = Amount::ZERO;
    let mut payments = db.prepare_cached(PENDING)?;
    let mut rows = payments.query(params![&*account.merchant, account.dialect().name(), account.digits()])?;
    while let Some(row) = rows.next()? {
        let (payment, amount): (Option<String>, Option<String>) = (row.get("payment")?, row.get("amount")?);
        if is_of(id_of(&life), payment.as_deref()) {
            sum = sum.saturating_add(amount.as_deref().and_then(Amount::parse).unwrap_or_default());
        }
    }
    Ok(sum)
}

pub(super) const GO_ON: &str = "
UPDATE watches SET watched_until = iif(look_at IS NULL, NULL, watched_until),
    missed_since = iif(look_at IS NULL, NULL, missed_since), missed = iif(look_at IS NULL, 0, missed),
    refused = iif(look_at IS NULL, 0, refused), look_at = coalesce(look_at, ?5)
WHERE digits = ?1 AND merchant = ?2 AND dialect = ?3 AND life = ?4";

const KEEP: &str = "
INSERT OR REPLACE INTO watches (digits, merchant, dialect, life, watched_until, look_at, whole, paid_total)
VALUES (:digits, :merchant, :dialect, :life, :expires_at, :look_at, :whole, :nothing)";

const UNWATCHED: &str = "
SELECT * FROM accounts AS a WHERE NOT EXISTS
    (SELECT 1 FROM watches AS w WHERE w.digits = a.digits AND w.merchant = a.merchant AND w.dialect = a.dialect
     AND w.life = a.created_at || iif(a.dialect = 'classic', ' ' || coalesce(a.account_id, ''), ''))";

const DOUBT: &str = "UPDATE watches SET whole = 0 WHERE digits = ?1 AND merchant = ?2 AND dialect = ?3";

const FORGET: &str = "DELETE FROM watches WHERE digits = ?1 AND merchant = ?2 AND dialect = ?3";

macro_rules! watched {
    () => {
        "SELECT accounts.*, watches.watched_until, watches.looked_at, watches.whole, watches.paid_latest,
             watches.paid_total, watches.missed_since, watches.missed, watches.refused
         FROM watches JOIN accounts USING (digits, merchant, dialect) "
    };
}

pub(super) const ENDING: &str = concat!(
    watched!(),
    "WHERE merchant = ?1 AND look_at <= ?2 AND watched_until IS NOT NULL AND watched_until <= ?3
     ORDER BY watched_until LIMIT ?4"
);

pub(super) const DUE: &str = concat!(watched!(), "WHERE merchant = ?1 AND look_at <= ?2 ORDER BY look_at LIMIT ?3");

pub(super) const ONE: &str = concat!(watched!(), "WHERE digits = ?1 AND merchant = ?2 AND dialect = ?3");

const SWEPT: &str = "SELECT * FROM watches WHERE digits = ?1 AND merchant = ?2 AND dialect = ?3";

/// What was found out is not unsaid by a look that only set a time.
const LOOKED: &str = "
UPDATE watches SET looked_at = coalesce(:looked_at, looked_at), look_at = :look_at, watched_until = :expires_at,
    whole = max(whole, :whole), paid_latest = coalesce(:paid_latest, paid_latest),
    paid_total = coalesce(:paid_total, paid_total), swept = coalesce(:swept, swept), missed_since = :missed_since,
    missed = :missed, refused = :refused
WHERE digits = :digits AND merchant = :merchant AND dialect = :dialect";

pub(super) const COUNT: &str = "
UPDATE watches SET paid_latest = ?4, paid_total = ?5 WHERE digits = ?1 AND merchant = ?2 AND dialect = ?3";

pub(super) const PENDING: &str = "
SELECT payment, amount FROM events
WHERE state = 'pending' AND merchant = ?1 AND dialect = ?2 AND digits = ?3 AND kind = 'va.paid' AND counted = 0";
