//! RSA keys: read from PEM, sign, verify (RSASSA-PKCS1-v1_5 with SHA-256).
//!
//! Promises that a key which was read can be used: size and structure are checked here, once, and a
//! refusal says what to do about it. A private key shows its size and nothing else. Finding the key
//! inside the PEM text is `pem`'s part; reading the file is the caller's.

use std::fmt;

use aws_lc_rs::digest::{self, Digest};
use aws_lc_rs::signature::{
    KeyPair as _, ParsedPublicKey, RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, RSA_PKCS1_SHA256, RsaKeyPair,
    RsaPublicKeyComponents,
};

use super::pem::{self, Block, BlockKind, RsaNumbers};
use super::{Encoding, StringToSign, decode};

/// An RSA private key of 2048 to 8192 bits.
pub struct PrivateKey {
    pair: RsaKeyPair,
    public: PublicKey,
}

impl PrivateKey {
    /// Whether both are the same key.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.pair.public_key().as_ref() == other.pair.public_key().as_ref()
    }

    /// Reads `BEGIN PRIVATE KEY` (PKCS#8) or `BEGIN RSA PRIVATE KEY` (PKCS#1).
    ///
    /// # Errors
    ///
    /// Says what is wrong with the text, never what is in it.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let block = private_block(text)?;
        let public = PublicKey::from_numbers(&block.rsa_numbers()?, SIGNING_BITS_MIN)?;
        let pair = match block.kind {
            BlockKind::Pkcs1Private => RsaKeyPair::from_der(&block.der),
            BlockKind::Pkcs8Private => RsaKeyPair::from_pkcs8(&block.der),
            BlockKind::Pkcs1Public | BlockKind::Spki => return Err(KeyError::PublicGiven),
        };
        Ok(Self { pair: pair.map_err(|_| KeyError::Damaged)?, public })
    }

    /// The key that verifies what this one signs.
    #[must_use]
    pub const fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// Size of the modulus.
    #[must_use]
    pub const fn bits(&self) -> u32 {
        self.public.bits
    }

    /// Signs. The same string always gives the same signature.
    ///
    /// # Errors
    ///
    /// When the library fails, which takes a lack of memory or a faulty machine: it checks its own
    /// result before it hands it out.
    pub fn sign(&self, text: &StringToSign<'_>, encoding: Encoding) -> Result<String, SigningFailed> {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair.sign_digest(&RSA_PKCS1_SHA256, &sha256(text), &mut signature).map_err(|_| SigningFailed)?;
        Ok(encoding.encode(&signature))
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({} bits)", self.bits())
    }
}

/// An RSA public key of 1024 to 8192 bits. Other providers still publish 1024-bit keys, so they can be
/// verified against, though not signed with.
#[derive(Clone)]
pub struct PublicKey {
    key: ParsedPublicKey,
    bits: u32,
}

impl PublicKey {
    /// Reads `BEGIN PUBLIC KEY` (SPKI) or `BEGIN RSA PUBLIC KEY` (PKCS#1). A private key is refused:
    /// where only the public half is wanted, it has been put in the wrong place.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the text, never what is in it.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let block = pem::only_key(text)?;
        match block.kind {
            BlockKind::Pkcs1Public | BlockKind::Spki => Self::from_numbers(&block.rsa_numbers()?, VERIFYING_BITS_MIN),
            BlockKind::Pkcs1Private | BlockKind::Pkcs8Private => Err(KeyError::PrivateGiven),
        }
    }

    /// Reads the public half of a private key's PEM, also of one that is too small to sign with.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the text, never what is in it.
    pub fn from_private_pem(text: &str) -> Result<Self, KeyError> {
        Self::from_numbers(&private_block(text)?.rsa_numbers()?, VERIFYING_BITS_MIN)
    }

    /// Size of the modulus.
    #[must_use]
    pub const fn bits(&self) -> u32 {
        self.bits
    }

    /// Whether this is the signature of that string, in either encoding.
    #[must_use]
    pub fn verify(&self, text: &StringToSign<'_>, signature: &str) -> bool {
        let size = self.bits.div_ceil(8) as usize;
        decode(signature, size).is_some_and(|received| self.key.verify_digest_sig(&sha256(text), &received).is_ok())
    }

    fn from_numbers(numbers: &RsaNumbers<'_>, bits_min: u32) -> Result<Self, KeyError> {
        let bits = numbers.modulus_bits();
        if bits < bits_min {
            return Err(KeyError::TooSmall { bits, bits_min });
        }
        if bits > BITS_MAX {
            return Err(KeyError::TooLarge { bits });
        }
        let components = RsaPublicKeyComponents { n: numbers.modulus, e: numbers.exponent };
        let key = components
            .to_parsed_public_key(&RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY)
            .map_err(|_| KeyError::Damaged)?;
        Ok(Self { key, bits })
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({} bits)", self.bits)
    }
}

/// Why a PEM text gives no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// Nothing in it looks like a PEM key.
    NoKey,
    /// It has the `BEGIN` line but not the line breaks.
    LineBreaksLost,
    /// More than one key.
    SeveralKeys,
    /// A certificate where a key is wanted.
    Certificate,
    /// Protected by a passphrase.
    Encrypted,
    /// OpenSSH's own format.
    OpenSsh,
    /// EC, Ed25519, DSA, RSA-PSS.
    NotRsa,
    /// A private key where a public one is wanted.
    PrivateGiven,
    /// A public key where a private one is wanted.
    PublicGiven,
    /// Cut off, altered, or inconsistent in itself.
    Damaged,
    /// Too few bits for this use.
    TooSmall {
        /// What it has.
        bits: u32,
        /// What it takes.
        bits_min: u32,
    },
    /// More bits than the library computes with.
    TooLarge {
        /// What it has.
        bits: u32,
    },
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = match self {
            Self::NoKey => {
                "no PEM key found: give the whole text, from its -----BEGIN line to its -----END line (a DER file \
                 becomes PEM with `openssl rsa -inform DER`)"
            }
            Self::LineBreaksLost => {
                "the PEM has lost its line breaks (spaces or a literal \\n stand in their place): restore them, or \
                 refer to the file instead of an environment variable"
            }
            Self::SeveralKeys => "the PEM holds several keys: leave only the one to use",
            Self::Certificate => {
                "this is a certificate, not a key: take its public key with `openssl x509 -pubkey -noout`"
            }
            Self::Encrypted => {
                "the key is protected by a passphrase: store it without one, as `openssl pkey -in FILE` prints it"
            }
            Self::OpenSsh => "this is OpenSSH's own format: rewrite a copy of it with `ssh-keygen -p -m PEM -f FILE`",
            Self::NotRsa => "not a plain RSA key: make one with `openssl genrsa 3072`",
            Self::PrivateGiven => {
                "this is a private key, and only the public one belongs here: `openssl pkey -pubout` prints it"
            }
            Self::PublicGiven => "this is a public key, and signing needs the private one",
            Self::Damaged => "the key is damaged: copy it again, whole and unaltered",
            Self::TooSmall { bits, bits_min } => {
                return write!(
                    f,
                    "the key has {bits} bits and at least {bits_min} are needed: make one with `openssl genrsa 3072` \
                     and hand its public key to Ayoconnect"
                );
            }
            Self::TooLarge { bits } => {
                return write!(f, "the key has {bits} bits and at most {BITS_MAX} are supported: use 3072");
            }
        };
        f.write_str(message)
    }
}

impl std::error::Error for KeyError {}

/// The library refused to sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SigningFailed;

impl fmt::Display for SigningFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the RSA operation failed inside the cryptographic library")
    }
}

impl std::error::Error for SigningFailed {}

fn private_block(text: &str) -> Result<Block, KeyError> {
    let block = pem::only_key(text)?;
    match block.kind {
        BlockKind::Pkcs1Private | BlockKind::Pkcs8Private => Ok(block),
        BlockKind::Pkcs1Public | BlockKind::Spki => Err(KeyError::PublicGiven),
    }
}

/// Hashes piece by piece, which saves joining the string.
fn sha256(text: &StringToSign<'_>) -> Digest {
    let mut context = digest::Context::new(&digest::SHA256);
    text.pieces().for_each(|piece| context.update(piece.as_bytes()));
    context.finish()
}

/// The smallest modulus AWS-LC signs with.
const SIGNING_BITS_MIN: u32 = 2048;
/// The smallest modulus AWS-LC verifies with, and that only by its legacy parameters.
const VERIFYING_BITS_MIN: u32 = 1024;
/// The largest modulus AWS-LC computes with.
const BITS_MAX: u32 = 8192;
