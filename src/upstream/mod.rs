//! Ayoconnect as seen from here: one try, its outcome, tokens, and whether it is worth trying.

pub mod breaker;
pub mod client;
pub mod outcome;
pub mod skew;
pub mod token;

pub use breaker::{Breakers, Class, Gate, Sign};
pub use client::{HttpsClient, HyperTransport, Transport, TransportError, https_client};
pub use outcome::{Answer, NotSent, Outcome, Unknown};
pub use skew::ClockSkew;
pub use token::{Token, Tokens};
