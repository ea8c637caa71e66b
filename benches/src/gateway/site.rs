//! A Waypost installation with agents, whose remote servers are the upstream.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::stream::{self, StreamExt, TryStreamExt};
use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::upstream::LISTED_TOOLS;
use crate::client::Connection;
use crate::installation::{self, Control, text};
use crate::mcp::{Client, Era};

/// The path of the gateway.
pub const PATH: &str = "/gateway/mcp";
/// Remote servers on loopback, and one agent per connection of the load generator.
const SETTINGS: &[(&str, &str)] = &[("WAYPOST_OUTBOUND_ALLOW", "127.0.0.0/8=tools")];
const GATEWAY_OFF: &[(&str, &str)] = &[("WAYPOST_GATEWAY", "off")];
/// The number of concurrent requests to the API.
const PARALLEL: usize = 8;
/// The time after which an announcement counts as missing.
const ANNOUNCEMENT: Duration = Duration::from_secs(30);
/// The pause after a request that was rejected because of a limit.
const PAUSE: Duration = Duration::from_millis(200);

/// An installation with a gateway.
pub struct Site {
    /// The control plane.
    pub control: Control,
    /// Tokens of the agents, each with grants for the servers `modern` and `legacy`.
    pub tokens: Vec<String>,
    /// The IDs of the agents.
    agents: Vec<String>,
}

impl Site {
    /// Starts an installation whose remote servers `modern` and `legacy` are approved, and granted to `agents` agents.
    pub async fn start(program: &Path, folder: &Path, upstream: SocketAddr, agents: usize) -> Result<Self> {
        let control = Control::start(program, folder, SETTINGS).await?;
        let site = Self { control, tokens: Vec::new(), agents: Vec::new() };
        let instances = [site.connect("modern", upstream, 3).await?, site.connect("legacy", upstream, 3).await?];
        let created = stream::iter(0..agents).map(|number| site.create_agent(format!("agent-{number}"), &instances));
        let created: Vec<(String, String)> = created.buffered(PARALLEL).try_collect().await?;
        let (agents, tokens) = created.into_iter().unzip();
        Ok(Self { control: site.control, tokens, agents })
    }

    /// Returns the address of the server.
    pub fn addr(&self) -> Result<SocketAddr> {
        Ok(self.control.server.as_ref().context("the server runs")?.addr)
    }

    /// Connects the remote server at the path `/NAME/mcp`, waits until it runs, and approves its tools. Returns its ID.
    pub async fn connect(&self, name: &str, upstream: SocketAddr, tools: usize) -> Result<String> {
        let id = self.create(name, upstream).await?;
        let digests = self.check(&id, tools).await?;
        self.approve(&id, &digests).await?;
        Ok(id)
    }

    /// Connects the remote server at the path `/NAME/mcp`, and waits until it runs. Returns its ID.
    async fn create(&self, name: &str, upstream: SocketAddr) -> Result<String> {
        let remote = json!({ "url": format!("http://{upstream}/{name}/mcp"), "transport": "streamable_http" });
        let id = text(&self.post("/instances", json!({ "slug": name, "remote": remote })).await?, "id")?;
        installation::poll("a running remote server", async || {
            let instance = self.control.api(Method::GET, &format!("/instances/{id}"), &Value::Null).await?;
            ensure!(instance["state"] != "failed", "{name} failed: {instance}");
            Ok(instance["state"] == "running")
        })
        .await?;
        Ok(id)
    }

    /// Reads the definitions of an instance. Returns the digests of its tools.
    async fn check(&self, id: &str, tools: usize) -> Result<Vec<String>> {
        self.post(&format!("/instances/{id}/check-definitions"), json!({})).await?;
        let pending = format!("/tool-approvals?state=pending&limit=100&instance_id={id}");
        let pending = self.control.api(Method::GET, &pending, &Value::Null).await?;
        let items = pending["items"].as_array().context("items")?;
        ensure!(items.len() == tools, "{id} lists {} tools instead of {tools}", items.len());
        items.iter().map(|item| text(item, "digest")).collect()
    }

    async fn approve(&self, id: &str, digests: &[String]) -> Result<()> {
        self.post(&format!("/instances/{id}/approve-all"), json!({ "digests": digests, "class": "read" })).await?;
        Ok(())
    }

    /// Returns the times in seconds from the approval of tools until a connected agent with a grant for them is
    /// notified.
    pub async fn announce(&self, upstream: SocketAddr, count: usize) -> Result<Vec<f64>> {
        let (agent, token) = (self.agents.last().context("no agent")?, self.tokens.last().context("no token")?);
        let mut times = Vec::new();
        for number in 0..count {
            let id = self.create(&format!("list-announced-{number}"), upstream).await?;
            let digests = self.check(&id, LISTED_TOOLS).await?;
            let grant = json!({ "agent_id": agent, "instance_id": id, "access": "read_only" });
            self.post("/grants", grant).await?;
            let mut stream = open_stream(self.addr()?, token).await?;
            let started = Instant::now();
            self.approve(&id, &digests).await?;
            let announced = read_until(&mut stream, b"notifications/tools/list_changed");
            tokio::time::timeout(ANNOUNCEMENT, announced).await.context("the agent was not told")??;
            times.push(started.elapsed().as_secs_f64());
        }
        Ok(times)
    }

    /// Creates an agent with grants for these instances. Returns its ID and its token.
    async fn create_agent(&self, name: String, instances: &[String]) -> Result<(String, String)> {
        let agent = text(&self.post("/agents", json!({ "name": name })).await?, "id")?;
        let token = self.post(&format!("/agents/{agent}/tokens"), json!({ "name": "benchmark" })).await?;
        for instance in instances {
            let grant = json!({ "agent_id": agent, "instance_id": instance, "access": "read_only" });
            self.post("/grants", grant).await?;
        }
        Ok((agent, text(&token, "token")?))
    }

    /// Sends a request to the API that must succeed. It is repeated while a limit is reached.
    async fn post(&self, path: &str, body: Value) -> Result<Value> {
        let client = installation::client()?;
        for _ in 0..300 {
            let (status, response) = self.control.send(&client, Method::POST, path, &body).await?;
            match status {
                200..=299 => return Ok(response),
                429 => tokio::time::sleep(PAUSE).await,
                _ => bail!("POST {path}: {status} {response}"),
            }
        }
        bail!("POST {path} was rejected because of a limit for a minute")
    }

    /// Connects 20 servers with 25 tools each, two of them at `mortal`, and returns the token of a new agent that
    /// sees them all. The new agent replaces an existing one, because the number of agents is limited.
    pub async fn connect_many(&self, upstream: SocketAddr, mortal: SocketAddr) -> Result<String> {
        let names = (0..super::LISTED_SERVERS).map(|number| {
            let addr = if number < super::DEAD_SERVERS { mortal } else { upstream };
            (format!("list-{number}"), addr)
        });
        let names: Vec<_> = names.collect();
        let connected = stream::iter(&names).map(|(name, addr)| self.connect(name, *addr, LISTED_TOOLS));
        let instances: Vec<String> = connected.buffered(PARALLEL).try_collect().await?;
        let replaced = self.agents.first().context("no agent")?;
        self.control.api(Method::DELETE, &format!("/agents/{replaced}"), &Value::Null).await?;
        Ok(self.create_agent("lister".to_owned(), &instances).await?.1)
    }

    /// Lists the tools `count` times and returns the times in seconds.
    pub async fn list(&self, token: &str, count: usize) -> Result<Vec<f64>> {
        let mut connection = Connection::open(self.addr()?).await?;
        let mut client = Client::new(PATH.to_owned(), Era::Modern);
        client.sign_in(token);
        let mut times = Vec::new();
        for _ in 0..count {
            let started = Instant::now();
            let body = client.send_raw(&mut connection, "tools/list").await?;
            times.push(started.elapsed().as_secs_f64());
            let listed: Value = serde_json::from_slice(&body)?;
            let tools = listed["result"]["tools"].as_array().map_or(0, Vec::len);
            ensure!(tools == super::LISTED_SERVERS * LISTED_TOOLS, "{tools} tools are listed");
        }
        Ok(times)
    }

    /// Opens a stream for each agent. They end when they are dropped.
    pub async fn open_streams(&self) -> Result<Vec<TcpStream>> {
        let addr = self.addr()?;
        let opened = stream::iter(&self.tokens).map(|token| open_stream(addr, token));
        opened.buffered(PARALLEL).try_collect().await
    }
}

/// Reads until `text` has been received.
async fn read_until(stream: &mut TcpStream, text: &[u8]) -> Result<()> {
    let mut received = Vec::new();
    while !received.windows(text.len()).any(|part| part == text) {
        ensure!(stream.read_buf(&mut received).await? > 0, "the stream has ended");
    }
    Ok(())
}

async fn open_stream(addr: SocketAddr, token: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(addr).await?;
    let request = format!(
        "GET {PATH} HTTP/1.1\r\nHost: {addr}\r\nAccept: text/event-stream\r\nMCP-Protocol-Version: 2025-11-25\r\n\
         Authorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).await?;
    ensure!(&head == b"HTTP/1.1 200", "a stream was answered with {}", String::from_utf8_lossy(&head));
    Ok(stream)
}

/// Returns the resident memory in bytes of a new installation with the gateway on and off.
pub async fn resident_on_and_off(program: &Path, folder: &Path) -> Result<(u64, u64)> {
    let mut resident = Vec::new();
    for (name, settings) in [("gateway-on", SETTINGS), ("gateway-off", GATEWAY_OFF)] {
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder)?;
        let control = Control::start(program, &folder, settings).await?;
        control.api(Method::GET, "/instances", &Value::Null).await?;
        resident.push(crate::process::resident_bytes(control.pid())?);
        if let Some(server) = control.server {
            server.stop().await?;
        }
    }
    Ok((resident[0], resident[1]))
}
