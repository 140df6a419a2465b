//! What happens when upstream fails: shown for every failure and operation, then proven for any order
//! of them.
//!
//! `table` makes docs/failures.md, `transport` shows on real sockets what counts as not sent,
//! `settling` and `resolving` are about outcomes in doubt, `trying` about repeats and breakers, and
//! `model` runs random schedules against a simple model;
//! `mortal` lets a gateway die.

mod model;
mod mortal;
mod resolving;
mod settling;
mod table;
mod transport;
mod trying;
