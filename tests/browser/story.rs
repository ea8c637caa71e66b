//! The main console workflows in one scenario, from an empty database to an answered ticket.

use serde_json::json;

use crate::support::installation::Installation;
use crate::support::user::SimulatedUser;
use crate::{BROWSERS, installed_browser, node_command, screenshots_folder};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(have_browser), ignore = "needs Chromium and the packages of e2e/browser")]
async fn from_an_empty_database_to_an_answered_ticket() {
    let mut installation = Installation::empty();
    let server = installation.serve().await;
    let set_up = installation.mailbox.wait_for_line("set up: ").await.expect("the setup link is printed");
    let (_, path) = set_up.split_once("/setup").expect("the link leads to the setup");
    let _turn = BROWSERS.acquire().await.expect("the semaphore stays open");
    let mail = SimulatedUser::start("nobody@example.com", installation.mailbox.clone()).await;
    let config = json!({
        "chromium": installed_browser().chromium, "url": server.origin, "setup": format!("/setup{path}"), "screenshots": screenshots_folder(),
        "waypost": env!("CARGO_BIN_EXE_waypost"), "folder": installation.folder(), "mail": mail.origin,
    });
    let output = node_command("../console/story.mjs").arg(config.to_string()).output().await.expect("Node.js starts");
    let output_text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{output_text}\n{}", output.status, installation.log());
    println!("{output_text}screenshots are in {}", screenshots_folder().display());
}
