//! Holds a tree against the JSON Schema: unknown keys, wrong types, wrong words, missing keys.
//!
//! Promises that every such problem is found at once and that what is left is something serde takes:
//! a value with a problem is left out, so that its default stands in while the rest is judged. The
//! schema comes from the structs of `raw`, so there is one list of keys. Keys of later versions are
//! in `later` and are refused by name.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json};

use super::findings::{Findings, Source, join};
use super::later::{self, Later};
use super::problem::{Place, Problem, nearest};
use super::quantity;
use super::tree::{Key, Node, Text, Value, plain};

/// Holds a tree against a schema. `problems` are those found before; they are carried on.
///
/// Nothing comes back when there is not even a mapping; the findings then say so.
pub(super) fn conform(
    root: &Node,
    schema: &Json,
    later: &'static [Later],
    problems: Vec<Problem>,
) -> (Option<Json>, Findings) {
    let mut walk = Walk { schema, later, found: Findings { problems, ..Findings::default() } };
    let json = walk.value(root, schema, "");
    (json, walk.found)
}

struct Walk<'a> {
    schema: &'a Json,
    later: &'static [Later],
    found: Findings,
}

impl<'a> Walk<'a> {
    /// The value as JSON; nothing when it has a problem.
    fn value(&mut self, node: &Node, schema: &'a Json, path: &str) -> Option<Json> {
        let schema = self.resolve(schema);
        let outside = matches!(&node.value, Value::Text(Text { outside: true, .. }));
        self.found.sources.entry(path.to_owned()).or_insert(Source { place: node.place, outside });
        if matches!(node.value, Value::Broken) {
            self.found.settled.insert(path.to_owned());
            return None;
        }
        if let Some(words) = words(schema) {
            return self.word(node, &words, path);
        }
        let wanted = schema.get("type").and_then(Json::as_str).unwrap_or_default();
        match (wanted, &node.value) {
            ("object", Value::Map(entries)) => Some(self.map(entries, node.place, schema, path)),
            ("array", Value::List(nodes)) => Some(self.list(nodes, node.place, schema, path)),
            ("boolean", Value::Bool(value)) => Some(Json::Bool(*value)),
            ("integer", Value::Integer(value)) => self.integer(*value, node.place, schema, path),
            ("string", Value::Text(text)) => self.text(text, node.place, schema, path),
            ("string", Value::Integer(_) | Value::Float) if schema.get("x-quantity").is_some() => {
                let kind = schema.get("x-quantity").and_then(Json::as_str).unwrap_or_default();
                // No quantity is a bare number, so its complaint about an empty text fits.
                let expected = quantity::complaint(kind, "").unwrap_or_default();
                self.found.problems.push(Problem::new(Some(node.place), path, expected).hint("found a bare number"));
                None
            }
            // A reference may stand for a number or a switch: `attempts: ${ATTEMPTS}`.
            ("boolean" | "integer", Value::Text(Text { text, outside: true })) => {
                let typed = Node { place: node.place, value: plain(text) };
                match (wanted, &typed.value) {
                    ("boolean", Value::Bool(value)) => Some(Json::Bool(*value)),
                    ("integer", Value::Integer(value)) => self.integer(*value, node.place, schema, path),
                    _ => self.wrong_type(node, wanted, path),
                }
            }
            _ => self.wrong_type(node, wanted, path),
        }
    }

    fn map(&mut self, entries: &[(Key, Node)], place: Place, schema: &'a Json, path: &str) -> Json {
        let known = schema.get("properties").and_then(Json::as_object);
        let mut map = Map::new();
        let mut seen = BTreeSet::new();
        for (key, node) in entries {
            let path = join(path, &key.name);
            // What cannot be a key, and the second of two equal ones, has been reported.
            if key.name.is_empty() || !seen.insert(key.name.as_str()) {
                continue;
            }
            match known.and_then(|known| known.get(&key.name)) {
                Some(schema) => {
                    if matches!(node.value, Value::Map(_) | Value::List(_)) {
                        self.found.sources.insert(path.clone(), Source { place: key.place, outside: false });
                    }
                    if let Some(value) = self.value(node, schema, &path) {
                        map.insert(key.name.clone(), value);
                    }
                }
                None => self.unknown(key, known, &path),
            }
        }
        let required = schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str);
        let place = self.found.sources.get(path).map_or(place, |source| source.place);
        for name in required.filter(|name| !seen.contains(name)) {
            let described = known.and_then(|known| known.get(name)).and_then(|key| key.get("description"));
            let mut problem = Problem::new(Some(place), join(path, name), "missing");
            problem.hint = described.and_then(Json::as_str).map(|text| first_sentence(text).to_owned());
            self.found.problems.push(problem);
        }
        Json::Object(map)
    }

    fn list(&mut self, nodes: &[Node], place: Place, schema: &'a Json, path: &str) -> Json {
        let least = schema.get("minItems").and_then(Json::as_u64).unwrap_or(0);
        if (nodes.len() as u64) < least {
            self.found.problems.push(Problem::new(Some(place), path, format!("at least {least} needed")));
        }
        let items = schema.get("items").unwrap_or(&Json::Null);
        // An element with a problem leaves an empty one behind, so that indexes keep their meaning.
        let empty = if self.resolve(items).get("type").and_then(Json::as_str) == Some("object") {
            Json::Object(Map::new())
        } else {
            Json::Null
        };
        let mut list = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.iter().enumerate() {
            let value = self.value(node, items, &format!("{path}[{index}]"));
            match value {
                Some(value) => list.push(value),
                None if empty.is_object() => list.push(empty.clone()),
                None => {}
            }
        }
        Json::Array(list)
    }

    fn integer(&mut self, value: i64, place: Place, schema: &Json, path: &str) -> Option<Json> {
        if let Some(choices) = schema.get("enum").and_then(Json::as_array) {
            if choices.contains(&Json::from(value)) {
                return Some(Json::from(value));
            }
            let choices = choices.iter().map(Json::to_string).collect::<Vec<_>>().join(" or ");
            self.found.problems.push(Problem::new(Some(place), path, format!("must be {choices}")));
            return None;
        }
        let least = schema.get("minimum").and_then(Json::as_i64).unwrap_or(i64::MIN);
        let most = schema.get("maximum").and_then(Json::as_i64).unwrap_or(i64::MAX);
        if (least..=most).contains(&value) {
            return Some(Json::from(value));
        }
        let expected = if least == most { format!("must be {least}") } else { format!("must be {least} to {most}") };
        self.found.problems.push(Problem::new(Some(place), path, expected));
        None
    }

    fn text(&mut self, text: &Text, place: Place, schema: &Json, path: &str) -> Option<Json> {
        let kind = schema.get("x-quantity").and_then(Json::as_str).unwrap_or_default();
        match quantity::complaint(kind, &text.text) {
            None => Some(Json::String(String::clone(&text.text))),
            Some(expected) => {
                self.found.problems.push(Problem::new(Some(place), path, expected));
                None
            }
        }
    }

    /// One of a closed list of words.
    fn word(&mut self, node: &Node, words: &[&str], path: &str) -> Option<Json> {
        let Value::Text(Text { text, outside }) = &node.value else {
            self.wrong_type(node, "string", path);
            return self.list_words(path, words);
        };
        if words.contains(&text.as_str()) {
            return Some(Json::String(String::clone(text)));
        }
        if let Some(later) = later::value(self.later, path, text) {
            let problem = Problem::new(Some(node.place), path, format!("`{}` is {}", text.as_str(), later::REFUSAL));
            self.found.problems.push(problem.hint(later.hint));
            return None;
        }
        let found = if *outside { "the value".to_owned() } else { format!("`{}`", text.as_str()) };
        let message = match words {
            [only] => format!("{found} is not `{only}`, the only choice"),
            _ => format!("{found} is not one of {}", words.join(", ")),
        };
        let mut problem = Problem::new(Some(node.place), path, message);
        problem.hint = nearest(text, words.iter().copied()).map(did_you_mean);
        self.found.problems.push(problem);
        None
    }

    /// Adds the choices to the type problem just reported.
    fn list_words(&mut self, path: &str, words: &[&str]) -> Option<Json> {
        if let Some(problem) = self.found.problems.last_mut().filter(|problem| problem.path == path) {
            problem.hint = Some(format!("one of {}", words.join(", ")));
        }
        None
    }

    fn unknown(&mut self, key: &Key, known: Option<&Map<String, Json>>, path: &str) {
        let place = Some(key.place);
        let problem = match later::key(self.later, path) {
            Some(later) => Problem::new(place, path, later::REFUSAL).hint(later.hint),
            None => {
                let names = || known.into_iter().flatten().map(|(name, _)| name.as_str());
                let problem = Problem::new(place, path, "unknown key");
                match nearest(&key.name, names()) {
                    Some(name) => problem.hint(did_you_mean(name)),
                    None => problem.hint(format!("known here: {}", names().collect::<Vec<_>>().join(", "))),
                }
            }
        };
        self.found.problems.push(problem);
    }

    fn wrong_type(&mut self, node: &Node, wanted: &str, path: &str) -> Option<Json> {
        if path.is_empty() && matches!(node.value, Value::Null) {
            self.found.problems.push(Problem::new(None, path, "the file is empty"));
            return None;
        }
        let expected = match wanted {
            "object" => "keys with values",
            "array" => "a list",
            "boolean" => "true or false",
            "integer" => "a whole number",
            _ => "a string",
        };
        let found = match &node.value {
            Value::Broken | Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Integer(_) => "a number",
            Value::Float => "a number that is not a whole one, or too large",
            Value::Text(_) => "a string",
            Value::List(_) => "a list",
            Value::Map(_) => "keys with values",
        };
        let hint = match (wanted, &node.value) {
            (_, Value::Null) => Some("leave the key out to get its default"),
            ("string", Value::Bool(_) | Value::Integer(_) | Value::Float) => Some("put it in quotes"),
            ("integer", Value::Text(_)) => Some("a number without quotes and without a unit"),
            ("boolean", Value::Text(_)) => Some("without quotes"),
            ("array", _) => Some("each entry starts with `- `"),
            _ => None,
        };
        let mut problem = Problem::new(Some(node.place), path, format!("expected {expected}, found {found}"));
        problem.hint = hint.map(str::to_owned);
        self.found.problems.push(problem);
        None
    }

    /// Follows references into the schema's definitions.
    fn resolve(&self, mut schema: &'a Json) -> &'a Json {
        // Definitions of ours never refer to themselves; the bound only makes that plain.
        for _ in 0..MOST_REFERENCES {
            let target = schema.get("$ref").and_then(Json::as_str).and_then(|reference| reference.strip_prefix('#'));
            match target.and_then(|pointer| self.schema.pointer(pointer)) {
                Some(found) => schema = found,
                None => break,
            }
        }
        schema
    }
}

/// The closed list of words a schema allows, if it is one.
fn words(schema: &Json) -> Option<Vec<&str>> {
    if let Some(word) = schema.get("const").and_then(Json::as_str) {
        return Some(vec![word]);
    }
    if let Some(list) = schema.get("enum").and_then(Json::as_array) {
        // A list of numbers is `integer`'s to judge.
        return list.iter().map(Json::as_str).collect();
    }
    let choices = schema.get("oneOf").and_then(Json::as_array)?;
    Some(choices.iter().filter_map(words).flatten().collect())
}

fn did_you_mean(word: &str) -> String {
    format!("did you mean `{word}`?")
}

/// As much of a description as fits a hint.
fn first_sentence(text: &str) -> &str {
    let line = text.lines().next().unwrap_or_default();
    let end = [". ", "; "].iter().filter_map(|stop| line.find(stop)).min().unwrap_or(line.len());
    line.get(..end).unwrap_or(line).trim_end_matches('.')
}

/// References that are followed one after the other.
const MOST_REFERENCES: usize = 8;
