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

/// Every document of the repository, with its text.
fn documents() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for folder in ["", "docs", "docs/decisions"] {
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            let name = Path::new(folder).join(entry.unwrap().file_name()).to_str().unwrap().to_owned();
            if name.ends_with(".md") {
                found.push((name.clone(), text(&name)));
            }
        }
    }
    assert!(found.len() > 5, "{found:?}");
    found
}

#[test]
fn links_between_documents_lead_somewhere() {
    for (name, text) in documents() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(&name).parent().unwrap().to_owned();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap();
            let is_elsewhere = target.starts_with("http") || file.is_empty();
            assert!(is_elsewhere || folder.join(file).exists(), "{name} links to {target}");
        }
    }
}

#[test]
fn the_architecture_names_every_layer_in_its_order_and_every_module() {
    let architecture = text("ARCHITECTURE.md");
    let order = order();
    for title in ["One request through the stack", "What each layer costs"] {
        let (_, section) = architecture.split_once(&format!("\n## {title}\n")).unwrap();
        let section = section.split("\n## ").next().unwrap();
        let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        assert_eq!(rows.collect::<Vec<_>>(), order, "{title}");
    }
    for layer in modules("src/layers").filter(|name| !["mod", "next"].contains(&name.as_str())) {
        assert!(order.contains(&layer), "src/layers/{layer}.rs stands in no list");
    }
    for module in modules("src") {
        assert!(architecture.contains(&format!("`{module}`")), "the code map lacks `{module}`");
    }
}

/// The layers as `stack.rs` lists them: the upper list, then the lower one, which is built first.
fn order() -> Vec<String> {
    let stack = text("src/stack.rs");
    let lists = stack.split("ServiceBuilder::new()").skip(1).map(|list| {
        let lines = list.lines().skip(1).take_while(|line| line.trim_start().starts_with('.'));
        let steps = lines.filter(|line| line.ends_with("))") || line.ends_with("));"));
        let names = steps.filter_map(|line| Some(line.trim_end_matches([')', ';']).rsplit_once(", ")?.1.to_owned()));
        names.collect::<Vec<_>>()
    });
    let mut order: Vec<_> = lists.collect();
    order.reverse();
    order.concat()
}

fn modules(folder: &str) -> impl Iterator<Item = String> {
    let entries = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_str().unwrap().trim_end_matches(".rs").to_owned())
}
