//! `ayova schema`: the JSON Schema of the configuration file, for editors.
//!
//! Promises the schema the reader itself uses.

/// The schema as indented JSON with a final newline.
#[must_use]
pub fn schema() -> String {
    format!("{:#}\n", crate::config::schema())
}

/// For the command's help.
pub(super) const EXAMPLES: &str = "\
Example:
  ayova schema > ayova.schema.json
  and as the first line of the configuration, for editors with a YAML language server:
  # yaml-language-server: $schema=ayova.schema.json";
