//! Symmetric signatures: HMAC-SHA512 under the client secret.
//!
//! Promises that a key is prepared once and reused by every request, that a comparison takes the
//! same time whether it succeeds or not, and that the secret cannot be printed. Where the secret
//! comes from is left to the configuration.

use std::fmt;

use aws_lc_rs::{constant_time, hmac};

use super::{Encoding, StringToSign, decode};

/// A client secret, ready to sign. Both hash states that follow from it are computed here and not
/// per request.
#[derive(Clone)]
pub struct HmacKey(hmac::Key);

impl HmacKey {
    /// Bytes of a signature.
    pub const SIGNATURE_BYTES: usize = 64;

    /// The key of a client secret, given as its UTF-8 bytes.
    #[must_use]
    pub fn new(client_secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA512, client_secret))
    }

    /// Signs: 128 characters in hex, 88 in base64.
    #[must_use]
    pub fn sign(&self, text: &StringToSign<'_>, encoding: Encoding) -> String {
        encoding.encode(self.tag(text).as_ref())
    }

    /// Whether this is the signature of that string, in either encoding.
    #[must_use]
    pub fn verify(&self, text: &StringToSign<'_>, signature: &str) -> bool {
        decode(signature, Self::SIGNATURE_BYTES)
            .is_some_and(|received| constant_time::verify_slices_are_equal(self.tag(text).as_ref(), &received).is_ok())
    }

    fn tag(&self, text: &StringToSign<'_>) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.0);
        text.pieces().for_each(|piece| context.update(piece.as_bytes()));
        context.sign()
    }
}

impl fmt::Debug for HmacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HmacKey(\"***\")")
    }
}
