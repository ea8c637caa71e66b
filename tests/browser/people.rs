//! People sign in to the gateway with their account of the console.

use serde_json::json;

use crate::gateway::create_instance;
use crate::play_scenario;
use crate::support::installation::{Installation, ServeProcess};

/// Returns the address of the gateway for the organisation.
fn address(server: &ServeProcess) -> String {
    format!("{}/gateway/acme/mcp", server.origin)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(have_browser), ignore = "needs Chromium and the packages of e2e/browser")]
async fn signs_in() {
    let mut installation = Installation::new().await;
    create_instance(&installation, &["Finds pages."]).await;
    let server = installation.serve().await;
    let set_up = installation.mailbox.wait_for_line("set up: ").await.expect("the setup link is printed");
    let (_, path) = set_up.split_once("/setup").expect("the link leads to the setup");
    let config = json!({ "setup": format!("/setup{path}") });
    play_scenario("people", "signs_in", &installation, address(&server), config).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(have_browser), ignore = "needs Chromium and the packages of e2e/browser")]
async fn refusal() {
    let mut installation = Installation::new().await;
    let email = "ada@example.com";
    installation.run(&["user", "create", email, "--org", "acme", "--role", "member"]).await;
    let server = installation.serve().await;
    play_scenario("people", "refusal", &installation, address(&server), json!({ "email": email })).await;
}
