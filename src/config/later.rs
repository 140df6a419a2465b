//! Keys and values of later versions: known by name so that they are refused by name.
//!
//! Promises that nobody believes a feature to be on because its key was taken silently, and that each
//! refusal says what to do in this version. An entry leaves this table when its key enters `raw`.

/// A key or value this version does not have.
#[derive(Debug)]
pub(super) struct Later {
    /// Path of the key, `[]` standing for any index.
    path: &'static str,
    /// The values meant; none means the key itself.
    values: &'static [&'static str],
    /// What to do in this version.
    pub(super) hint: &'static str,
}

/// The entry for a key that is not in this version.
pub(super) fn key(table: &'static [Later], path: &str) -> Option<&'static Later> {
    let path = without_indexes(path);
    table.iter().find(|entry| entry.values.is_empty() && entry.path == path)
}

/// The entry for a value that is not in this version.
pub(super) fn value(table: &'static [Later], path: &str, value: &str) -> Option<&'static Later> {
    let path = without_indexes(path);
    table.iter().find(|entry| entry.values.contains(&value) && entry.path == path)
}

fn without_indexes(path: &str) -> String {
    let mut digits_dropped = String::with_capacity(path.len());
    let mut in_brackets = false;
    for c in path.chars() {
        in_brackets = c == '[' || (in_brackets && c.is_ascii_digit());
        if !(in_brackets && c.is_ascii_digit()) {
            digits_dropped.push(c);
        }
    }
    digits_dropped
}

/// How every refusal of this kind reads.
pub(super) const REFUSAL: &str = "not available in this version";

/// The gateway's.
pub(super) const GATEWAY: &[Later] = &[
    Later {
        path: "store.kind",
        values: &["redis"],
        hint: "store: { kind: sqlite } on a local disk; one process serves a file",
    },
    Later { path: "store.url", values: &[], hint: "store: { kind: sqlite, path: ./data/ayova.db } has no address" },
];

#[cfg(test)]
mod tests {
    use super::{GATEWAY, Later, key, value};

    #[test]
    fn entries_are_found_at_any_index() {
        const TABLE: &[Later] = &[Later { path: "merchants[].colour", values: &[], hint: "remove it" }];
        assert!(key(TABLE, "merchants[12].colour").is_some());
        assert!(key(TABLE, "merchants.colour").is_none());
        assert!(key(GATEWAY, "store.kind").is_none());
        assert!(value(GATEWAY, "store.kind", "redis").is_some());
        assert!(value(GATEWAY, "store.kind", "postgres").is_none());
    }
}
