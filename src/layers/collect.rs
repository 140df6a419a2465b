//! The whole body in memory, bounded in size and time.
//!
//! Stands behind the limits, so that a flood costs no bodies, and before everything that reads one.
//! Parses nothing. A body that says its length in advance is refused before a byte of it is read.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::time::timeout;

use crate::call::{Call, Inbound, Reply};
use crate::error::Error;
use crate::layers::next::Next;

/// The bounds.
#[derive(Clone, Copy, Debug)]
pub struct Collect {
    /// Largest body, inclusive.
    pub max_bytes: usize,
    /// Longest time it may take.
    pub timeout: Duration,
}

/// The layer's step.
pub async fn collect(
    state: Arc<Collect>,
    call: Call<Inbound>,
    next: Next<Call<Bytes>, Result<Reply, Error>>,
) -> Result<Reply, Error> {
    let announced = call.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| usize::try_from(length).map_or(true, |length| length > state.max_bytes)) {
        return Err(Error::BodyTooLarge);
    }
    let (call, inbound) = call.with_body(());
    let reading = Limited::new(inbound, state.max_bytes).collect();
    let body = match timeout(state.timeout, reading).await {
        Err(_) => return Err(Error::BodyTimeout),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(Error::BodyTooLarge),
        Ok(Err(_)) => return Err(Error::BadJson("the body broke off".to_owned())),
        Ok(Ok(body)) => body.to_bytes(),
    };
    call.admission.notes().received(body.len());
    let (call, ()) = call.with_body(body);
    next.run(call).await
}
