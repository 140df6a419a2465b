//! Whether a configuration would read the same again: its text and every file it refers to.
//!
//! Promises to see a change of any file that `load` would read, through however many links: Kubernetes
//! replaces a folder behind one. What variables of the environment say does not change.

use std::fs;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};

/// What was read, as a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Print([u8; 32]);

impl Print {
    /// Of a configuration file, what it refers to as `${file:…}`, and these files beside. Blocks for the
    /// time of reading them. A file that cannot be read has a print too: that it cannot.
    #[must_use]
    pub fn of(path: &Path, beside: &[PathBuf]) -> Self {
        let mut context = Context::new(&SHA256);
        let text = read(path, &mut context);
        let folder = path.parent().unwrap_or(Path::new(""));
        let text = String::from_utf8_lossy(&text);
        for reference in text.split("${file:").skip(1) {
            let file = reference.split('}').next().unwrap_or_default();
            read(&folder.join(file), &mut context);
        }
        for file in beside {
            read(file, &mut context);
        }
        let mut print = [0; 32];
        let digest = context.finish();
        print.copy_from_slice(digest.as_ref());
        Self(print)
    }
}

fn read(path: &Path, context: &mut Context) -> zeroize::Zeroizing<Vec<u8>> {
    let content = zeroize::Zeroizing::new(fs::read(path).unwrap_or_default());
    context.update(&(content.len() as u64).to_be_bytes());
    context.update(&content);
    content
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_counts() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let print = || Print::of(&at("c.yaml"), &[at("ca.pem")]);
        let mut seen = vec![print()];
        for (file, text) in [
            ("c.yaml", "a: ${file:secret}\n"),
            ("secret", "one"),
            ("secret", "two"),
            ("ca.pem", "x"),
            ("c.yaml", "a: ${file:secret} # changed\n"),
        ] {
            fs::write(at(file), text).unwrap();
            assert_eq!(print(), print());
            assert!(!seen.contains(&print()), "{file} {text}");
            seen.push(print());
        }
        fs::write(at("other"), "x").unwrap();
        assert_eq!(Some(&print()), seen.last());
    }
}
