//! The tables, and how an older file becomes a newer one.
//!
//! Promises that a file is either taken to this version in one transaction a step or left as it was,
//! and that a file of a newer version or of another program is refused untouched. Tables are made to
//! be read by a person with the sqlite3 shell (docs/store.md); times are ISO 8601 in UTC with nine
//! decimals, so that their order as text is their order in time.

use rusqlite::{Connection, TransactionBehavior};

use super::trouble::{explain, refused};
use crate::store::StoreError;

/// Marks a file as this program's (`PRAGMA application_id`): "AYOV".
const APPLICATION_ID: i32 = 0x4159_4f56;

/// Step `i` makes version `i + 1` of the version before. A step that was released never changes.
const MIGRATIONS: [&str; 3] = [V1, V2, V3];

/// The version this program writes.
const VERSION: usize = MIGRATIONS.len();

/// Rows of `intents` keep their numbers, since what was begun under a lower number than this
/// process's first is of an earlier process. `accounts` is read by key only and small, hence without
/// a rowid; `scratch` is always empty and exists to try whether the disk takes data.
const V1: &str = "
CREATE TABLE intents (
    n INTEGER PRIMARY KEY,
    merchant TEXT NOT NULL,
    operation TEXT NOT NULL,
    space TEXT NOT NULL CHECK (space IN ('snap', 'classic', 'classic.update')),
    id TEXT NOT NULL,
    transaction_id TEXT,
    state TEXT NOT NULL CHECK (state IN ('begun', 'unknown', 'answered')),
    begun_at TEXT NOT NULL,
    doubted_at TEXT,
    ended_at TEXT,
    expires_at TEXT NOT NULL,
    transaction_expires_at TEXT NOT NULL,
    forget_at TEXT,
    tries INTEGER NOT NULL,
    status INTEGER,
    attached TEXT,
    headers TEXT,
    body BLOB,
    sent_header_id TEXT,
    sent_transaction_id TEXT,
    meaning BLOB NOT NULL,
    retention_ms INTEGER NOT NULL,
    transaction_retention_ms INTEGER NOT NULL,
    request BLOB,
    CHECK ((state = 'unknown') = (doubted_at IS NOT NULL)),
    CHECK ((state = 'answered') = (forget_at IS NOT NULL))
) STRICT;
CREATE INDEX intents_by_id ON intents (id, merchant, space);
CREATE INDEX intents_by_transaction ON intents (transaction_id, merchant, operation) WHERE transaction_id IS NOT NULL;
CREATE INDEX intents_under_way ON intents (n) WHERE state = 'begun';
CREATE INDEX intents_in_doubt ON intents (doubted_at) WHERE state = 'unknown';
CREATE INDEX intents_to_forget ON intents (forget_at) WHERE forget_at IS NOT NULL;
CREATE TABLE accounts (
    digits TEXT NOT NULL,
    merchant TEXT NOT NULL,
    dialect TEXT NOT NULL CHECK (dialect IN ('snap', 'classic')),
    number TEXT NOT NULL,
    own_digits TEXT NOT NULL,
    bank_code TEXT,
    amount TEXT,
    created_at TEXT NOT NULL,
    reference TEXT,
    trx_id TEXT,
    partner_service_id TEXT,
    customer_no TEXT,
    account_id TEXT,
    customer_id TEXT,
    correlation_id TEXT,
    forget_at TEXT NOT NULL,
    PRIMARY KEY (digits, merchant, dialect)
) STRICT, WITHOUT ROWID;
CREATE INDEX accounts_by_own_digits ON accounts (own_digits, merchant, dialect);
CREATE INDEX accounts_by_account_id ON accounts (account_id, merchant) WHERE account_id IS NOT NULL;
CREATE INDEX accounts_by_bank ON accounts (merchant, bank_code) WHERE partner_service_id IS NOT NULL;
CREATE INDEX accounts_to_forget ON accounts (forget_at);
CREATE TABLE scratch (n INTEGER PRIMARY KEY, filler BLOB NOT NULL) STRICT;
";

/// Payment callbacks. `payment` is what all callbacks of one payment have in common; only the first
/// pending event of an account has a `due_at`.
const V2: &str = "
CREATE TABLE events (
    n INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    merchant TEXT NOT NULL,
    dialect TEXT NOT NULL CHECK (dialect IN ('snap', 'classic')),
    digits TEXT NOT NULL,
    payment TEXT,
    state TEXT NOT NULL CHECK (state IN ('pending', 'delivered', 'dead', 'quarantined')),
    received_at TEXT NOT NULL,
    due_at TEXT,
    until TEXT NOT NULL,
    ended_at TEXT,
    forget_at TEXT,
    attempts INTEGER NOT NULL,
    confirmed INTEGER NOT NULL,
    amount TEXT,
    paid_at TEXT,
    status TEXT,
    said TEXT,
    body BLOB NOT NULL,
    CHECK ((state = 'pending') = (ended_at IS NULL)),
    CHECK ((state = 'pending') = (forget_at IS NULL)),
    CHECK (state = 'pending' OR due_at IS NULL)
) STRICT;
CREATE UNIQUE INDEX events_by_id ON events (id);
CREATE UNIQUE INDEX events_by_payment ON events (payment, merchant, dialect) WHERE payment IS NOT NULL;
CREATE INDEX events_by_account ON events (digits, merchant, dialect, n);
CREATE INDEX events_by_state ON events (state, n);
CREATE INDEX events_by_arrival ON events (received_at);
CREATE INDEX events_pending ON events (merchant, dialect, digits, n) WHERE state = 'pending';
CREATE INDEX events_due ON events (merchant, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX events_to_forget ON events (forget_at) WHERE forget_at IS NOT NULL;
";

/// Events that were found by asking, and which accounts are looked at when. `life` tells the lives of
/// a number apart; `paid_latest` (SNAP) and `paid_total` (classic) are what is counted of it, all there
/// was where `whole` says so; `swept` is the highest sum that was found by asking; `missed` looks
/// in a row since `missed_since` showed nothing, `refused` of them because upstream knew no such
/// account. `doubted_at` is when upstream first denied an event, `denials` how often it has.
const V3: &str = "
ALTER TABLE accounts ADD COLUMN expires_at TEXT;
ALTER TABLE accounts ADD COLUMN closed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE events ADD COLUMN kind TEXT NOT NULL DEFAULT 'va.paid' CHECK (kind IN ('va.paid', 'va.expired'));
ALTER TABLE events ADD COLUMN origin TEXT NOT NULL DEFAULT 'callback' CHECK (origin IN ('callback', 'sweep'));
ALTER TABLE events ADD COLUMN counted INTEGER NOT NULL DEFAULT 0;
ALTER TABLE events ADD COLUMN doubted_at TEXT;
ALTER TABLE events ADD COLUMN denials INTEGER NOT NULL DEFAULT 0;
CREATE INDEX events_aside ON events (merchant, n) WHERE state = 'quarantined';
CREATE TABLE watches (
    digits TEXT NOT NULL,
    merchant TEXT NOT NULL,
    dialect TEXT NOT NULL CHECK (dialect IN ('snap', 'classic')),
    life TEXT NOT NULL,
    watched_until TEXT,
    look_at TEXT,
    looked_at TEXT,
    whole INTEGER NOT NULL,
    paid_latest TEXT,
    paid_total TEXT NOT NULL,
    swept TEXT,
    missed_since TEXT,
    missed INTEGER NOT NULL DEFAULT 0,
    refused INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (digits, merchant, dialect)
) STRICT, WITHOUT ROWID;
CREATE INDEX watches_due ON watches (merchant, look_at) WHERE look_at IS NOT NULL;
CREATE INDEX watches_ending ON watches (merchant, watched_until)
    WHERE look_at IS NOT NULL AND watched_until IS NOT NULL;
";

/// Says whether the file is one this program may write to; changes nothing.
pub(super) fn recognise(db: &Connection) -> Result<(), StoreError> {
    let number = |pragma| db.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let found = number("user_version").and_then(|version| Ok((version, number("application_id")?)));
    let (version, application) = found.map_err(|error| explain(&error))?;
    let tables: i64 = db
        .query_row("SELECT EXISTS (SELECT 1 FROM sqlite_schema)", [], |row| row.get(0))
        .map_err(|error| explain(&error))?;
    let blank = version == 0 && application == 0 && tables == 0;
    if !blank && application != i64::from(APPLICATION_ID) {
        return Err(refused("it is a database of another program; name another file in store.path"));
    }
    if usize::try_from(version).is_ok_and(|version| version <= VERSION) {
        return Ok(());
    }
    Err(refused(&format!(
        "its format is {version} and this ayova knows formats up to {VERSION}; run the newer ayova that wrote it"
    )))
}

/// Takes a recognised file to this version, a transaction a step.
pub(super) fn migrate(db: &mut Connection) -> rusqlite::Result<()> {
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    for (done, step) in MIGRATIONS.iter().enumerate().skip(usize::try_from(version).unwrap_or(VERSION)) {
        let step_taken = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        step_taken.execute_batch(step)?;
        step_taken.pragma_update(None, "application_id", APPLICATION_ID)?;
        step_taken.pragma_update(None, "user_version", i64::try_from(done + 1).unwrap_or(i64::MAX))?;
        step_taken.commit()?;
    }
    Ok(())
}
