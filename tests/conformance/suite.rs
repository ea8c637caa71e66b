//! Runs the conformance suite and reads its checks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use waypost_testkit::TempDir;

/// The check that the suite applies to every message of every scenario.
const MESSAGE_FORM_CHECK: &str = "wire-schema-valid";

/// The time that a client has for a scenario, in milliseconds. All scenarios run at the same time.
const CLIENT_TIMEOUT: &str = "120000";

/// One check of a scenario.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// The ID, such as `tools-list`.
    pub id: String,
    /// `SUCCESS`, `FAILURE`, `WARNING`, `SKIPPED` or `INFO`.
    pub status: String,
    /// The reason for a failure.
    #[serde(default)]
    pub error_message: Option<String>,
}

/// The checks of a run, by scenario.
pub struct Report {
    /// Whether the suite exited successfully.
    pub succeeded: bool,
    /// The checks by scenario.
    pub checks: BTreeMap<String, Vec<Check>>,
    /// The output of the suite.
    pub output: String,
}

impl Report {
    /// Returns the sorted unique IDs of checks with a failure or warning.
    pub fn failed_checks(&self, scenario: &str) -> Vec<&str> {
        let checks = self.checks.get(scenario).map(Vec::as_slice).unwrap_or_default();
        let faults = checks.iter().filter(|check| matches!(check.status.as_str(), "FAILURE" | "WARNING"));
        let mut faults: Vec<&str> = faults.map(|check| check.id.as_str()).collect();
        faults.sort_unstable();
        faults.dedup();
        faults
    }

    /// Returns the number of successful checks of a scenario, without the message form check, which also succeeds if
    /// there were no messages.
    pub fn success_count(&self, scenario: &str) -> usize {
        let checks = self.checks.get(scenario).map(Vec::as_slice).unwrap_or_default();
        checks.iter().filter(|check| check.status == "SUCCESS" && check.id != MESSAGE_FORM_CHECK).count()
    }

    /// Returns the checks of a scenario for a failure message.
    pub fn details(&self, scenario: &str) -> String {
        format!("{:#?}", self.checks.get(scenario))
    }

    /// Returns the summary at the end of the output.
    pub fn summary(&self) -> &str {
        self.output.find("=== SUMMARY ===").map_or(&self.output, |at| &self.output[at..])
    }
}

/// Runs the suite against `url` with `arguments` and waits until it exits.
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

/// Runs the suite against an authorization server. Calls `open_url` with the URL for the user's browser once the
/// suite listens for the callback.
pub async fn authorize(arguments: &[&str], open_url: impl AsyncFnOnce(String)) -> Report {
    let folder = waypost_testkit::folder();
    let mut command = command();
    command.args(["authorization", "--output-dir"]).arg(folder.path()).args(arguments).current_dir(folder.path());
    let mut child = command.stdout(Stdio::piped()).spawn().expect("the suite starts");
    let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
    let (mut output, mut address, mut open_url) = (String::new(), None, Some(open_url));
    while let Some(line) = lines.next_line().await.expect("the output is UTF-8") {
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
    let status = child.wait().await.expect("the process can be waited for");
    Report { succeeded: status.success(), checks: read_checks(&folder), output }
}

/// Runs the suite's scenarios for clients, which the driver at this URL plays, and waits until it exits.
pub async fn run_client(driver: &str, arguments: &[&str]) -> Report {
    let folder = waypost_testkit::folder();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let suite = waypost_testkit::conformance(root).expect("the build script found the suite");
    let client = root.join("e2e/conformance/client.mjs");
    let client = format!("{} {} {driver}", suite.node.display(), client.display());
    let output = command()
        .args(["client", "--command", &client, "--timeout", CLIENT_TIMEOUT, "--output-dir"])
        .arg(folder.path())
        .args(arguments)
        .current_dir(folder.path())
        // Loopback requests must not use a proxy.
        .env("NO_PROXY", "127.0.0.1,localhost")
        .output()
        .await
        .expect("the suite starts");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    Report { succeeded: output.status.success(), checks: read_client_checks(&folder), output: text.into_owned() }
}

/// Returns the server scenarios that a revision requires.
pub async fn required(revision: &str) -> Vec<String> {
    let text = list(revision).await;
    let of_servers = text.lines().skip_while(|line| !line.starts_with("Server scenarios"));
    let of_servers = of_servers.take_while(|line| !line.starts_with("Client scenarios"));
    of_servers.filter_map(|line| line.trim().strip_prefix("- ")).map(str::to_owned).collect()
}

/// Returns the client scenarios of a revision, also those that it does not require.
pub async fn scenarios_of_clients(revision: &str) -> Vec<String> {
    let text = list(revision).await;
    let of_clients = text.lines().skip_while(|line| !line.starts_with("Client scenarios"));
    let names = of_clients.filter_map(|line| line.trim().strip_prefix("- ")).filter(|name| !name.ends_with("[server]"));
    names.map(|name| name.trim_end_matches(" [client]").to_owned()).collect()
}

async fn list(revision: &str) -> String {
    let output = command().args(["list", "--requirements", revision]).output().await.expect("the suite starts");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn command() -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let suite = waypost_testkit::conformance(root).expect("the build script found the suite");
    let mut command = Command::new(suite.node);
    command.arg(suite.program).kill_on_drop(true);
    command
}

/// Reads the checks. The suite creates a folder `server-SCENARIO-TIME` or `authorization-server-SCENARIO-TIME` per
/// scenario.
fn read_checks(folder: &TempDir) -> BTreeMap<String, Vec<Check>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder.path()).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        let scenario = name.strip_prefix("authorization-server-").or_else(|| name.strip_prefix("server-"));
        let scenario = scenario.and_then(without_time).unwrap_or(&name);
        all.insert(scenario.to_owned(), read_file(&entry.path()));
    }
    all
}

/// Reads the checks of clients. The suite creates a folder `SCENARIO-TIME` per scenario, whose name can contain `/`.
fn read_client_checks(folder: &TempDir) -> BTreeMap<String, Vec<Check>> {
    let mut all = BTreeMap::new();
    let entries = |path: &Path| std::fs::read_dir(path).unwrap().flatten().map(|entry| entry.path());
    let mut folders: Vec<PathBuf> = entries(folder.path()).collect();
    while let Some(path) = folders.pop() {
        let name = path.strip_prefix(folder.path()).unwrap().to_str().unwrap();
        match without_time(name) {
            Some(scenario) => {
                all.insert(scenario.to_owned(), read_file(&path));
            }
            None => folders.extend(entries(&path)),
        }
    }
    all
}

/// Returns the name of a folder without the time, which is 24 characters long, such as 2026-11-21T03-47-40-963Z.
fn without_time(name: &str) -> Option<&str> {
    name.strip_suffix('Z').and_then(|_| name.get(..name.len() - 25))
}

/// Reads the checks of a scenario. One that was aborted has no file and no checks.
fn read_file(folder: &Path) -> Vec<Check> {
    let checks = std::fs::read(folder.join("checks.json")).unwrap_or_else(|_| b"[]".to_vec());
    serde_json::from_slice(&checks).unwrap()
}
