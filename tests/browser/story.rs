//! From an empty database to a ticket that is answered: everything that the console is for, in one story.

use serde_json::json;

use crate::support::installation::Installation;
use crate::support::user::User;
use crate::{BROWSERS, found, node, screenshots};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(have_browser), ignore = "needs Chromium and what is in e2e/browser")]
async fn from_an_empty_database_to_an_answered_ticket() {
    let mut installation = Installation::empty();
    let server = installation.serve().await;
    let set_up = installation.mailbox.line("set up: ").await.expect("it prints the link");
    let (_, path) = set_up.split_once("/setup").expect("it leads to the set-up");
    let _turn = BROWSERS.acquire().await.expect("nobody closes it");
    let mail = User::start("nobody@example.com", installation.mailbox.clone()).await;
    let given = json!({
        "chromium": found().chromium, "url": server.origin, "setup": format!("/setup{path}"), "screenshots": screenshots(),
        "waypost": env!("CARGO_BIN_EXE_waypost"), "folder": installation.folder(), "mail": mail.origin,
    });
    let output = node("../console/story.mjs").arg(given.to_string()).output().await.expect("node starts");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{said}\n{}", output.status, installation.log());
    println!("{said}screenshots are in {}", screenshots().display());
}
