//! YAML as a tree that knows where every node stood.
//!
//! Promises a tree no larger than the text it came from: aliases are refused rather than expanded,
//! nesting is bounded, one document a file. Duplicate keys, aliases and tags are all reported, not
//! the first only. What the values mean is for `conform` to say; texts are still as written.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use zeroize::Zeroizing;

use super::problem::{Place, Problem};

/// A value and its position.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// What YAML can hold here.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// Already reported; nothing more is said about it.
    Broken,
    Null,
    Bool(bool),
    /// A plain scalar that is a whole number by YAML's core schema and fits.
    Integer(i64),
    /// Any other number; no key of ours takes one.
    Float,
    Text(Text),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A string; overwritten when it is dropped, since it may be a secret.
#[derive(Clone, Debug)]
pub(super) struct Text {
    pub(super) text: Zeroizing<String>,
    /// Whether part of it came from the environment or a file, so that no message may repeat it.
    pub(super) outside: bool,
}

/// The key of a mapping's entry.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) place: Place,
    pub(super) name: String,
}

/// Reads one document.
///
/// The tree is usable even when there are problems; without one, the text is not YAML.
pub(super) fn parse(text: &str) -> (Option<Node>, Vec<Problem>) {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = match event {
            Ok(event) => event,
            Err(error) => {
                let marker = error.marker();
                let place = Place { line: marker.line(), column: marker.col() + 1 };
                builder.problems.push(syntax(place, error.info()));
                return (None, builder.problems);
            }
        };
        if let Err(fatal) = builder.take(event, start(span)) {
            builder.problems.push(fatal);
            return (None, builder.problems);
        }
    }
    let empty = Node { place: Place { line: 1, column: 1 }, value: Value::Null };
    (Some(builder.root.unwrap_or(empty)), builder.problems)
}

/// The type a plain scalar has by YAML 1.2's core schema.
pub(super) fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if let Ok(number) = text.parse() {
        return Value::Integer(number);
    }
    let based = unsigned.strip_prefix("0x").or_else(|| unsigned.strip_prefix("0o"));
    let numeric = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') && unsigned.parse::<f64>().is_ok();
    if numeric || based.is_some_and(|digits| u64::from_str_radix(digits, 16).is_ok()) {
        return Value::Float;
    }
    Value::Text(Text { text: text.to_owned().into(), outside: false })
}

/// Puts events together.
#[derive(Default)]
struct Builder {
    root: Option<Node>,
    /// Collections that are still open, innermost last.
    open: Vec<Open>,
    documents: usize,
    problems: Vec<Problem>,
}

/// A collection that is still open.
struct Open {
    place: Place,
    content: Content,
}

/// What an open collection holds so far.
enum Content {
    List(Vec<Node>),
    Map {
        entries: Vec<(Key, Node)>,
        /// The key whose value comes next.
        key: Option<Key>,
        /// The keys so far, and the lines they were first given in.
        first: BTreeMap<String, usize>,
    },
}

impl Builder {
    /// Takes the next event. An error ends the reading.
    fn take(&mut self, event: Event<'_>, place: Place) -> Result<(), Problem> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(syntax(place, "a second document").hint("one document a file; remove the `---`"));
                }
                Ok(())
            }
            Event::Alias(_) => {
                let problem = syntax(place, "aliases are not supported").hint("write the value out");
                self.problems.push(problem);
                self.insert(Node { place, value: Value::Broken });
                Ok(())
            }
            Event::Scalar(text, style, _, tag) => {
                let is_text = tag.as_ref().is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str");
                if tag.is_some() && !is_text {
                    self.refuse_tag(place);
                }
                let value = if style == ScalarStyle::Plain && !is_text {
                    plain(&text)
                } else {
                    Value::Text(Text { text: text.into_owned().into(), outside: false })
                };
                self.insert(Node { place, value });
                Ok(())
            }
            Event::SequenceStart(_, tag) => self.begin(place, Content::List(Vec::new()), tag.is_some()),
            Event::MappingStart(_, tag) => self.begin(
                place,
                Content::Map { entries: Vec::new(), key: None, first: BTreeMap::new() },
                tag.is_some(),
            ),
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(Open { place, content }) = self.open.pop() {
                    let value = match content {
                        Content::List(nodes) => Value::List(nodes),
                        Content::Map { entries, .. } => Value::Map(entries),
                    };
                    self.insert(Node { place, value });
                }
                Ok(())
            }
        }
    }

    fn begin(&mut self, place: Place, content: Content, tagged: bool) -> Result<(), Problem> {
        if tagged {
            self.refuse_tag(place);
        }
        if self.open.len() >= MOST_DEPTH {
            return Err(syntax(place, "nested too deeply").hint(format!("at most {MOST_DEPTH} levels")));
        }
        self.open.push(Open { place, content });
        Ok(())
    }

    fn refuse_tag(&mut self, place: Place) {
        self.problems.push(syntax(place, "tags are not supported").hint("remove the word with the `!`"));
    }

    /// Puts a finished node where it belongs: a list, a key, a value, or the top.
    fn insert(&mut self, node: Node) {
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.root = Some(node),
            Some(Content::List(nodes)) => nodes.push(node),
            Some(Content::Map { entries, key, first }) => match key.take() {
                Some(name) => entries.push((name, node)),
                None => {
                    let place = node.place;
                    let (name, problem) = key_name(node);
                    let earlier = first.get(&name).filter(|_| !name.is_empty());
                    let duplicate = earlier.map(|line| {
                        syntax(place, format!("the key `{name}` is given twice")).hint(format!("first in line {line}"))
                    });
                    first.entry(name.clone()).or_insert(place.line);
                    self.problems.extend(problem.or(duplicate));
                    *key = Some(Key { place, name });
                }
            },
        }
    }
}

/// The text of a key; empty, with a problem, where there is none.
fn key_name(node: Node) -> (String, Option<Problem>) {
    let name = match node.value {
        Value::Text(text) => String::clone(&text.text),
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Integer(value) => value.to_string(),
        // An alias or a tag: reported as such.
        Value::Broken => return (String::new(), None),
        Value::Float | Value::List(_) | Value::Map(_) => String::new(),
    };
    let problem =
        name.is_empty().then(|| syntax(node.place, "this cannot be a key").hint("a key is a word followed by `:`"));
    (name, problem)
}

fn syntax(place: Place, message: impl AsRef<str>) -> Problem {
    Problem::new(Some(place), "", format!("YAML: {}", message.as_ref()))
}

fn start(span: Span) -> Place {
    // The parser counts columns from 0; editors count from 1.
    Place { line: span.start.line(), column: span.start.col() + 1 }
}

/// Levels of nesting; the deepest key of ours is at six.
const MOST_DEPTH: usize = 16;
