//! What is wrong with a configuration file, said so that it can be put right in one go.
//!
//! Promises one line a problem, `file:line:column: path: message (hint)`, in the order of the file.
//! Messages never contain what an environment variable or another file held; that is up to whoever
//! writes them, and `read` offers the means.

use std::fmt;

/// A position in the file; both count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column in characters.
    pub column: usize,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where; absent when it concerns the file as a whole.
    pub place: Option<Place>,
    /// Which value, such as `merchants[0].name`; empty for the file as a whole.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem without a hint.
    pub fn new(place: Option<Place>, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place, path: path.into(), message: message.into(), hint: None }
    }

    /// The same problem with what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Everything that is wrong with one file; never empty when it is an error.
#[derive(Clone, Debug)]
pub struct Problems {
    file: String,
    example: &'static str,
    list: Vec<Problem>,
}

impl Problems {
    /// Gathers the problems of a file, in the file's order; `example` is the file that explains every key.
    pub(super) fn new(file: impl Into<String>, example: &'static str, mut list: Vec<Problem>) -> Self {
        list.sort_by_key(|problem| problem.place);
        Self { file: file.into(), example, list }
    }

    /// The problems in the order of the file.
    #[must_use]
    pub fn list(&self) -> &[Problem] {
        &self.list
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.list {
            write!(f, "{}:", self.file)?;
            if let Some(place) = problem.place {
                write!(f, "{}:{}:", place.line, place.column)?;
            }
            if !problem.path.is_empty() {
                write!(f, " {}:", problem.path)?;
            }
            write!(f, " {}", problem.message)?;
            if let Some(hint) = &problem.hint {
                write!(f, " ({hint})")?;
            }
            writeln!(f)?;
        }
        let noun = if self.list.len() == 1 { "problem" } else { "problems" };
        write!(f, "{} {noun}; see {}", self.list.len(), self.example)
    }
}

impl std::error::Error for Problems {}

/// The candidate somebody most likely meant, if one is close: at most a third of the letters differ.
pub(super) fn nearest<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let written = written.to_ascii_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&written, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(distance, candidate)| distance * 3 <= candidate.len().max(written.len()))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn only_a_close_word_is_suggested() {
        let known = ["attempts", "base_delay", "max_delay"];
        assert_eq!(nearest("atempts", known), Some("attempts"));
        assert_eq!(nearest("MAX_DELAY", known), Some("max_delay"));
        assert_eq!(nearest("basedelay", known), Some("base_delay"));
        assert_eq!(nearest("timeout", known), None);
        assert_eq!(nearest("", known), None);
    }
}
