//! What each fuzz target holds, as ordinary functions of bytes.
//!
//! One module a target, with `run` as its body: it fails by panicking. Promises the same verdict for the
//! same bytes on every machine: no real time, no randomness, no sockets; files only below a temporary
//! folder. `fuzz_targets` feeds these functions from libFuzzer; the main package's tests read this very
//! file as a module and feed them the corpora, so nothing here may name the crate it is part of.

pub mod callback;
pub mod config;
pub mod document;
pub mod gateway;
pub mod minify;
pub mod number;
pub mod script;
pub mod signature;
pub mod text;
pub mod token;
pub mod validation;
pub mod wire;
