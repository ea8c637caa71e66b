//! A control plane on SQLite with its daemons as child processes.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use http::Method;
use reqwest::Client;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use waypost_outbound::unguarded_client;

use crate::engine::Engine;
use crate::process::{self, Server};
use crate::waypost::{Installation, ORGANIZATION};

/// The timeout for reaching any awaited state. A deployment may take a minute to fail.
pub const TIMEOUT: Duration = Duration::from_secs(120);
/// The interval between polls of an instance, which is the resolution of the measured times.
const INTERVAL: Duration = Duration::from_millis(20);
/// The interval after two seconds, when many instances may be polled.
const SLOW_INTERVAL: Duration = Duration::from_millis(250);

/// The control plane.
pub struct Control {
    installation: Installation,
    logs: PathBuf,
    /// The process. `None` while it is killed.
    pub server: Option<Server>,
    /// The origin, which stays the same after a restart.
    pub origin: String,
    key: String,
    client: Client,
    settings: &'static [(&'static str, &'static str)],
}

impl Control {
    /// Creates an installation in `folder` with one organisation, and starts it with additional settings.
    pub async fn start(
        program: &Path,
        folder: &Path,
        settings: &'static [(&'static str, &'static str)],
    ) -> Result<Self> {
        let (data, logs) = (folder.join("control"), folder.to_owned());
        let installation = Installation::sqlite(program, data)?;
        std::fs::create_dir_all(&installation.data)?;
        process::run(installation.command(&["org", "create", ORGANIZATION])).await?;
        let create = ["key", "create", "--org", ORGANIZATION, "--name", "benchmark", "--json"];
        let created = process::run(installation.command(&create)).await?;
        let key = text(&serde_json::from_str(&created)?, "key")?;
        let origin = format!("http://127.0.0.1:{}", process::free_port()?);
        let client = client()?;
        let mut control = Self { installation, logs, server: None, origin, key, client, settings };
        control.start_again().await?;
        Ok(control)
    }

    /// Starts the server, at the same address as before.
    pub async fn start_again(&mut self) -> Result<()> {
        let address = self.origin.trim_start_matches("http://").to_owned();
        let mut settings = vec![
            ("WAYPOST_LISTEN", address.as_str()),
            ("WAYPOST_INSTANCE_LIMIT", "1000"),
            ("WAYPOST_RATE_LIMIT_PER_CALLER", "0"),
            // All clients of the benchmark have the same address.
            ("WAYPOST_CONNECTION_LIMIT_PER_ADDRESS", "0"),
        ];
        settings.extend(self.settings);
        self.server = Some(self.installation.start("control", &self.logs, &settings).await?.0);
        Ok(())
    }

    /// Kills the server.
    pub async fn kill(&mut self) -> Result<()> {
        self.server.take().context("the server runs")?.kill().await
    }

    /// Returns the process ID.
    pub fn pid(&self) -> u32 {
        self.server.as_ref().map_or(0, Server::pid)
    }

    /// Sends a request to the API. Returns the status and the JSON of the response.
    pub async fn send(&self, client: &Client, method: Method, path: &str, body: &Value) -> Result<(u16, Value)> {
        let request = client.request(method, format!("{}/api/v1{path}", self.origin)).bearer_auth(&self.key);
        let request = if body.is_null() { request } else { request.json(body) };
        let response = request.send().await?;
        let status = response.status().as_u16();
        let text = response.text().await?;
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    /// Sends a request that must succeed.
    pub async fn api(&self, method: Method, path: &str, body: &Value) -> Result<Value> {
        let (status, body) = self.send(&self.client, method.clone(), path, body).await?;
        ensure!((200..300).contains(&status), "{method} {path}: {status} {body}");
        Ok(body)
    }

    /// Imports an entry with this image. Returns the ID of the version.
    pub async fn import(&self, slug: &str, image: &str, fields: &Value) -> Result<String> {
        let mut entry = json!({
            "slug": slug, "name": slug, "version": "1", "source": { "image": image }, "transport": "stdio",
            "resources": "light",
        });
        for (name, value) in fields.as_object().into_iter().flatten() {
            entry[name] = value.clone();
        }
        text(&self.api(Method::POST, "/catalog/import", &entry).await?, "version_id")
    }

    /// Deploys an instance on a toolbox, and waits until it is healthy.
    pub async fn deploy(&self, slug: &str, version: &str, toolbox: &str) -> Result<Deployment> {
        let started = Instant::now();
        let body = json!({ "slug": slug, "catalog_version_id": version, "toolbox_id": toolbox });
        let (status, created) = self.send(&self.client, Method::POST, "/instances", &body).await?;
        let accepted = started.elapsed();
        ensure!(status == 202, "POST /instances: {status} {created}");
        let id = text(&created, "id")?;
        let path = format!("/instances/{id}");
        poll("the end of a deployment", async || {
            let (status, instance) = self.send(&self.client, Method::GET, &path, &Value::Null).await?;
            if status == 429 {
                // Many deployments are polled from one address.
                return Ok(false);
            }
            ensure!(status == 200, "GET {path}: {status} {instance}");
            let state = instance["deployment"]["state"].as_str().unwrap_or("running");
            ensure!(matches!(state, "running" | "complete"), "the deployment of {slug} failed: {instance}");
            Ok(state == "complete")
        })
        .await?;
        Ok(Deployment { id, accepted, healthy: started.elapsed() })
    }

    /// Deletes an instance and waits until it is gone.
    pub async fn delete(&self, id: &str) -> Result<()> {
        let path = format!("/instances/{id}");
        self.api(Method::DELETE, &path, &Value::Null).await?;
        poll("the removal of an instance", async || {
            Ok(self.send(&self.client, Method::GET, &path, &Value::Null).await?.0 == 404)
        })
        .await
    }

    /// Calls the tool `echo` of an instance with this client, and returns the status. Status 200 with a different text
    /// is an error.
    pub async fn echo(&self, client: &Client, id: &str, words: &str) -> Result<u16> {
        let body = json!({ "tool": "echo", "arguments": { "text": words } });
        let (status, result) = self.send(client, Method::POST, &format!("/instances/{id}/call"), &body).await?;
        ensure!(status != 200 || result["content"][0]["text"] == words, "echo returned {result}");
        Ok(status)
    }

    /// Whether the tools of an instance can be listed.
    pub async fn lists_tools(&self, id: &str) -> bool {
        let path = format!("/instances/{id}/tools");
        self.send(&self.client, Method::GET, &path, &Value::Null).await.is_ok_and(|(status, _)| status == 200)
    }
}

/// A completed deployment.
pub struct Deployment {
    /// The ID of the instance.
    pub id: String,
    /// The time until the response 202.
    pub accepted: Duration,
    /// The time until the deployment was complete.
    pub healthy: Duration,
}

/// The daemon of a toolbox. When dropped, it is killed, and everything that it created in the engine is removed.
pub struct Daemon {
    /// The ID of the toolbox.
    pub id: String,
    engine: Engine,
    folder: TempDir,
    secrets: TempDir,
    child: Option<Child>,
}

impl Daemon {
    /// Creates a toolbox, joins it, and waits until its daemon is online. `number` must be unique for each daemon.
    pub async fn start(control: &Control, engine: &Engine, folder: &Path, number: u8) -> Result<Self> {
        let name = format!("machine-{number}");
        let create = ["toolbox", "create", &name, "--org", ORGANIZATION, "--json"];
        let created = process::run(control.installation.command(&create)).await?;
        let created: Value = serde_json::from_str(&created)?;
        let (id, token) = (text(&created, "id")?, text(&created, "token")?);
        let program = &control.installation.program;
        let daemon = Self::join(program, engine, folder, (id, &control.origin, &token, number)).await?;
        let path = format!("/toolboxes/{}", daemon.id);
        poll("the first heartbeat", async || {
            Ok(control.api(Method::GET, &path, &Value::Null).await?["capacity"].is_object())
        })
        .await?;
        Ok(daemon)
    }

    /// Joins a control plane with the ID, the origin, the token and the number of the toolbox, and starts the daemon.
    pub async fn join(
        program: &Path,
        engine: &Engine,
        folder: &Path,
        (id, origin, token, number): (String, &str, &str, u8),
    ) -> Result<Self> {
        let (data, secrets) = (TempDir::new_in(folder)?, TempDir::new_in("/dev/shm")?);
        let mut daemon = Self { id, engine: engine.clone(), folder: data, secrets, child: None };
        let mut join = daemon.command(program, "join");
        join.args(["--url", origin, "--token-file", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut join = join.spawn()?;
        join.stdin.take().context("stdin is piped")?.write_all(token.as_bytes()).await?;
        let output = timeout(TIMEOUT, join.wait_with_output()).await??;
        ensure!(output.status.success(), "toolbox join: {}", String::from_utf8_lossy(&output.stderr));
        let log = folder.join(format!("daemon-{number}.log"));
        let mut run = daemon.command(program, "run");
        run.args(["--docker-host", &engine.host(), "--secrets-dir"]).arg(daemon.secrets.path());
        // Outside 10.213.0.0/16, which other daemons on this machine may use.
        let pool = format!("10.{}.{}.0/20", 214 + number / 16, 16 * (number % 16));
        run.args(["--network-pool", &pool]).stderr(process::open_log(&log)?);
        let mut child = run.spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("stdout is piped")?).lines();
        daemon.child = Some(child);
        let online = async {
            while let Some(line) = lines.next_line().await? {
                if line.starts_with("online ") {
                    return Ok(());
                }
            }
            bail!("a daemon ended:\n{}", process::tail(&log))
        };
        timeout(TIMEOUT, online).await.context("a daemon does not connect")??;
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(daemon)
    }

    /// Returns the process ID.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().and_then(Child::id).unwrap_or_default()
    }

    /// Returns the label of everything that the daemon creates in the engine.
    pub fn label(&self) -> String {
        format!("dev.waypost.toolbox={}", self.id)
    }

    /// Returns the folder for secrets.
    pub fn secrets(&self) -> &Path {
        self.secrets.path()
    }

    /// Stops the daemon and waits until it exits.
    pub async fn stop(mut self) -> Result<()> {
        match self.child.take() {
            Some(mut child) => process::terminate(&mut child, "TERM").await.context("stopping a daemon"),
            None => Ok(()),
        }
    }

    fn command(&self, program: &Path, action: &str) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WAYPOST_")) {
            command.env_remove(name);
        }
        command.args(["toolbox", action, "--data-dir"]).arg(self.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        command
    }
}

/// Removes everything that the daemon left in the engine, in case the benchmark failed.
impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.start_kill();
        }
        if !self.engine.is_running() {
            return;
        }
        let label = self.label();
        let text = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let containers = self.engine.containers(&label).into_iter();
        let paths: Vec<String> =
            containers.map(|c| format!("/containers/{}?force=true&v=true", text(&c, "Id"))).collect();
        self.remove(paths);
        self.remove(self.engine.networks(&label).iter().map(|n| format!("/networks/{}", text(n, "Id"))).collect());
        self.remove(self.engine.volumes(&label).iter().map(|v| format!("/volumes/{}", text(v, "Name"))).collect());
    }
}

impl Daemon {
    fn remove(&self, paths: Vec<String>) {
        for path in paths {
            if let Err(refused) = self.engine.try_call("DELETE", &path, &Value::Null) {
                eprintln!("{path} was not removed: {}", refused.message);
            }
        }
    }
}

/// Returns a client with its own connections.
pub fn client() -> Result<Client> {
    #[expect(clippy::disallowed_methods, reason = "the control plane is on loopback")]
    Ok(unguarded_client().no_proxy().timeout(TIMEOUT).build()?)
}

/// Waits until `is_reached` returns true.
pub async fn poll(what: &str, mut is_reached: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let reached = async {
        let started = Instant::now();
        loop {
            if is_reached().await? {
                return Ok(());
            }
            let is_slow = started.elapsed() > Duration::from_secs(2);
            tokio::time::sleep(if is_slow { SLOW_INTERVAL } else { INTERVAL }).await;
        }
    };
    timeout(TIMEOUT, reached).await.with_context(|| format!("{what} was not reached"))?
}

/// Returns a string member of a JSON object.
pub fn text(object: &Value, name: &str) -> Result<String> {
    Ok(object[name].as_str().with_context(|| format!("no `{name}` in {object}"))?.to_owned())
}
