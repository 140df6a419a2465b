//! Payment callbacks: what arrives, what is kept of it, and what the merchant's app is told.
//!
//! `receive` takes callbacks in, `confirm` asks upstream whether they are true, `deliver` tells the app,
//! and `sweep` looks for what was never announced; `ask` is how both ask, `recent` what they were told
//! lately. `circle` puts them together, and `rounds` lets one configuration's follow another's. `notice`
//! reads a callback, `shown` what upstream answers about it, `source` judges its sender and `verify` its
//! signature, `event` writes what the app gets, `webhook` signs it and `schedule` says what follows an
//! attempt: all pure. What is kept and in which order it may go out is the inbox's affair
//! (`store::inbox`).

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

pub mod ask;
pub mod circle;
pub mod confirm;
pub mod deliver;
pub mod event;
pub mod notice;
pub mod receive;
mod recent;
pub mod rounds;
pub mod schedule;
pub mod shown;
pub mod source;
pub mod sweep;
pub mod verify;
pub mod webhook;

/// So much later, or the end of time.
#[must_use]
pub fn after(now: Timestamp, duration: Duration) -> Timestamp {
    let duration = SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
    now.checked_add(duration).unwrap_or(Timestamp::MAX)
}
