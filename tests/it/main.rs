//! The one integration binary: a module per feature, so that everything links once.
//!
//! Each module stands under `cfg(test)`, which is always set here, because that is how clippy tells
//! that functions around the tests may unwrap and index as the tests do.

#[cfg(test)]
#[path = "../app/mod.rs"]
mod app;
#[cfg(test)]
mod asks;
#[cfg(test)]
mod benches;
#[cfg(test)]
mod binary;
#[cfg(test)]
mod callbacks;
#[cfg(test)]
mod certificates;
#[cfg(test)]
mod claims;
#[cfg(test)]
mod corpus;
#[cfg(test)]
#[path = "../../benches/counts/mod.rs"]
mod counts;
#[cfg(test)]
mod deploy;
#[cfg(test)]
mod documents;
#[cfg(test)]
mod embed;
#[cfg(test)]
mod failures;
#[cfg(test)]
mod gateway_auth;
#[cfg(test)]
mod gateway_bad_input;
#[cfg(test)]
mod gateway_failures;
#[cfg(test)]
mod gateway_headers;
#[cfg(test)]
mod gateway_idempotency;
#[cfg(test)]
mod gateway_isolation;
#[cfg(test)]
mod gateway_limits;
#[cfg(test)]
mod gateway_metrics;
#[cfg(test)]
mod gateway_operations;
#[cfg(test)]
mod gateway_reference;
#[cfg(test)]
mod gateway_secrecy;
#[cfg(test)]
mod gateway_token;
#[cfg(test)]
mod gateway_trace;
#[cfg(test)]
mod gateway_vectors;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod listeners;
#[cfg(test)]
mod payments;
#[cfg(test)]
mod renewal;
#[cfg(test)]
mod sandbox;
#[cfg(test)]
mod stack_order;
#[cfg(test)]
mod tidy;
