//! What the outside may see: log lines and metrics.

pub mod log;
pub mod metrics;
