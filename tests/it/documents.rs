//! Documents that are generated from the sources, and statements of documents that can be checked.
//!
//! `UPDATE_EXPECT=1 cargo test documents` writes the generated ones anew.

use std::path::Path;

use expect_test::expect_file;

fn text(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_routes_are_those_of_the_tables() {
    expect_file!["../../docs/routes.md"].assert_eq(&ayova::dialect::describe::markdown());
}
