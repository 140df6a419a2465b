//! Lexical minify, held against a slow definition of it and against two JSON readers.
//!
//! Input: any bytes.

use std::borrow::Cow;

use ayova::document::Document;
use ayova::signature::{body_hash, minify};
use bytes::Bytes;
use serde_json::Value;

use super::text::is_blank;

/// The target's body.
pub fn run(data: &[u8]) {
    let minified = minify(data);
    assert_eq!(*minified, *slowly(data), "blanks between tokens, and nothing else, are dropped");
    assert_eq!(minify(&minified), minified, "twice is once");
    let changed = minified.len() != data.len();
    assert_eq!(matches!(minified, Cow::Owned(_)), changed, "a copy only where something was dropped");
    assert_eq!(body_hash(data), body_hash(&minified));
    assert_eq!(body_hash(data).as_str().len(), 64);
    if let Ok(value) = serde_json::from_slice::<Value>(data) {
        assert_eq!(serde_json::from_slice::<Value>(&minified).unwrap(), value, "the meaning stays");
    }
    if let Ok(document) = Document::parse(Bytes::copy_from_slice(data)) {
        let after = Document::parse(Bytes::copy_from_slice(&minified)).unwrap();
        assert_eq!(after.meaning(), document.meaning());
    }
}

/// One byte after the other.
fn slowly(data: &[u8]) -> Vec<u8> {
    let (mut inside, mut escaped) = (false, false);
    let mut kept = Vec::new();
    for &byte in data {
        if inside || !is_blank(byte) {
            kept.push(byte);
        }
        if inside && !escaped && byte == b'\\' {
            escaped = true;
            continue;
        }
        if byte == b'"' && !escaped {
            inside = !inside;
        }
        escaped = false;
    }
    kept
}
