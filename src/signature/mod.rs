//! Signatures of the SNAP generation (placeholder shape, replaced by the signature commit).

/// Which string is signed with which key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// HMAC-SHA512 over method, path, token, body hash and timestamp.
    HmacSha512,
    /// SHA256withRSA over client id and timestamp.
    RsaClientTimestamp,
    /// SHA256withRSA over method, path, body hash and timestamp.
    RsaTransactional,
}

/// How signature bytes become text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Lower-case hexadecimal.
    Hex,
    /// Standard base64 with padding.
    Base64,
}

/// An RSA private key.
#[derive(Debug)]
pub struct PrivateKey;
