//! Notices a disk that neither takes data nor fails.
//!
//! A writer that waits for such a disk can say nothing itself, so a thread of its own watches it.
//! Promises that a silence longer than [`SILENCE`] shows in the store's health while it lasts, and is
//! logged once when it is noticed and once when it is over.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use tokio::time::Instant;

use super::trouble::Health;

/// Watches until the other end is dropped.
pub(super) fn watch(health: &Arc<Health>, end: &Receiver<()>) {
    let mut turn = health.turn();
    let mut since = Instant::now();
    while end.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
        let now = health.turn();
        if now != turn || !Health::is_busy(now) {
            turn = now;
            since = Instant::now();
            health.speaks();
        } else if since.elapsed() >= SILENCE {
            health.is_silent(since.elapsed());
        }
    }
}

/// What the slowest healthy disk stays below: one group of records and its fsync.
const SILENCE: Duration = Duration::from_secs(3);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);
