//! Checks that a daemon has left nothing behind.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::engine::Engine;

/// Returns descriptions of the containers, networks and volumes with a label, such as `dev.waypost.toolbox=tbx_…`, and of
/// the files in the folder for secrets.
pub fn leftovers(engine: &Engine, label: &str, secrets: &Path) -> Vec<String> {
    let describe = |kind: &'static str, list: Vec<Value>, name: &'static str| {
        list.into_iter().map(move |item| format!("{kind} {}", item[name].to_string().trim_matches('"')))
    };
    let mut found: Vec<String> = describe("container", engine.containers(label), "Id").collect();
    found.extend(describe("network", engine.networks(label), "Name"));
    found.extend(describe("volume", engine.volumes(label), "Name"));
    found.extend(files_in(secrets).iter().map(|file| format!("file {}", file.display())));
    found
}

/// Checks that nothing of a toolbox is left.
pub fn assert_nothing_left(engine: &Engine, toolbox: &str, secrets: &Path) {
    let found = leftovers(engine, &format!("dev.waypost.toolbox={toolbox}"), secrets);
    assert!(found.is_empty(), "left behind: {found:#?}");
}

/// Returns the files below a folder, without the folders.
fn files_in(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { files.extend(files_in(&path)) } else { files.push(path) }
    }
    files
}
