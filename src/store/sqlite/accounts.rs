//! Virtual accounts in the table `accounts`.
//!
//! Each function is a part of somebody's transaction. A number has one row a merchant and dialect:
//! its current life. The newest create wins whatever the order of arrival.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, named_params, params};

use super::text::{iso, moment, unreadable};
use crate::dialect::Dialect;
use crate::dialect::amount::Amount;
use crate::reference::{Account, AccountQuery, Handle};
use crate::store::memory::after;

/// How long an account is kept after it was last written or read: a VA lives up to two years, and its last
/// update may come at the end of that and add as much again to what must be found.
pub(super) const RETENTION: Duration = Duration::from_secs(3 * 366 * 24 * 60 * 60);

/// How much of [`RETENTION`] may pass before a read prolongs it: a write for every read would be a wait
/// for the disk too many.
const TOUCHED_ONCE_IN: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Whether an account's time is to be prolonged.
pub(super) fn is_due(db: &Connection, account: &Account, now: Timestamp) -> rusqlite::Result<bool> {
    let due_before = iso(after(now, RETENTION.saturating_sub(TOUCHED_ONCE_IN)));
    let key = params![account.digits(), &*account.merchant, account.dialect().name(), due_before];
    db.prepare_cached(IS_DUE)?.exists(key)
}

/// Prolongs an account's time, and changes nothing else of it; whether it is still there.
pub(super) fn touch(db: &Connection, account: &Account, now: Timestamp) -> rusqlite::Result<bool> {
    let until = iso(after(now, RETENTION));
    let key = params![account.digits(), &*account.merchant, account.dialect().name(), until];
    Ok(db.prepare_cached(TOUCH)?.execute(key)? == 1)
}

/// Records an account; whether it is now the one that is known, an older create being passed over.
pub(super) fn remember(db: &Connection, account: &Account, now: Timestamp) -> rusqlite::Result<bool> {
    let (snap, classic) = match &account.handle {
        Handle::Snap { partner_service_id, customer_no, trx_id, reference_no } => {
            (Some([partner_service_id, customer_no, trx_id, reference_no]), None)
        }
        Handle::Classic { account_id, customer_id, correlation_id } => {
            (None, Some([account_id, customer_id, correlation_id]))
        }
    };
    let [partner_service_id, customer_no, trx_id, reference] = snap.map_or([None; 4], |texts| texts.map(Some));
    let [account_id, customer_id, correlation_id] = classic.map_or([None; 3], |texts| texts.map(Some));
    let written = db.prepare_cached(REMEMBER)?.execute(named_params! {
        ":digits": account.digits(),
        ":merchant": &*account.merchant,
        ":dialect": account.dialect().name(),
        ":number": account.number,
        ":own_digits": account.own_digits,
        ":bank_code": account.bank_code,
        ":amount": account.amount.map(|amount| amount.to_string()),
        ":created_at": iso(account.created),
        ":expires_at": account.expires.map(iso),
        ":closed": account.closed,
        ":reference": reference,
        ":trx_id": trx_id,
        ":partner_service_id": partner_service_id,
        ":customer_no": customer_no,
        ":account_id": account_id,
        ":customer_id": customer_id,
        ":correlation_id": correlation_id,
        ":forget_at": iso(after(now, RETENTION)),
    })?;
    Ok(written == 1)
}

/// The account a query means; nothing where it is unknown or several fit.
pub(super) fn find(
    db: &Connection,
    merchant: &str,
    dialect: Dialect,
    query: &AccountQuery,
) -> rusqlite::Result<Option<Account>> {
    let dialect = dialect.name();
    if !query.account_id.is_empty() {
        // A newer life of the number has another id; the old id then finds nothing.
        let by_id = params![query.account_id, merchant, dialect];
        return db.prepare_cached(BY_ACCOUNT_ID)?.query_row(by_id, read).optional();
    }
    let by_number = params![query.digits, merchant, dialect];
    let whole = db.prepare_cached(BY_DIGITS)?.query_row(by_number, read).optional()?;
    if query.whole || query.digits.is_empty() {
        return Ok(whole);
    }
    let mut by_own_digits = db.prepare_cached(BY_OWN_DIGITS)?;
    let mut others = by_own_digits.query_map(by_number, read)?;
    match (whole, others.next(), others.next()) {
        (Some(whole), None, _) => Ok(Some(whole)),
        (None, Some(only), None) => only.map(Some),
        (_, Some(Err(error)), _) | (_, _, Some(Err(error))) => Err(error),
        _ => Ok(None),
    }
}

/// Every account with that number, whole or own digits, of any merchant.
pub(super) fn all(db: &Connection, number: &str) -> rusqlite::Result<Vec<Arc<Account>>> {
    db.prepare_cached(ALL)?.query_map([number], |row| read(row).map(Arc::new))?.collect()
}

/// The padded prefix of a merchant's SNAP numbers at a bank.
pub(super) fn prefix(db: &Connection, merchant: &str, bank: &str) -> rusqlite::Result<Option<String>> {
    db.prepare_cached(PREFIX)?.query_row(params![merchant, bank], |row| row.get(0)).optional()
}

/// Deletes what nobody wrote to for [`RETENTION`], at most `limit`, and says what that was.
pub(super) fn prune(db: &Connection, now: Timestamp, limit: usize) -> rusqlite::Result<Vec<Account>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    db.prepare_cached(PRUNE)?.query_map(params![iso(now), limit], read)?.collect()
}

pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Account> {
    let text = |column| row.get::<_, Option<String>>(column).map(Option::unwrap_or_default);
    let handle = match row.get_ref("dialect")?.as_str()? {
        "snap" => Handle::Snap {
            partner_service_id: text("partner_service_id")?,
            customer_no: text("customer_no")?,
            trx_id: text("trx_id")?,
            reference_no: text("reference")?,
        },
        "classic" => Handle::Classic {
            account_id: text("account_id")?,
            customer_id: text("customer_id")?,
            correlation_id: text("correlation_id")?,
        },
        _ => return Err(unreadable("dialect")),
    };
    let amount: Option<String> = row.get("amount")?;
    let amount = amount.map(|text| Amount::parse(&text).ok_or_else(|| unreadable("amount"))).transpose()?;
    Ok(Account {
        merchant: row.get::<_, String>("merchant")?.into(),
        number: row.get("number")?,
        own_digits: row.get("own_digits")?,
        bank_code: row.get("bank_code")?,
        amount,
        closed: row.get("closed")?,
        created: moment(row, "created_at")?,
        expires: match row.get_ref("expires_at")? {
            rusqlite::types::ValueRef::Null => None,
            _ => Some(moment(row, "expires_at")?),
        },
        handle,
    })
}

/// The same create again may bring a new amount, hence `>=`; what was read is older than any create.
const REMEMBER: &str = "
INSERT INTO accounts (digits, merchant, dialect, number, own_digits, bank_code, amount, created_at, reference,
    trx_id, partner_service_id, customer_no, account_id, customer_id, correlation_id, forget_at, expires_at, closed)
VALUES (:digits, :merchant, :dialect, :number, :own_digits, :bank_code, :amount, :created_at, :reference,
    :trx_id, :partner_service_id, :customer_no, :account_id, :customer_id, :correlation_id, :forget_at,
    :expires_at, :closed)
ON CONFLICT (digits, merchant, dialect) DO UPDATE SET number = excluded.number, own_digits = excluded.own_digits,
    bank_code = excluded.bank_code, amount = excluded.amount, created_at = excluded.created_at,
    reference = excluded.reference, trx_id = excluded.trx_id, partner_service_id = excluded.partner_service_id,
    customer_no = excluded.customer_no, account_id = excluded.account_id, customer_id = excluded.customer_id,
    correlation_id = excluded.correlation_id, forget_at = excluded.forget_at, expires_at = excluded.expires_at,
    closed = excluded.closed
WHERE excluded.created_at >= accounts.created_at";

pub(super) const IS_DUE: &str =
    "SELECT 1 FROM accounts WHERE digits = ?1 AND merchant = ?2 AND dialect = ?3 AND forget_at < ?4";

const TOUCH: &str = "
UPDATE accounts SET forget_at = max(forget_at, ?4) WHERE digits = ?1 AND merchant = ?2 AND dialect = ?3";

pub(super) const BY_DIGITS: &str = "SELECT * FROM accounts WHERE digits = ?1 AND merchant = ?2 AND dialect = ?3";

/// Two are enough to know that more than one fits.
pub(super) const BY_OWN_DIGITS: &str =
    "SELECT * FROM accounts WHERE own_digits = ?1 AND merchant = ?2 AND dialect = ?3 AND digits <> ?1 LIMIT 2";

pub(super) const BY_ACCOUNT_ID: &str =
    "SELECT * FROM accounts WHERE account_id = ?1 AND merchant = ?2 AND dialect = ?3 ORDER BY created_at DESC LIMIT 1";

pub(super) const ALL: &str = "
SELECT * FROM accounts WHERE digits = ?1
UNION ALL
SELECT * FROM accounts WHERE own_digits = ?1 AND digits <> ?1
LIMIT 100";

pub(super) const PREFIX: &str = "
SELECT partner_service_id FROM accounts
WHERE merchant = ?1 AND bank_code = ?2 AND partner_service_id IS NOT NULL LIMIT 1";

pub(super) const PRUNE: &str = "
DELETE FROM accounts WHERE (digits, merchant, dialect) IN
    (SELECT digits, merchant, dialect FROM accounts WHERE forget_at <= ?1 ORDER BY forget_at LIMIT ?2)
RETURNING *";
