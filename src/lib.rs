//! ayova: a sidecar gateway for Ayoconnect's virtual accounts.

pub mod call;
pub mod cli;
pub mod clock;
pub mod config;
pub mod dialect;
pub mod document;
pub mod entropy;
pub mod error;
pub mod reference;
pub mod sandbox;
pub mod signature;
pub mod store;
