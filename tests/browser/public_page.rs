//! A first-time visitor copies a snippet from a server's public page, and a real client uses it.

use serde_json::json;

use crate::support::installation::Installation;
use crate::{BROWSERS, installed_browser, node_command, screenshots_folder};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(
    not(all(have_browser, have_clients)),
    ignore = "needs Chromium and the packages of e2e/browser and e2e/clients"
)]
async fn a_copied_url_continues_in_a_new_client() {
    let mut installation = Installation::new().await;
    installation.create_server("rockets", &[]).await;
    installation.create_server("other", &[]).await;
    installation.create_server("members", &["--auth-type", "platform_oauth"]).await;
    installation.create_server("hidden", &["--auth-type", "platform_oauth", "--sign-in", "on_connect"]).await;
    let server = installation.serve().await;
    let _turn = BROWSERS.acquire().await.expect("the semaphore stays open");
    let config =
        json!({ "chromium": installed_browser().chromium, "url": server.origin, "screenshots": screenshots_folder() });
    let output = node_command("public_page.mjs").arg(config.to_string()).output().await.expect("Node.js starts");
    let output_text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{output_text}\n{}", output.status, installation.log());
    println!("screenshots are in {}", screenshots_folder().display());
}
