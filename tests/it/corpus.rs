//! The corpora of the fuzz targets, as ordinary tests on a stable compiler.
//!
//! Promises that every file in `fuzz/corpus` is fed to the very function its target feeds, and that no
//! target is without a corpus or a test. Finding new inputs takes `cargo fuzz`: see fuzz/README.md.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

#[expect(unreachable_pub, reason = "written for the crate in `fuzz`, of which this file is the root")]
#[path = "../../fuzz/src/lib.rs"]
mod held;

type Body = fn(&[u8]);

/// Every target and its body.
const TARGETS: [(&str, Body); 10] = [
    ("callback", held::callback::run),
    ("config", held::config::run),
    ("document", held::document::run),
    ("gateway", held::gateway::run),
    ("minify", held::minify::run),
    ("number", held::number::run),
    ("signature", held::signature::run),
    ("token", held::token::run),
    ("validation_classic", held::validation::classic),
    ("validation_snap", held::validation::snap),
];

/// Feeds a target its whole corpus and names every file that does not hold.
fn hold(target: &str) {
    let (_, body) = TARGETS.iter().find(|(name, _)| *name == target).unwrap();
    let files = entries(&format!("corpus/{target}"));
    assert!(files.len() >= 10, "the corpus of {target} is nearly empty");
    let breaks = |file: &PathBuf| {
        let data = fs::read(file).unwrap();
        catch_unwind(AssertUnwindSafe(|| body(&data))).is_err()
    };
    let broken: Vec<_> = files.into_iter().filter(breaks).collect();
    assert!(broken.is_empty(), "cargo fuzz run {target} FILE repeats: {broken:#?}");
}

#[test]
fn callback() {
    hold("callback");
}

#[test]
fn config() {
    hold("config");
}

#[test]
fn document() {
    hold("document");
}

#[test]
fn gateway() {
    hold("gateway");
}

#[test]
fn minify() {
    hold("minify");
}

#[test]
fn number() {
    hold("number");
}

#[test]
fn signature() {
    hold("signature");
}

#[test]
fn token() {
    hold("token");
}

#[test]
fn validation_classic() {
    hold("validation_classic");
}

#[test]
fn validation_snap() {
    hold("validation_snap");
}

#[test]
fn every_target_has_a_corpus_and_a_test() {
    let names = |folder: &str| -> Vec<String> {
        let stem = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
        entries(folder).into_iter().map(stem).collect()
    };
    let here: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names("fuzz_targets"), here);
    assert_eq!(names("corpus"), here);
    let manifest = include_str!("../../fuzz/Cargo.toml");
    let bins: Vec<&str> =
        manifest.split("[[bin]]\nname = \"").skip(1).filter_map(|bin| bin.split('"').next()).collect();
    assert_eq!(bins, here);
    let tests = include_str!("corpus.rs");
    for name in here {
        assert!(tests.contains(&format!("#[test]\nfn {name}() {{\n    hold(\"{name}\");\n}}")), "{name}");
    }
}

/// The bodies are compiled here with this package's dependencies; their own manifest must keep up.
#[test]
fn the_targets_name_what_they_use() {
    let manifest = include_str!("../../fuzz/Cargo.toml");
    let used = entries("src").into_iter().flat_map(|file| {
        let text = fs::read_to_string(file).unwrap();
        let uses = text.lines().filter_map(|line| line.strip_prefix("use ")?.split("::").next().map(str::to_owned));
        uses.collect::<Vec<_>>()
    });
    for name in used.filter(|name| !["std", "super"].contains(&name.as_str())) {
        let named = [name.clone(), name.replace('_', "-")].map(|name| format!("\n{name} = "));
        assert!(named.iter().any(|line| manifest.contains(line)), "fuzz/Cargo.toml does not name {name}");
    }
}

/// What is in a folder of `fuzz`, in order of name.
fn entries(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(folder);
    let mut found: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}
