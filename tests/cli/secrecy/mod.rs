//! No secret is logged (docs/sign-in.md, invariant 9). A user of the built program signs in with every method,
//! successfully and unsuccessfully. Then the log is searched for every secret that was sent or issued.

mod traffic;

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout};
use tokio::time::timeout;

use self::traffic::{Secret, Traffic};
use crate::Workspace;

const TIMEOUT: Duration = Duration::from_secs(60);
const WALKTHROUGH: &str = "# Hello\n\nWhat it is about.\n\n## One\n\nFirst text.\n\n## Two\n\nSecond text.\n";
/// The length of the prefix and the suffix of a secret that must not be logged either.
const PART: usize = 16;
/// The routes in the log, which contain placeholders instead of values.
const ROUTES: [&str; 11] = [
    "/s/{slug}/mcp",
    "/s/{slug}/t/{tracking_id}/mcp",
    "/s/{slug}/oauth/register",
    "/s/{slug}/oauth/authorize",
    "/s/{slug}/oauth/token",
    "/s/{slug}/oauth/revoke",
    "/s/{slug}/oauth/sign-up",
    "/s/{slug}/oauth/sign-in/code",
    "/s/{slug}/oauth/sign-in/link",
    "/s/{slug}/oauth/sign-in/password",
    "/s/{slug}/oauth/sign-in/reset",
];

/// A running `waypost serve`.
struct ServeProcess {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    port: u16,
    log: PathBuf,
}

impl ServeProcess {
    async fn start(workspace: &Workspace, level: &str) -> Self {
        let log = workspace.path("serve.log");
        let serve = ["serve", "--listen", "127.0.0.1:0", "--diagnostics-listen", "off"];
        let mut command = tokio::process::Command::from(workspace.command(&serve));
        command.env("WAYPOST_LOG_LEVEL", level).env("WAYPOST_SMTP_URL", "console:").kill_on_drop(true);
        command.stdout(Stdio::piped()).stderr(std::fs::File::create(&log).unwrap());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut program = Self { child, lines, port: 0, log };
        let address = program.wait_for("listening on http://127.0.0.1:").await;
        program.port = address.parse().unwrap();
        program
    }

    /// Returns the rest of the next line of standard output that contains `mark`.
    async fn wait_for(&mut self, mark: &str) -> String {
        let found = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                if let Some((_, rest)) = line.split_once(mark) {
                    return rest.to_owned();
                }
            }
            panic!("the process ended: {}", std::fs::read_to_string(&self.log).unwrap());
        };
        timeout(TIMEOUT, found).await.unwrap_or_else(|_| panic!("no {mark}"))
    }

    /// Returns the code in the next printed email.
    async fn next_mail_code(&mut self) -> String {
        self.wait_for("&code=").await.trim_end().to_owned()
    }

    /// Stops the process and returns its log.
    async fn stop(mut self) -> String {
        let pid = Pid::from_raw(self.child.id().unwrap().cast_signed()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        let status = timeout(TIMEOUT, self.child.wait()).await.expect("the process ends in time").unwrap();
        let log = std::fs::read_to_string(&self.log).unwrap();
        assert!(status.success(), "{log}");
        log
    }
}

/// Returns the lines of `log` that contain a secret, its form encoding, or its first or last [`PART`] characters.
fn find_leaks(log: &str, secrets: &[Secret]) -> Vec<String> {
    let mut found = Vec::new();
    for Secret { kind, value } in secrets {
        let encoded: String = url::form_urlencoded::byte_serialize(value.as_bytes()).collect();
        let mut needles = vec![value.as_str(), &encoded];
        if value.is_ascii() && value.len() > PART {
            needles.extend([&value[..PART], &value[value.len() - PART..]]);
        }
        let lines = log.lines().filter(|line| needles.iter().any(|needle| line.contains(needle)));
        found.extend(lines.map(|line| format!("{kind}: {line}")));
    }
    found
}

async fn assert_no_secrets_logged(level: &str) {
    let workspace = Workspace::new();
    workspace.run_ok(&["org", "create", "acme"]);
    workspace.run_ok(&["server", "create", "acme-docs", "--auth-type", "platform_oauth"]);
    workspace.run_ok(&["server", "create", "acme-open"]);
    let file = workspace.write_file("hello.md", WALKTHROUGH);
    workspace.run_ok(&["walkthrough", "import", &file, "--server", "acme-docs", "--publish"]);
    let mut program = ServeProcess::start(&workspace, level).await;
    let mut traffic = Traffic::new(program.port);
    traffic.run_all(&mut program).await;
    let log = program.stop().await;
    assert_eq!(find_leaks(&log, &traffic.secrets), [""; 0]);
    // Every request is logged, and the search finds planted values.
    let logged = log.lines().filter(|line| line.contains("\"message\":\"request completed\"")).count();
    assert_eq!(logged, traffic.sent, "{log}");
    for route in ROUTES {
        assert!(!find_leaks(&log, &[Secret::new("route", route)]).is_empty(), "{route}: {log}");
    }
    for secret in &traffic.secrets {
        assert!(secret.value.len() >= 8, "{secret:?} is too short to search for");
        let logged = format!("{log}{{\"message\":\"it is {}!\"}}\n", secret.value);
        assert_eq!(find_leaks(&logged, std::slice::from_ref(secret)).len(), 1, "{secret:?}");
    }
    for kind in traffic::SECRET_KINDS {
        assert!(traffic.secrets.iter().any(|secret| secret.kind == kind), "no {kind}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_logged_at_level_debug() {
    assert_no_secrets_logged("debug").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_logged_at_level_trace() {
    assert_no_secrets_logged("debug,waypost=trace").await;
}
