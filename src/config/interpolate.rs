//! `${VAR}`, `${VAR:-default}` and `${file:/path}` in strings.
//!
//! Promises that only `${` starts a reference, that what is put in is never looked at again (a
//! password may contain `${`), and that no message contains it. Looking up variables is the caller's
//! function, so that tests need no environment; files are read here, bounded in size.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use zeroize::Zeroizing;

use super::findings::join;
use super::problem::Problem;
use super::tree::{Node, Text, Value};

/// Where references lead.
pub(super) struct Sources<'a> {
    /// An environment variable's value.
    pub(super) env: &'a dyn Fn(&str) -> Option<String>,
    /// Relative paths count from here: the configuration file's folder.
    pub(super) folder: &'a Path,
}

/// Replaces every reference in every string of the tree; what cannot be resolved becomes
/// [`Value::Broken`] with a problem at its place. `path` is the node's.
pub(super) fn expand(node: &mut Node, path: &str, sources: &Sources<'_>, problems: &mut Vec<Problem>) {
    match &mut node.value {
        Value::Text(text) if text.text.contains("${") => match resolve(&text.text, sources) {
            Ok(resolved) => *text = Text { text: resolved, outside: true },
            Err(Trouble { message, hint }) => {
                problems.push(Problem { place: Some(node.place), path: path.to_owned(), message, hint });
                node.value = Value::Broken;
            }
        },
        Value::List(nodes) => {
            for (index, node) in nodes.iter_mut().enumerate() {
                expand(node, &format!("{path}[{index}]"), sources, problems);
            }
        }
        Value::Map(entries) => {
            for (key, node) in entries {
                expand(node, &join(path, &key.name), sources, problems);
            }
        }
        Value::Broken | Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float | Value::Text(_) => {}
    }
}

/// Why a reference cannot be resolved.
struct Trouble {
    message: String,
    hint: Option<String>,
}

impl Trouble {
    fn new(message: String, hint: &str) -> Self {
        Self { message, hint: Some(hint.to_owned()) }
    }
}

/// The text with every reference replaced.
fn resolve(text: &str, sources: &Sources<'_>) -> Result<Zeroizing<String>, Trouble> {
    let mut resolved = Zeroizing::new(String::new());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        resolved.push_str(before);
        let Some((reference, after)) = after.split_once('}') else {
            return Err(Trouble::new("`${` without `}`".to_owned(), FORMS));
        };
        resolved.push_str(&look_up(reference, sources)?);
        rest = after;
    }
    resolved.push_str(rest);
    Ok(resolved)
}

/// What one reference (without its braces) stands for.
fn look_up(reference: &str, sources: &Sources<'_>) -> Result<Zeroizing<String>, Trouble> {
    if reference.contains("${") {
        let message = "a reference inside a reference".to_owned();
        return Err(Trouble::new(message, "a default is plain text; put the whole value into one variable"));
    }
    if let Some(path) = reference.strip_prefix("file:") {
        return read_file(path, sources.folder);
    }
    let (name, default) = match reference.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (reference, None),
    };
    if !is_variable_name(name) {
        // Not repeated: it may be part of a password that was typed into the file.
        return Err(Trouble::new("`${…}` is not a reference".to_owned(), FORMS));
    }
    match ((sources.env)(name), default) {
        // As in a shell, `:-` also replaces an empty value.
        (Some(value), Some(default)) if value.is_empty() => Ok(default.to_owned().into()),
        (Some(value), _) => Ok(value.into()),
        (None, Some(default)) => Ok(default.to_owned().into()),
        (None, None) => {
            let hint = format!("set it, or write ${{{name}:-default}}");
            Err(Trouble::new(format!("the environment variable {name} is not set"), &hint))
        }
    }
}

/// A file's content without its last line end.
fn read_file(path: &str, folder: &Path) -> Result<Zeroizing<String>, Trouble> {
    let path = folder.join(path);
    let trouble = |reason: String, hint: Option<&str>| Trouble {
        message: format!("cannot read {}: {reason}", path.display()),
        hint: hint.map(str::to_owned),
    };
    // Large enough from the start: growing would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_CAPACITY));
    let read = File::open(&path).and_then(|file| file.take(MOST_FILE_BYTES + 1).read_to_end(&mut bytes));
    read.map_err(|error| {
        trouble(error.to_string(), Some("a relative path counts from the configuration file's folder"))
    })?;
    if bytes.len() as u64 > MOST_FILE_BYTES {
        return Err(trouble("larger than 64 KiB".to_owned(), Some("a key or a password is meant")));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| trouble("not UTF-8 text".to_owned(), None))?;
    let line = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
    Ok(line.to_owned().into())
}

fn is_variable_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// The three forms, for hints.
const FORMS: &str = "${VAR}, ${VAR:-default} or ${file:/path}";
/// Longest file a reference may name.
const MOST_FILE_BYTES: u64 = 64 * 1024;
/// Room for it, and for seeing that it ends.
const FILE_CAPACITY: usize = 65 * 1024;

#[cfg(test)]
mod tests {
    use super::{Path, Sources, resolve};

    fn check(text: &str, expected: Result<&str, &str>) {
        let env = |name: &str| match name {
            "SET" => Some("value".to_owned()),
            "EMPTY" => Some(String::new()),
            "TRICKY" => Some("a${SET}b".to_owned()),
            _ => None,
        };
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("one"), "line\n").unwrap();
        std::fs::write(folder.path().join("two"), "line\n\n").unwrap();
        std::fs::write(folder.path().join("windows"), "line\r\n").unwrap();
        std::fs::write(folder.path().join("binary"), [0xff]).unwrap();
        std::fs::write(folder.path().join("large"), vec![b'x'; 65_537]).unwrap();
        let resolved = resolve(text, &Sources { env: &env, folder: folder.path() });
        let shown = resolved.map_err(|trouble| trouble.message.replace(&folder.path().display().to_string(), "DIR"));
        assert_eq!(shown.as_ref().map(|text| text.as_str()).map_err(String::as_str), expected, "{text}");
    }

    #[test]
    fn variables() {
        check("${SET}", Ok("value"));
        check("a ${SET} and ${SET}", Ok("a value and value"));
        check("${UNSET}", Err("the environment variable UNSET is not set"));
        check("${UNSET:-fallback}", Ok("fallback"));
        check("${UNSET:-}", Ok(""));
        check("${UNSET:-a:-b}", Ok("a:-b"));
        check("${SET:-fallback}", Ok("value"));
        check("${EMPTY}", Ok(""));
        check("${EMPTY:-fallback}", Ok("fallback"));
    }

    #[test]
    fn only_braces_after_a_dollar_count() {
        check("$SET {SET} {{SET}} $$ $", Ok("$SET {SET} {{SET}} $$ $"));
        check("$${SET}", Ok("$value"));
        check("{${SET}}", Ok("{value}"));
        // What is put in is not read again.
        check("${TRICKY}", Ok("a${SET}b"));
        check("${SET", Err("`${` without `}`"));
        check("${}", Err("`${…}` is not a reference"));
        check("${ SET }", Err("`${…}` is not a reference"));
        check("${SET:+x}", Err("`${…}` is not a reference"));
        check("${UNSET:-${SET}}", Err("a reference inside a reference"));
    }

    #[test]
    fn files_lose_one_final_newline() {
        check("${file:one}", Ok("line"));
        check("${file:two}", Ok("line\n"));
        check("${file:windows}", Ok("line"));
        check("${file:none}", Err("cannot read DIR/none: No such file or directory (os error 2)"));
        check("${file:binary}", Err("cannot read DIR/binary: not UTF-8 text"));
        check("${file:large}", Err("cannot read DIR/large: larger than 64 KiB"));
        let absolute = Path::new(env!("CARGO_MANIFEST_DIR")).join("rustfmt.toml");
        check(&format!("${{file:{}}}", absolute.display()), Ok("max_width = 120\nuse_small_heuristics = \"Max\""));
    }
}
