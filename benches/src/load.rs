//! The load generator. It runs in a separate process: it reads a plan, prepares its users, waits for `go`, measures and
//! verifies.
//!
//! It communicates with `run` line by line: plan in, `ready` out, `go` in, `done` out, report (JSON) out.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::{mpsc, watch};

use crate::plan::{LoadReport, Plan, histogram};
use crate::play::{self, ConnectionReport};

/// Reads a plan from standard input and runs it. Returns an error if a connection fails or a result is incorrect.
pub fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, run())
}

async fn run() -> Result<()> {
    let mut input = BufReader::new(tokio::io::stdin()).lines();
    let plan = input.next_line().await?.context("no plan on standard input")?;
    let plan: Rc<Plan> = Rc::new(serde_json::from_str(&plan)?);
    let (ready, mut ready_signals) = mpsc::unbounded_channel();
    let (go, started) = watch::channel(None);
    let connection_reports = Rc::new(RefCell::new(Vec::new()));
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..plan.connections {
        let worker = play::work(plan.clone(), index, ready.clone(), started.clone());
        let connection_reports = connection_reports.clone();
        tasks.spawn_local(async move {
            let connection_report = worker.await.with_context(|| format!("connection {index}"))?;
            connection_reports.borrow_mut().push(connection_report);
            anyhow::Ok(())
        });
    }
    drop(ready);
    for _ in 0..plan.connections {
        tokio::select! {
            Some(()) = ready_signals.recv() => {}
            Some(result) = tasks.join_next() => {
                result??;
                return Err(anyhow!("a connection failed before the start"));
            }
        }
    }
    println!("ready");
    input.next_line().await?.context("standard input ended before `go`")?;
    let start = Instant::now();
    go.send(Some(start))?;
    while let Some(result) = tasks.join_next().await {
        result??;
    }
    let elapsed = start.elapsed();
    println!("done");
    let report = summarise(&plan, connection_reports.take(), elapsed).await?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

async fn summarise(plan: &Plan, connection_reports: Vec<ConnectionReport>, elapsed: Duration) -> Result<LoadReport> {
    let mut report = LoadReport { seconds: elapsed.as_secs_f64(), ..LoadReport::default() };
    let mut latencies = histogram();
    let mut players = Vec::new();
    for connection_report in connection_reports {
        latencies.add(&connection_report.latencies)?;
        report.other_calls += connection_report.other_calls;
        players.extend(connection_report.players);
    }
    report.calls = latencies.len();
    report.latencies =
        latencies.iter_recorded().map(|value| (value.value_iterated_to(), value.count_at_value())).collect();
    report.advances = players.iter().map(|player| u64::from(player.advances)).sum();
    if !plan.constant {
        report.verified = play::verify(plan, players).await?;
    }
    Ok(report)
}
