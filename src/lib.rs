//! ayova: a sidecar gateway for Ayoconnect's virtual accounts.

pub mod cli;
pub mod clock;
pub mod config;
pub mod dialect;
pub mod document;
pub mod sandbox;
pub mod signature;
