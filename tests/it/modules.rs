//! The top-level modules of a crate do not depend on each other in cycles.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The remaining cycles: modules that all depend on each other, by source folder. Remove an entry when its cycle is
/// broken; do not add any.
const KNOWN: &[(&str, &[&str])] = &[
    ("crates/auth/src", &["asset", "page", "pending"]),
    ("crates/content/src", &["template", "transfer"]),
    ("crates/core/src", &["seal", "secret"]),
    ("crates/jobs/src", &["job", "lease"]),
    ("crates/mcp/src", &["context", "listen", "prompts", "resources", "tools"]),
    ("crates/player/src", &["markdown", "screen"]),
];

type Graph = BTreeMap<String, BTreeSet<String>>;

/// Returns the source files below `folder`.
fn list_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.flat_map(|path| if path.is_dir() { list_files(&path) } else { vec![path] });
    files.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

/// Returns the source files of each top-level module.
fn list_modules(source: &Path) -> BTreeMap<String, Vec<PathBuf>> {
    let mut modules: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for entry in std::fs::read_dir(source).unwrap().map(|entry| entry.unwrap().path()) {
        let name = entry.file_stem().unwrap().to_str().unwrap().to_owned();
        modules.entry(name).or_default().extend(if entry.is_dir() { list_files(&entry) } else { vec![entry] });
    }
    modules
}

/// Returns the names that follow `crate::` in a source text: `a` and `b` of `crate::a::x` and `crate::{b::y, a}`.
fn list_references(text: &str) -> BTreeSet<String> {
    let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let starts = code.match_indices("crate::").filter(|(at, _)| {
        !code[..*at].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == '$')
    });
    let mut names = BTreeSet::new();
    for (at, found) in starts {
        let rest = &code[at + found.len()..];
        match rest.strip_prefix('{') {
            Some(list) => names.extend(split_list(list).into_iter().map(first_name)),
            None => drop(names.insert(first_name(rest))),
        }
    }
    names
}

/// Splits the inside of a `use` list at its top-level commas.
fn split_list(list: &str) -> Vec<&str> {
    let (mut items, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, char) in list.char_indices() {
        match char {
            '{' => depth += 1,
            '}' if depth == 0 => {
                items.push(&list[start..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    items
}

fn first_name(path: &str) -> String {
    path.trim_start().chars().take_while(|char| char.is_alphanumeric() || *char == '_').collect()
}

/// Returns the dependencies between the top-level modules of a crate.
fn read_graph(source: &Path) -> Graph {
    let modules = list_modules(source);
    let dependencies = |name: &String, files: &Vec<PathBuf>| -> BTreeSet<String> {
        let names = files.iter().flat_map(|file| list_references(&std::fs::read_to_string(file).unwrap()));
        names.filter(|other| other != name && modules.contains_key(other)).collect()
    };
    modules.iter().map(|(name, files)| (name.clone(), dependencies(name, files))).collect()
}

fn reachable(graph: &Graph, from: &str) -> BTreeSet<String> {
    let (mut found, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(name) = open.pop() {
        open.extend(graph[name].iter().filter(|next| found.insert((*next).clone())).map(String::as_str));
    }
    found
}

/// Returns the sets of modules that all depend on each other, directly or indirectly.
fn find_cycles(graph: &Graph) -> BTreeSet<Vec<String>> {
    let all: BTreeMap<_, _> = graph.keys().map(|name| (name, reachable(graph, name))).collect();
    let in_cycles = all.iter().filter(|(name, reached)| reached.contains(**name));
    in_cycles
        .map(|(name, reached)| reached.iter().filter(|other| all[other].contains(*name)).cloned().collect())
        .collect()
}

#[test]
fn only_known_cycles_remain() {
    let crates = std::fs::read_dir(Path::new(ROOT).join("crates")).unwrap();
    let mut sources: Vec<_> = crates.map(|folder| folder.unwrap().path().join("src")).collect();
    sources.extend([Path::new(ROOT).join("src"), Path::new(ROOT).join("benches/src")]);
    let mut found = BTreeSet::new();
    for source in sources {
        let name = source.strip_prefix(ROOT).unwrap().to_str().unwrap().to_owned();
        found.extend(find_cycles(&read_graph(&source)).into_iter().map(|cycle| (name.clone(), cycle)));
    }
    let known = KNOWN.iter().map(|(source, cycle)| {
        ((*source).to_owned(), cycle.iter().map(|module| (*module).to_owned()).collect::<Vec<_>>())
    });
    assert_eq!(found, known.collect(), "found on the left, known on the right");
}

#[test]
fn the_graph_of_the_operations_is_read() {
    let graph = read_graph(&Path::new(ROOT).join("crates/ops/src"));
    assert!(graph["hosting"].contains("caches") && graph["hosting"].contains("offers"), "{:?}", graph["hosting"]);
    assert!(reachable(&graph, "progress").contains("hosting"));
    assert!(!reachable(&graph, "caches").contains("hosting"));
}

#[test]
fn references_and_cycles_are_found() {
    let text = "use crate::{a, b::{c, d}, e};\n// crate::comment\nfn f() { crate::g::h(); $crate::macros(); }\n";
    assert_eq!(list_references(text), ["a", "b", "e", "g"].map(str::to_owned).into());
    let graph = [("a", vec!["b"]), ("b", vec!["c"]), ("c", vec!["b"]), ("d", vec!["a"])];
    let graph = graph.map(|(name, to)| (name.to_owned(), to.into_iter().map(str::to_owned).collect())).into();
    assert_eq!(find_cycles(&graph), [vec!["b".to_owned(), "c".to_owned()]].into());
}
