//! Reading a JSON text and splicing members into it, held against serde_json and against the bytes.
//!
//! Input: lines `N:value` (N is an index into [`NAMES`]), an empty line, a JSON text.

use ayova::document::{DEPTH_MAX, Document, DocumentError, Kind, Member, Value};
use ayova::signature::minify;
use bytes::Bytes;
use serde_json::Value as Json;

use super::text::line;

/// What may be set; real names, an empty one and some that need escapes.
const NAMES: [&str; 10] =
    ["originalReferenceNo", "trxId", "virtualAccountNo", "customerNo", "a", "b", "", "q\"uote", "\\", "naïve\u{1}"];

/// The target's body.
pub fn run(data: &[u8]) {
    let (members, text) = members(data);
    let text = Bytes::copy_from_slice(text);
    let document = match Document::parse(text.clone()) {
        Ok(document) => document,
        Err(error) => return refused_rightly(&text, &error),
    };
    let json: Json = serde_json::from_slice(&text).expect("serde_json reads what we read");
    same(document.root(), &json, 0);
    let again = Document::parse(Bytes::copy_from_slice(&minify(&text))).unwrap();
    assert_eq!(again.meaning(), document.meaning());
    splice(&document, &members);
}

fn members(mut data: &[u8]) -> (Vec<Member>, &[u8]) {
    let mut members: Vec<Member> = Vec::new();
    loop {
        let (first, rest) = line(data);
        let index = first.first().filter(|byte| byte.is_ascii_digit() && first.get(1) == Some(&b':'));
        let Some(name) = index.and_then(|byte| NAMES.get(usize::from(byte - b'0'))) else {
            // The empty line belongs to the head.
            return (members, if first.is_empty() { rest } else { data });
        };
        if members.iter().all(|member| member.name != *name) {
            members.push(Member { name, value: String::from_utf8_lossy(&first[2..]).into_owned() });
        }
        data = rest;
    }
}

/// What only we refuse is what we promise to refuse.
fn refused_rightly(text: &Bytes, error: &DocumentError) {
    let message = error.to_string();
    assert!(message.len() < 120, "{message}");
    if matches!(error, DocumentError::Syntax(..)) {
        assert!(serde_json::from_slice::<Json>(text).is_err(), "serde_json reads what we do not: {message}");
    }
}

/// Two readings of one text agree.
fn same(value: Value<'_>, json: &Json, depth: usize) {
    assert!(depth <= DEPTH_MAX);
    let reread: Json = serde_json::from_slice(value.raw()).unwrap();
    // Floating-point numbers may be read with another last digit only by another reader.
    assert_eq!(&reread, json, "the bytes are the value's own");
    match (value.kind(), json) {
        (Kind::Null, Json::Null) | (Kind::True, Json::Bool(true)) | (Kind::False, Json::Bool(false)) => {}
        (Kind::Number, Json::Number(number)) => {
            if let Some(integer) = value.as_integer() {
                // `-0` is a floating-point number to serde_json.
                assert!(number.as_i64() == Some(integer) || (integer == 0 && number.as_f64() == Some(0.0)));
            }
        }
        (Kind::String, Json::String(text)) => assert_eq!(value.as_str(), Some(text.as_str())),
        (Kind::Array, Json::Array(list)) => {
            assert_eq!(value.elements().count(), list.len());
            value.elements().zip(list).for_each(|(value, json)| same(value, json, depth + 1));
        }
        (Kind::Object, Json::Object(map)) => {
            assert_eq!(value.members().count(), map.len(), "no name is repeated");
            value.members().for_each(|(name, value)| same(value, &map[name], depth + 1));
        }
        (kind, json) => panic!("{kind:?} is not {json}"),
    }
}

fn splice(document: &Document, members: &[Member]) {
    let spliced = document.splice(members);
    let root = document.root();
    if members.is_empty() || root.kind() != Kind::Object {
        assert_eq!(&spliced, document.text());
        return;
    }
    assert!(serde_json::from_slice::<Json>(&spliced).is_ok(), "it stays JSON");
    let after = Document::parse(spliced.clone()).expect("and one that we read");
    for member in members {
        assert_eq!(after.root().member(member.name).unwrap().as_str(), Some(member.value.as_str()));
    }
    let set = |name: &str| members.iter().any(|member| member.name == name);
    for (name, before) in root.members().filter(|(name, _)| !set(name)) {
        assert_eq!(after.root().member(name).unwrap().raw(), before.raw());
    }
    assert_eq!(undone(document, &after, &set), document.text(), "no other byte is touched");
    assert_eq!(after.splice(members), spliced, "twice is once");
}

/// The spliced text with every member that was set put back or taken out again.
fn undone(before: &Document, after: &Document, set: &dyn Fn(&str) -> bool) -> Bytes {
    let (old, new) = (before.root(), after.root());
    let mut text = after.text()[..=new.span().start].to_vec();
    let added = new.members().filter(|(name, _)| set(name) && old.member(name).is_none()).count();
    let mut from = text.len();
    if let Some((_, last)) = new.members().take(added).last() {
        // With the comma, where something followed.
        from = last.span().end + usize::from(old.members().next().is_some());
    }
    for (name, value) in new.members().skip(added) {
        if let (true, Some(value_before)) = (set(name), old.member(name)) {
            text.extend_from_slice(&after.text()[from..value.span().start]);
            text.extend_from_slice(value_before.raw());
            from = value.span().end;
        }
    }
    text.extend_from_slice(&after.text()[from..]);
    text.into()
}
