//! ayova: a sidecar gateway for Ayoconnect's virtual accounts.
//!
//! A request's way, top to bottom in `stack.rs`: `observe` gives it an id, `render` will turn whatever
//! comes back into a response, `dispatch` finds its operation, `identify` its merchant, `rate_limit`
//! admits it, `collect` reads its body, `validate` holds it against the operation's table,
//! `idempotency` recognises repetitions and detaches the work from the caller, `reference` attaches
//! what is recorded of the account, `retry` tries, and for every try `token` and `sign` make what is
//! made anew, `breaker` refuses a dead upstream and `client` sends.
//!
//! [`stack::Gateway`] is all of that as a tower service; [`app::App`] is the service with listeners;
//! `ayova`, the binary, is [`cli`].

pub mod admin;
pub mod app;
pub mod call;
pub mod callback;
pub mod caller;
pub mod cli;
pub mod clock;
pub mod config;
pub mod crash;
pub mod dialect;
mod digits;
pub mod document;
pub mod entropy;
pub mod error;
pub mod flights;
mod framing;
pub mod inquiry;
pub mod layers;
pub mod live;
pub mod notes;
pub mod outgoing;
pub mod outlive;
pub mod reference;
pub mod resolver;
pub mod sandbox;
pub mod server;
pub mod settling;
pub mod signature;
pub mod stack;
pub mod store;
pub mod supervise;
pub mod telemetry;
pub mod tls;
pub mod upstream;
mod wire;
