//! The strings that are signed.
//!
//! Promises each scheme's string exactly, as pieces that a key feeds to its hash one after another,
//! so that no request pays for joining them. The texts go in as they are: the method upper case, the
//! path from the root with the base path, the token without `Bearer `, the timestamp as its header
//! has it. Keeping them equal to what is sent is the caller's affair.

use std::fmt;

use super::BodyHash;

/// What both request schemes sign of a request.
#[derive(Clone, Copy, Debug)]
pub struct SignedRequest<'a> {
    /// Upper case.
    pub method: &'a str,
    /// From the root, without the host.
    pub path: &'a str,
    /// Of the bytes that are sent.
    pub body_hash: &'a BodyHash,
    /// The text of `X-TIMESTAMP`.
    pub timestamp: &'a str,
}

/// One string to sign. `Display` writes it, token included; `Debug` does not, since it ends up in
/// logs.
#[derive(Clone, Copy)]
pub struct StringToSign<'a> {
    /// Unused ones are empty.
    pieces: [&'a str; 9],
}

impl<'a> StringToSign<'a> {
    /// `METHOD:PATH:TOKEN:HASH:TIMESTAMP`, the symmetric string of the standard.
    #[must_use]
    pub fn hmac_sha512(request: &SignedRequest<'a>, token: &'a str) -> Self {
        let SignedRequest { method, path, body_hash, timestamp } = *request;
        Self { pieces: [method, ":", path, ":", token, ":", body_hash.as_str(), ":", timestamp] }
    }

    /// `METHOD:PATH:HASH:TIMESTAMP`, the asymmetric string of calls that have no token.
    #[must_use]
    pub fn rsa_transactional(request: &SignedRequest<'a>) -> Self {
        let SignedRequest { method, path, body_hash, timestamp } = *request;
        Self { pieces: [method, ":", path, ":", body_hash.as_str(), ":", timestamp, "", ""] }
    }

    /// `CLIENT_ID|TIMESTAMP`, the string of the token call.
    #[must_use]
    pub fn rsa_client_timestamp(client_id: &'a str, timestamp: &'a str) -> Self {
        Self { pieces: [client_id, "|", timestamp, "", "", "", "", "", ""] }
    }

    /// A string that somebody else has put together.
    #[must_use]
    pub fn verbatim(text: &'a str) -> Self {
        Self { pieces: [text, "", "", "", "", "", "", "", ""] }
    }

    /// The pieces in order.
    pub(super) fn pieces(&self) -> impl Iterator<Item = &'a str> {
        self.pieces.into_iter().filter(|piece| !piece.is_empty())
    }
}

impl fmt::Display for StringToSign<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pieces().try_for_each(|piece| f.write_str(piece))
    }
}

impl fmt::Debug for StringToSign<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StringToSign(\"***\")")
    }
}
