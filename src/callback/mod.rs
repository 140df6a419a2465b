//! Payment callbacks: what arrives, what is kept of it, and what the merchant's app is told.
//!
//! `notice` reads a callback, `event` writes what the app gets, `webhook` signs it and `schedule` says
//! what follows an attempt: all pure. What is kept and in which order it may go out is the inbox's
//! affair (`store::inbox`).

pub mod event;
pub mod notice;
pub mod schedule;
pub mod source;
pub mod webhook;
