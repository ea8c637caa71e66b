//! Console users edit a walkthrough, submit a form after their session has expired, and use lists on phones. Also runs
//! the unit tests of the editor's scripts, which need no browser.

use std::path::Path;

use serde_json::json;
use waypost_testkit::Browser;

use crate::support::installation::Installation;
use crate::{BROWSERS, installed_browser, node_command, screenshots_folder};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(have_browser), ignore = "needs Chromium and the packages of e2e/browser")]
async fn two_people_edit_a_walkthrough() {
    play("../console/editor.mjs", "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(have_browser), ignore = "needs Chromium and the packages of e2e/browser")]
async fn a_form_survives_an_expired_session() {
    play("../console/forms.mjs", "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(have_browser), ignore = "needs Chromium and the packages of e2e/browser")]
async fn the_editor_of_a_long_walkthrough_is_small() {
    play("../console/performance.mjs", "loadsLongWalkthroughsQuickly").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(have_browser), ignore = "needs Chromium and the packages of e2e/browser")]
async fn the_preview_is_updated_while_typing() {
    play("../console/performance.mjs", "updatesThePreviewWhileTyping").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(have_browser), ignore = "needs Chromium and the packages of e2e/browser")]
async fn lists_have_their_controls_on_phones() {
    play("../console/performance.mjs", "listsHaveTheirControlsOnPhones").await;
}

/// Runs a program on a fresh installation; `scenario` selects a part of it.
async fn play(program: &str, scenario: &str) {
    let mut installation = Installation::new().await;
    let server = installation.serve().await;
    let set_up = installation.mailbox.wait_for_line("set up: ").await.expect("the setup link is printed");
    let (_, path) = set_up.split_once("/setup").expect("the link leads to the setup");
    let _turn = BROWSERS.acquire().await.expect("the semaphore stays open");
    let config = json!({
        "chromium": installed_browser().chromium, "url": server.origin, "setup": format!("/setup{path}"), "screenshots": screenshots_folder(), "scenario": scenario,
    });
    let output = node_command(program).arg(config.to_string()).output().await.expect("Node.js starts");
    let output_text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{output_text}", output.status);
    print!("{output_text}");
}

#[tokio::test]
#[cfg_attr(not(have_browser), ignore = "needs Node.js")]
async fn the_unit_tests_of_the_editor_pass() {
    let Browser { node, .. } = installed_browser();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/console/unit");
    let output = tokio::process::Command::new(node).arg("--test").current_dir(folder).output();
    let output = output.await.expect("Node.js starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
