//! From a PEM text to the numbers of the one RSA key in it.
//!
//! Promises a precise reason where there is no such key: the library below answers "invalid
//! encoding" to a forgotten passphrase, an EC key and a short key alike, and whoever sets up a
//! merchant needs to know which. Only structure is read here; whether the numbers make a sound key is
//! the library's judgement, in `key`.

use rustls_pki_types::pem::{PemObject as _, SectionKind};
use zeroize::Zeroizing;

use super::KeyError;

/// What a block's label says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockKind {
    /// `RSA PRIVATE KEY`
    Pkcs1Private,
    /// `PRIVATE KEY`
    Pkcs8Private,
    /// `RSA PUBLIC KEY`
    Pkcs1Public,
    /// `PUBLIC KEY`
    Spki,
}

/// One decoded block.
pub(super) struct Block {
    pub(super) kind: BlockKind,
    /// Overwritten when it is dropped: it may be a private key.
    pub(super) der: Zeroizing<Vec<u8>>,
}

/// The public numbers of an RSA key, big-endian without leading zeros.
pub(super) struct RsaNumbers<'a> {
    pub(super) modulus: &'a [u8],
    pub(super) exponent: &'a [u8],
}

impl RsaNumbers<'_> {
    /// Size of the modulus; the first byte is never zero.
    pub(super) fn modulus_bits(&self) -> u32 {
        let unused = self.modulus.first().map_or(0, |byte| byte.leading_zeros());
        // A PEM of half a gigabyte would saturate, and is refused as too large all the same.
        u32::try_from(self.modulus.len()).unwrap_or(u32::MAX).saturating_mul(8).saturating_sub(unused)
    }
}

/// Finds and decodes the only key of a text. Certificates and parameters beside it are ignored.
pub(super) fn only_key(text: &str) -> Result<Block, KeyError> {
    let sections = sections(text)?;
    let mut keys = sections.iter().filter(|section| section.label.ends_with("KEY"));
    let Some(key) = keys.next() else {
        let certificate = sections.iter().any(|section| section.label == "CERTIFICATE");
        return Err(if certificate { KeyError::Certificate } else { KeyError::NoKey });
    };
    if keys.next().is_some() {
        return Err(KeyError::SeveralKeys);
    }
    let kind = match key.label {
        "RSA PRIVATE KEY" => BlockKind::Pkcs1Private,
        "PRIVATE KEY" => BlockKind::Pkcs8Private,
        "RSA PUBLIC KEY" => BlockKind::Pkcs1Public,
        "PUBLIC KEY" => BlockKind::Spki,
        "ENCRYPTED PRIVATE KEY" => return Err(KeyError::Encrypted),
        "OPENSSH PRIVATE KEY" => return Err(KeyError::OpenSsh),
        _ => return Err(KeyError::NotRsa),
    };
    // The old way of encrypting kept the label and put headers above the data.
    if key.lines.iter().any(|line| line.contains("ENCRYPTED")) {
        return Err(KeyError::Encrypted);
    }
    Ok(Block { kind, der: key.decode(kind)? })
}

/// One block before decoding.
struct Section<'a> {
    label: &'a str,
    lines: Vec<&'a str>,
}

/// Every block, complete or not: an incomplete one fails later, as damaged. Indentation is not held
/// against a key, since it usually comes from the YAML around it.
fn sections(text: &str) -> Result<Vec<Section<'_>>, KeyError> {
    let mut sections: Vec<Section<'_>> = Vec::new();
    let mut open = false;
    for line in text.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("-----BEGIN ") {
            let label = match rest.split_once("-----") {
                Some((label, "")) => label,
                Some(_) => return Err(KeyError::LineBreaksLost),
                None => return Err(KeyError::Damaged),
            };
            sections.push(Section { label, lines: Vec::new() });
            open = true;
        } else if line.starts_with("-----END ") {
            open = false;
        } else if let (true, Some(section)) = (open, sections.last_mut()) {
            section.lines.push(line);
        }
    }
    Ok(sections)
}

impl Section<'_> {
    /// Decodes with the PEM reader that rustls uses, whose base64 treats private keys in constant
    /// time. It does not know the label of PKCS#1 public keys, so those go under their sibling's.
    fn decode(&self, kind: BlockKind) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let (label, expected) = match kind {
            BlockKind::Pkcs1Private => (self.label, SectionKind::RsaPrivateKey),
            BlockKind::Pkcs8Private => (self.label, SectionKind::PrivateKey),
            BlockKind::Pkcs1Public | BlockKind::Spki => ("PUBLIC KEY", SectionKind::PublicKey),
        };
        let lines = Zeroizing::new(self.lines.join("\n"));
        let text = Zeroizing::new(format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", *lines));
        match <(SectionKind, Vec<u8>)>::from_pem_slice(text.as_bytes()) {
            Ok((kind, der)) if kind == expected => Ok(der.into()),
            Ok(_) | Err(_) => Err(KeyError::Damaged),
        }
    }
}

impl Block {
    /// Walks the structure down to modulus and exponent.
    pub(super) fn rsa_numbers(&self) -> Result<RsaNumbers<'_>, KeyError> {
        let whole = whole_sequence(&self.der).ok_or(KeyError::Damaged)?;
        match self.kind {
            BlockKind::Pkcs1Public => numbers(whole),
            BlockKind::Pkcs1Private => after_version(whole).and_then(numbers),
            BlockKind::Spki => {
                let bits = check_algorithm(whole).and_then(|rest| inner(rest, BIT_STRING))?;
                // The first byte counts unused bits, of which a DER structure has none.
                let key = bits.strip_prefix(&[0]).and_then(whole_sequence).ok_or(KeyError::Damaged)?;
                numbers(key)
            }
            BlockKind::Pkcs8Private => {
                let key = after_version(whole).and_then(check_algorithm).and_then(|rest| inner(rest, OCTET_STRING))?;
                after_version(whole_sequence(key).ok_or(KeyError::Damaged)?).and_then(numbers)
            }
        }
    }
}

fn numbers(fields: &[u8]) -> Result<RsaNumbers<'_>, KeyError> {
    let (modulus, rest) = element(fields, INTEGER).ok_or(KeyError::Damaged)?;
    let (exponent, _) = element(rest, INTEGER).ok_or(KeyError::Damaged)?;
    Ok(RsaNumbers { modulus: without_zeros(modulus), exponent: without_zeros(exponent) })
}

fn after_version(fields: &[u8]) -> Result<&[u8], KeyError> {
    element(fields, INTEGER).map(|(_, rest)| rest).ok_or(KeyError::Damaged)
}

/// Steps over the algorithm identifier, if it names plain RSA.
fn check_algorithm(fields: &[u8]) -> Result<&[u8], KeyError> {
    let (algorithm, rest) = element(fields, SEQUENCE).ok_or(KeyError::Damaged)?;
    match element(algorithm, OBJECT_IDENTIFIER) {
        Some((RSA_ENCRYPTION, _)) => Ok(rest),
        Some(_) => Err(KeyError::NotRsa),
        None => Err(KeyError::Damaged),
    }
}

fn inner(fields: &[u8], tag: u8) -> Result<&[u8], KeyError> {
    element(fields, tag).map(|(contents, _)| contents).ok_or(KeyError::Damaged)
}

/// The contents of a sequence after which nothing follows.
fn whole_sequence(der: &[u8]) -> Option<&[u8]> {
    element(der, SEQUENCE).filter(|(_, rest)| rest.is_empty()).map(|(contents, _)| contents)
}

/// One DER element of the expected tag: its contents and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = der.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    if found != tag {
        return None;
    }
    let mut length = usize::from(first);
    if first & 0x80 != 0 {
        // Long form: the low bits count the bytes of the length. Three reach 16 MiB, far beyond a key.
        let count = usize::from(first & 0x7f);
        let (digits, after) = rest.split_at_checked(count).filter(|_| (1..=3).contains(&count))?;
        length = digits.iter().fold(0, |sum, &digit| (sum << 8) | usize::from(digit));
        rest = after;
    }
    rest.split_at_checked(length)
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|&&byte| byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
/// 1.2.840.113549.1.1.1, the contents of its element.
const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
