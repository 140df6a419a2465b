//! How a corpus file is cut into pieces: lines first, a body last.
//!
//! Promises that every input can be read by a person and that no piece is looked at twice. Knows no
//! target.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

/// Stands in seeds and dictionaries for what must not be repeated to anybody.
pub const CANARY: &str = "7SECRET7";

/// The first line without its end, and what follows it.
pub fn line(text: &[u8]) -> (&[u8], &[u8]) {
    match text.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&text[..end], &text[end + 1..]),
        None => (text, &[]),
    }
}

/// The first `N` lines as texts, and the rest; bytes that are no UTF-8 are replaced.
pub fn lines<const N: usize>(mut text: &[u8]) -> ([String; N], &[u8]) {
    let found = std::array::from_fn(|_| {
        let (line, rest) = line(text);
        text = rest;
        String::from_utf8_lossy(line).into_owned()
    });
    (found, text)
}

/// A head as HTTP writes it, up to an empty line: a query after `?`, headers as `Name: value`.
#[derive(Debug, Default)]
pub struct Head {
    /// Without the question mark.
    pub query: String,
    /// Those that are headers; other lines are passed over.
    pub headers: HeaderMap,
    /// What follows the empty line.
    pub body: Bytes,
}

/// Reads a head and what follows it.
pub fn head(mut text: &[u8]) -> Head {
    let mut head = Head::default();
    loop {
        let (line, rest) = line(text);
        let ended = text.is_empty() || line.is_empty();
        text = rest;
        if ended {
            head.body = Bytes::copy_from_slice(text);
            return head;
        }
        if let Some(query) = line.strip_prefix(b"?") {
            head.query = String::from_utf8_lossy(query).into_owned();
        } else if let Some(colon) = line.iter().position(|byte| *byte == b':') {
            let value = line[colon + 1..].strip_prefix(b" ").unwrap_or(&line[colon + 1..]);
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(value)) {
                head.headers.append(name, value);
            }
        }
    }
}

/// Whether a byte is one of the four JSON blanks.
pub fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}
