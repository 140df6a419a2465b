//! Lexical minify and the body hash made from it.
//!
//! Promises to drop the four JSON blanks outside string literals and to change nothing else: member
//! order, duplicate members, number texts and escapes stay, since both sides must arrive at the same
//! bytes without sharing a JSON printer. Any bytes are accepted; whether they are JSON is for whoever
//! validates the body.

use std::borrow::Cow;
use std::fmt;

use aws_lc_rs::digest;
use memchr::memchr2;

/// The body without blanks between tokens; borrowed when there are none.
#[must_use]
pub fn minify(body: &[u8]) -> Cow<'_, [u8]> {
    let (first, mut rest) = split_run(body);
    if rest.is_empty() {
        return Cow::Borrowed(first);
    }
    let mut kept = Vec::with_capacity(body.len());
    kept.extend_from_slice(first);
    while !rest.is_empty() {
        let (run, after) = split_run(skip_blanks(rest));
        kept.extend_from_slice(run);
        rest = after;
    }
    Cow::Owned(kept)
}

/// SHA-256 of the minified body. No body and an empty body hash alike.
#[must_use]
pub fn body_hash(body: &[u8]) -> BodyHash {
    let digest = digest::digest(&digest::SHA256, &minify(body));
    let mut text = [b'0'; 64];
    // Cannot fail: 32 bytes make 64 digits.
    let written = hex::encode_to_slice(digest.as_ref(), &mut text);
    debug_assert!(written.is_ok(), "SHA-256 is 32 bytes");
    BodyHash(text)
}

/// A body hash as the string to sign contains it: 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BodyHash([u8; 64]);

impl BodyHash {
    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Only `body_hash` makes one, of hex digits, so the default is never taken.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for BodyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for BodyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BodyHash({self})")
    }
}

/// Splits before the first blank that is not part of a string. The text starts outside a string, and
/// so does what comes after, because such a blank can only stand there.
fn split_run(text: &[u8]) -> (&[u8], &[u8]) {
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        if is_blank(byte) {
            return text.split_at_checked(at).unwrap_or((text, &[]));
        }
        at += 1;
        if byte == b'"' {
            at += string_length(text.get(at..).unwrap_or_default());
        }
    }
    (text, &[])
}

/// Bytes until after the quote that ends the string; all of them where none does.
fn string_length(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(found) = memchr2(b'"', b'\\', text.get(at..).unwrap_or_default()) {
        at += found + 1;
        if text.get(at - 1) == Some(&b'"') {
            return at;
        }
        // Whatever is escaped ends nothing.
        at = text.len().min(at + 1);
    }
    text.len()
}

/// The blanks of JSON, which are fewer than those of ASCII: a form feed stays.
const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Removes leading JSON blanks.
fn skip_blanks(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|&&byte| is_blank(byte)).count();
    text.get(blanks..).unwrap_or_default()
}
