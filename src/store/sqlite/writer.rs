//! The one writer: everything that waits goes into one transaction and one fsync.
//!
//! Promises that nobody is told "recorded" before the commit has reached the disk, that a record that
//! fails fails alone (a savepoint each), and that a failed commit fails everybody in it. Batches form
//! by themselves: while one is being written the next one gathers, so that nobody ever waits for
//! company. While the file cannot be written each batch and each second begin with a trial; ends that
//! could not be recorded are kept, within bounds, and recorded first when that is over.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::time::Instant;

use super::cache::{Cache, Effect};
use super::intents::Numbers;
use super::job::{Done, Ending, Given, Job};
use super::place::Place;
use super::trouble::{Health, concerns_the_file, explain};
use super::{accounts, events, intents, watches};
use crate::clock::SharedClock;
use crate::store::{Begun, StoreError};

/// The writer's belongings. The order is that of dropping: the connection before the lock.
pub(super) struct Writer {
    pub(super) db: Connection,
    pub(super) place: Place,
    pub(super) cache: Arc<Cache>,
    pub(super) health: Arc<Health>,
    pub(super) clock: SharedClock,
    /// Counted here rather than by SQLite, so that a number never comes back while the process lives.
    pub(super) numbers: Numbers,
    /// Whether accounts are watched.
    pub(super) watching: Arc<AtomicBool>,
}

/// What changes while it works.
struct Work {
    writer: Writer,
    owed: Owed,
    /// Whether there may be something to prune.
    pruning: bool,
    tended: Instant,
}

impl Writer {
    /// Works until nobody sends any more.
    pub(super) fn work(self, jobs: &Receiver<Job>) {
        // Should this thread panic, the store says so.
        let closing = Closing(Arc::clone(&self.health));
        let mut work = Work { writer: self, owed: Owed::default(), pruning: true, tended: Instant::now() };
        loop {
            match jobs.recv_timeout(work.patience()) {
                Ok(first) => work.serve(gather(first, jobs)),
                Err(RecvTimeoutError::Timeout) => work.idle(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        // A last chance for what is owed; what stays unpaid is in doubt when the file is opened again.
        if !work.owed.debts.is_empty() {
            let _ = work.recover();
        }
        drop(closing);
    }
}

struct Closing(Arc<Health>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.closes();
    }
}

/// Everything that waits, up to a bound that keeps a transaction in the page cache.
fn gather(first: Job, jobs: &Receiver<Job>) -> Vec<Job> {
    let mut batch = vec![first];
    batch.extend(jobs.try_iter().take(BATCH_MAX - 1));
    batch
}

impl Work {
    fn serve(&mut self, jobs: Vec<Job>) {
        let _at_work = self.writer.health.works();
        #[cfg(test)]
        let jobs = self.meddled(jobs);
        let ready = self.tend().and_then(|()| match self.writer.health.failure() {
            Some(_) => self.recover(),
            None => Ok(()),
        });
        let results = match ready {
            Ok(()) => self.commit(&jobs).map_err(|error| self.falls(&error)),
            Err(cause) => Err(cause),
        };
        match results {
            Ok(results) => {
                for (job, result) in jobs.into_iter().zip(results) {
                    match result {
                        Ok(done) => job.tell(Ok(done)),
                        Err(error) if concerns_the_file(&error) => self.refuse(job, self.falls(&error)),
                        // The file is well, so nothing else would tell of it.
                        Err(error) => {
                            let cause = explain(&error);
                            tracing::error!(error = %cause, "a record could not be written");
                            self.refuse(job, cause);
                        }
                    }
                }
            }
            Err(cause) => jobs.into_iter().for_each(|job| self.refuse(job, cause.clone())),
        }
    }

    /// Nothing waits: try whether the file is well again, or clean up a little.
    fn idle(&mut self) {
        let _at_work = self.writer.health.works();
        let well = match self.writer.health.failure() {
            Some(_) => self.recover(),
            None => self.tend(),
        };
        if well.is_ok()
            && self.pruning
            && let Err(error) = self.commit(&[])
        {
            self.falls(&error);
        }
    }

    /// How long to wait for a job.
    fn patience(&self) -> Duration {
        let well = self.writer.health.failure().is_none();
        if self.pruning && well { BETWEEN_PRUNINGS } else { TENDING }
    }

    /// Once a second: is the file still there, and is there something to prune.
    fn tend(&mut self) -> Result<(), StoreError> {
        if self.tended.elapsed() < TENDING {
            return Ok(());
        }
        self.tended = Instant::now();
        self.pruning = true;
        self.writer.place.check().inspect_err(|cause| self.writer.health.falls(cause))
    }

    /// Records a batch. The outer error is everybody's, the inner ones are one job's.
    fn commit(&mut self, jobs: &[Job]) -> rusqlite::Result<Vec<rusqlite::Result<Done>>> {
        let Self { writer, pruning, .. } = self;
        let now = writer.clock.now();
        let begin = || Transaction::new_unchecked(&writer.db, TransactionBehavior::Immediate);
        let mut given = || {
            let watching = writer.watching.load(Ordering::Relaxed);
            writer.numbers.next += 1;
            Given { numbers: Numbers { next: writer.numbers.next - 1, ..writer.numbers }, now, watching }
        };
        let mut transaction = begin()?;
        let together: rusqlite::Result<Vec<_>> = jobs.iter().map(|job| job.record(&transaction, given())).collect();
        let mut results = match together {
            Ok(done) => done.into_iter().map(Ok).collect(),
            // As good as none fails. If one does, nothing has been recorded, and each gets a place to go back to.
            Err(_) => {
                transaction.finish()?;
                transaction = begin()?;
                let each = jobs.iter().map(|job| alone(&transaction, || job.record(&transaction, given())));
                each.collect::<rusqlite::Result<Vec<_>>>()?
            }
        };
        // Under load as much as twice what comes in, so that the file stops growing.
        let limit = if jobs.is_empty() { PRUNE_IDLE } else { 2 * jobs.len() };
        let (pruned, mut effects) = if *pruning { prune(&transaction, now, limit)? } else { (0, vec![]) };
        *pruning &= pruned == limit;
        transaction.commit()?;
        let done = || results.iter().flatten();
        let records = done().filter(|done| done.wrote).count();
        if records + pruned > 0 {
            writer.health.committed(u64::try_from(records).unwrap_or(u64::MAX));
        }
        for done in results.iter_mut().flatten() {
            effects.append(&mut done.effects);
        }
        writer.cache.committed(effects);
        Ok(results)
    }

    /// Tries whether the file takes data, and records what is owed.
    fn recover(&mut self) -> Result<(), StoreError> {
        let fell = |cause: StoreError| {
            self.writer.health.falls(&cause);
            cause
        };
        self.writer.place.check().map_err(fell)?;
        try_out(&self.writer.db).map_err(|error| fell(explain(&error)))?;
        self.pay().map_err(|error| self.falls(&error))?;
        self.writer.health.recovers();
        Ok(())
    }

    /// Records what is owed, oldest first, in one transaction.
    fn pay(&mut self) -> rusqlite::Result<()> {
        if self.owed.debts.is_empty() {
            return Ok(());
        }
        let Self { writer, owed, .. } = self;
        let transaction = Transaction::new_unchecked(&writer.db, TransactionBehavior::Immediate)?;
        let now = writer.clock.now();
        let mut effects = Vec::new();
        let mut records = 0;
        for ending in &owed.debts {
            let given = Given { numbers: writer.numbers, now, watching: writer.watching.load(Ordering::Relaxed) };
            writer.numbers.next += 1;
            match alone(&transaction, || ending.record(&transaction, given))? {
                Ok(mut done) => {
                    records += 1;
                    effects.append(&mut done.effects);
                }
                Err(error) if concerns_the_file(&error) => return Err(error),
                // It cannot be recorded at all, and must not hold up the others.
                Err(error) => {
                    tracing::error!(error = %explain(&error), "an end could not be recorded; it stays in doubt")
                }
            }
        }
        transaction.commit()?;
        writer.health.committed(records);
        writer.cache.committed(effects);
        *owed = Owed::default();
        Ok(())
    }

    fn falls(&self, error: &rusqlite::Error) -> StoreError {
        let cause = explain(error);
        self.writer.health.falls(&cause);
        cause
    }

    /// A job that cannot be recorded now. What has an answer already still gets that.
    fn refuse(&mut self, job: Job, cause: StoreError) {
        match job {
            Job::Begin(intent, now, waiting) => {
                let known = intents::look_up(&self.writer.db, &intent, now).map(intents::Found::begun);
                waiting.tell(match known {
                    Ok(known @ (Begun::Answered(_) | Begun::Conflict)) => Ok(known),
                    Ok(Begun::Fresh | Begun::InDoubt(_)) | Err(_) => Err(cause),
                });
            }
            Job::Finish(ending, waiting) => {
                self.owed.keep(ending);
                waiting.tell(Err(cause));
            }
            Job::Remember(_, waiting) | Job::Touch(_, waiting) => waiting.tell(Err(cause)),
            Job::Inbox(_, waiting) => waiting.tell(Err(cause)),
            #[cfg(test)]
            Job::Meddle(_) => {}
        }
    }

    /// Does what tests want done on the writer's connection.
    #[cfg(test)]
    fn meddled(&self, jobs: Vec<Job>) -> Vec<Job> {
        let mut rest = Vec::new();
        for job in jobs {
            match job {
                Job::Meddle(meddle) => meddle(&self.writer.db),
                job => rest.push(job),
            }
        }
        rest
    }
}

/// Runs a part of a transaction that may fail without the rest. The outer error means that the rest
/// is lost too: SQLite has ended the transaction.
fn alone<T>(db: &Connection, part: impl FnOnce() -> rusqlite::Result<T>) -> rusqlite::Result<rusqlite::Result<T>> {
    let run = |sql| db.prepare_cached(sql)?.execute([]).map(|_| ());
    run("SAVEPOINT part")?;
    let result = part();
    match &result {
        Ok(_) => run("RELEASE part")?,
        Err(_) if db.is_autocommit() => return result.map(Ok),
        Err(_) => {
            run("ROLLBACK TO part")?;
            run("RELEASE part")?;
        }
    }
    Ok(result)
}

/// Deletes what is over; how many rows at most of one table, and what that means to the cache.
fn prune(db: &Connection, now: jiff::Timestamp, limit: usize) -> rusqlite::Result<(usize, Vec<Effect>)> {
    let intents = intents::prune(db, now, limit)?;
    let accounts = accounts::prune(db, now, limit)?;
    for account in &accounts {
        watches::forget(db, account)?;
    }
    let events = events::prune(db, now, limit)?;
    Ok((intents.max(accounts.len()).max(events), accounts.into_iter().map(Effect::Forgotten).collect()))
}

/// Writes more than fits into pages that happen to be free, and takes it away again.
fn try_out(db: &Connection) -> rusqlite::Result<()> {
    let transaction = Transaction::new_unchecked(db, TransactionBehavior::Immediate)?;
    transaction.execute("INSERT INTO scratch (filler) VALUES (zeroblob(?1))", [TRIAL_BYTES])?;
    transaction.commit()?;
    db.execute("DELETE FROM scratch", []).map(|_| ())
}

/// Ends that could not be recorded, to be recorded when the file is well again.
#[derive(Debug, Default)]
struct Owed {
    debts: VecDeque<Ending>,
    bytes: usize,
}

impl Owed {
    /// Keeps an end while there is room. What is not kept is still begun in the file, hence in doubt.
    fn keep(&mut self, ending: Ending) {
        let bytes = ending.bytes();
        if self.bytes + bytes <= OWED_BYTES_MAX {
            self.bytes += bytes;
            self.debts.push_back(ending);
        }
    }
}

/// Jobs of one transaction.
const BATCH_MAX: usize = 1024;

/// How often the file is looked at.
const TENDING: Duration = Duration::from_secs(1);

/// Rows deleted at once when nothing else waits, and the pause after that: a writer that comes in
/// between waits for one such step at most.
const PRUNE_IDLE: usize = 200;
const BETWEEN_PRUNINGS: Duration = Duration::from_millis(10);

const TRIAL_BYTES: i64 = 64 * 1024;

/// Memory for ends that could not be recorded.
const OWED_BYTES_MAX: usize = 32 << 20;
