//! A configuration file of any bytes: either problems that help, or a configuration that reads back.
//!
//! Input: the file. `${CANARY}` and `${KEY}` are set in its environment, and nothing else.

use std::path::PathBuf;
use std::sync::LazyLock;

use ayova::config::sandbox::SAMPLE_KEY_PEM;
use ayova::config::{self, Config, Problems};
use tempfile::TempDir;

use super::text::CANARY;

/// The target's body.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    // References to files of this machine would make the verdict depend on it.
    if text.contains("file:/") || text.contains("..") {
        return;
    }
    match load(data) {
        Err(problems) => helps(&problems, &text),
        Ok(config) => reads_back(&config),
    }
}

fn load(data: &[u8]) -> Result<Config, Problems> {
    std::fs::write(&*FILE.1, data).unwrap();
    config::load(&FILE.1, &|name| match name {
        "CANARY" => Some(CANARY.to_owned()),
        "KEY" => Some(SAMPLE_KEY_PEM.to_owned()),
        _ => None,
    })
}

fn helps(problems: &Problems, text: &str) {
    let told = problems.to_string();
    assert!(!problems.list().is_empty(), "refused without a reason");
    assert!(text.contains(CANARY) || !told.contains(CANARY), "a value from outside is repeated: {told}");
    // YAML also ends a line with a carriage return alone, and what is missed at the end is missed behind it.
    let lines = text.chars().filter(|char| ['\n', '\r'].contains(char)).count() + 2;
    for problem in problems.list() {
        assert!(!problem.message.is_empty());
        assert!(
            !problem.message.starts_with("cannot be read ("),
            "the schema lets through what serde does not: {told}"
        );
        if let Some(place) = problem.place {
            assert!((1..=lines).contains(&place.line) && place.column >= 1, "{place:?} of {lines}: {told}");
        }
    }
    let mut order: Vec<_> = problems.list().iter().map(|problem| problem.place).collect();
    order.sort();
    assert!(order.iter().eq(problems.list().iter().map(|problem| &problem.place)), "in the order of the file");
}

/// What is in effect, with its secrets put back, is a file that says the same.
fn reads_back(config: &Config) {
    let shown = config::effective_yaml(config);
    let put_back: String = shown.lines().map(with_secret).collect();
    let again = load(put_back.as_bytes()).unwrap_or_else(|problems| panic!("{problems}\n{put_back}"));
    assert_eq!(config::effective_yaml(&again), shown);
    assert_eq!(config::effective(&again), config::effective(config));
    assert_eq!(format!("{again:?}"), format!("{config:?}"), "{put_back}");
    assert!(!format!("{config:?}").contains("PRIVATE KEY-----"), "the key shows");
}

fn with_secret(line: &str) -> String {
    let value = match line.trim_start().trim_start_matches("- ").split(':').next() {
        Some("private_key") => "${KEY}",
        // Fits both, the address's and the signature's.
        Some("secret") => "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        _ => "sandbox",
    };
    format!("{}\n", line.replace("\"***\"", value))
}

static FILE: LazyLock<(TempDir, PathBuf)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ayova.yaml");
    (folder, path)
});
