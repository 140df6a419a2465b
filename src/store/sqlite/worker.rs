//! A thread with a queue, which ends when nobody sends any more.
//!
//! SQLite blocks, so nothing of it runs on the threads that serve requests. Promises that what was
//! sent before the end is worked off, and that ending waits for that.

use std::fmt;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

/// The sending side; the thread ends with it.
pub(super) struct Worker<T> {
    queue: Mutex<Option<Sender<T>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl<T> fmt::Debug for Worker<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Worker")
    }
}

impl<T: Send + 'static> Worker<T> {
    /// Starts a thread; `name` shows in `top` and in panics.
    pub(super) fn start(name: &str, work: impl FnOnce(Receiver<T>) + Send + 'static) -> io::Result<Self> {
        let (queue, waiting) = channel();
        let thread = Builder::new().name(name.to_owned()).spawn(move || work(waiting))?;
        Ok(Self { queue: Mutex::new(Some(queue)), thread: Mutex::new(Some(thread)) })
    }
}

impl<T> Worker<T> {
    /// Queues something; whether there is still somebody to do it. The queue itself has no bound:
    /// whoever sends holds a permit.
    #[must_use]
    pub(super) fn send(&self, item: T) -> bool {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.as_ref().is_some_and(|queue| queue.send(item).is_ok())
    }

    /// Takes no more, and blocks until what is queued is done.
    pub(super) fn end(&self) {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("a thread of the store ended in a panic");
        }
    }
}

impl<T> Drop for Worker<T> {
    fn drop(&mut self) {
        self.end();
    }
}
