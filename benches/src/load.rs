//! The load generator, a separate process: reads a plan, prepares its users, waits for `go`, measures and verifies.
//!
//! It communicates with `run` line by line: plan in, `ready` out, `go` in, `done` out, report (JSON) out.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::{mpsc, watch};

use crate::mcp::Era;
use crate::play::Player;
use crate::tokens::Tokens;

/// The operation whose latency is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// `next_walkthrough_step`
    Next,
    /// `list_walkthroughs`
    List,
    /// `select_walkthrough` by a new user
    Select,
    /// `get_walkthrough_status`
    Status,
}

impl Op {
    /// Returns the name used in tables and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::List => "list",
            Self::Select => "select",
            Self::Status => "status",
        }
    }
}

/// The stop condition of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Limit {
    /// Stop after the given number of seconds.
    Seconds(f64),
    /// Stop after the given number of measured calls per connection.
    Calls(u64),
}

/// The load to generate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// Address of the server.
    pub addr: SocketAddr,
    /// MCP path, with `{user}` for the tracking ID.
    pub path: String,
    /// Protocol era of the clients.
    pub era: Era,
    /// Operation to measure.
    pub op: Op,
    /// Whether the server returns a constant, so that there are no users to prepare and no progress to check.
    pub constant: bool,
    /// Number of parallel connections.
    pub connections: usize,
    /// Stop condition.
    pub limit: Limit,
    /// Number of users to prepare per connection before the measurement.
    pub users: usize,
    /// Prefix that makes the tracking IDs of this leg unique.
    pub user_prefix: String,
    /// Tokens of the users, if they are signed in.
    pub tokens: Option<Tokens>,
    /// Walkthrough to play.
    pub walkthrough: String,
    /// Number of users whose progress is verified afterwards.
    pub verify: usize,
}

/// The result of the load generator.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct LoadReport {
    /// Number of measured calls, all of which were successful and checked.
    pub calls: u64,
    /// Number of uncounted calls during the measurement: selections by new users.
    pub other_calls: u64,
    /// Seconds from `go` to the last response.
    pub seconds: f64,
    /// Latencies in microseconds, with counts.
    pub latencies: Vec<(u64, u64)>,
    /// Number of acknowledged advances.
    pub advances: u64,
    /// Number of users whose progress was verified.
    pub verified: usize,
}

/// Creates a histogram of microseconds.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 120_000_000, 3).expect("constant bounds are valid")
}

/// The result of one connection.
pub struct ConnectionReport {
    pub(crate) latencies: Histogram<u64>,
    pub(crate) other_calls: u64,
    pub(crate) players: Vec<Player>,
}

/// Runs a plan from standard input.
pub fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, run())
}

async fn run() -> Result<()> {
    let mut input = BufReader::new(tokio::io::stdin()).lines();
    let plan = input.next_line().await?.context("no plan on standard input")?;
    let plan: Rc<Plan> = Rc::new(serde_json::from_str(&plan)?);
    let (ready, mut readies) = mpsc::unbounded_channel();
    let (go, started) = watch::channel(None);
    let shares = Rc::new(RefCell::new(Vec::new()));
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..plan.connections {
        let worker = crate::play::work(plan.clone(), index, ready.clone(), started.clone());
        let shares = shares.clone();
        tasks.spawn_local(async move {
            let share = worker.await.with_context(|| format!("connection {index}"))?;
            shares.borrow_mut().push(share);
            anyhow::Ok(())
        });
    }
    drop(ready);
    for _ in 0..plan.connections {
        tokio::select! {
            Some(()) = readies.recv() => {}
            Some(ended) = tasks.join_next() => {
                ended??;
                return Err(anyhow!("a connection failed before the start"));
            }
        }
    }
    println!("ready");
    input.next_line().await?.context("standard input ended before `go`")?;
    let start = Instant::now();
    go.send(Some(start))?;
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    let elapsed = start.elapsed();
    println!("done");
    let report = summarise(&plan, shares.take(), elapsed).await?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

async fn summarise(plan: &Plan, shares: Vec<ConnectionReport>, elapsed: Duration) -> Result<LoadReport> {
    let mut report = LoadReport { seconds: elapsed.as_secs_f64(), ..LoadReport::default() };
    let mut all = histogram();
    let mut players = Vec::new();
    for share in shares {
        all.add(&share.latencies)?;
        report.other_calls += share.other_calls;
        players.extend(share.players);
    }
    report.calls = all.len();
    report.latencies = all.iter_recorded().map(|value| (value.value_iterated_to(), value.count_at_value())).collect();
    report.advances = players.iter().map(|player| u64::from(player.advances)).sum();
    if !plan.constant {
        report.verified = crate::play::verify(plan, players).await?;
    }
    Ok(report)
}
