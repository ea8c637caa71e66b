//! The dependencies between the crates are those documented in docs/architecture.md.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

type Graph = BTreeMap<String, BTreeSet<String>>;

/// Returns the dependencies between the crates of this workspace, without development dependencies.
fn read_manifests() -> Graph {
    let folders = std::fs::read_dir(Path::new(ROOT).join("crates")).unwrap();
    let crates = folders.map(|folder| {
        let manifest = std::fs::read_to_string(folder.unwrap().path().join("Cargo.toml")).unwrap();
        let manifest: toml::Table = manifest.parse().unwrap();
        let short_name = |name: &str| name.strip_prefix("waypost-").map(str::to_owned);
        let dependencies = manifest["dependencies"].as_table().unwrap().keys().filter_map(|name| short_name(name));
        (short_name(manifest["package"]["name"].as_str().unwrap()).unwrap(), dependencies.collect())
    });
    crates.collect()
}

/// Returns the dependencies in the table of the documentation.
fn read_table() -> Graph {
    let text = std::fs::read_to_string(Path::new(ROOT).join("docs/architecture.md")).unwrap();
    let table = text.split_once("| Crate | Depends on |").unwrap().1;
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let crates = rows.map(|row| {
        let cells: Vec<_> = row.split('|').collect();
        (names(cells[1]).remove(0), names(cells[2]).into_iter().collect())
    });
    crates.collect()
}

#[test]
fn the_crate_graph_matches_the_documentation() {
    assert_eq!(read_manifests(), read_table(), "manifests on the left, docs/architecture.md on the right");
}

#[test]
fn the_crates_above_the_operations_do_not_depend_on_each_other() {
    let graph = read_manifests();
    let names = ["api", "auth", "console", "mcp"];
    for name in names {
        assert!(names.iter().all(|other| !graph[name].contains(*other)), "{name}: {:?}", graph[name]);
    }
}

/// Checks that a crate has no dependency, not even an indirect one, whose name contains one of these texts.
fn assert_not_in_tree(name: &str, unwanted: &[&str]) {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "--edges", "normal,build", "--prefix", "none", "-p", name])
        .current_dir(ROOT)
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).unwrap();
    assert!(tree.starts_with(&format!("{name} ")), "{tree}");
    // Keeps only the names of the crates.
    let names: Vec<_> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    for text in unwanted {
        assert!(!names.iter().any(|name| name.contains(text)), "{text} is in:\n{tree}");
    }
}

#[test]
fn small_crates_have_no_large_dependencies() {
    let large = ["aws-lc", "rustls", "icu_", "saphyr", "yaml", "sqlx", "tokio", "axum", "hyper", "utoipa", "pulldown"];
    for name in ["waypost-core", "waypost-mcp-wire", "waypost-toolbox-proto"] {
        assert_not_in_tree(name, &large);
    }
}

#[test]
fn the_protocol_of_toolboxes_has_no_input_or_output() {
    assert_not_in_tree("waypost-toolbox-proto", &["tokio", "hyper", "reqwest", "bollard"]);
}

#[test]
fn the_toolbox_daemon_has_no_database_and_no_pages() {
    let unwanted = ["waypost-store", "waypost-console", "sqlx", "sqlite", "axum", "askama"];
    assert_not_in_tree("waypost-toolbox", &unwanted);
}
