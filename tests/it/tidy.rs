//! House rules that the compiler and clippy cannot hold.
//!
//! Promises that the invariants ARCHITECTURE.md states about the sources are true of them: who may
//! read a clock, who may know whom, how long a function may be. Sources are read as text, formatted
//! by rustfmt, which is what makes reading them as text good enough. Product code is meant unless a
//! rule says otherwise: a unit test may do what its module may not.
//!
//! An exception goes into [`KNOWN`] with its reason, and comes out again when it is no longer one.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

/// Exceptions: rule, file, reason. This list may only shrink.
const KNOWN: &[(&str, &str, &str)] = &[];

/// A breach of a rule at a line (counted from one; zero where the file as a whole is meant).
struct Breach {
    rule: &'static str,
    file: String,
    line: usize,
    detail: String,
}

/// One source file.
struct Source {
    /// From the repository's root, with slashes.
    path: String,
    text: String,
    /// The lines outside unit tests with comments and texts blanked out, so that a rule's needle
    /// does not match prose. Empty for a file that is a unit test as a whole.
    code: Vec<String>,
}

impl Source {
    fn new(path: String, text: String) -> Self {
        let code = if is_unit_test_file(&path) { Vec::new() } else { product_code(&text) };
        Self { path, text, code }
    }

    fn within(&self, folders: &[&str]) -> bool {
        folders.iter().any(|folder| self.path.starts_with(folder))
    }

    /// The module's name in `src/layers/`.
    fn layer(&self) -> Option<&str> {
        self.path.strip_prefix("src/layers/")?.strip_suffix(".rs").filter(|name| *name != "mod")
    }

    /// A breach for each line of product code that contains one of the needles as a whole path.
    fn mentions(&self, rule: &'static str, needles: &[&str], breaches: &mut Vec<Breach>) {
        for (number, line) in self.code.iter().enumerate() {
            for needle in needles.iter().filter(|needle| contains_path(line, needle)) {
                breaches.push(self.breach(rule, number + 1, format!("mentions {needle}")));
            }
        }
    }

    fn breach(&self, rule: &'static str, line: usize, detail: String) -> Breach {
        Breach { rule, file: self.path.clone(), line, detail }
    }
}

#[test]
fn sources_are_tidy() {
    let sources = sources("src");
    assert!(sources.iter().any(|source| source.path == "src/lib.rs"));
    let layers: BTreeSet<&str> = sources.iter().filter_map(Source::layer).collect();
    let mut breaches = Vec::new();
    for source in &sources {
        names(source, &mut breaches);
        header(source, &mut breaches);
        function_lengths(source, &mut breaches);
        clocks_and_effects(source, &mut breaches);
        acquaintances(source, &layers, &mut breaches);
        unfinished(source, &mut breaches);
    }
    for source in ["fuzz/src", "fuzz/fuzz_targets"].into_iter().flat_map(self::sources) {
        names(&source, &mut breaches);
        header(&source, &mut breaches);
        function_lengths(&source, &mut breaches);
        clocks_and_effects(&source, &mut breaches);
        unfinished(&source, &mut breaches);
    }
    for source in self::sources("benches") {
        names(&source, &mut breaches);
        header(&source, &mut breaches);
        function_lengths(&source, &mut breaches);
        unfinished(&source, &mut breaches);
    }
    // Tests may not be switched off or left half-written either.
    for source in self::sources("tests") {
        unfinished(&source, &mut breaches);
    }
    report(&breaches);
}

fn report(breaches: &[Breach]) {
    let mut message = String::new();
    for breach in breaches {
        if !KNOWN.iter().any(|(rule, file, _)| *rule == breach.rule && *file == breach.file) {
            writeln!(message, "{}:{}: [{}] {}", breach.file, breach.line, breach.rule, breach.detail).unwrap();
        }
    }
    for (rule, file, reason) in KNOWN {
        assert!(reason.len() > 10, "KNOWN: {rule} of {file} needs a reason");
        if !breaches.iter().any(|breach| breach.rule == *rule && breach.file == *file) {
            writeln!(message, "KNOWN: {file} no longer breaks [{rule}]: remove the entry").unwrap();
        }
    }
    assert!(message.is_empty(), "house rules broken:\n{message}");
}

/// A name that says nothing invites everything.
fn names(source: &Source, breaches: &mut Vec<Breach>) {
    let banned = ["utils", "util", "helpers", "helper", "common", "types", "misc"];
    for part in source.path.trim_end_matches(".rs").split('/') {
        if banned.contains(&part) {
            breaches.push(source.breach("names", 0, format!("is called {part}: name it for what it does")));
        }
    }
}

/// Every file says what it promises: at least one sentence before anything else.
fn header(source: &Source, breaches: &mut Vec<Breach>) {
    let lines = source.text.lines().map_while(|line| line.strip_prefix("//!"));
    let header = lines.collect::<Vec<_>>().join(" ");
    let sentence = header
        .split_inclusive(['.', '!', '?'])
        .any(|sentence| sentence.ends_with(['.', '!', '?']) && sentence.split_whitespace().count() >= 3);
    if !sentence {
        breaches.push(source.breach("header", 1, "does not open with a `//!` sentence".to_owned()));
    }
}

/// One screen: a function has at most 70 lines, from its `fn` to its closing brace.
fn function_lengths(source: &Source, breaches: &mut Vec<Breach>) {
    for (start, line) in source.code.iter().enumerate().filter(|(_, line)| opens_function(line)) {
        let indent = indent(line);
        let rest = &source.code[start..];
        // A declaration ends in a semicolon before any body opens, a short function on its own line.
        let head = rest.iter().position(|line| line.trim_end().ends_with(['{', '}', ';'])).unwrap_or(0);
        if rest[head].trim_end().ends_with([';', '}']) {
            continue;
        }
        let closing = format!("{}}}", " ".repeat(indent));
        let length = 1 + rest.iter().position(|line| line.trim_end() == closing).unwrap_or(rest.len());
        if length > 70 {
            breaches.push(source.breach("function length", start + 1, format!("a function of {length} lines")));
        }
    }
}

/// Time comes from `clock`, the environment from `config`, and pure modules stay pure.
fn clocks_and_effects(source: &Source, breaches: &mut Vec<Breach>) {
    if source.path != "src/clock.rs" {
        source.mentions("clock", &["Timestamp::now", "Zoned::now", "SystemTime::now"], breaches);
        source.mentions("clock", &["std::time::Instant"], breaches);
        let imports_std = imported(&source.code, "std").iter().any(|path| path == "time::Instant");
        if imports_std {
            source.mentions("clock", &["Instant::now"], breaches);
        }
    }
    if !source.within(&["src/config/", "src/cli/"]) {
        source.mentions("environment", &["std::env", "env::var", "env::vars", "env::args"], breaches);
    }
    if source.within(&["src/signature/", "src/dialect/", "src/document.rs"]) {
        let effects = ["std::fs", "std::net", "tokio", "hyper", "SystemTime"];
        source.mentions("purity", &effects, breaches);
        for path in imported(&source.code, "std") {
            if ["fs", "net"].iter().any(|module| first(&path) == *module) {
                breaches.push(source.breach("purity", 0, format!("imports std::{path}")));
            }
        }
    }
    if source.layer().is_some_and(|layer| layer != "render") {
        source.mentions("status", &["StatusCode::"], breaches);
    }
}

/// Who may know whom.
fn acquaintances(source: &Source, layers: &BTreeSet<&str>, breaches: &mut Vec<Breach>) {
    let ours = imported(&source.code, "crate");
    if let Some(layer) = source.layer() {
        let siblings = imported(&source.code, "super");
        let absolute = ours.iter().filter_map(|path| path.strip_prefix("layers::"));
        for name in siblings.iter().map(String::as_str).chain(absolute).map(first) {
            if name != layer && name != "next" && layers.contains(name) {
                breaches.push(source.breach("layers", 0, format!("knows the layer {name}: the order is stack.rs's")));
            }
        }
    }
    let in_sandbox = source.within(&["src/sandbox"]);
    for module in ours.iter().map(|path| first(path)) {
        if module == "sandbox" && !in_sandbox && !source.within(&["src/cli/"]) {
            breaches.push(source.breach("sandbox", 0, "imports crate::sandbox: only the command line may".to_owned()));
        }
        if in_sandbox && ["stack", "layers", "upstream", "store"].contains(&module) {
            breaches.push(source.breach("sandbox", 0, format!("imports crate::{module}, a part of the gateway")));
        }
    }
}

/// Nothing is left for later in the sources, and no test is switched off.
fn unfinished(source: &Source, breaches: &mut Vec<Breach>) {
    // This file has to spell them.
    if source.path == "tests/it/tidy.rs" {
        return;
    }
    for (number, line) in source.text.lines().enumerate() {
        for needle in ["TODO", "FIXME", "XXX", "#[ignore", "todo!(", "unimplemented!("] {
            if line.contains(needle) {
                breaches.push(source.breach("unfinished", number + 1, format!("says {needle}")));
            }
        }
    }
}

/// Every `.rs` file below a folder of the repository, in order of path.
fn sources(folder: &str) -> Vec<Source> {
    let mut found = Vec::new();
    collect(Path::new(env!("CARGO_MANIFEST_DIR")), folder, &mut found);
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found
}

fn collect(root: &Path, folder: &str, found: &mut Vec<Source>) {
    for entry in std::fs::read_dir(root.join(folder)).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{folder}/{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            collect(root, &path, found);
        } else if path.ends_with(".rs") {
            found.push(Source::new(path, std::fs::read_to_string(entry.path()).unwrap()));
        }
    }
}

/// A file whose module is declared for tests only, or that lies in a folder of such a module.
fn is_unit_test_file(path: &str) -> bool {
    let Some((folder, file)) = path.rsplit_once('/') else { return false };
    if folder.ends_with("/tests") && file != "mod.rs" {
        return is_unit_test_file(&format!("{folder}.rs"));
    }
    let module = file.trim_end_matches(".rs");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let parents = [format!("{folder}/mod.rs"), format!("{folder}/lib.rs"), format!("{folder}.rs")];
    parents.iter().filter_map(|parent| std::fs::read_to_string(root.join(parent)).ok()).any(|text| {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let declaration = format!("mod {module};");
        lines.windows(2).any(|pair| pair[0] == "#[cfg(test)]" && pair[1].ends_with(&declaration))
    })
}

/// The file's lines with comments, texts and test modules emptied; line numbers stay.
fn product_code(text: &str) -> Vec<String> {
    let blanked = blank(text);
    let mut code: Vec<String> = blanked.lines().map(str::to_owned).collect();
    let mut at = 0;
    while at + 1 < code.len() {
        let is_module = code[at + 1].trim_start().starts_with("mod ") || code[at + 1].contains(" mod ");
        if code[at].trim() == "#[cfg(test)]" && is_module && code[at + 1].trim_end().ends_with('{') {
            let closing = format!("{}}}", " ".repeat(indent(&code[at + 1])));
            let length = code[at..].iter().position(|line| line.trim_end() == closing).unwrap_or(code.len() - at - 1);
            code[at..=at + length].iter_mut().for_each(String::clear);
        }
        at += 1;
    }
    code
}

/// Replaces the contents of comments, strings and character literals by blanks.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = token_end(&chars, at);
        if end == at + 1 {
            out.push(chars[at]);
        } else {
            // Something stays in a literal's place, so that a line is never taken for an empty one.
            let kept = |char: &char| if *char == '\n' { '\n' } else { ' ' };
            out.extend(chars[at..end].iter().map(kept));
        }
        at = end;
    }
    out
}

/// Where the comment or literal that begins here ends; the next character where none begins.
fn token_end(chars: &[char], at: usize) -> usize {
    let find = |from: usize, end: &[char]| {
        let rest = chars.get(from..).unwrap_or_default();
        rest.windows(end.len()).position(|window| window == end).map_or(chars.len(), |found| from + found + end.len())
    };
    let after_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    match (chars[at], chars.get(at + 1)) {
        ('/', Some('/')) => find(at, &['\n']) - usize::from(find(at, &['\n']) < chars.len()),
        ('/', Some('*')) => find(at + 2, &['*', '/']),
        ('"', _) => escaped_end(chars, at, '"'),
        ('r', Some('"' | '#')) if !after_word || chars[at - 1] == 'b' => {
            let hashes = chars[at + 1..].iter().take_while(|char| **char == '#').count();
            if chars.get(at + 1 + hashes) != Some(&'"') {
                return at + 1;
            }
            let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
            find(at + 2 + hashes, &end)
        }
        // A character, not a lifetime: escaped, or closed right after.
        ('\'', Some('\\')) => escaped_end(chars, at, '\''),
        ('\'', Some(_)) if chars.get(at + 2) == Some(&'\'') => at + 3,
        _ => at + 1,
    }
}

fn escaped_end(chars: &[char], at: usize, quote: char) -> usize {
    let mut end = at + 1;
    while end < chars.len() && chars[end] != quote {
        end += if chars[end] == '\\' { 2 } else { 1 };
    }
    (end + 1).min(chars.len())
}

/// The paths used below a root such as `crate` or `super`, with groups taken apart:
/// `crate::{a, b::{c, d}}` gives `a`, `b::c` and `b::d`.
fn imported(code: &[String], root: &str) -> Vec<String> {
    let text = code.join("\n");
    let mut paths = Vec::new();
    let needle = format!("{root}::");
    for (at, _) in text.match_indices(&needle) {
        let starts_word = !text[..at].ends_with(|char: char| char.is_alphanumeric() || char == '_');
        if starts_word {
            expand("", &text[at + needle.len()..], &mut paths);
        }
    }
    paths
}

/// Reads one path or group and returns what follows it.
fn expand<'a>(prefix: &str, text: &'a str, paths: &mut Vec<String>) -> &'a str {
    let text = text.trim_start();
    let Some(mut rest) = text.strip_prefix('{') else {
        let end = text.find(|char: char| !(char.is_alphanumeric() || char == '_' || char == ':')).unwrap_or(text.len());
        let (path, rest) = text.split_at(end);
        if path.ends_with("::") && rest.starts_with('{') {
            return expand(&format!("{prefix}{path}"), rest, paths);
        }
        paths.push(format!("{prefix}{path}"));
        return rest;
    };
    while !rest.trim_start().starts_with('}') && !rest.trim_start().is_empty() {
        let before = rest.len();
        rest = expand(prefix, rest, paths);
        // Steps over the comma and `as name`.
        rest = rest.trim_start_matches(|char: char| char != ',' && char != '}').trim_start_matches(',');
        assert!(rest.len() < before, "a group that does not end");
    }
    rest.trim_start().strip_prefix('}').unwrap_or("")
}

/// The first segment of a path.
fn first(path: &str) -> &str {
    path.split("::").next().unwrap_or(path)
}

/// Whether the line contains the path, not merely as the end or the start of a longer name.
fn contains_path(line: &str, needle: &str) -> bool {
    let is_name = |char: char| char.is_alphanumeric() || char == '_';
    line.match_indices(needle).any(|(at, _)| {
        let after = &line[at + needle.len()..];
        !line[..at].ends_with(is_name) && (needle.ends_with(':') || !after.starts_with(is_name))
    })
}

fn opens_function(line: &str) -> bool {
    let mut words = line.split_whitespace().skip_while(|word| {
        word.starts_with("pub")
            || ["const", "async", "unsafe", "extern", "default", "in"].contains(word)
            || word.ends_with(')')
    });
    words.next() == Some("fn")
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The reading of sources is itself code that could be wrong, and then every rule would hold.
mod reading {
    use super::*;

    fn check(path: &str, text: &str, expected: &[&str]) {
        let source = Source::new(path.to_owned(), text.to_owned());
        let layers = BTreeSet::from(["sign", "token", "next", "render"]);
        let mut breaches = Vec::new();
        header(&source, &mut breaches);
        function_lengths(&source, &mut breaches);
        clocks_and_effects(&source, &mut breaches);
        acquaintances(&source, &layers, &mut breaches);
        names(&source, &mut breaches);
        unfinished(&source, &mut breaches);
        let found: BTreeSet<&str> = breaches.iter().map(|breach| breach.rule).collect();
        assert_eq!(found.into_iter().collect::<Vec<_>>(), expected, "{path}:\n{text}");
    }

    #[test]
    fn breaches_are_found() {
        let file = |code: &str| format!("//! Does one thing well.\n\n{code}\n");
        let long = format!("fn long(\n    a: u8,\n) {{\n{}}}\n", "    work();\n".repeat(70));
        check("src/app.rs", "//! Short\nfn a() {}\n", &["header"]);
        check("src/app.rs", &file(&long), &["function length"]);
        check("src/app.rs", &file("use std::time::{Duration, Instant};\nfn a() { Instant::now(); }"), &["clock"]);
        check("src/app.rs", &file("fn a() -> Timestamp { Timestamp::now() }"), &["clock"]);
        check("src/app.rs", &file("fn a() { std::env::var(\"A\"); }"), &["environment"]);
        check("src/app.rs", &file("use crate::{config, sandbox::Ledger};"), &["sandbox"]);
        check("src/app.rs", &file("// TODO: more"), &["unfinished"]);
        check("src/dialect/field.rs", &file("use std::{fmt, net::IpAddr};"), &["purity"]);
        check("src/signature/key.rs", &file("use tokio::sync::Mutex;"), &["purity"]);
        check("src/layers/sign.rs", &file("use super::token::Token;"), &["layers"]);
        check("src/layers/sign.rs", &file("use crate::{call::Call, layers::{next::Next, token::Token}};"), &["layers"]);
        check("src/layers/sign.rs", &file("fn a() { StatusCode::OK; }"), &["status"]);
        check("src/sandbox/ledger.rs", &file("use crate::store::Store;"), &["sandbox"]);
        check("src/layers/helpers.rs", &file(""), &["names"]);
    }

    #[test]
    fn what_is_allowed_passes() {
        let file = |code: &str| format!("//! Does one thing well.\n\n{code}\n");
        let in_tests =
            "#[cfg(test)]\nmod tests {\n    use super::token::Token;\n    fn a() { std::fs::read(\"x\"); }\n}";
        check("src/layers/sign.rs", &file(in_tests), &[]);
        check("src/layers/sign.rs", &file("use super::next::Next;\nuse crate::signature::sign;"), &[]);
        check("src/layers/render.rs", &file("fn a() { StatusCode::OK; }"), &[]);
        check("src/app.rs", &file("use tokio::time::Instant;\nfn a() { Instant::now(); }"), &[]);
        check(
            "src/app.rs",
            &file("/// Like `Timestamp::now()`.\nfn a() { \"std::env // \\\" Timestamp::now\"; }"),
            &[],
        );
        check("src/app.rs", &file("fn a() { r#\"std::env \" Timestamp::now\"#; '\"'; '\\''; }"), &[]);
        check(
            "src/app.rs",
            &file(&format!("trait A {{\n    fn a(\n        x: u8,\n    );\n}}\n{}", "mod b;\n".repeat(80))),
            &[],
        );
        check("src/cli/dev.rs", &file("use crate::sandbox;\nfn a() { std::env::temp_dir(); }"), &[]);
        check("src/clock.rs", &file("fn a() { Timestamp::now() }"), &[]);
    }
}
