//! What the outside may see: log lines, metrics and spans.

pub mod exposition;
mod kept;
pub mod log;
pub mod metrics;
#[cfg(feature = "otlp")]
pub mod otlp;
mod panics;
mod shown;
pub mod trace;
