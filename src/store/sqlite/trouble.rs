//! What is wrong with the file, in words that say what to do.
//!
//! Promises that a cause never quotes a stored value: SQLite's own text names columns at most.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rusqlite::{Error, ErrorCode};

use crate::store::{Counters, StoreError};

/// What writer, reader and store know in common.
#[derive(Debug, Default)]
pub(super) struct Health {
    problem: ArcSwapOption<String>,
    /// The disk lets the writer wait. Apart from `problem`, which only the writer knows the end of.
    silence: ArcSwapOption<String>,
    /// Counts the writer's turns, twice each: odd while it is at work.
    turn: AtomicU64,
    commits: AtomicU64,
    records: AtomicU64,
}

impl Health {
    /// Why it cannot write, if it cannot.
    pub(super) fn problem(&self) -> Option<String> {
        self.failure().or_else(|| self.silence())
    }

    /// What went wrong when it was last written to.
    pub(super) fn failure(&self) -> Option<String> {
        self.problem.load().as_deref().cloned()
    }

    /// For how long the disk has not answered, where that is too long.
    pub(super) fn silence(&self) -> Option<String> {
        self.silence.load().as_deref().cloned()
    }

    /// The writer sets to work; it has ended when the guard is dropped, by a panic too.
    pub(super) fn works(self: &Arc<Self>) -> Turn {
        self.turn.fetch_add(1, Ordering::Relaxed);
        Turn(Arc::clone(self))
    }

    /// Differs from the one before as soon as the writer gets on.
    pub(super) fn turn(&self) -> u64 {
        self.turn.load(Ordering::Relaxed)
    }

    /// Whether the writer is at work in this turn.
    pub(super) const fn is_busy(turn: u64) -> bool {
        turn % 2 == 1
    }

    /// The disk has not answered for so long; logged once.
    pub(super) fn is_silent(&self, time: Duration) {
        let cause = format!("the disk has not answered for {} s: look into the system's log", time.as_secs());
        if self.silence.swap(Some(Arc::new(cause.clone()))).is_none() {
            tracing::error!(problem = cause, "the store's disk does not answer; creates and updates are refused");
        }
    }

    /// The disk answers, be it with an error.
    pub(super) fn speaks(&self) {
        if self.silence.swap(None).is_some() {
            tracing::info!("the store's disk answers again");
        }
    }

    /// It cannot write; said once in the log however many requests feel it.
    pub(super) fn falls(&self, cause: &StoreError) {
        let before = self.problem.swap(Some(Arc::new(cause.0.clone())));
        if before.is_none() {
            tracing::error!(problem = %cause, "the store cannot be written; creates and updates are refused");
        }
    }

    /// It can write again.
    pub(super) fn recovers(&self) {
        if self.problem.swap(None).is_some() {
            tracing::info!("the store can be written again");
        }
    }

    /// It has been closed on purpose.
    pub(super) fn closes(&self) {
        self.problem.store(Some(Arc::new(CLOSED.to_owned())));
    }

    /// A transaction with so many records has reached the disk.
    pub(super) fn committed(&self, records: u64) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.records.fetch_add(records, Ordering::Relaxed);
    }

    pub(super) fn counters(&self) -> Counters {
        Counters { commits: self.commits.load(Ordering::Relaxed), records: self.records.load(Ordering::Relaxed) }
    }
}

/// The writer is at work while this lives.
pub(super) struct Turn(Arc<Health>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.turn.fetch_add(1, Ordering::Relaxed);
    }
}

/// The answer to whoever has waited long enough.
pub(super) fn silent() -> StoreError {
    StoreError("the disk did not answer in time: look into the system's log".to_owned())
}

/// The answer to whoever asks a store that has ended.
pub(super) fn closed() -> StoreError {
    StoreError(CLOSED.to_owned())
}

const CLOSED: &str = "the store is closed";

/// The file is not ours to write to.
pub(super) fn refused(why: &str) -> StoreError {
    StoreError(format!("{why} (nothing was changed)"))
}

/// The cause of a failed statement.
pub(super) fn explain(error: &Error) -> StoreError {
    let cause = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "the disk or a quota is full: free space",
        Some(ErrorCode::ReadOnly) => "the file, its folder or the disk is read-only: let ayova's user write there",
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another program holds the file's lock: end its transaction (a sqlite3 shell, a backup)"
        }
        Some(ErrorCode::DatabaseCorrupt) => "the file is damaged: restore a backup",
        Some(ErrorCode::NotADatabase) => "the file is not an SQLite database: name another one, or restore a backup",
        Some(ErrorCode::SystemIoFailure) => "the disk fails: look into the system's log",
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            "the file or one beside it cannot be opened: let ayova's user read and write them"
        }
        _ => "the store failed",
    };
    StoreError(format!("{cause} ({error})"))
}

/// Whether an error speaks of the file as a whole rather than of one record.
pub(super) fn concerns_the_file(error: &Error) -> bool {
    !matches!(error.sqlite_error_code(), None | Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig))
}
