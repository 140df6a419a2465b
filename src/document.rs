//! One JSON text, read once: its values, where each stands in the text, and its meaning.
//!
//! Promises that a [`Document`] is strict JSON (RFC 8259) in valid UTF-8, no deeper than
//! [`DEPTH_MAX`], without a repeated member name at any level (two parsers may read those
//! differently) and without a number outside the range of a double. The text itself is kept and
//! never re-serialised: whoever changes it does so by position, see [`Document::splice`]. What the
//! members mean is the dialect's affair.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use aws_lc_rs::digest;
use bytes::Bytes;
use jiter::{Jiter, JiterError, Peek};

/// Deepest nesting of arrays and objects (contract section 9).
pub const DEPTH_MAX: usize = 32;

/// A JSON text and its outline.
#[derive(Clone, Debug)]
pub struct Document {
    text: Bytes,
    /// In the order of the text; a container is followed by what it contains.
    nodes: Vec<Node>,
    /// Names and strings that contain escapes, decoded.
    decoded: Vec<String>,
}

#[derive(Clone, Debug)]
struct Node {
    /// The member's name; empty for elements and the root.
    name: Text,
    kind: Kind,
    /// The string's content, for strings.
    content: Text,
    /// The value's bytes.
    span: Range<u32>,
    /// Index after the last node inside this one.
    end: u32,
}

/// Where a piece of decoded text is.
#[derive(Clone, Debug)]
enum Text {
    /// In the document itself.
    Raw(Range<u32>),
    /// In `decoded`, because it contained escapes.
    Decoded(usize),
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `null`
    Null,
    /// `true`
    True,
    /// `false`
    False,
    /// A number.
    Number,
    /// A string.
    String,
    /// An array.
    Array,
    /// An object.
    Object,
}

/// Why a text is no document. The messages never quote the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DocumentError {
    /// Not JSON, with the byte where reading stopped.
    Syntax(String, usize),
    /// Nested deeper than [`DEPTH_MAX`].
    TooDeep(usize),
    /// A member name occurs twice in one object.
    Repeated(usize),
    /// A number outside the range of a double.
    NumberOutOfRange(usize),
    /// More than four gigabytes.
    TooLong,
}

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(what, at) => write!(f, "not JSON: {what} at byte {at}"),
            Self::TooDeep(at) => write!(f, "nested deeper than {DEPTH_MAX} levels at byte {at}"),
            Self::Repeated(at) => write!(f, "a member name is repeated in one object at byte {at}"),
            Self::NumberOutOfRange(at) => write!(f, "a number is out of range at byte {at}"),
            Self::TooLong => f.write_str("the text is too long"),
        }
    }
}

impl std::error::Error for DocumentError {}

/// Equal exactly where two documents mean the same: blanks, member order and escapes do not count,
/// number texts do.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Meaning(pub [u8; 32]);

impl fmt::Debug for Meaning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A hash of a small value can be searched for, so not even the whole hash is shown.
        write!(f, "Meaning({:02x}{:02x}..)", self.0[0], self.0[1])
    }
}

/// A member to be put into a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: &'static str,
    /// Its value, a string.
    pub value: String,
}

impl Document {
    /// Reads a text.
    ///
    /// # Errors
    /// [`DocumentError`] for everything the module's header excludes.
    pub fn parse(text: Bytes) -> Result<Self, DocumentError> {
        if u32::try_from(text.len()).is_err() {
            return Err(DocumentError::TooLong);
        }
        let mut reader =
            Reader { text: &text, cursor: Jiter::new(&text), nodes: Vec::with_capacity(32), decoded: Vec::new() };
        let first = reader.peek()?;
        reader.value(first, Text::Raw(0..0), 0)?;
        reader.cursor.finish().map_err(|error| syntax(&error))?;
        let Reader { nodes, decoded, .. } = reader;
        Ok(Self { text, nodes, decoded })
    }

    /// The text as it was read.
    #[must_use]
    pub const fn text(&self) -> &Bytes {
        &self.text
    }

    /// The outermost value.
    #[must_use]
    pub const fn root(&self) -> Value<'_> {
        Value { document: self, index: 0 }
    }

    /// What the document says, whatever its blanks, member order and escapes.
    #[must_use]
    pub fn meaning(&self) -> Meaning {
        let mut form = Vec::with_capacity(self.text.len() + self.nodes.len() * 18);
        self.root().spell(&mut form);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, &form).as_ref());
        Meaning(bytes)
    }

    /// The text with members of the root object set: present ones have their value replaced, absent
    /// ones are put before the first. No other byte changes.
    ///
    /// Returns the text unchanged where the root is no object or there is nothing to set.
    #[must_use]
    pub fn splice(&self, members: &[Member]) -> Bytes {
        let root = self.root();
        if members.is_empty() || root.kind() != Kind::Object {
            return self.text.clone();
        }
        let mut edits: Vec<(Range<usize>, String)> = Vec::with_capacity(members.len());
        let mut inserted = String::new();
        for member in members {
            if let Some(value) = root.member(member.name) {
                edits.push((value.span(), quoted(&member.value)));
            } else {
                if !inserted.is_empty() {
                    inserted.push(',');
                }
                inserted.push_str(&quoted(member.name));
                inserted.push(':');
                inserted.push_str(&quoted(&member.value));
            }
        }
        if !inserted.is_empty() {
            if root.members().next().is_some() {
                inserted.push(',');
            }
            let after_brace = root.span().start + 1;
            edits.push((after_brace..after_brace, inserted));
        }
        edits.sort_by_key(|(span, _)| span.start);
        apply(&self.text, &edits)
    }

    fn string(&self, text: &Text) -> &str {
        std::str::from_utf8(self.bytes(text)).unwrap_or_default()
    }

    /// The same for comparing, which needs no look at what `parse` has found to be UTF-8.
    fn bytes(&self, text: &Text) -> &[u8] {
        match text {
            Text::Raw(range) => self.text.get(range.start as usize..range.end as usize).unwrap_or_default(),
            Text::Decoded(index) => self.decoded.get(*index).map_or(&[], String::as_bytes),
        }
    }

    fn node(&self, index: usize) -> &Node {
        const NOTHING: &Node =
            &Node { name: Text::Raw(0..0), kind: Kind::Null, content: Text::Raw(0..0), span: 0..0, end: 0 };
        self.nodes.get(index).unwrap_or(NOTHING)
    }
}

/// A value inside a document.
#[derive(Clone, Copy, Debug)]
pub struct Value<'a> {
    document: &'a Document,
    index: usize,
}

impl<'a> Value<'a> {
    /// What it is.
    #[must_use]
    pub fn kind(self) -> Kind {
        self.node().kind
    }

    /// A string's content, decoded.
    #[must_use]
    pub fn as_str(self) -> Option<&'a str> {
        let node = self.node();
        (node.kind == Kind::String).then(|| self.document.string(&node.content))
    }

    /// A number's value where it is a whole number that fits and is written as one.
    #[must_use]
    pub fn as_integer(self) -> Option<i64> {
        if self.kind() != Kind::Number {
            return None;
        }
        std::str::from_utf8(self.raw()).ok()?.parse().ok()
    }

    /// The value's own bytes.
    #[must_use]
    pub fn raw(self) -> &'a [u8] {
        self.document.text.get(self.span()).unwrap_or_default()
    }

    /// Where the value stands in the text.
    #[must_use]
    pub fn span(self) -> Range<usize> {
        let span = &self.node().span;
        span.start as usize..span.end as usize
    }

    /// A member of an object by name.
    #[must_use]
    pub fn member(self, name: &str) -> Option<Value<'a>> {
        self.named().find_map(|(found, value)| (found == name.as_bytes()).then_some(value))
    }

    /// A member of a member, by names from the outside in.
    #[must_use]
    pub fn at(self, path: &[&str]) -> Option<Value<'a>> {
        path.iter().try_fold(self, |value, name| value.member(name))
    }

    /// The members of an object in the order of the text; nothing for other kinds.
    pub fn members(self) -> impl Iterator<Item = (&'a str, Value<'a>)> {
        self.named().map(|(name, value)| (std::str::from_utf8(name).unwrap_or_default(), value))
    }

    fn named(self) -> impl Iterator<Item = (&'a [u8], Value<'a>)> {
        let names = self.kind() == Kind::Object;
        self.children().filter(move |_| names).map(|child| (child.document.bytes(&child.node().name), child))
    }

    /// The elements of an array; nothing for other kinds.
    pub fn elements(self) -> impl Iterator<Item = Value<'a>> {
        let array = self.kind() == Kind::Array;
        self.children().filter(move |_| array)
    }

    fn children(self) -> impl Iterator<Item = Value<'a>> {
        let document = self.document;
        let end = self.node().end as usize;
        let mut next = self.index + 1;
        std::iter::from_fn(move || {
            (next < end).then(|| {
                let child = Value { document, index: next };
                next = (child.node().end as usize).max(next + 1);
                child
            })
        })
    }

    fn node(self) -> &'a Node {
        self.document.node(self.index)
    }

    /// Writes a form in which every value is told from every other: a letter for the kind, lengths
    /// before texts, members sorted by name.
    fn spell(self, form: &mut Vec<u8>) {
        match self.kind() {
            Kind::Null => form.push(b'z'),
            Kind::True => form.push(b't'),
            Kind::False => form.push(b'f'),
            Kind::Number => spell_text(form, b'n', self.raw()),
            Kind::String => spell_text(form, b's', self.document.bytes(&self.node().content)),
            Kind::Array => {
                form.push(b'[');
                self.elements().for_each(|element| element.spell(form));
                form.push(b']');
            }
            Kind::Object => {
                let mut members: Vec<_> = self.named().collect();
                members.sort_unstable_by_key(|(name, _)| *name);
                form.push(b'{');
                for (name, value) in members {
                    spell_text(form, b'm', name);
                    value.spell(form);
                }
                form.push(b'}');
            }
        }
    }
}

fn spell_text(form: &mut Vec<u8>, letter: u8, text: &[u8]) {
    form.push(letter);
    form.extend_from_slice(&(text.len() as u64).to_le_bytes());
    form.extend_from_slice(text);
}

fn quoted(text: &str) -> String {
    serde_json::Value::String(text.to_owned()).to_string()
}

fn apply(text: &[u8], edits: &[(Range<usize>, String)]) -> Bytes {
    let added: usize = edits.iter().map(|(_, new)| new.len()).sum();
    let mut out = Vec::with_capacity(text.len() + added);
    let mut from = 0;
    for (span, new) in edits {
        out.extend_from_slice(text.get(from..span.start).unwrap_or_default());
        out.extend_from_slice(new.as_bytes());
        from = span.end;
    }
    out.extend_from_slice(text.get(from..).unwrap_or_default());
    out.into()
}

fn syntax(error: &JiterError) -> DocumentError {
    DocumentError::Syntax(error.error_type.to_string(), error.index)
}

/// Positions fit since `parse` bounds the text's length.
#[expect(clippy::cast_possible_truncation, reason = "Document::parse refuses texts whose length does not fit")]
const fn position(at: usize) -> u32 {
    at as u32
}

struct Reader<'t> {
    text: &'t [u8],
    cursor: Jiter<'t>,
    nodes: Vec<Node>,
    decoded: Vec<String>,
}

impl Reader<'_> {
    fn peek(&mut self) -> Result<Peek, DocumentError> {
        self.cursor.peek().map_err(|error| syntax(&error))
    }

    fn value(&mut self, peek: Peek, name: Text, depth: usize) -> Result<(), DocumentError> {
        let start = self.cursor.current_index();
        let index = self.nodes.len();
        let node = Node { name, kind: Kind::Null, content: Text::Raw(0..0), span: 0..0, end: 0 };
        self.nodes.push(node);
        let mut content = Text::Raw(0..0);
        let kind = match peek {
            Peek::Null => self.cursor.known_null().map(|()| Kind::Null).map_err(|error| syntax(&error))?,
            Peek::True | Peek::False => {
                let value = self.cursor.known_bool(peek).map_err(|error| syntax(&error))?;
                if value { Kind::True } else { Kind::False }
            }
            Peek::String => {
                content = self.string()?;
                Kind::String
            }
            Peek::Array => self.array(start, depth)?,
            Peek::Object => self.object(start, depth)?,
            _ => self.number(peek, start)?,
        };
        let end = position(self.nodes.len());
        let span = position(start)..position(self.cursor.current_index());
        if let Some(node) = self.nodes.get_mut(index) {
            (node.kind, node.content, node.span, node.end) = (kind, content, span, end);
        }
        Ok(())
    }

    fn string(&mut self) -> Result<Text, DocumentError> {
        let content = self.cursor.known_str().map_err(|error| syntax(&error))?;
        Ok(place(self.text, content).unwrap_or_else(|| keep(&mut self.decoded, content)))
    }

    fn number(&mut self, peek: Peek, start: usize) -> Result<Kind, DocumentError> {
        let text = self.cursor.known_number_bytes(peek).map_err(|error| syntax(&error))?;
        let value: Option<f64> = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
        match value {
            Some(value) if value.is_finite() => Ok(Kind::Number),
            _ => Err(DocumentError::NumberOutOfRange(start)),
        }
    }

    fn array(&mut self, start: usize, depth: usize) -> Result<Kind, DocumentError> {
        let depth = deeper(depth, start)?;
        let mut next = self.cursor.known_array().map_err(|error| syntax(&error))?;
        while let Some(peek) = next {
            self.value(peek, Text::Raw(0..0), depth)?;
            next = self.cursor.array_step().map_err(|error| syntax(&error))?;
        }
        Ok(Kind::Array)
    }

    fn object(&mut self, start: usize, depth: usize) -> Result<Kind, DocumentError> {
        let depth = deeper(depth, start)?;
        let first = self.nodes.len();
        let mut key = self.cursor.known_object().map_err(|error| syntax(&error))?;
        while let Some(name) = key {
            let name = place(self.text, name).unwrap_or_else(|| keep(&mut self.decoded, name));
            let peek = self.peek()?;
            self.value(peek, name, depth)?;
            key = self.cursor.next_key().map_err(|error| syntax(&error))?;
        }
        self.unique_names(first)?;
        Ok(Kind::Object)
    }

    /// Refuses an object, whose first member is node `first` and last the newest, where a name is
    /// repeated. Of few each is compared with each; sorting bounds the work for thousands.
    fn unique_names(&self, first: usize) -> Result<(), DocumentError> {
        let mut names = Vec::with_capacity(16);
        let mut next = first;
        while let Some(node) = self.nodes.get(next) {
            let name = match &node.name {
                Text::Raw(range) => self.text.get(range.start as usize..range.end as usize).unwrap_or_default(),
                Text::Decoded(index) => self.decoded.get(*index).map_or(&[][..], String::as_bytes),
            };
            if names.len() < FEW && names.iter().any(|(known, _)| *known == name) {
                return Err(DocumentError::Repeated(node.span.start as usize));
            }
            names.push((name, node.span.start));
            next = (node.end as usize).max(next + 1);
        }
        if names.len() <= FEW {
            return Ok(());
        }
        names.sort_unstable();
        let repeated = names.windows(2).find(|pair| matches!(pair, [(a, _), (b, _)] if a == b));
        match repeated {
            Some([_, (_, at)]) => Err(DocumentError::Repeated(*at as usize)),
            _ => Ok(()),
        }
    }
}

/// Where a string is in the text, if that is where it was read from: one with escapes is decoded elsewhere.
fn place(text: &[u8], string: &str) -> Option<Text> {
    let start = string.as_ptr().addr().checked_sub(text.as_ptr().addr())?;
    let end = start.checked_add(string.len()).filter(|end| *end < text.len())?;
    Some(Text::Raw(position(start)..position(end)))
}

fn keep(decoded: &mut Vec<String>, string: &str) -> Text {
    decoded.push(string.to_owned());
    Text::Decoded(decoded.len() - 1)
}

/// Members whose names are compared each with each.
const FEW: usize = 24;

const fn deeper(depth: usize, at: usize) -> Result<usize, DocumentError> {
    if depth >= DEPTH_MAX { Err(DocumentError::TooDeep(at)) } else { Ok(depth + 1) }
}

/// A string for use in messages about a JSON pointer's last part (RFC 6901 section 3).
#[must_use]
pub fn pointer_part(name: &str) -> Cow<'_, str> {
    if name.contains(['~', '/']) { Cow::Owned(name.replace('~', "~0").replace('/', "~1")) } else { Cow::Borrowed(name) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Document, DocumentError> {
        Document::parse(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn values_are_found_where_they_stand() {
        let text = r#" {"a": {"b" : [1, "x\u0041", {}]}, "t": true, "": null} "#;
        let document = parse(text).unwrap();
        let root = document.root();
        assert_eq!(root.members().map(|(name, _)| name).collect::<Vec<_>>(), ["a", "t", ""]);
        let list = root.at(&["a", "b"]).unwrap();
        assert_eq!(list.elements().count(), 3);
        assert_eq!(list.elements().next().unwrap().as_integer(), Some(1));
        assert_eq!(list.elements().nth(1).unwrap().as_str(), Some("xA"));
        assert_eq!(list.raw(), br#"[1, "x\u0041", {}]"#);
        assert_eq!(root.member("").unwrap().kind(), Kind::Null);
        assert_eq!(root.member("t").unwrap().kind(), Kind::True);
        assert!(root.member("b").is_none());
    }

    #[test]
    fn what_two_parsers_could_read_differently_is_refused() {
        for text in
            [r#"{"a":1,"a":2}"#, r#"{"a":1,"\u0061":2}"#, r#"{"x":{"a":1,"b":2,"a":3}}"#, r#"[{"a":[],"a":[]}]"#]
        {
            assert!(matches!(parse(text), Err(DocumentError::Repeated(_))), "{text}");
        }
        assert!(parse(r#"{"a":{"a":1},"b":{"a":1}}"#).is_ok());
        let wide: String = (0..50).map(|n| format!("\"k{n}\":0,")).collect();
        assert!(parse(&format!("{{{wide}\"k\":0}}")).is_ok());
        assert!(matches!(parse(&format!("{{{wide}\"k7\":0}}")), Err(DocumentError::Repeated(_))));
    }

    #[test]
    fn hostile_texts_are_refused_without_a_panic() {
        for text in [
            "",
            " ",
            "{",
            "{]",
            "nul",
            "\"",
            "\"\\x\"",
            "01",
            "1e",
            "+1",
            "NaN",
            "Infinity",
            "{\"a\"}",
            "{,}",
            "[1,]",
            "{} {}",
            "\u{feff}{}",
            "\"\\ud800\"",
            "\"a\tb\"",
            "{\"a\":1,}",
            "'a'",
            "{a:1}",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        assert!(Document::parse(Bytes::from_static(b"\"\xff\"")).is_err());
        assert!(Document::parse(Bytes::from_static(b"{\"\xc3\x28\":1}")).is_err());
        assert!(matches!(parse("1e999"), Err(DocumentError::NumberOutOfRange(_))));
        assert!(matches!(parse("[-1e999]"), Err(DocumentError::NumberOutOfRange(_))));
        assert!(matches!(parse(&"[".repeat(1_000)), Err(DocumentError::TooDeep(_))));
        assert!(matches!(parse(&"{\"a\":".repeat(100_000)), Err(DocumentError::TooDeep(_))));
        let deepest = format!("{}{}", "[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX));
        assert!(parse(&deepest).is_ok());
        assert!(parse(&format!("[{deepest}]")).is_err());
    }

    #[test]
    fn meaning_ignores_what_json_ignores() {
        let meaning = |text: &str| parse(text).unwrap().meaning();
        assert_eq!(meaning(r#"{"a":1,"b":[1,2]}"#), meaning("{ \"b\" : [ 1,2 ],\n\"\\u0061\":1 }"));
        for (one, other) in [
            (r#"{"a":1}"#, r#"{"a":2}"#),
            (r#"{"a":1}"#, r#"{"a":"1"}"#),
            (r#"{"a":1.0}"#, r#"{"a":1.00}"#),
            ("[1,2]", "[2,1]"),
            ("[[1],2]", "[[1,2]]"),
            (r#"{"a":12345678901234567890123}"#, r#"{"a":12345678901234567890124}"#),
            (r#"{"a":null}"#, "{}"),
            (r#"["ab","c"]"#, r#"["a","bc"]"#),
        ] {
            assert_ne!(meaning(one), meaning(other), "{one} {other}");
        }
    }

    #[test]
    fn splicing_touches_nothing_else() {
        let text = "{ \"a\" : \"old\" ,\n \"n\": 1.50 }\n";
        let set = |name, value: &str| Member { name, value: value.to_owned() };
        let document = parse(text).unwrap();
        assert_eq!(document.splice(&[]), text);
        assert_eq!(document.splice(&[set("r", "x\"y")]), "{\"r\":\"x\\\"y\", \"a\" : \"old\" ,\n \"n\": 1.50 }\n");
        assert_eq!(document.splice(&[set("a", "new")]), "{ \"a\" : \"new\" ,\n \"n\": 1.50 }\n");
        assert_eq!(
            document.splice(&[set("q", "1"), set("a", "new"), set("r", "2")]),
            "{\"q\":\"1\",\"r\":\"2\", \"a\" : \"new\" ,\n \"n\": 1.50 }\n"
        );
        assert_eq!(parse(" {  } ").unwrap().splice(&[set("r", "1")]), " {\"r\":\"1\"  } ");
        assert_eq!(parse("[]").unwrap().splice(&[set("r", "1")]), "[]");
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            ".*".prop_map(Into::into),
        ];
        leaf.prop_recursive(5, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                prop::collection::hash_map(".*", inner, 0..6)
                    .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn reads_what_serde_json_writes(value in any_json()) {
            let compact = parse(&value.to_string()).unwrap();
            let pretty = parse(&serde_json::to_string_pretty(&value).unwrap()).unwrap();
            prop_assert_eq!(compact.meaning(), pretty.meaning());
            let back: serde_json::Value = serde_json::from_slice(compact.root().raw()).unwrap();
            prop_assert_eq!(back, value);
        }

        #[test]
        fn accepts_nothing_that_serde_json_refuses(text in "[\\[\\]{}:,\"a0-9.eE+\\- \\\\utrnfalse]{0,40}") {
            if let Ok(document) = parse(&text) {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{}", text);
                prop_assert!(document.root().span().end <= text.len());
            }
        }

        #[test]
        fn a_spliced_member_is_read_back(value in any_json(), new in ".*") {
            prop_assume!(value.is_object());
            let document = parse(&value.to_string()).unwrap();
            let spliced = Document::parse(document.splice(&[Member { name: "trxId", value: new.clone() }])).unwrap();
            prop_assert_eq!(spliced.root().member("trxId").unwrap().as_str(), Some(new.as_str()));
            for (name, before) in document.root().members().filter(|(name, _)| *name != "trxId") {
                prop_assert_eq!(spliced.root().member(name).unwrap().raw(), before.raw());
            }
        }
    }
}
