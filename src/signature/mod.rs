//! Signatures of the SNAP generation: what is signed, with which key, and how the result is written.
//!
//! Promises that signing and verifying are functions of their arguments alone: nothing here reads a
//! clock, a file or the configuration, and the rules are those of the SNAP standard as Ayoconnect
//! uses them (lexical minify, `client_id|timestamp`, `METHOD:PATH:TOKEN:HASH:TIMESTAMP`). Which
//! scheme a call uses, what time it is and which header carries the result is the caller's affair;
//! so is refusing old timestamps.
//!
//! One request, start to end:
//!
//! ```
//! use ayova::signature::{Encoding, HmacKey, SignedRequest, StringToSign, body_hash};
//!
//! let key = HmacKey::new(b"sandbox-secret");
//! let body_hash = body_hash(br#"{ "trxId": "1" }"#);
//! let timestamp = "2026-01-05T10:00:00+07:00";
//! let request = SignedRequest { method: "POST", path: "/va/api/v2.0/x", body_hash: &body_hash, timestamp };
//! let text = StringToSign::hmac_sha512(&request, "token");
//! assert!(key.verify(&text, &key.sign(&text, Encoding::Hex)));
//! ```

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

mod canonical;
mod hmac;
mod key;
mod minify;
mod pem;
#[cfg(test)]
mod tests;

pub use canonical::{SignedRequest, StringToSign};
pub use hmac::HmacKey;
pub use key::{KeyError, PrivateKey, PublicKey, SigningFailed};
pub use minify::{BodyHash, body_hash, minify};

use crate::digits;

/// Which string is signed with which key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// HMAC-SHA512 over method, path, token, body hash and timestamp.
    HmacSha512,
    /// SHA256withRSA over client id and timestamp.
    RsaClientTimestamp,
    /// SHA256withRSA over method, path, body hash and timestamp.
    RsaTransactional,
}

impl Scheme {
    /// Every scheme, the default first.
    pub const ALL: [Self; 3] = [Self::HmacSha512, Self::RsaClientTimestamp, Self::RsaTransactional];

    /// The name in the configuration and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::HmacSha512 => "hmac_sha512",
            Self::RsaClientTimestamp => "rsa_client_timestamp",
            Self::RsaTransactional => "rsa_transactional",
        }
    }

    /// The scheme of that name; names are compared exactly.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scheme| scheme.name() == name)
    }
}

/// How signature bytes become text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Lower-case hexadecimal.
    Hex,
    /// Standard base64 with padding.
    Base64,
}

impl Encoding {
    /// Every encoding, the default first.
    pub const ALL: [Self; 2] = [Self::Hex, Self::Base64];

    /// The name in the configuration and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hex => "hex",
            Self::Base64 => "base64",
        }
    }

    /// The encoding of that name; names are compared exactly.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|encoding| encoding.name() == name)
    }

    /// Writes signature bytes.
    fn encode(self, signature: &[u8]) -> String {
        match self {
            Self::Hex => digits::hex(signature),
            Self::Base64 => STANDARD.encode(signature),
        }
    }
}

/// What a person may see of a token: enough to tell two apart, too little to use one.
#[must_use]
pub fn fingerprint(token: &str) -> String {
    let digest = digest::digest(&digest::SHA256, token.as_bytes());
    let mut text = format!("sha256:{}", hex::encode(digest));
    text.truncate("sha256:".len() + 16);
    text
}

/// Reads a received signature of `size` bytes in either encoding.
///
/// Length alone does not decide: 512 characters are RSA-2048 in hex and RSA-3072 in base64. So hex
/// needs both, the right length for this key and nothing but hex digits; all else is base64.
fn decode(text: &str, size: usize) -> Option<Vec<u8>> {
    // Nothing valid is longer than the hex form, and what is longer must not cost an allocation.
    if text.len() > 2 * size {
        return None;
    }
    let is_hex = text.len() == 2 * size && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let signature = if is_hex { hex::decode(text).ok()? } else { STANDARD.decode(text).ok()? };
    (signature.len() == size).then_some(signature)
}
