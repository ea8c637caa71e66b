//! Walkthroughs in third-party formats can be imported on the console's import page and completed.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::support::installation::Installation;
use crate::{BROWSERS, installed_browser, node_command, screenshots_folder};

/// Imports each sample on the page and plays it.
async fn drop_and_play(samples: Vec<PathBuf>) {
    let mut installation = Installation::new().await;
    let server = installation.serve().await;
    let set_up = installation.mailbox.wait_for_line("set up: ").await.expect("the setup link is printed");
    let (_, path) = set_up.split_once("/setup").expect("the link leads to the setup");
    let _turn = BROWSERS.acquire().await.expect("the semaphore stays open");
    let folder = installation.folder().join("players");
    std::fs::create_dir_all(&folder).expect("the folder is created");
    let config = json!({
        "chromium": installed_browser().chromium, "url": server.origin, "setup": format!("/setup{path}"), "screenshots": screenshots_folder(),
        "waypost": env!("CARGO_BIN_EXE_waypost"), "folder": folder, "samples": samples,
    });
    let output = node_command("../console/imports.mjs").arg(config.to_string()).output().await.expect("Node.js starts");
    let output_text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{output_text}\n{}", output.status, installation.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(have_browser), ignore = "needs Chromium and the packages of e2e/browser")]
async fn fixtures_can_be_imported_and_played() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/imports");
    let files = ["tour", "tour/.tours/around.tour", "scenario", "skills", "course", "docs/write-a-recipe.md"];
    drop_and_play(files.iter().map(|file| fixtures.join(file)).collect()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(have_samples), ignore = "only with samples in WAYPOST_TEST_SAMPLES")]
#[cfg_attr(all(have_samples, not(have_browser)), ignore = "needs Chromium and the packages of e2e/browser")]
async fn third_party_samples_can_be_imported_and_played() {
    let samples = waypost_testkit::samples_folder(Path::new(env!("CARGO_MANIFEST_DIR")));
    // Chromium uploads only files with absolute paths.
    let samples = samples.canonicalize().expect("the samples exist");
    let files = [
        "codetour",
        "mastra-course",
        "github-skills",
        "killercoda/openfeature-demo",
        "docusaurus/create-a-document.md",
    ];
    drop_and_play(files.iter().map(|file| samples.join(file)).collect()).await;
}
