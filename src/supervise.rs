//! What goes on in the background keeps going on.
//!
//! Promises that a panic of a background task is logged and counted and that the task starts again,
//! after pauses that grow while it keeps failing; and that one which cannot start again is reported.
//! Knows no task's work.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::telemetry::metrics::Metrics;

/// What goes on in the background; the label of its panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Settles outcomes in doubt.
    Resolver,
    /// Tells a merchant's app of payments.
    Deliverer,
    /// Looks for payments nobody announced.
    Sweeper,
    /// Accepts connections.
    Listener,
}

impl Task {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Resolver, Self::Deliverer, Self::Sweeper, Self::Listener];

    /// Name in log and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Resolver => "resolver",
            Self::Deliverer => "deliverer",
            Self::Sweeper => "sweeper",
            Self::Listener => "listener",
        }
    }
}

/// First pause before a task starts again; doubles up to the longest while it keeps failing.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Does the work again for as long as it ends in a panic and nobody says stop.
pub async fn supervise<Work: Future<Output = ()>>(
    task: Task,
    metrics: &Metrics,
    stop: &CancellationToken,
    mut work: impl FnMut() -> Work,
) {
    let mut pause = PAUSE;
    loop {
        let began = Instant::now();
        // Every start makes its work anew, so that nothing half-changed is met again but what is shared,
        // which is behind locks that outlive a panic.
        if AssertUnwindSafe(async { work().await }).catch_unwind().await.is_ok() {
            return;
        }
        if began.elapsed() > PAUSE_MAX {
            pause = PAUSE;
        }
        metrics.task_panicked(task);
        tracing::error!(task = task.name(), again_in_s = pause.as_secs(), "a background task ended in a panic");
        if stop.run_until_cancelled(sleep(pause)).await.is_none() {
            return;
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Does work that cannot be done again, and tells `broken` where it ends in a panic.
pub async fn attend(task: Task, metrics: &Metrics, broken: &CancellationToken, work: impl Future<Output = ()>) {
    if AssertUnwindSafe(work).catch_unwind().await.is_err() {
        metrics.task_panicked(task);
        tracing::error!(task = task.name(), "a background task ended in a panic and cannot start again");
        broken.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use prometheus_client::registry::Registry;

    use super::*;

    fn panics(registry: &Registry) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
        let line = text.lines().find(|line| line.starts_with("ayova_task_panics_total{task=\"resolver\"}"));
        line.unwrap().rsplit(' ').next().unwrap().to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_starts_again_until_it_ends() {
        let mut registry = Registry::default();
        let (metrics, stop) = (Metrics::new(&mut registry), CancellationToken::new());
        let starts = AtomicU32::new(0);
        let began = Instant::now();
        let work = || async {
            assert!(starts.fetch_add(1, Ordering::Relaxed) == 3, "a defect");
        };
        supervise(Task::Resolver, &metrics, &stop, work).await;
        assert_eq!(starts.load(Ordering::Relaxed), 4);
        assert_eq!(began.elapsed().as_secs(), 1 + 2 + 4);
        assert_eq!(panics(&registry), "3");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_keeps_failing_ends_with_the_process() {
        let (metrics, stop) = (Metrics::new(&mut Registry::default()), CancellationToken::new());
        let work = || async { panic!("a defect") };
        let (told, began) = (stop.clone(), Instant::now());
        tokio::spawn(async move {
            sleep(Duration::from_secs(600)).await;
            told.cancel();
        });
        supervise(Task::Sweeper, &metrics, &stop, work).await;
        assert_eq!(began.elapsed().as_secs(), 600);
    }

    #[tokio::test]
    async fn what_cannot_start_again_is_reported() {
        let (metrics, broken) = (Metrics::new(&mut Registry::default()), CancellationToken::new());
        attend(Task::Listener, &metrics, &broken, async {}).await;
        assert!(!broken.is_cancelled());
        attend(Task::Listener, &metrics, &broken, async { panic!("a defect") }).await;
        assert!(broken.is_cancelled());
    }
}
