//! Everything the gateway itself may answer, as one closed list.
//!
//! An [`Error`] says what happened; a [`Reason`] is its stable name. Status and words are chosen in
//! `layers/render.rs` and `dialect/envelope.rs`, which match without a wildcard, so that a new
//! variant does not compile until both generations have words for it.

use std::time::Duration;

use http::HeaderMap;

use crate::call::About;
use crate::caller::Unproven;
use crate::dialect::Fault;

/// Why the gateway answers itself.
#[derive(Clone, Debug)]
pub enum Error {
    /// No such path.
    UnknownRoute,
    /// The path exists with other methods: the `Allow` header's value.
    MethodNotAllowed(&'static str),
    /// The caller is nobody who is known, or speaks for somebody else.
    Unauthenticated(Unproven),
    /// The merchant's header names nobody who is configured.
    UnknownMerchant,
    /// Over the rate; a try may succeed after this long.
    RateLimited(Duration),
    /// Too many requests of this merchant are under way.
    TooManyInFlight,
    /// The body is longer than allowed.
    BodyTooLarge,
    /// The body took longer than allowed.
    BodyTimeout,
    /// The body is no JSON object; why, without quoting it.
    BadJson(String),
    /// Rules were broken: all of them.
    InvalidRequest(Vec<Fault>),
    /// The id belongs to another request.
    IdempotencyConflict,
    /// The first request with this id is still under way.
    IdempotencyInProgress,
    /// Nobody knows the account: what was missing to find it.
    ReferenceUnknown(Vec<Fault>),
    /// The bank's amounts never go down.
    AmountTooLow,
    /// No token could be had.
    TokenUnavailable,
    /// The request provably never left.
    UpstreamUnavailable,
    /// A read got no answer in time.
    UpstreamTimeout,
    /// A create or update may or may not have happened.
    OutcomeUnknown,
    /// The request could not be recorded, so it was not sent.
    StoreUnavailable,
    /// The process is ending.
    ShuttingDown,
    /// A defect of the gateway.
    Internal,
}

/// The stable name of an answer that the gateway made or changed (contract section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is the name of an Error, which says what it means")]
pub enum Reason {
    UnknownRoute,
    MethodNotAllowed,
    Unauthenticated,
    UnknownMerchant,
    RateLimited,
    TooManyInFlight,
    BodyTooLarge,
    BodyTimeout,
    BadJson,
    InvalidRequest,
    IdempotencyConflict,
    IdempotencyInProgress,
    ReferenceUnknown,
    AmountTooLow,
    TokenUnavailable,
    UpstreamUnavailable,
    UpstreamTimeout,
    OutcomeUnknown,
    StoreUnavailable,
    ShuttingDown,
    Internal,
    /// Upstream's own answer, which could not be stored.
    NotStored,
    /// An answer put together from what an inquiry found.
    SettledByInquiry,
}

impl Reason {
    /// The value of `Ayova-Reason`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::UnknownRoute => "UNKNOWN_ROUTE",
            Self::MethodNotAllowed => "METHOD_NOT_ALLOWED",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::UnknownMerchant => "UNKNOWN_MERCHANT",
            Self::RateLimited => "RATE_LIMITED",
            Self::TooManyInFlight => "TOO_MANY_IN_FLIGHT",
            Self::BodyTooLarge => "BODY_TOO_LARGE",
            Self::BodyTimeout => "BODY_TIMEOUT",
            Self::BadJson => "BAD_JSON",
            Self::InvalidRequest => "INVALID_REQUEST",
            Self::IdempotencyConflict => "IDEMPOTENCY_CONFLICT",
            Self::IdempotencyInProgress => "IDEMPOTENCY_IN_PROGRESS",
            Self::ReferenceUnknown => "REFERENCE_UNKNOWN",
            Self::AmountTooLow => "AMOUNT_TOO_LOW",
            Self::TokenUnavailable => "TOKEN_UNAVAILABLE",
            Self::UpstreamUnavailable => "UPSTREAM_UNAVAILABLE",
            Self::UpstreamTimeout => "UPSTREAM_TIMEOUT",
            Self::OutcomeUnknown => "OUTCOME_UNKNOWN",
            Self::StoreUnavailable => "STORE_UNAVAILABLE",
            Self::ShuttingDown => "SHUTTING_DOWN",
            Self::Internal => "INTERNAL",
            Self::NotStored => "NOT_STORED",
            Self::SettledByInquiry => "SETTLED_BY_INQUIRY",
        }
    }
}

impl Error {
    /// Its stable name.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::UnknownRoute => Reason::UnknownRoute,
            Self::MethodNotAllowed(_) => Reason::MethodNotAllowed,
            Self::Unauthenticated(_) => Reason::Unauthenticated,
            Self::UnknownMerchant => Reason::UnknownMerchant,
            Self::RateLimited(_) => Reason::RateLimited,
            Self::TooManyInFlight => Reason::TooManyInFlight,
            Self::BodyTooLarge => Reason::BodyTooLarge,
            Self::BodyTimeout => Reason::BodyTimeout,
            Self::BadJson(_) => Reason::BadJson,
            Self::InvalidRequest(_) => Reason::InvalidRequest,
            Self::IdempotencyConflict => Reason::IdempotencyConflict,
            Self::IdempotencyInProgress => Reason::IdempotencyInProgress,
            Self::ReferenceUnknown(_) => Reason::ReferenceUnknown,
            Self::AmountTooLow => Reason::AmountTooLow,
            Self::TokenUnavailable => Reason::TokenUnavailable,
            Self::UpstreamUnavailable => Reason::UpstreamUnavailable,
            Self::UpstreamTimeout => Reason::UpstreamTimeout,
            Self::OutcomeUnknown => Reason::OutcomeUnknown,
            Self::StoreUnavailable => Reason::StoreUnavailable,
            Self::ShuttingDown => Reason::ShuttingDown,
            Self::Internal => Reason::Internal,
        }
    }

    /// One of every kind, for tables and tests.
    #[must_use]
    pub fn samples() -> Vec<Self> {
        let fault = Fault::missing(&["virtualAccountName"]);
        vec![
            Self::UnknownRoute,
            Self::MethodNotAllowed("POST"),
            Self::Unauthenticated(Unproven::Disagreement),
            Self::UnknownMerchant,
            Self::RateLimited(Duration::from_secs(1)),
            Self::TooManyInFlight,
            Self::BodyTooLarge,
            Self::BodyTimeout,
            Self::BadJson("not JSON: expected value at byte 0".to_owned()),
            Self::InvalidRequest(vec![fault.clone()]),
            Self::IdempotencyConflict,
            Self::IdempotencyInProgress,
            Self::ReferenceUnknown(vec![fault]),
            Self::AmountTooLow,
            Self::TokenUnavailable,
            Self::UpstreamUnavailable,
            Self::UpstreamTimeout,
            Self::OutcomeUnknown,
            Self::StoreUnavailable,
            Self::ShuttingDown,
            Self::Internal,
        ]
    }
}

impl From<Unproven> for Error {
    fn from(why: Unproven) -> Self {
        Self::Unauthenticated(why)
    }
}

/// An error with what the layers it has passed know about the request.
#[derive(Debug)]
pub struct Failure {
    /// What happened.
    pub error: Error,
    /// Which operation, whose.
    pub about: About,
    /// Response headers that hold whatever the answer is, such as the limits.
    pub headers: HeaderMap,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, about: About::default(), headers: HeaderMap::new() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn codes_are_unique() {
        let codes: Vec<_> = Error::samples().iter().map(|error| error.reason().code()).collect();
        assert_eq!(codes.iter().collect::<HashSet<_>>().len(), codes.len());
    }
}
