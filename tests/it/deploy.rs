//! What `deploy/` and the Dockerfile say is true of this program: the paths, commands, keys and metrics they name exist.
//!
//! That they are well-formed for the tools that read them is those tools' word, which `.ci/run` asks for.

mod files;
mod watching;

use std::path::{Path, PathBuf};

use saphyr::{LoadableYamlNode as _, Scalar, Yaml};
use serde_json::Value;

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The documents of a YAML file.
fn yaml(name: &str) -> Vec<Value> {
    let documents = Yaml::load_from_str(&text(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    documents.iter().map(json).collect()
}

fn json(node: &Yaml<'_>) -> Value {
    match node {
        Yaml::Value(Scalar::String(text)) => text.as_ref().into(),
        Yaml::Value(Scalar::Integer(number)) => (*number).into(),
        Yaml::Value(Scalar::Boolean(is)) => (*is).into(),
        Yaml::Value(Scalar::FloatingPoint(number)) => number.into_inner().into(),
        Yaml::Value(Scalar::Null) => Value::Null,
        Yaml::Sequence(list) => list.iter().map(json).collect(),
        Yaml::Mapping(map) => map.iter().map(|(key, value)| (key.as_str().unwrap().to_owned(), json(value))).collect(),
        other => panic!("not plain YAML: {other:?}"),
    }
}

/// A member that has to be a text.
fn said<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no text at {pointer} of {value}"))
}

/// A member that has to be a list.
fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).unwrap_or_else(|| panic!("no list at {pointer} of {value}"))
}
