//! The documentation names files, tests and headings that exist, and all error codes of deployments.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use waypost_toolbox_proto::ErrorCode;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Returns the files with one of these extensions below the folders, except in `node_modules` and `target`.
fn files(folders: &[&str], extensions: &[&str]) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut pending: Vec<PathBuf> = folders.iter().map(|folder| Path::new(ROOT).join(folder)).collect();
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            if !path.ends_with("node_modules") && !path.ends_with("target") {
                pending.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            }
        } else if path.extension().is_some_and(|other| extensions.iter().any(|extension| other == *extension)) {
            files.push(path);
        }
    }
    files
}

fn documents() -> Vec<(PathBuf, String)> {
    let mut paths = files(&["docs"], &["md"]);
    paths.extend(["README.md", "CONTRIBUTING.md", "benches/README.md"].map(|name| Path::new(ROOT).join(name)));
    paths.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

/// Returns the inline code of a line.
fn code(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// Expands one pair of braces: `a/{b,c}.rs` becomes `a/b.rs` and `a/c.rs`.
fn expand(path: &str) -> Vec<String> {
    match path.split_once('{').and_then(|(start, rest)| rest.split_once('}').map(|(names, end)| (start, names, end))) {
        Some((start, names, end)) => names.split(',').map(|name| format!("{start}{name}{end}")).collect(),
        None => vec![path.to_owned()],
    }
}

#[test]
fn every_file_that_the_documentation_names_exists() {
    const FOLDERS: [&str; 7] = ["crates/", "src/", "tests/", "e2e/", "docs/", "demo/", "benches/"];
    for (document, text) in documents() {
        // In `benches/README.md`, `src/` is the folder of the benchmark.
        let base = document.parent().unwrap();
        for path in text.lines().flat_map(code).filter(|path| FOLDERS.iter().any(|folder| path.starts_with(folder))) {
            // Placeholders, patterns and commands are not paths.
            if path.contains(['<', '*', ' ']) {
                continue;
            }
            for path in expand(path) {
                let exists = base.join(&path).exists() || Path::new(ROOT).join(&path).exists();
                assert!(exists, "{} names {path}", document.display());
            }
        }
    }
}

#[test]
fn every_test_that_the_documentation_names_exists() {
    let sources = files(&["crates", "src", "tests"], &["rs"]);
    let functions: BTreeSet<String> = sources
        .iter()
        .flat_map(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            let names = text.split("fn ").skip(1).map(|rest| rest.chars().take_while(|char| is_name(*char)).collect());
            names.collect::<Vec<String>>()
        })
        .collect();
    let security = std::fs::read_to_string(Path::new(ROOT).join("docs/security.md")).unwrap();
    let attacks = security.split("\n## ").next().unwrap();
    let tests = attacks.lines().filter_map(|line| line.rsplit_once(" | ")).flat_map(|(_, tests)| code(tests));
    let mut count = 0;
    for name in tests.filter(|name| name.contains('_') && name.trim_end_matches('…').chars().all(is_name)) {
        let exists = match name.strip_suffix('…') {
            Some(start) => functions.range(start.to_owned()..).next().is_some_and(|name| name.starts_with(start)),
            None => functions.contains(name),
        };
        assert!(exists, "docs/security.md names the test {name}");
        count += 1;
    }
    assert!(count > 20, "the table of attacks names its tests");
}

fn is_name(char: char) -> bool {
    char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_'
}

/// Returns GitHub's anchor of a heading: <https://docs.github.com/en/get-started/writing-on-github>.
fn anchor(heading: &str) -> String {
    let kept = heading
        .to_lowercase()
        .chars()
        .filter(|char| char.is_alphanumeric() || " -_".contains(*char))
        .collect::<String>();
    kept.replace(' ', "-")
}

#[test]
fn every_link_leads_to_a_heading() {
    for (document, text) in documents() {
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") || target.contains(['<', ' ']) {
                continue;
            }
            let (path, fragment) = target.split_once('#').unwrap_or((target, ""));
            let file = if path.is_empty() { document.clone() } else { document.parent().unwrap().join(path) };
            assert!(file.exists(), "{} links to {target}", document.display());
            if !fragment.is_empty() {
                let text = std::fs::read_to_string(&file).unwrap();
                let headings = text.lines().filter_map(|line| line.strip_prefix('#'));
                let mut anchors = headings.map(|line| anchor(line.trim_start_matches('#').trim()));
                assert!(anchors.any(|anchor| anchor == fragment), "{} links to {target}", document.display());
            }
        }
    }
}

#[test]
fn every_error_code_of_a_deployment_is_documented() {
    let text = std::fs::read_to_string(Path::new(ROOT).join("docs/toolboxes.md")).unwrap();
    let table = text.split_once("| Code | Meaning | What to do |").unwrap().1;
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let documented: BTreeSet<&str> = rows.filter_map(|row| code(row).next()).collect();
    let codes: BTreeSet<&str> = ErrorCode::ALL.iter().map(|error| error.as_str()).collect();
    assert_eq!(documented, codes);
}
