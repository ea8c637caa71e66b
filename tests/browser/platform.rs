//! Waypost's own sign-in.

use serde_json::json;

use crate::play_scenario;
use crate::support::installation::Installation;

async fn scenario(name: &str) {
    let mut installation = Installation::new().await;
    installation.create_server("tour", &["--auth-type", "platform_oauth"]).await;
    let server = installation.serve().await;
    play_scenario("platform", name, &installation, format!("{}/s/tour/mcp", server.origin), json!({})).await;
}

/// Defines one test per scenario of `e2e/browser/platform.mjs`.
macro_rules! scenarios {
    ($($name:ident),+ $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        #[cfg_attr(not(have_browser), ignore = "needs Chromium and the packages of e2e/browser")]
        async fn $name() {
            scenario(stringify!($name)).await;
        }
    )+};
}

scenarios!(signs_up, by_code, by_link, by_password, forgotten, refusal, returning, keyboard, phone);
