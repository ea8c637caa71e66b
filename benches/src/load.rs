//! The load generator, a process of its own: reads one plan, makes its users ready, waits for `go`, measures, verifies.
//!
//! The talk with `run` is by lines: plan in, `ready` out, `go` in, `done` out, report (JSON) out.

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
    /// `select_walkthrough` by a user who has not been seen before
    Select,
    /// `get_walkthrough_status`
    Status,
}

impl Op {
    /// The name in tables and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::List => "list",
            Self::Select => "select",
            Self::Status => "status",
        }
    }
}

/// When a connection stops.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Limit {
    /// After so many seconds.
    Seconds(f64),
    /// After so many measured calls on each connection.
    Calls(u64),
}

/// What to do to which server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// Where the server listens.
    pub addr: SocketAddr,
    /// The MCP path, with `{user}` for the tracking id.
    pub path: String,
    /// Protocol era of all clients.
    pub era: Era,
    /// What is measured.
    pub op: Op,
    /// The server answers a constant: no users to prepare, no progress to check.
    pub constant: bool,
    /// Parallel connections.
    pub connections: usize,
    /// When to stop.
    pub limit: Limit,
    /// Users that are made ready on each connection before the measured part.
    pub users: usize,
    /// Makes the tracking ids of this leg different from all others.
    pub user_prefix: String,
    /// The tokens that the users show, where they are signed in.
    pub tokens: Option<Tokens>,
    /// The walkthrough that is played.
    pub walkthrough: String,
    /// How many users to compare with the server's state afterwards.
    pub verify: usize,
}

/// What a leg came to.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct LoadReport {
    /// Measured calls, all of them answered and checked.
    pub calls: u64,
    /// Calls in the measured part that are not counted: new users selecting.
    pub other_calls: u64,
    /// From `go` to the last answer.
    pub seconds: f64,
    /// Latencies in microseconds with their counts.
    pub latencies: Vec<(u64, u64)>,
    /// Advances that were acknowledged.
    pub advances: u64,
    /// Users whose progress was compared with the server's.
    pub verified: usize,
}

/// A histogram of microseconds.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 120_000_000, 3).expect("constant bounds are valid")
}

/// One connection's share of the report.
pub struct Share {
    pub(crate) latencies: Histogram<u64>,
    pub(crate) other_calls: u64,
    pub(crate) players: Vec<Player>,
}

/// Runs one plan from standard input.
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
                return Err(anyhow!("a connection ended before the start"));
            }
        }
    }
    println!("ready");
    input.next_line().await?.context("nobody said go")?;
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

async fn summarise(plan: &Plan, shares: Vec<Share>, elapsed: Duration) -> Result<LoadReport> {
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
