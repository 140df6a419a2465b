//! From a file to the struct that mirrors it: the same steps for the gateway's and the sandbox's.
//!
//! Promises bounded reading (1 MiB), positions for everything, and that the steps before `check`
//! collect rather than stop: references, shape and words are all judged before anyone returns.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::conform::conform;
use super::findings::Findings;
use super::interpolate::{Sources, expand};
use super::later::Later;
use super::problem::{Problem, Problems};
use super::{schema, tree};

/// The kind of file that is read.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    /// Keys that are refused by name.
    pub(super) later: &'static [Later],
    /// The file that explains every key.
    pub(super) example: &'static str,
}

/// The text of a file, which must be UTF-8 and at most 1 MiB.
pub(super) fn text(path: &Path, kind: Kind) -> Result<Zeroizing<String>, Problems> {
    let refuse = |message: String| {
        let problem = Problem::new(None, "", message);
        Problems::new(path.display().to_string(), kind.example, vec![problem])
    };
    // Secrets may stand in it.
    let mut bytes = Zeroizing::new(Vec::new());
    let read = File::open(path).and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes));
    read.map_err(|error| refuse(format!("cannot read the file: {error}")))?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(refuse("larger than 1 MiB, which no configuration is".to_owned()));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| refuse("not UTF-8 text".to_owned()))?;
    Ok(text.to_owned().into())
}

/// Reads a text as `T`. With a `T`, the findings may still hold problems; without, they do.
pub(super) fn raw<T>(text: &str, sources: &Sources<'_>, kind: Kind) -> (Option<T>, Findings)
where
    T: DeserializeOwned + JsonSchema,
{
    // Editors on some systems begin a file with this mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (root, mut problems) = tree::parse(text);
    let Some(mut root) = root else {
        return (None, Findings { problems, ..Findings::default() });
    };
    expand(&mut root, "", sources, &mut problems);
    let (json, mut found) = conform(&root, &schema::of::<T>(), kind.later, problems);
    let Some(json) = json else { return (None, found) };
    match serde_json::from_value(json) {
        Ok(raw) => (Some(raw), found),
        Err(error) => {
            // The schema lets through only what serde takes; a test holds them together. Serde's own
            // words may quote a value, so only the category is passed on.
            let message = format!("cannot be read ({:?} error)", error.classify());
            found.problems.push(Problem::new(None, "", message));
            (None, found)
        }
    }
}

/// Longest configuration file.
const MOST_BYTES: u64 = 1024 * 1024;
