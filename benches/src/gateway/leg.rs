//! One measurement of one contestant.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

use super::load::{Plan, Report};
use super::upstream::TOOLS;
use crate::mcp::Era;
use crate::process;

/// The maximum duration of one measurement, including the connection of the agents.
const TIMEOUT: Duration = Duration::from_secs(180);

/// A program through which the tools are called: the server itself, a relay or a gateway.
pub struct Contestant {
    /// The name in tables.
    pub name: String,
    /// Its address.
    pub addr: SocketAddr,
    /// The process whose CPU time is measured, with its descendants.
    pub pid: u32,
    /// The MCP path for agents of an era.
    pub path: fn(Era) -> &'static str,
    /// Whether the names of the tools begin with the name of the server, as Waypost's do.
    pub has_prefix: bool,
    /// The tokens of its agents.
    pub tokens: Vec<String>,
}

/// The load of a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Load {
    /// Protocol era of the agents and of the server.
    pub era: Era,
    /// The index of the tool in [`TOOLS`].
    pub tool: usize,
    /// The number of connected agents.
    pub agents: usize,
    /// The calls per second of all agents together; `None` for as many as possible.
    pub rate: Option<f64>,
}

/// The result of a measurement.
#[derive(Debug, Clone, Serialize)]
pub struct Leg {
    /// The name of the contestant.
    pub contestant: String,
    /// The load.
    pub load: Load,
    /// The measurements of the load generator.
    pub report: Report,
    /// CPU time of the contestant per call in microseconds.
    pub cpu_us: f64,
}

impl Leg {
    /// Returns the number of successful calls per second.
    pub fn calls_per_second(&self) -> f64 {
        self.report.calls as f64 / self.report.seconds
    }
}

/// Runs a measurement. `program` is this program.
pub async fn run(program: &Path, contestant: &Contestant, load: Load, seconds: f64) -> Result<Leg> {
    let (tool, size) = TOOLS[load.tool];
    let prefix = if contestant.has_prefix { format!("{}__", load.era.name()) } else { String::new() };
    let plan = Plan {
        addr: contestant.addr,
        path: (contestant.path)(load.era).to_owned(),
        era: load.era,
        tool: format!("{prefix}{tool}"),
        size,
        tokens: contestant.tokens.clone(),
        agents: load.agents,
        rate: load.rate,
        seconds,
    };
    let measured = measure(program, contestant.pid, &plan).await;
    let (report, cpu) = measured.with_context(|| format!("{} {load:?}", contestant.name))?;
    let cpu_us = cpu * 1e6 / (report.calls + report.errors).max(1) as f64;
    Ok(Leg { contestant: contestant.name.clone(), load, report, cpu_us })
}

/// Runs a plan. Returns the report and the CPU seconds of the process `pid`. `program` is this program.
pub async fn measure(program: &Path, pid: u32, plan: &Plan) -> Result<(Report, f64)> {
    tokio::time::timeout(TIMEOUT, generate(program, pid, plan)).await.context("timed out")?
}

async fn generate(program: &Path, pid: u32, plan: &Plan) -> Result<(Report, f64)> {
    let mut command = Command::new(program);
    command.arg("gateway-load").stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let mut input = child.stdin.take().context("no standard input")?;
    let mut output = BufReader::new(child.stdout.take().context("no standard output")?).lines();
    input.write_all(format!("{}\n", serde_json::to_string(plan)?).as_bytes()).await?;
    let line = output.next_line().await?;
    ensure!(line.as_deref() == Some("ready"), "the load generator failed: {line:?}");
    let before = process::cpu_seconds(pid)?;
    input.write_all(b"go\n").await?;
    let report = output.next_line().await?.context("the load generator ended without a report")?;
    let cpu = process::cpu_seconds(pid)? - before;
    ensure!(child.wait().await?.success(), "the load generator failed");
    Ok((serde_json::from_str(&report)?, cpu))
}
