//! The store that survives: one SQLite file, one writer, a cache in front.
//!
//! Promises that what was answered is on the disk: WAL with `synchronous=FULL`, and a group of
//! waiting records shares one commit. What cannot be recorded is refused with its cause and never
//! kept in memory only; reading goes on from cache and file meanwhile. An error says "not known to be
//! recorded": after a failed fsync a record may still be found when the file is opened again, which
//! is the safe side, since it then counts as in doubt. Nobody waits longer than `PATIENCE` for a
//! disk that does not answer; what was queued by then is still recorded when it does, an end that
//! was handed over among it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;

mod accounts;
mod cache;
mod events;
mod inbox;
mod intents;
mod job;
mod place;
mod reader;
mod schema;
#[cfg(test)]
mod tests;
mod text;
mod trouble;
mod watch;
mod watches;
mod worker;
mod writer;

use cache::Cache;
use intents::Numbers;
use job::{Ending, Job, Waiting};
use place::Place;
use reader::Reader;
use trouble::{Health, closed, explain, silent};
use worker::Worker;
use writer::Writer;

use super::inbox::Inbox;
use super::watch::Watches;
use super::{Begun, Counters, Doubt, End, Intent, Known, Store, StoreError};
use crate::clock::SharedClock;
use crate::dialect::Dialect;
use crate::reference::{Account, AccountQuery};

/// What a store is opened with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The file; its folder is made where it is missing.
    pub path: PathBuf,
    /// Memory for answers in front of the file.
    pub answers_bytes: u64,
    /// Memory for accounts in front of the file.
    pub accounts_bytes: u64,
    /// Decides what is over and may be deleted.
    pub clock: SharedClock,
}

/// Intents, accounts and callbacks in one file.
pub struct SqliteStore {
    // The reader ends before the writer, which then is the last and empties the log into the file.
    reader: Arc<Reader>,
    writer: Arc<Worker<Job>>,
    watch: Arc<Worker<()>>,
    cache: Arc<Cache>,
    health: Arc<Health>,
    clock: SharedClock,
    room: Arc<Semaphore>,
    /// The first row of this process.
    first: i64,
    /// Whether accounts are watched.
    watching: Arc<AtomicBool>,
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("health", &self.health).finish_non_exhaustive()
    }
}

impl SqliteStore {
    /// Opens or makes the file. Blocks; takes as long with a large file as with a small one.
    ///
    /// # Errors
    /// Another process has it, it is damaged, of a newer version or of another program, or cannot be
    /// written. Nothing that exists is overwritten.
    pub fn open(options: &Options) -> Result<Self, StoreError> {
        Self::open_inner(options).map_err(|StoreError(why)| {
            StoreError(format!("the store {} cannot be opened: {why}", options.path.display()))
        })
    }

    fn open_inner(options: &Options) -> Result<Self, StoreError> {
        let place = Place::claim(&options.path)?;
        let failed = |error: rusqlite::Error| explain(&error);
        let mut db = connect(&place).map_err(failed)?;
        schema::recognise(&db)?;
        configure(&db)?;
        schema::migrate(&mut db).map_err(failed)?;
        let first = intents::next_number(&db).map_err(failed)?;
        let reader = Reader::open(place.path())?;
        let cache = Arc::new(Cache::new(options.answers_bytes, options.accounts_bytes));
        let health = Arc::new(Health::default());
        let watching = Arc::new(AtomicBool::new(false));
        let writer = Writer {
            db,
            place,
            cache: Arc::clone(&cache),
            health: Arc::clone(&health),
            clock: Arc::clone(&options.clock),
            numbers: Numbers { first, next: first },
            watching: Arc::clone(&watching),
        };
        let writer = Worker::start("ayova-writes", move |jobs| writer.work(&jobs));
        let writer = writer.map_err(|error| StoreError(error.to_string()))?;
        let watched = Arc::clone(&health);
        let watch = Worker::start("ayova-watch", move |end| watch::watch(&watched, &end));
        let watch = watch.map_err(|error| StoreError(error.to_string()))?;
        Ok(Self {
            reader: Arc::new(reader),
            writer: Arc::new(writer),
            watch: Arc::new(watch),
            cache,
            health,
            clock: Arc::clone(&options.clock),
            room: Arc::new(Semaphore::new(WAITING_MAX)),
            first,
            watching,
        })
    }

    /// Hands a job over and waits for the disk, but not for one that is known not to answer.
    async fn ask<T>(&self, place: OwnedSemaphorePermit, job: impl FnOnce(Waiting<T>) -> Job) -> Result<T, StoreError> {
        let (waiting, answered): (_, oneshot::Receiver<_>) = Waiting::new(place);
        if !self.writer.send(job(waiting)) {
            return Err(closed());
        }
        let patience = if self.health.silence().is_some() { Duration::ZERO } else { PATIENCE };
        timeout(patience, answered).await.map_err(|_| silent())?.map_err(|_| closed())?
    }

    /// A place in the writer's queue, when there is one.
    async fn place(&self) -> Result<OwnedSemaphorePermit, StoreError> {
        let room = Arc::clone(&self.room).acquire_owned();
        timeout(PATIENCE, room).await.map_err(|_| silent())?.map_err(|_| closed())
    }

    /// What has its answer already still gets that while the writer waits for the disk.
    async fn answered(&self, intent: &Intent, now: Timestamp) -> Option<Begun> {
        let asked = intent.clone();
        let looking = self.reader.ask(move |db| intents::look_up(db, &asked, now).map(intents::Found::begun));
        match timeout(PATIENCE, looking).await {
            Ok(Ok(known @ (Begun::Answered(_) | Begun::Conflict))) => Some(known),
            Ok(Ok(Begun::Fresh | Begun::InDoubt(_)) | Err(_)) | Err(_) => None,
        }
    }
}

impl Store for SqliteStore {
    fn begin<'a>(&'a self, intent: &'a Intent, now: Timestamp) -> BoxFuture<'a, Result<Begun, StoreError>> {
        async move {
            if let Some(known) = self.cache.recognise(intent, now) {
                return Ok(known);
            }
            if let Some(silence) = self.health.silence() {
                return self.answered(intent, now).await.ok_or(StoreError(silence));
            }
            // What has not been sent can be refused; room is left for the ends of what has been.
            if self.room.available_permits() <= WAITING_MAX / 4 {
                return Err(StoreError(format!("{WAITING_MAX} records wait for the disk already")));
            }
            let place = self.place().await?;
            self.ask(place, |waiting| Job::Begin(intent.clone(), now, waiting)).await
        }
        .boxed()
    }

    fn finish<'a>(
        &'a self,
        intent: &'a Intent,
        end: End,
        learned: Option<Arc<Account>>,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        async move {
            let place = self.place().await?;
            let ending = Ending { intent: intent.clone(), end, learned, now };
            self.ask(place, |waiting| Job::Finish(ending, waiting)).await
        }
        .boxed()
    }

    fn remember(&self, account: Arc<Account>) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            let place = self.place().await?;
            self.ask(place, |waiting| Job::Remember(account, waiting)).await
        }
        .boxed()
    }

    fn touch(&self, account: Arc<Account>) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            let (asked, now) = (Arc::clone(&account), self.clock.now());
            if !self.reader.ask(move |db| accounts::is_due(db, &asked, now)).await? {
                return Ok(());
            }
            let place = self.place().await?;
            self.ask(place, |waiting| Job::Touch(account, waiting)).await
        }
        .boxed()
    }

    fn account<'a>(
        &'a self,
        merchant: &'a str,
        dialect: Dialect,
        query: &'a AccountQuery,
    ) -> BoxFuture<'a, Result<Option<Arc<Account>>, StoreError>> {
        async move {
            if let Some(known) = self.cache.account(merchant, dialect, query) {
                return Ok(Some(known));
            }
            let epoch = self.cache.epoch();
            let (merchant, asked) = (merchant.to_owned(), query.clone());
            let found = self.reader.ask(move |db| accounts::find(db, &merchant, dialect, &asked)).await?.map(Arc::new);
            if let Some(account) = &found {
                self.cache.found(epoch, query, account);
            }
            Ok(found)
        }
        .boxed()
    }

    fn prefix<'a>(&'a self, merchant: &'a str, bank: &'a str) -> BoxFuture<'a, Result<Option<String>, StoreError>> {
        let (merchant, bank) = (merchant.to_owned(), bank.to_owned());
        self.reader.ask(move |db| accounts::prefix(db, &merchant, &bank))
    }

    fn accounts<'a>(&'a self, number: &'a str) -> BoxFuture<'a, Result<Vec<Arc<Account>>, StoreError>> {
        let number = number.to_owned();
        self.reader.ask(move |db| accounts::all(db, &number))
    }

    fn known<'a>(&'a self, id: &'a str, now: Timestamp) -> BoxFuture<'a, Result<Vec<Known>, StoreError>> {
        let id = id.to_owned();
        self.reader.ask(move |db| intents::known(db, &id, now))
    }

    fn doubts(&self, limit: usize) -> BoxFuture<'_, Result<Vec<Doubt>, StoreError>> {
        let first = self.first;
        self.reader.ask(move |db| intents::doubts(db, first, limit))
    }

    fn inbox(&self) -> &dyn Inbox {
        self
    }

    fn watches(&self) -> &dyn Watches {
        self
    }

    fn problem(&self) -> Option<String> {
        self.health.problem()
    }

    fn counters(&self) -> Counters {
        self.health.counters()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        let (reader, writer, watch) = (Arc::clone(&self.reader), Arc::clone(&self.writer), Arc::clone(&self.watch));
        async move {
            let ended = tokio::task::spawn_blocking(move || {
                reader.end();
                writer.end();
                watch.end();
            });
            if ended.await.is_err() {
                tracing::error!("the store could not be closed in order");
            }
        }
        .boxed()
    }
}

/// Dropping closes too, blocking for what is queued: a file is not left with a lock on it.
impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.reader.end();
        self.writer.end();
        self.watch.end();
    }
}

/// A connection that can write. The file exists, so that nothing is made here by mistake.
fn connect(place: &Place) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(place.path(), flags)?;
    db.busy_timeout(BUSY)?;
    set_bounds(&db)?;
    Ok(db)
}

/// What both connections share.
fn set_bounds(db: &Connection) -> rusqlite::Result<()> {
    // More than there are statements, so that each is compiled once.
    db.set_prepared_statement_cache_capacity(128);
    // Otherwise a statement is compiled anew for every value that might ask for another plan.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // Negative means KiB. Mapped memory would turn an I/O error into a signal.
    db.pragma_update(None, "cache_size", -CACHE_KIB)?;
    db.pragma_update_and_check(None, "mmap_size", 0, |_| Ok(())).or_else(without_answer)?;
    // A file's own schema runs no functions.
    db.pragma_update(None, "trusted_schema", false)?;
    db.pragma_update(None, "cell_size_check", true)
}

/// How it is written.
fn configure(db: &Connection) -> Result<(), StoreError> {
    let failed = |error: rusqlite::Error| explain(&error);
    let mode = db.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0));
    if mode.map_err(failed)? != "wal" {
        return Err(StoreError("its disk has no shared memory for SQLite's log: use a local disk".to_owned()));
    }
    db.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    // A page that changes often is written to its place once for many changes; opening reads the log once.
    db.pragma_update_and_check(None, "wal_autocheckpoint", CHECKPOINT_PAGES, |_| Ok(())).map_err(failed)?;
    // A burst may make the log large; afterwards the disk gets the space back.
    let limit = db.pragma_update_and_check(None, "journal_size_limit", LOG_BYTES, |_| Ok(()));
    limit.map_err(failed)
}

/// Some settings answer with their value and some, depending on how SQLite was built, do not.
fn without_answer(error: rusqlite::Error) -> rusqlite::Result<()> {
    if error == rusqlite::Error::QueryReturnedNoRows { Ok(()) } else { Err(error) }
}

/// Longest wait for the disk.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long another program's lock is waited for.
const BUSY: Duration = Duration::from_secs(1);

/// Memory of one connection for pages.
const CACHE_KIB: i64 = 8 * 1024;

const LOG_BYTES: i64 = 64 << 20;

/// Pages of 4 KiB in the log before they are written to their places.
const CHECKPOINT_PAGES: i64 = 8_192;

/// Records that wait for the disk at most.
const WAITING_MAX: usize = 8192;
