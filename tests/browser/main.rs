//! Tests in Chromium. End users sign in with Waypost's own sign-in (`platform_oauth`) and with the organisation's
//! identity provider (`custom_oauth`, simulated by the npm package `oidc-provider`), and copy a snippet from the public
//! page. People sign in to the gateway with their account of the console. These scenarios are in `e2e/browser`.
//!
//! Console users work in the editor, import files, answer a ticket, and grant agents access to tools. These scenarios are in
//! `e2e/console`.
//!
//! The scenarios check accessibility with axe-core and take screenshots, on phone and desktop, in light and dark
//! mode. The variable `SCREENSHOTS` names the folder of the screenshots.

#![expect(clippy::expect_used, reason = "a test cannot continue after a failure")]

mod custom;
mod editor;
mod gateway;
mod imports;
mod people;
mod platform;
mod public_page;
mod story;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod support;

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::process::Command;
use tokio::sync::Semaphore;

use support::installation::Installation;
use support::user::SimulatedUser;

/// Limits the number of concurrent browsers.
static BROWSERS: Semaphore = Semaphore::const_new(2);

/// Returns the command for a Node.js program in `e2e/browser`.
fn node_command(program: &str) -> Command {
    let browser = installed_browser();
    let mut command = Command::new(browser.node);
    command.arg(folder().join(program)).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Loopback requests must not use a proxy.
    command.env("NO_PROXY", "127.0.0.1,localhost").env("no_proxy", "127.0.0.1,localhost").kill_on_drop(true);
    command
}

fn installed_browser() -> waypost_testkit::Browser {
    waypost_testkit::browser(Path::new(env!("CARGO_MANIFEST_DIR"))).expect("the build script found the browser")
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/browser")
}

/// Returns the folder for screenshots.
fn screenshots_folder() -> PathBuf {
    std::env::var_os("SCREENSHOTS").map_or_else(|| std::env::temp_dir().join("waypost-screenshots"), PathBuf::from)
}

/// Plays a scenario of the kind `platform`, `custom` or `people` against the server at `url`. `more` is passed to the scenario.
async fn play_scenario(kind: &str, scenario: &str, installation: &Installation, url: String, more: Value) {
    let _turn = BROWSERS.acquire().await.expect("the semaphore stays open");
    let mail = SimulatedUser::start("nobody@example.com", installation.mailbox.clone()).await;
    let mut config = json!({
        "chromium": installed_browser().chromium, "url": url, "mail": mail.origin, "screenshots": screenshots_folder(),
    });
    for (name, value) in more.as_object().into_iter().flatten() {
        config[name] = value.clone();
    }
    let mut command = node_command("run.mjs");
    let output = command.args([kind, scenario, &config.to_string()]).output().await.expect("Node.js starts");
    let output_text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{kind} {scenario}: {}\n{output_text}", output.status);
    println!("screenshots are in {}", screenshots_folder().display());
}
