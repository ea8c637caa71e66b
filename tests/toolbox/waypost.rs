//! The control plane and the toolbox daemon as child processes.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use http::{Method, StatusCode};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use waypost_outbound::unguarded_client;
use waypost_testkit::TempDir;

use crate::engine::Engine;
use crate::support::TIMEOUT;
use crate::support::installation::{Installation, ServeProcess};

/// An installation on SQLite with the organisation `acme` and a running `waypost serve`.
pub struct Waypost {
    installation: Installation,
    serve: Option<ServeProcess>,
    /// The origin, such as `http://127.0.0.1:40001`, which a restart does not change.
    pub origin: String,
    key: String,
    client: reqwest::Client,
}

impl Waypost {
    /// Creates an installation and starts it.
    pub async fn start() -> Self {
        Self::start_as(Installation::new().await).await
    }

    /// Starts an installation that has the organisation `acme`.
    pub async fn start_as(mut installation: Installation) -> Self {
        let created = installation.run(&["key", "create", "--org", "acme", "--name", "tests", "--json"]).await;
        let created: Value = serde_json::from_str(&created).expect("the command prints JSON");
        let key = created["key"].as_str().expect("a key").to_owned();
        let serve = installation.serve().await;
        let origin = serve.origin.clone();
        let client = unguarded_client().no_proxy().timeout(TIMEOUT).build().expect("a valid client");
        Self { installation, serve: Some(serve), origin, key, client }
    }

    /// Starts another process on the database of `self`, with the settings of `installation`.
    pub async fn start_replica(&self, mut installation: Installation) -> Self {
        let serve = installation.serve().await;
        let (origin, key, client) = (serve.origin.clone(), self.key.clone(), self.client.clone());
        Self { installation, serve: Some(serve), origin, key, client }
    }

    /// Sends a request to the API as an administrator of `acme`. `path` begins after `/api/v1`.
    pub async fn api(&self, method: Method, path: &str, body: &Value) -> (StatusCode, Value) {
        let request = self.client.request(method, format!("{}/api/v1{path}", self.origin)).bearer_auth(&self.key);
        let request = if body.is_null() { request } else { request.json(body) };
        let response = request.send().await.expect("the server responds");
        let status = response.status();
        let text = response.text().await.expect("the response is complete");
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// Posts a message with a bearer token, and returns the JSON of the response.
    pub async fn post(&self, path: &str, token: &str, message: &Value) -> Value {
        serde_json::from_str(&self.post_text(path, token, message).await).expect("the response is JSON")
    }

    /// Posts a message with a bearer token, and returns the unparsed response.
    pub async fn post_text(&self, path: &str, token: &str, message: &Value) -> String {
        let request = self.client.post(format!("{}{path}", self.origin)).bearer_auth(token).json(message);
        request.send().await.expect("the server responds").text().await.expect("the response is complete")
    }

    /// Posts a message with a bearer token and further headers, and returns the JSON of the response.
    pub async fn post_with(&self, path: &str, token: &str, headers: &[(&str, &str)], message: &Value) -> Value {
        let mut request = self.client.post(format!("{}{path}", self.origin)).bearer_auth(token).json(message);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.expect("the server responds").json().await.expect("the response is JSON")
    }

    /// Posts a request of 2026-07-28, and returns the response.
    pub async fn post_modern(&self, path: &str, token: &str, request: (Value, Value)) -> Value {
        self.open_modern(path, token, request).await.json().await.expect("the response is JSON")
    }

    /// Posts a request of 2026-07-28, and returns the response before its body is read.
    pub async fn open_modern(
        &self,
        path: &str,
        token: &str,
        (capabilities, mut message): (Value, Value),
    ) -> reqwest::Response {
        let version = "2026-07-28";
        message["params"]["_meta"] = serde_json::json!({
            "io.modelcontextprotocol/protocolVersion": version,
            "io.modelcontextprotocol/clientCapabilities": capabilities,
        });
        let request = self.client.post(format!("{}{path}", self.origin)).bearer_auth(token).json(&message);
        let method = message["method"].as_str().expect("a string");
        let mut request = request.header("mcp-protocol-version", version).header("mcp-method", method);
        if let Some(name) = message["params"]["name"].as_str() {
            request = request.header("mcp-name", name);
        }
        request.header("accept", "application/json, text/event-stream").send().await.expect("the server responds")
    }

    /// Returns the path of the setup page, on which the first owner signs up.
    pub async fn set_up_path(&self) -> String {
        let line = self.installation.mailbox.wait_for_line("set up: ").await.expect("the setup link is printed");
        let (_, path) = line.split_once("/setup").expect("the link leads to the setup");
        format!("/setup{path}")
    }

    /// Runs a command alongside the server, which must succeed, and returns its output.
    pub async fn run(&self, arguments: &[&str]) -> String {
        self.installation.run(arguments).await
    }

    /// Runs a command that must fail, and returns its output and its errors.
    pub async fn run_failing(&self, arguments: &[&str]) -> String {
        self.installation.run_failing(arguments).await
    }

    /// Like [`Self::run_failing`], with another value of a setting.
    pub async fn run_failing_with(&self, arguments: &[&str], variable: &'static str, value: &str) -> String {
        self.installation.run_failing_with(arguments, variable, value).await
    }

    /// Kills the server with SIGKILL.
    pub async fn kill(&mut self) {
        self.serve.take().expect("the server runs").kill().await;
    }

    /// Starts the server again, at the same address.
    pub async fn start_again(&mut self) {
        self.serve = Some(self.installation.serve().await);
    }
}

/// A toolbox: a daemon with its own folders, which has joined and may be running. Killed on drop.
pub struct Toolbox {
    /// The ID, `tbx_…`.
    pub id: String,
    data: TempDir,
    /// A folder in memory, as the daemon requires.
    secrets: TempDir,
    child: Option<Child>,
    /// The command that runs the daemon, such as `env VARIABLE=VALUE`. Empty to run it directly.
    wrapper: Vec<String>,
}

impl Toolbox {
    /// Creates a toolbox in the organisation `acme` and joins it.
    pub async fn join(waypost: &Waypost, name: &str) -> Self {
        Self::join_at(waypost, name, &waypost.origin).await
    }

    /// Like [`Self::join`], through another address of the control plane.
    pub async fn join_at(waypost: &Waypost, name: &str, url: &str) -> Self {
        let created = waypost.run(&["toolbox", "create", name, "--org", "acme", "--json"]).await;
        let created: Value = serde_json::from_str(&created).expect("the command prints JSON");
        let text = |name: &str| created[name].as_str().unwrap_or_else(|| panic!("no {name} in {created}")).to_owned();
        let data = waypost_testkit::folder();
        let secrets = TempDir::new_in("/dev/shm").expect("a folder in memory can be created");
        let toolbox = Self { id: text("id"), data, secrets, child: None, wrapper: Vec::new() };
        let mut command = toolbox.command("join");
        command.args(["--url", url, "--token-file", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let mut input = child.stdin.take().expect("stdin is piped");
        input.write_all(text("token").as_bytes()).await.expect("the program reads the token");
        drop(input);
        let output = timeout(TIMEOUT, child.wait_with_output()).await.expect("the command ends in time");
        let output = output.expect("the command can be waited for");
        assert!(output.status.success(), "toolbox join: {}", String::from_utf8_lossy(&output.stderr));
        toolbox
    }

    /// Returns a toolbox with a copy of the data directory, and thus the same identity.
    pub fn copy(&self) -> Self {
        let data = waypost_testkit::folder();
        copy_folder(self.data.path(), data.path());
        let secrets = TempDir::new_in("/dev/shm").expect("a folder in memory can be created");
        Self { id: self.id.clone(), data, secrets, child: None, wrapper: Vec::new() }
    }

    /// Runs the daemon with a command in front of it from now on, such as `env VARIABLE=VALUE`.
    pub fn wrap(&mut self, wrapper: &[&str]) {
        self.wrapper = wrapper.iter().map(|word| (*word).to_owned()).collect();
    }

    /// Starts the daemon with an engine, and waits until its link is up.
    pub async fn run(&mut self, engine: &Engine) {
        self.run_with(engine, &[]).await;
    }

    /// Like [`Self::run`], with more arguments.
    pub async fn run_with(&mut self, engine: &Engine, arguments: &[&str]) {
        let log = std::fs::File::options().create(true).append(true).open(self.log_file());
        let mut command = self.command("run");
        command.args(["--docker-host", &engine.host(), "--secrets-dir"]).arg(self.secrets.path()).args(arguments);
        let mut child = command.stderr(log.expect("the file is written")).spawn().expect("the program starts");
        let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let expected = format!("online {}", self.id);
        let online = async {
            while let Ok(Some(line)) = lines.next_line().await {
                if line == expected {
                    return true;
                }
            }
            false
        };
        let online = timeout(TIMEOUT, online).await.expect("the daemon connects in time");
        self.child = Some(child);
        assert!(online, "the daemon ended");
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    }

    /// Runs a daemon with this folder for secrets, checks that it does not start, and returns its errors.
    pub async fn run_again(&self, engine: &Engine, secrets: &Path) -> String {
        let mut command = self.command("run");
        command.args(["--docker-host", &engine.host(), "--secrets-dir"]).arg(secrets).stderr(Stdio::piped());
        let output = timeout(TIMEOUT, command.output()).await.expect("the daemon ends in time");
        let output = output.expect("the program starts");
        assert!(!output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Returns the data directory.
    pub fn data(&self) -> &Path {
        self.data.path()
    }

    /// Returns the folder for secrets.
    pub fn secrets(&self) -> &Path {
        self.secrets.path()
    }

    /// Returns the output of `waypost toolbox status --json`.
    pub async fn status(&self) -> String {
        let output = self.command("status").arg("--json").output().await.expect("the program starts");
        assert!(output.status.success(), "toolbox status: {output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Returns the process ID of the daemon.
    pub fn pid(&self) -> Pid {
        let id = self.child.as_ref().and_then(Child::id).expect("the daemon runs");
        Pid::from_raw(id.cast_signed()).expect("a positive number")
    }

    /// Sends a signal to the daemon, such as `STOP`, which pauses it, or `CONT`.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the daemon runs");
    }

    /// Kills the daemon with SIGKILL. Its containers continue to run.
    pub async fn kill(&mut self) {
        self.signal(Signal::KILL);
        assert_eq!(self.exit().await.code(), None, "the daemon is terminated by the signal");
    }

    /// Sends SIGTERM and checks that the daemon exits with 0.
    pub async fn stop(&mut self) {
        self.signal(Signal::TERM);
        assert_eq!(self.exit().await.code(), Some(0), "the daemon ends");
    }

    /// Waits until the daemon exits.
    pub async fn exit(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("the daemon was started");
        timeout(TIMEOUT, child.wait()).await.expect("the daemon ends in time").expect("it can be waited for")
    }

    /// Returns the log of all daemons of this toolbox.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.data.path().with_extension("log")
    }

    /// Returns the command `waypost toolbox ACTION`, without inherited settings.
    fn command(&self, action: &str) -> Command {
        let mut words = self.wrapper.iter().map(String::as_str).chain([env!("CARGO_BIN_EXE_waypost")]);
        let mut command = Command::new(words.next().expect("at least the program"));
        command.args(words);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WAYPOST_")) {
            command.env_remove(name);
        }
        command.args(["toolbox", action, "--data-dir"]).arg(self.data.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        command
    }
}

/// Copies the files of a folder into another one, with their permissions.
fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("the folder can be created");
    for entry in std::fs::read_dir(from).expect("the folder exists").flatten() {
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy_folder(&source, &target);
        } else {
            std::fs::copy(&source, &target).expect("the file is copied");
        }
    }
}

/// Prints the end of the log if the test fails.
impl Drop for Toolbox {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let from = log.lines().count().saturating_sub(30);
            eprintln!("The daemon's log:\n{}", log.lines().skip(from).collect::<Vec<_>>().join("\n"));
        }
        let _ = std::fs::remove_file(self.log_file());
    }
}
