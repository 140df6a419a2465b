//! Work that is done where it is waited for, and goes on in a task of its own when nobody waits any more.
//!
//! A task for every piece of work would do as well, at the price of handing each over and its result back.
//! Knows nothing of the work.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

/// Does the work; `tasks` counts it until it is done. It only gets on while it is polled, or once it is
/// dropped. To be called within a runtime, on which it then goes on, wherever it is dropped.
pub fn outlive<F>(tasks: &TaskTracker, work: F) -> Outliving<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    Outliving { work: Some(Box::pin(tasks.track_future(work))), runtime: Handle::try_current().ok() }
}

/// Work under way.
#[must_use]
pub struct Outliving<T: Send + 'static> {
    /// Absent once it is done.
    work: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    /// Absent only outside a runtime, where the layers' timers could not work either.
    runtime: Option<Handle>,
}

impl<T: Send> Future for Outliving<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let Some(work) = &mut self.work else { return Poll::Pending };
        let done = std::task::ready!(work.as_mut().poll(context));
        self.work = None;
        Poll::Ready(done)
    }
}

impl<T: Send + 'static> Drop for Outliving<T> {
    fn drop(&mut self) {
        if let (Some(work), Some(runtime)) = (self.work.take(), &self.runtime) {
            runtime.spawn(work);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;
    use tokio::time::{sleep, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_goes_on_when_its_waiter_leaves_and_is_counted_until_it_is_done() {
        let (tasks, (done, seen)) = (TaskTracker::new(), oneshot::channel());
        let work = outlive(&tasks, async {
            sleep(Duration::from_secs(5)).await;
            done.send("done").unwrap();
        });
        assert_eq!(tasks.len(), 1);
        assert!(timeout(Duration::from_secs(1), work).await.is_err());
        assert_eq!(tasks.len(), 1, "it is under way");
        tasks.close();
        tasks.wait().await;
        assert_eq!(seen.await, Ok("done"));
    }

    #[tokio::test]
    async fn work_goes_on_wherever_its_waiter_leaves() {
        let (tasks, (done, seen)) = (TaskTracker::new(), oneshot::channel());
        let work = outlive(&tasks, async {
            tokio::task::yield_now().await;
            done.send("done").unwrap();
        });
        std::thread::spawn(|| drop(work)).join().unwrap();
        assert_eq!(seen.await, Ok("done"));
    }

    #[tokio::test]
    async fn work_that_is_waited_for_is_done_there() {
        let tasks = TaskTracker::new();
        let waiting = outlive(&tasks, async { tokio::task::id() });
        let (here, there) = tokio::spawn(async { (tokio::task::id(), waiting.await) }).await.unwrap();
        assert_eq!(here, there);
        assert!(tasks.is_empty());
    }
}
