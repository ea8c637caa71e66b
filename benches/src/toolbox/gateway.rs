//! Measures agents that call a server on standard input and output, through the gateway and the link.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use http::Method;
use serde::Serialize;
use serde_json::{Value, json};

use super::Setup;
use crate::client::Connection;
use crate::gateway::leg;
use crate::gateway::load::{Plan, Report};
use crate::installation::{Control, Daemon, poll, text};
use crate::mcp::{Client, Era};

/// The path of the gateway.
const PATH: &str = "/gateway/mcp";
/// The number of agents.
const AGENTS: usize = 32;

/// The measurements of agents.
#[derive(Debug, Serialize)]
pub struct AgentCalls {
    /// Calls of all agents.
    pub report: Report,
    /// The times in seconds from the request for an instance, with approval and grant, until an agent received the
    /// result of a call.
    pub first_calls: Vec<f64>,
}

/// Deploys servers `count` times, and then calls one for `seconds` seconds. `own` is this program.
pub async fn measure(
    setup: &Setup<'_>,
    (control, daemon): (&Control, &Daemon),
    own: &Path,
    (count, seconds): (usize, f64),
) -> Result<AgentCalls> {
    let mut agents = Vec::new();
    for number in 0..AGENTS {
        let agent = create(control, "/agents", json!({ "name": format!("agent-{number}") })).await?;
        let path = format!("/agents/{agent}/tokens");
        let token = control.api(Method::POST, &path, &json!({ "name": "benchmark" })).await?;
        agents.push((agent, text(&token, "token")?));
    }
    let addr = control.server.as_ref().context("the server runs")?.addr;
    let mut first_calls = Vec::new();
    for number in 0..count {
        let slug = format!("first-{number}");
        let started = Instant::now();
        let id = deploy(control, daemon, (&slug, &setup.versions.stdio), &agents[..1]).await?;
        wait_for_call(addr, &agents[0].1, &slug).await?;
        first_calls.push(started.elapsed().as_secs_f64());
        control.delete(&id).await?;
    }
    let id = deploy(control, daemon, ("called", &setup.versions.fast), &agents).await?;
    wait_for_call(addr, &agents[0].1, "called").await?;
    let plan = Plan {
        addr,
        path: PATH.to_owned(),
        era: Era::Modern,
        tool: "called__echo".to_owned(),
        size: 0,
        tokens: agents.iter().map(|(_, token)| token.clone()).collect(),
        agents: AGENTS,
        rate: None,
        seconds,
    };
    let (report, _) = leg::measure(own, control.pid(), &plan).await?;
    control.delete(&id).await?;
    ensure!(report.errors == 0, "{} calls failed: {:?}", report.errors, report.first_error);
    Ok(AgentCalls { report, first_calls })
}

async fn create(control: &Control, path: &str, body: Value) -> Result<String> {
    text(&control.api(Method::POST, path, &body).await?, "id")
}

/// Deploys a server, approves its tools and grants them to these agents in one step.
async fn deploy(
    control: &Control,
    daemon: &Daemon,
    (slug, version): (&str, &str),
    agents: &[(String, String)],
) -> Result<String> {
    let grants: Vec<Value> =
        agents.iter().map(|(agent, _)| json!({ "agent_id": agent, "access": "read_only" })).collect();
    let body = json!({
        "slug": slug, "catalog_version_id": version, "toolbox_id": daemon.id, "approve": { "class": "read" },
        "grants": grants,
    });
    create(control, "/instances", body).await
}

/// Calls `echo` of a server until the agent receives a result.
async fn wait_for_call(addr: SocketAddr, token: &str, slug: &str) -> Result<()> {
    let mut connection = Connection::open(addr).await?;
    let mut client = Client::new(PATH.to_owned(), Era::Modern);
    client.sign_in(token);
    let tool = format!("{slug}__echo");
    poll("the result of a first call", async || {
        // Before the approval, the tool is unknown.
        let Ok(body) = client.call_raw(&mut connection, &tool, "{}").await else { return Ok(false) };
        let answer: Value = serde_json::from_slice(&body)?;
        Ok(answer["result"]["content"].is_array())
    })
    .await
}
