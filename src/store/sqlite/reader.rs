//! Reads, on a connection that cannot write and a thread of its own.
//!
//! Promises never to wait for the writer (WAL gives each read the last committed state) and never to
//! block a thread that serves requests.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, TryFutureExt as _};
use rusqlite::{Connection, OpenFlags};
use tokio::sync::{Semaphore, oneshot};

use super::trouble::{closed, explain};
use super::worker::Worker;
use crate::store::StoreError;

type Question = Box<dyn FnOnce(&Connection) + Send>;

/// The reading side of a file.
#[derive(Debug)]
pub(super) struct Reader {
    worker: Worker<Question>,
    room: Arc<Semaphore>,
}

impl Reader {
    /// Opens a connection to a file the writer has opened.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let db = connect(path).map_err(|error| explain(&error))?;
        let work = move |questions: std::sync::mpsc::Receiver<Question>| {
            while let Ok(first) = questions.recv() {
                // What waits is answered from one state of the file, so that it is locked once. The state is no
                // older than any of the questions, which are gathered first. Where it cannot be begun, each
                // question says why.
                let waiting: Vec<_> = std::iter::once(first).chain(questions.try_iter().take(TOGETHER - 1)).collect();
                let together = db.unchecked_transaction();
                for question in waiting {
                    // A panic costs whoever asked an answer, and the others nothing: the connection only reads.
                    if catch_unwind(AssertUnwindSafe(|| question(&db))).is_err() {
                        tracing::error!("a read of the store ended in a panic");
                    }
                }
                drop(together);
            }
        };
        let worker = Worker::start("ayova-reads", work).map_err(|error| StoreError(error.to_string()))?;
        Ok(Self { worker, room: Arc::new(Semaphore::new(WAITING_MAX)) })
    }

    /// Asks one thing of the file. Waits where many are asking.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, StoreError>> {
        async move {
            let permit = Arc::clone(&self.room).acquire_owned().await.map_err(|_| closed())?;
            let (answer, answered) = oneshot::channel();
            let question: Question = Box::new(move |db| {
                let _held = permit;
                // Whoever asked may have gone away.
                let _ = answer.send(question(db).map_err(|error| explain(&error)));
            });
            if !self.worker.send(question) {
                return Err(closed());
            }
            answered.map_err(|_| closed()).await?
        }
        .boxed()
    }

    /// Takes no more questions, and blocks until the waiting ones are answered.
    pub(super) fn end(&self) {
        self.worker.end();
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    db.busy_timeout(super::BUSY)?;
    super::set_bounds(&db)?;
    Ok(db)
}

/// Questions that wait at most.
const WAITING_MAX: usize = 1024;

/// Questions that are answered from one state.
const TOGETHER: usize = 64;
