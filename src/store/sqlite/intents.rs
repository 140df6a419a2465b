//! Creates and updates in the table `intents`.
//!
//! Each function is a part of somebody's transaction. A row is written when its intent is begun,
//! changed when it ends, and deleted when it is released or its retentions are over. What is begun or
//! in doubt never expires: forgetting it is how a second create would come about.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, named_params, params};

use super::text::{
    attached_from_json, attached_to_json, headers_from_json, headers_to_json, iso, moment, operation, unreadable,
};
use crate::dialect::OperationId;
use crate::document::Meaning;
use crate::store::memory::{after, space};
use crate::store::{Begun, Doubt, End, Intent, Known, SentIds, StoredAnswer};

/// What is recorded of an intent, its answer apart.
struct Record {
    n: i64,
    operation: OperationId,
    answered: bool,
    meaning: Meaning,
    sent: SentIds,
    transaction: Option<Arc<str>>,
}

/// Numbers of rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers {
    /// The first of this process.
    pub(super) first: i64,
    /// For a row that has to be made.
    pub(super) next: i64,
}

/// What looking an intent up found.
pub(super) enum Found {
    Nothing,
    /// Under way or in doubt.
    Open {
        n: i64,
        sent: SentIds,
    },
    /// With the end of its retention by id, where it was found by its id.
    Answered(Arc<StoredAnswer>, Option<Timestamp>),
    Conflict,
}

/// What is known of an intent, by its id before its transaction.
pub(super) fn look_up(db: &Connection, intent: &Intent, now: Timestamp) -> rusqlite::Result<Found> {
    let space = space(intent.operation);
    let by_id = params![intent.id, &*intent.merchant, space, iso(now)];
    let mut found = db.prepare_cached(BY_ID)?.query_row(by_id, record).optional()?;
    let found_by_id = found.is_some();
    if let (None, Some(transaction)) = (&found, &intent.transaction) {
        let by_transaction = params![transaction, &*intent.merchant, intent.operation.name(), iso(now)];
        found = db.prepare_cached(BY_TRANSACTION)?.query_row(by_transaction, record).optional()?;
    }
    let Some(found) = found else { return Ok(Found::Nothing) };
    if found.meaning != intent.meaning || found.operation != intent.operation {
        return Ok(Found::Conflict);
    }
    if !found.answered {
        return Ok(Found::Open { n: found.n, sent: found.sent });
    }
    let (answer, expires) = db.prepare_cached(ANSWER)?.query_row([found.n], answer)?;
    Ok(Found::Answered(Arc::new(answer), found_by_id.then_some(expires)))
}

/// Records the intent as row `n`, or says what is known of it. Going on with an open one is recorded
/// too, so that a store that cannot write lets nothing be sent.
pub(super) fn begin(db: &Connection, intent: &Intent, now: Timestamp, n: i64) -> rusqlite::Result<Found> {
    let found = look_up(db, intent, now)?;
    match &found {
        Found::Nothing => insert(db, intent, now, n)?,
        Found::Open { n, .. } => {
            db.prepare_cached("UPDATE intents SET tries = tries + 1 WHERE n = ?1")?.execute([n])?;
        }
        Found::Answered(..) | Found::Conflict => {}
    }
    Ok(found)
}

impl Found {
    /// In the words of the interface.
    pub(super) fn begun(self) -> Begun {
        match self {
            Self::Nothing => Begun::Fresh,
            Self::Open { sent, .. } => Begun::InDoubt(sent),
            Self::Answered(answer, _) => Begun::Answered(answer),
            Self::Conflict => Begun::Conflict,
        }
    }
}

/// Records an end. An answer that stands is never unsaid.
pub(super) fn finish(
    db: &Connection,
    intent: &Intent,
    end: &End,
    now: Timestamp,
    numbers: Numbers,
) -> rusqlite::Result<()> {
    let Numbers { first, next } = numbers;
    match end {
        End::Answered(answer) => {
            let n = match latest(db, intent)? {
                Some(row) if !row.answered || row.transaction == intent.transaction => row.n,
                _ => {
                    insert(db, intent, now, next)?;
                    next
                }
            };
            write_answer(db, n, intent, answer, now)
        }
        End::InDoubt => match look_up(db, intent, now)? {
            // Begun by an earlier process, it has been in doubt ever since.
            Found::Open { n, .. } => doubt(db, n, n < first, intent, now),
            Found::Nothing => {
                insert(db, intent, now, next)?;
                doubt(db, next, false, intent, now)
            }
            Found::Answered(..) | Found::Conflict => Ok(()),
        },
        End::Released => match look_up(db, intent, now)? {
            Found::Open { n, .. } => {
                db.prepare_cached("DELETE FROM intents WHERE n = ?1")?.execute([n])?;
                Ok(())
            }
            Found::Nothing | Found::Answered(..) | Found::Conflict => Ok(()),
        },
    }
}

/// The newest row of an id, expired or not.
fn latest(db: &Connection, intent: &Intent) -> rusqlite::Result<Option<Record>> {
    let by_id = params![intent.id, &*intent.merchant, space(intent.operation)];
    db.prepare_cached(LATEST)?.query_row(by_id, record).optional()
}

fn insert(db: &Connection, intent: &Intent, now: Timestamp, n: i64) -> rusqlite::Result<()> {
    db.prepare_cached(INSERT)?.execute(named_params! {
        ":n": n,
        ":merchant": &*intent.merchant,
        ":operation": intent.operation.name(),
        ":space": space(intent.operation),
        ":id": intent.id,
        ":transaction_id": intent.transaction,
        ":begun_at": iso(now),
        ":expires_at": iso(after(now, intent.retention)),
        ":transaction_expires_at": iso(after(now, intent.transaction_retention)),
        ":sent_header_id": intent.sent.header,
        ":sent_transaction_id": intent.sent.transaction,
        ":meaning": &intent.meaning.0[..],
        ":retention_ms": millis(intent.retention),
        ":transaction_retention_ms": millis(intent.transaction_retention),
        ":request": &*intent.request,
    })?;
    Ok(())
}

/// The request goes: it is needed to settle a doubt, and holds names and phones.
fn write_answer(
    db: &Connection,
    n: i64,
    intent: &Intent,
    answer: &StoredAnswer,
    now: Timestamp,
) -> rusqlite::Result<()> {
    db.prepare_cached(WRITE_ANSWER)?.execute(named_params! {
        ":n": n,
        ":ended_at": iso(now),
        ":expires_at": iso(after(now, intent.retention)),
        ":transaction_expires_at": iso(after(now, intent.transaction_retention)),
        ":status": answer.status.as_u16(),
        ":attached": attached_to_json(&answer.attached),
        ":headers": headers_to_json(&answer.headers),
        ":body": &*answer.body,
    })?;
    Ok(())
}

/// Since when it is in doubt stays as it was first recorded.
fn doubt(db: &Connection, n: i64, since_begun: bool, intent: &Intent, now: Timestamp) -> rusqlite::Result<()> {
    db.prepare_cached(WRITE_DOUBT)?.execute(named_params! {
        ":n": n,
        ":since_begun": since_begun,
        ":now": iso(now),
        ":expires_at": iso(after(now, intent.retention)),
        ":transaction_expires_at": iso(after(now, intent.transaction_retention)),
    })?;
    Ok(())
}

/// Deletes what is over, at most `limit` rows; how many there were.
pub(super) fn prune(db: &Connection, now: Timestamp, limit: usize) -> rusqlite::Result<usize> {
    db.prepare_cached(PRUNE)?.execute(params![iso(now), rows(limit)])
}

/// What is in doubt, the oldest first; of what is begun only rows below `first`, the first number of
/// this process.
pub(super) fn doubts(db: &Connection, first: i64, limit: usize) -> rusqlite::Result<Vec<Doubt>> {
    db.prepare_cached(DOUBTS)?.query_map(params![first, rows(limit)], read_doubt)?.collect()
}

/// What is known under an id or transaction of any merchant.
pub(super) fn known(db: &Connection, id: &str, now: Timestamp) -> rusqlite::Result<Vec<Known>> {
    let known = |row: &Row<'_>| {
        let answered = row.get_ref("state")?.as_str()? == "answered";
        Ok(Known {
            merchant: row.get::<_, String>("merchant")?.into(),
            operation: operation(row, "operation")?,
            state: if answered { "answered" } else { "in_doubt" },
            status: row.get("status")?,
            expires: moment(row, "expires")?,
        })
    };
    db.prepare_cached(KNOWN)?.query_map(params![id, iso(now)], known)?.collect()
}

/// The next row's number.
pub(super) fn next_number(db: &Connection) -> rusqlite::Result<i64> {
    db.query_row(NEXT, [], |row| row.get(0))
}

fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    Ok(Record {
        n: row.get("n")?,
        operation: operation(row, "operation")?,
        answered: row.get_ref("state")?.as_str()? == "answered",
        meaning: Meaning(row.get("meaning")?),
        sent: SentIds { header: row.get("sent_header_id")?, transaction: row.get("sent_transaction_id")? },
        transaction: row.get("transaction_id")?,
    })
}

fn answer(row: &Row<'_>) -> rusqlite::Result<(StoredAnswer, Timestamp)> {
    let status = StatusCode::from_u16(row.get("status")?).map_err(|_| unreadable("status"))?;
    let answer = StoredAnswer {
        status,
        headers: headers_from_json(row.get_ref("headers")?.as_str()?)?,
        body: Bytes::from(row.get::<_, Vec<u8>>("body")?),
        attached: attached_from_json(row.get_ref("attached")?.as_str()?)?,
    };
    Ok((answer, moment(row, "expires_at")?))
}

fn read_doubt(row: &Row<'_>) -> rusqlite::Result<Doubt> {
    let Record { operation, meaning, sent, transaction, .. } = record(row)?;
    let duration = |column| {
        let millis: i64 = row.get(column)?;
        u64::try_from(millis).map(Duration::from_millis).map_err(|_| unreadable(column))
    };
    let intent = Intent {
        merchant: row.get::<_, String>("merchant")?.into(),
        operation,
        id: row.get("id")?,
        transaction,
        meaning,
        request: Bytes::from(row.get::<_, Option<Vec<u8>>>("request")?.unwrap_or_default()),
        sent,
        retention: duration("retention_ms")?,
        transaction_retention: duration("transaction_retention_ms")?,
    };
    Ok(Doubt { intent, since: moment(row, "since")? })
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn rows(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

macro_rules! record_columns {
    () => {
        "SELECT n, operation, state, meaning, sent_header_id, sent_transaction_id, transaction_id FROM intents "
    };
}

pub(super) const BY_ID: &str = concat!(
    record_columns!(),
    "WHERE id = ?1 AND merchant = ?2 AND space = ?3 AND (state <> 'answered' OR expires_at > ?4)
     ORDER BY n DESC LIMIT 1"
);

pub(super) const BY_TRANSACTION: &str = concat!(
    record_columns!(),
    "WHERE transaction_id = ?1 AND merchant = ?2 AND operation = ?3
     AND (state <> 'answered' OR transaction_expires_at > ?4)
     ORDER BY n DESC LIMIT 1"
);

pub(super) const LATEST: &str =
    concat!(record_columns!(), "WHERE id = ?1 AND merchant = ?2 AND space = ?3 ORDER BY n DESC LIMIT 1");

pub(super) const ANSWER: &str = "SELECT status, headers, body, attached, expires_at FROM intents WHERE n = ?1";

const INSERT: &str = "
INSERT INTO intents (n, merchant, operation, space, id, transaction_id, state, begun_at, expires_at,
    transaction_expires_at, tries, sent_header_id, sent_transaction_id, meaning, retention_ms,
    transaction_retention_ms, request)
VALUES (:n, :merchant, :operation, :space, :id, :transaction_id, 'begun', :begun_at, :expires_at,
    :transaction_expires_at, 1, :sent_header_id, :sent_transaction_id, :meaning, :retention_ms,
    :transaction_retention_ms, :request)";

const WRITE_ANSWER: &str = "
UPDATE intents SET state = 'answered', doubted_at = NULL, ended_at = :ended_at, expires_at = :expires_at,
    transaction_expires_at = :transaction_expires_at,
    forget_at = max(:expires_at, iif(transaction_id IS NULL, :expires_at, :transaction_expires_at)),
    status = :status, attached = :attached, headers = :headers, body = :body, request = NULL
WHERE n = :n";

const WRITE_DOUBT: &str = "
UPDATE intents SET state = 'unknown',
    doubted_at = coalesce(doubted_at, iif(:since_begun, begun_at, :now)), expires_at = :expires_at,
    transaction_expires_at = :transaction_expires_at
WHERE n = :n";

pub(super) const PRUNE: &str =
    "DELETE FROM intents WHERE n IN (SELECT n FROM intents WHERE forget_at <= ?1 ORDER BY forget_at LIMIT ?2)";

macro_rules! doubt_columns {
    () => {
        "n, operation, state, meaning, sent_header_id, sent_transaction_id, transaction_id, merchant, id, request,
         retention_ms, transaction_retention_ms"
    };
}

/// Both halves are bounded by an index of their own; the few that were under way when the process
/// ended are sorted in.
pub(super) const DOUBTS: &str = concat!(
    "SELECT * FROM (SELECT ",
    doubt_columns!(),
    ", doubted_at AS since FROM intents WHERE state = 'unknown' ORDER BY doubted_at LIMIT ?2)
     UNION ALL
     SELECT * FROM (SELECT ",
    doubt_columns!(),
    ", begun_at AS since FROM intents WHERE state = 'begun' AND n < ?1 ORDER BY n LIMIT ?2)
     ORDER BY since LIMIT ?2"
);

pub(super) const KNOWN: &str = "
SELECT merchant, operation, state, status, expires_at AS expires FROM intents
WHERE id = ?1 AND (state <> 'answered' OR expires_at > ?2)
UNION ALL
SELECT merchant, operation, state, status, transaction_expires_at FROM intents
WHERE transaction_id = ?1 AND (state <> 'answered' OR transaction_expires_at > ?2)
LIMIT 100";

pub(super) const NEXT: &str = "SELECT coalesce(max(n), 0) + 1 FROM intents";
