//! The command line, one module per command with work of its own.

pub mod signature;
