//! Walkthroughs in the formats of others, dropped on the console's import page, play to their end.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::support::installation::Installation;
use crate::{BROWSERS, found, node, screenshots};

/// Drops each sample and plays it; `folder` holds nothing that can be imported.
async fn drop_and_play(samples: Vec<PathBuf>) {
    let mut installation = Installation::new().await;
    let server = installation.serve().await;
    let set_up = installation.mailbox.line("set up: ").await.expect("it prints the link");
    let (_, path) = set_up.split_once("/setup").expect("it leads to the set-up");
    let _turn = BROWSERS.acquire().await.expect("nobody closes it");
    let folder = installation.folder().join("players");
    std::fs::create_dir_all(&folder).expect("the folder takes folders");
    let given = json!({
        "chromium": found().chromium, "url": server.origin, "setup": format!("/setup{path}"), "screenshots": screenshots(),
        "waypost": env!("CARGO_BIN_EXE_waypost"), "folder": folder, "samples": samples,
    });
    let output = node("../console/imports.mjs").arg(given.to_string()).output().await.expect("node starts");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{said}\n{}", output.status, installation.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(have_browser), ignore = "needs Chromium and what is in e2e/browser")]
async fn own_fixtures_are_dropped_and_played() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/imports");
    let files = ["tour", "tour/.tours/around.tour", "scenario", "skills", "course", "docs/write-a-recipe.md"];
    drop_and_play(files.iter().map(|file| fixtures.join(file)).collect()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(have_browser), ignore = "needs Chromium and what is in e2e/browser")]
async fn samples_of_others_are_dropped_and_played() {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/imports");
    let samples = std::env::var_os("WAYPOST_TEST_SAMPLES").map_or(beside, PathBuf::from);
    let Ok(samples) = samples.canonicalize() else {
        eprintln!("skipped: there are no samples in {}", samples.display());
        return;
    };
    let files = [
        "codetour",
        "mastra-course",
        "github-skills",
        "killercoda/openfeature-demo",
        "docusaurus/create-a-document.md",
    ];
    drop_and_play(files.iter().map(|file| samples.join(file)).collect()).await;
}
