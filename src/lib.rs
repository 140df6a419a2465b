//! ayova: a sidecar gateway for Ayoconnect's virtual accounts.

pub mod call;
pub mod cli;
pub mod clock;
pub mod config;
pub mod dialect;
pub mod document;
pub mod entropy;
pub mod error;
pub mod layers;
pub mod reference;
pub mod signature;
pub mod stack;
pub mod store;
pub mod telemetry;
pub mod upstream;
