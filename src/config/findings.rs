//! What is known about a file while it is being judged: where each value stood and what is wrong.
//!
//! Promises that a value is complained about once: whoever judges later (`check`) stays silent about
//! a value that `conform` or `interpolate` has already refused, since a default stands in for it. And
//! that values from the environment or from files are never repeated in a message.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::problem::{Place, Problem};

/// Positions by path, and everything wrong so far.
#[derive(Default)]
pub(super) struct Findings {
    /// Where each value stood.
    pub(super) sources: BTreeMap<String, Source>,
    /// Values that have been refused without their path being in a problem.
    pub(super) settled: BTreeSet<String>,
    /// Everything wrong so far.
    pub(super) problems: Vec<Problem>,
    /// Where the file is, which relative paths count from.
    pub(super) folder: PathBuf,
    /// Paths of the problems that were there when it was last asked what has been refused.
    pub(super) refused: BTreeSet<String>,
    /// How many those were.
    pub(super) looked_at: usize,
}

/// Where a value stood.
#[derive(Clone, Copy)]
pub(super) struct Source {
    /// Position of a scalar, or of the key of a collection.
    pub(super) place: Place,
    /// Whether it came from the environment or a file, so that no message may repeat it.
    pub(super) outside: bool,
}

impl Findings {
    /// Says that the value at `path` is wrong, unless that has been said.
    pub(super) fn report(&mut self, path: &str, message: impl Into<String>, hint: impl Into<String>) {
        if !self.has_refused(path) {
            self.problems.push(Problem::new(self.place(path), path, message).hint(hint));
        }
    }

    /// A path of the file's, made absolute.
    pub(super) fn beside(&self, path: &str) -> PathBuf {
        let beside = self.folder.join(Path::new(path));
        // Without a current folder a relative path is as good as it gets.
        std::path::absolute(&beside).unwrap_or(beside)
    }

    /// The value as a message may show it.
    pub(super) fn shown(&self, path: &str, text: &str) -> String {
        match self.sources.get(path) {
            Some(Source { outside: true, .. }) => "the value".to_owned(),
            Some(Source { outside: false, .. }) | None => format!("`{text}`"),
        }
    }

    /// Whether the value, or what holds it, has been complained about.
    pub(super) fn has_refused(&mut self, path: &str) -> bool {
        let news = self.problems.iter().skip(self.looked_at).map(|problem| problem.path.clone());
        self.refused.extend(news);
        self.looked_at = self.problems.len();
        let mut at = Some(path);
        while let Some(path) = at.filter(|path| !path.is_empty()) {
            if self.settled.contains(path) || self.refused.contains(path) {
                return true;
            }
            at = parent(path);
        }
        false
    }

    /// Whether an entry of the list at `path` has been complained about, so that it may be missing.
    pub(super) fn has_refused_entry_of(&self, path: &str) -> bool {
        let entry = |other: &str| other.strip_prefix(path).is_some_and(|rest| rest.starts_with('['));
        self.settled.iter().any(|settled| entry(settled)) || self.problems.iter().any(|problem| entry(&problem.path))
    }

    /// The position of a value, or of whatever should have held it.
    fn place(&self, path: &str) -> Option<Place> {
        let mut at = Some(path);
        while let Some(path) = at {
            if let Some(source) = self.sources.get(path) {
                return Some(source.place);
            }
            at = parent(path);
        }
        None
    }
}

/// The path of a mapping's entry.
pub(super) fn join(path: &str, key: &str) -> String {
    let word = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    match (word, path.is_empty()) {
        (true, true) => key.to_owned(),
        (true, false) => format!("{path}.{key}"),
        (false, _) => format!("{path}[{key:?}]"),
    }
}

/// The path of whatever holds the value at `path`; nothing for the document itself.
pub(super) fn parent(path: &str) -> Option<&str> {
    if path.is_empty() {
        return None;
    }
    let cut = if path.ends_with("\"]") { path.rfind("[\"") } else { path.rfind(['.', '[']) };
    Some(cut.and_then(|cut| path.get(..cut)).unwrap_or(""))
}

#[cfg(test)]
mod tests {
    use super::{join, parent};

    #[test]
    fn paths_come_apart_as_they_were_put_together() {
        let operation = join("merchants[0].rate_limit.operations", "snap.create");
        assert_eq!(operation, "merchants[0].rate_limit.operations[\"snap.create\"]");
        assert_eq!(parent(&operation), Some("merchants[0].rate_limit.operations"));
        assert_eq!(parent("merchants[0].name"), Some("merchants[0]"));
        assert_eq!(parent("merchants[0]"), Some("merchants"));
        assert_eq!(parent("merchants"), Some(""));
        assert_eq!(parent(""), None);
    }
}
