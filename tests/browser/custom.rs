//! Sign-in with the organisation's identity provider.

use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout};
use tokio::time::timeout;

use crate::support::TIMEOUT;
use crate::support::installation::{Installation, ServeProcess};
use crate::{node_command, play_scenario};

const SECRET: &str = "the client secret";

/// A running `oidc-provider`, killed on drop. Each start uses a new signing key.
struct Provider {
    child: Child,
    issuer: String,
    // Kept open for later output.
    _output: Lines<BufReader<ChildStdout>>,
}

impl Provider {
    /// Starts the provider for Waypost at `origin`. Port 0 means any free port.
    async fn start(origin: &str, port: &str) -> Self {
        let mut command = node_command("provider.mjs");
        command.args([port, &format!("{origin}/s/partner/oauth/callback")]);
        let mut child = command.stderr(std::process::Stdio::inherit()).spawn().expect("Node.js starts");
        let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let listening = async {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(issuer) = line.strip_prefix("listening on ") {
                    return issuer.to_owned();
                }
            }
            panic!("the provider does not listen");
        };
        let issuer = timeout(TIMEOUT, listening).await.expect("the provider listens in time");
        Self { child, issuer, _output: lines }
    }

    /// Restarts the provider with a new signing key.
    async fn restart(mut self, origin: &str) -> Self {
        self.child.kill().await.expect("the process is running");
        let (_, port) = self.issuer.rsplit_once(':').expect("the issuer has a port");
        Self::start(origin, port).await
    }
}

/// Starts an installation with the server `partner` and its provider. `options` are added to `oauth-config create`.
async fn start(options: &[&str], auth_type: &str) -> (Installation, ServeProcess, Provider) {
    let mut installation = Installation::new().await;
    let server = installation.serve().await;
    let provider = Provider::start(&server.origin, "0").await;
    let secret = installation.folder().join("secret");
    std::fs::write(&secret, SECRET).expect("the file is written");
    let secret = secret.to_str().expect("the folder's name is UTF-8");
    let create = ["oauth-config", "create", "login", "--org", "acme", "--issuer", &provider.issuer];
    let create = [&create[..], &["--client-id", "waypost", "--client-secret-file", secret], options].concat();
    installation.run(&create).await;
    installation.create_server("partner", &["--auth-type", auth_type]).await;
    (installation, server, provider)
}

async fn scenario(name: &str) {
    let (installation, server, provider) = start(&[], "custom_oauth").await;
    let url = format!("{}/s/partner/mcp", server.origin);
    play_scenario("custom", name, &installation, url, json!({ "provider": provider.issuer })).await;
}

/// Defines one test per independent scenario of `e2e/browser/custom.mjs`.
macro_rules! scenarios {
    ($($name:ident),+ $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        #[cfg_attr(not(have_browser), ignore = "needs Chromium and the packages of e2e/browser")]
        async fn $name() {
            scenario(stringify!($name)).await;
        }
    )+};
}

scenarios!(signs_in, refusal, refusal_at_the_provider);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(have_browser), ignore = "needs Chromium and the packages of e2e/browser")]
async fn a_new_provider_signing_key_is_accepted() {
    let (installation, server, provider) = start(&[], "custom_oauth").await;
    let url = format!("{}/s/partner/mcp", server.origin);
    let config = json!({ "provider": provider.issuer, "completed": 0 });
    play_scenario("custom", "again", &installation, url.clone(), config).await;
    let provider = provider.restart(&server.origin).await;
    let config = json!({ "provider": provider.issuer, "completed": 1 });
    play_scenario("custom", "again", &installation, url, config).await;
}

/// The same email is verified once by a code and once by the provider. Both sign-ins belong to the same end user only
/// if the organisation enables linking.
async fn assert_email_linking(setting: &str, completed: u32) {
    let (installation, server, provider) = start(&["--link-verified-email", setting], "platform_oauth").await;
    let url = format!("{}/s/partner/mcp", server.origin);
    play_scenario("platform", "by_code", &installation, url.clone(), json!({})).await;
    installation.run(&["server", "update", "partner", "--auth-type", "custom_oauth"]).await;
    let config = json!({ "provider": provider.issuer, "completed": completed });
    play_scenario("custom", "again", &installation, url, config).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(have_browser), ignore = "needs Chromium and the packages of e2e/browser")]
async fn a_verified_email_links_accounts() {
    assert_email_linking("true", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(have_browser), ignore = "needs Chromium and the packages of e2e/browser")]
async fn a_verified_email_does_not_link_accounts_if_disabled() {
    assert_email_linking("false", 0).await;
}
