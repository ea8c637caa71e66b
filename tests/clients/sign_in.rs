//! Sign-in with real clients: each client signs in when prompted, either on connect or when it starts a walkthrough, as
//! a dynamically registered client or with a metadata document. Client and server are killed midway. The next run of
//! both continues at the same step without signing in again.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::support::TIMEOUT;
use crate::support::documents::DocumentServer;
use crate::support::installation::Installation;
use crate::support::user::SimulatedUser;
use crate::{clients_folder, interpreter_for};

/// The redirect URI of each client. Any loopback port is accepted.
pub const REDIRECT_URIS: &[(&str, &str)] = &[
    ("python", "http://127.0.0.1/callback"),
    ("typescript", "http://127.0.0.1/callback"),
    ("inspector", "http://127.0.0.1/oauth/callback"),
    ("mcp-remote", "http://127.0.0.1/oauth/callback"),
];

/// The method by which a client obtains its client ID.
#[derive(Clone, Copy, PartialEq)]
pub enum Registration {
    /// It registers itself.
    Dynamic,
    /// It has a metadata document.
    Document,
}

/// A client script with the settings of the client and the server.
struct Case {
    script: &'static str,
    client: &'static str,
    era: &'static str,
    version: &'static str,
    registration: Registration,
    /// The server's `sign_in` setting.
    sign_in: &'static str,
}

impl Case {
    /// Whether the client must sign in on connect. With `auto`, this applies to clients that fail if prompted
    /// later.
    fn is_asked_on_connect(&self) -> bool {
        self.sign_in == "on_connect" || self.sign_in == "auto" && self.era == "mcp-remote-0.1"
    }
}

/// A run of a client's script.
pub struct Run {
    child: Child,
    arguments: String,
}

impl Run {
    /// Starts a script with its configuration.
    pub fn start(script: &str, config: &Value) -> Self {
        let arguments = format!("{script} {config}");
        let child = Command::new(interpreter_for(script))
            .arg(clients_folder().join("sign_in").join(script))
            .arg(config.to_string())
            // Loopback requests must not use a proxy.
            .env("NO_PROXY", "127.0.0.1,localhost")
            .env("no_proxy", "127.0.0.1,localhost")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the client starts");
        Self { child, arguments }
    }

    /// Returns the first line that the script prints, which is JSON.
    pub async fn read_report(&mut self) -> Value {
        let mut lines = BufReader::new(self.child.stdout.take().expect("stdout is piped")).lines();
        let line = timeout(TIMEOUT, lines.next_line()).await;
        if let Ok(Ok(Some(line))) = line {
            return serde_json::from_str(&line).unwrap_or_else(|_| panic!("{} printed {line}", self.arguments));
        }
        let _ = self.child.start_kill();
        let mut stderr = String::new();
        let _ = self.child.stderr.take().expect("stderr is piped").read_to_string(&mut stderr).await;
        panic!("{} printed nothing:\n{stderr}", self.arguments);
    }

    async fn kill(mut self) {
        self.child.start_kill().expect("the process is running");
        self.child.wait().await.expect("the process can be waited for");
    }
}

async fn play_case(case: Case) {
    let documents = DocumentServer::start(REDIRECT_URIS).await;
    let mut installation = Installation::new().await;
    let authority = installation.folder().join("authority.pem");
    documents.write_authority(&authority);
    installation.set_env("WAYPOST_LOG_LEVEL", "debug".to_owned());
    installation.set_env("WAYPOST_OUTBOUND_CA_FILE", authority.display().to_string());
    installation.create_server("tour", &["--auth-type", "platform_oauth", "--sign-in", case.sign_in]).await;
    let state: PathBuf = installation.folder().join("client");
    std::fs::create_dir(&state).expect("the folder is created");
    let user = SimulatedUser::start("ada@example.com", installation.mailbox.clone()).await;
    let document = (case.registration == Registration::Document).then(|| documents.client_id(case.client));

    let server = installation.serve().await;
    let mut config = json!({
        "url": format!("{}/s/tour/mcp", server.origin), "era": case.era, "user": user.origin,
        "state": state, "run": "first", "document": document, "on_connect": case.is_asked_on_connect(),
    });
    let mut run = Run::start(case.script, &config);
    let first = run.read_report().await;
    assert_eq!(first["protocol_version"], case.version, "{first}");
    run.kill().await;
    server.kill().await;

    let server = installation.serve().await;
    assert_eq!(config["url"], format!("{}/s/tour/mcp", server.origin), "the server uses the same port");
    config["run"] = json!("second");
    let second = Run::start(case.script, &config).read_report().await;
    assert_eq!(second["resumed"], first["at"], "{first} {second}");
    assert_eq!(second["completed"], true, "{second}");
    assert_eq!(user.sign_ins(), 1, "the client's stored tokens are sufficient");
    assert_no_secret_logged(&installation, &user, &state);
    assert_eq!(
        documents.fetch_count() > 0,
        case.registration == Registration::Document,
        "the document is fetched only if the client is identified by it"
    );
    println!("{} {} {}: {first} {second}", case.client, case.era, case.sign_in);
}

/// Invariant 9: no secret of the user or the client is logged.
pub fn assert_no_secret_logged(installation: &Installation, user: &SimulatedUser, state: &Path) {
    let mut secrets = user.secrets();
    assert!(secrets.len() >= 4, "an email code, two cookies, an authorization code: {}", secrets.len());
    collect_tokens(state, &mut secrets);
    let log = installation.log();
    assert!(log.contains("/oauth/token"), "the log records the events");
    for secret in secrets {
        assert!(!log.contains(&secret), "{secret} is logged:\n{log}");
    }
}

/// Collects the tokens in the client's files, which are all JSON.
fn collect_tokens(folder: &Path, tokens: &mut Vec<String>) {
    let before = tokens.len();
    for entry in list_files(folder) {
        let text = std::fs::read_to_string(entry).unwrap_or_default();
        for name in ["\"access_token\"", "\"refresh_token\""] {
            let values = text.split(name).skip(1).filter_map(|rest| rest.split('"').nth(1));
            tokens.extend(values.map(str::to_owned));
        }
    }
    assert!(tokens.len() > before, "the client keeps its tokens in {}", folder.display());
}

fn list_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { list_files(&path) } else { vec![path] }).collect()
}

/// Defines a client's tests, with the era to use and the version that must be negotiated.
macro_rules! signs_in {
    ($module:ident, $script:literal, $client:literal, $($test:ident => $registration:ident, $sign_in:literal, $era:literal, $version:literal;)+) => {
        mod $module {
            use super::{Case, Registration, play_case};

            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                #[cfg_attr(not(have_clients), ignore = "needs the MCP clients of e2e/clients")]
                async fn $test() {
                    let (script, client, sign_in) = ($script, $client, $sign_in);
                    play_case(Case { script, client, era: $era, version: $version, registration: Registration::$registration, sign_in }).await;
                }
            )+
        }
    };
}

signs_in! { python, "python_client.py", "python",
    registered => Dynamic, "when_needed", "legacy", "2025-11-25";
    with_document => Document, "when_needed", "auto", "2026-07-28";
    on_connect => Dynamic, "on_connect", "auto", "2026-07-28";
}

signs_in! { typescript, "typescript.mjs", "typescript",
    registered => Dynamic, "when_needed", "legacy", "2025-11-25";
    with_document => Document, "when_needed", "auto", "2026-07-28";
    on_connect => Dynamic, "on_connect", "auto", "2026-07-28";
    by_default => Dynamic, "auto", "auto", "2026-07-28";
}

signs_in! { inspector, "inspector.mjs", "inspector",
    registered => Dynamic, "when_needed", "legacy", "2025-11-25";
    with_document => Document, "when_needed", "auto", "2026-07-28";
    on_connect => Dynamic, "on_connect", "auto", "2026-07-28";
}

// The client behind mcp-remote uses a legacy revision, even if mcp-remote uses a newer one with the server.
signs_in! { mcp_remote, "mcp_remote.mjs", "mcp-remote",
    registered => Dynamic, "when_needed", "legacy", "2025-11-25";
    with_document => Document, "when_needed", "auto", "2025-11-25";
    on_connect => Dynamic, "on_connect", "auto", "2025-11-25";
    by_default => Dynamic, "auto", "legacy", "2025-11-25";
    old_by_default => Dynamic, "auto", "mcp-remote-0.1", "2025-11-25";
}
