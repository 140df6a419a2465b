//! The steps a request passes; their order is in `stack.rs` and nowhere else.

pub mod breaker;
pub mod client;
pub mod collect;
pub mod dispatch;
pub mod idempotency;
pub mod identify;
pub mod next;
pub mod observe;
pub mod rate_limit;
pub mod reference;
pub mod render;
pub mod retry;
pub mod sign;
pub mod token;
pub mod validate;
