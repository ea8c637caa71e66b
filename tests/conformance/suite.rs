//! Running the suite's program, and reading what it has checked.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use waypost_testkit::TempDir;

/// The check that is made of every message of every scenario.
const MESSAGE_FORM_CHECK: &str = "wire-schema-valid";

/// One check of a scenario.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// Its id, such as `tools-list`.
    pub id: String,
    /// `SUCCESS`, `FAILURE`, `WARNING`, `SKIPPED` or `INFO`.
    pub status: String,
    /// Why it failed.
    #[serde(default)]
    pub error_message: Option<String>,
}

/// What a run has checked, by scenario.
pub struct Report {
    /// Whether the suite itself calls it a success.
    pub succeeded: bool,
    /// The checks.
    pub checks: BTreeMap<String, Vec<Check>>,
    /// What the suite said.
    pub output: String,
}

impl Report {
    /// The ids of what has failed or was warned of, sorted, each once.
    pub fn failed_checks(&self, scenario: &str) -> Vec<&str> {
        let checks = self.checks.get(scenario).map(Vec::as_slice).unwrap_or_default();
        let faults = checks.iter().filter(|check| matches!(check.status.as_str(), "FAILURE" | "WARNING"));
        let mut faults: Vec<&str> = faults.map(|check| check.id.as_str()).collect();
        faults.sort_unstable();
        faults.dedup();
        faults
    }

    /// How many checks of a scenario have succeeded, besides that of the form of the messages that happened to be seen:
    /// it also succeeds when there were none.
    pub fn success_count(&self, scenario: &str) -> usize {
        let checks = self.checks.get(scenario).map(Vec::as_slice).unwrap_or_default();
        checks.iter().filter(|check| check.status == "SUCCESS" && check.id != MESSAGE_FORM_CHECK).count()
    }

    /// The checks of a scenario, for people.
    pub fn details(&self, scenario: &str) -> String {
        format!("{:#?}", self.checks.get(scenario))
    }

    /// What the suite says at the end.
    pub fn summary(&self) -> &str {
        self.output.find("=== SUMMARY ===").map_or(&self.output, |at| &self.output[at..])
    }
}

/// Runs the suite against `url` with `arguments` and waits for its end.
pub async fn run(url: &str, arguments: &[&str]) -> Report {
    let folder = waypost_testkit::folder();
    let output = command()
        .args(["server", "--url", url, "--output-dir"])
        .arg(folder.path())
        .args(arguments)
        .current_dir(folder.path())
        .output()
        .await
        .expect("the suite starts");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    Report { succeeded: output.status.success(), checks: read_checks(&folder), output: text.into_owned() }
}

/// Runs the suite against an authorization server. `arrive` is called with the address that the suite wants to be opened
/// in its user's browser, when it listens for the outcome.
pub async fn authorize(arguments: &[&str], open_url: impl AsyncFnOnce(String)) -> Report {
    let folder = waypost_testkit::folder();
    let mut command = command();
    command.args(["authorization", "--output-dir"]).arg(folder.path()).args(arguments).current_dir(folder.path());
    let mut child = command.stdout(Stdio::piped()).spawn().expect("the suite starts");
    let mut lines = BufReader::new(child.stdout.take().expect("its output is a pipe")).lines();
    let (mut output, mut address, mut open_url) = (String::new(), None, Some(open_url));
    while let Some(line) = lines.next_line().await.expect("its output is text") {
        output.push_str(&line);
        output.push('\n');
        if line.starts_with("Callback server started") {
            if let (Some(address), Some(open_url)) = (address.take(), open_url.take()) {
                open_url(address).await;
            }
        } else if line.starts_with("http") && line.contains("code_challenge=") {
            address = Some(line);
        }
    }
    let status = child.wait().await.expect("it is a child");
    Report { succeeded: status.success(), checks: read_checks(&folder), output }
}

/// The server scenarios that count for a revision.
pub async fn required(revision: &str) -> Vec<String> {
    let output = command().args(["list", "--requirements", revision]).output().await.expect("the suite starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let of_servers = text.lines().skip_while(|line| !line.starts_with("Server scenarios"));
    let of_servers = of_servers.take_while(|line| !line.starts_with("Client scenarios"));
    of_servers.filter_map(|line| line.trim().strip_prefix("- ")).map(str::to_owned).collect()
}

fn command() -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let suite = waypost_testkit::conformance(root).expect("the suite that the build script has found");
    let mut command = Command::new(suite.node);
    command.arg(suite.program).kill_on_drop(true);
    command
}

/// The suite makes a folder `server-SCENARIO-TIME` or `authorization-server-SCENARIO-TIME` for every scenario.
fn read_checks(folder: &TempDir) -> BTreeMap<String, Vec<Check>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder.path()).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        // The time is 24 characters long, such as 2026-11-21T03-47-40-963Z.
        let scenario = name.strip_prefix("authorization-server-").or_else(|| name.strip_prefix("server-"));
        let scenario = scenario.and_then(|name| name.get(..name.len() - 25)).unwrap_or(&name);
        // A scenario that broke off has no file: it has checked nothing.
        let checks = std::fs::read(entry.path().join("checks.json")).unwrap_or_else(|_| b"[]".to_vec());
        let checks: Vec<Check> = serde_json::from_slice(&checks).unwrap();
        all.insert(scenario.to_owned(), checks);
    }
    all
}
