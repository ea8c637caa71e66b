//! The load generator of the gateway, in its own process: agents that call a tool and check every result.
//!
//! It communicates with `gateway` line by line: plan in, `ready` out, `go` in, report (JSON) out.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::{mpsc, watch};

use crate::client::Connection;
use crate::mcp::{Client, Era};
use crate::plan::histogram;

/// The load to generate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// Address of the gateway, or of the server.
    pub addr: SocketAddr,
    /// MCP path.
    pub path: String,
    /// Protocol era of the agents.
    pub era: Era,
    /// The tool's name.
    pub tool: String,
    /// The number of characters that the tool returns.
    pub size: usize,
    /// The tokens of the agents, if they have any.
    pub tokens: Vec<String>,
    /// The number of connected agents, with one connection each.
    pub agents: usize,
    /// The calls per second of all agents together; `None` if each agent calls again as soon as it has a result.
    pub rate: Option<f64>,
    /// The duration in seconds.
    pub seconds: f64,
}

/// The result of the load generator.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Report {
    /// The number of calls with the correct result.
    pub calls: u64,
    /// The number of other calls.
    pub errors: u64,
    /// The first error.
    pub first_error: Option<String>,
    /// Seconds from `go` to the last response.
    pub seconds: f64,
    /// The median of the latencies of successful calls in microseconds.
    pub p50_us: u64,
    /// Their 99th percentile.
    pub p99_us: u64,
}

/// The measurements of the agents.
struct Measured {
    latencies: Histogram<u64>,
    errors: u64,
    first_error: Option<String>,
}

/// Reads a plan from standard input and runs it. Returns an error if an agent cannot connect.
pub fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, run())
}

async fn run() -> Result<()> {
    let mut input = BufReader::new(tokio::io::stdin()).lines();
    let plan = input.next_line().await?.context("no plan on standard input")?;
    let plan: Rc<Plan> = Rc::new(serde_json::from_str(&plan)?);
    let measured = Rc::new(RefCell::new(Measured { latencies: histogram(), errors: 0, first_error: None }));
    let (ready, mut ready_signals) = mpsc::channel(1);
    let (go, started) = watch::channel(None);
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..plan.agents {
        // One after another, so that 1,000 handshakes do not overload anything before the measurement.
        let mut agent = Agent::connect(&plan, index).await.with_context(|| format!("agent {index}"))?;
        let (plan, measured, mut started, ready) = (plan.clone(), measured.clone(), started.clone(), ready.clone());
        tasks.spawn_local(async move {
            agent.call(&plan).await.with_context(|| format!("the first call of agent {index}"))?;
            ready.send(()).await?;
            let start = *started.wait_for(Option::is_some).await?;
            agent.work((&plan, index), start.context("started")?, &measured).await
        });
        let first = tokio::select! {
            Some(()) = ready_signals.recv() => Ok(()),
            Some(result) = tasks.join_next() => result?,
        };
        first?;
    }
    println!("ready");
    input.next_line().await?.context("standard input ended before `go`")?;
    let start = Instant::now();
    go.send(Some(start))?;
    while let Some(result) = tasks.join_next().await {
        result??;
    }
    let seconds = start.elapsed().as_secs_f64();
    let Measured { latencies, errors, first_error } = &*measured.borrow();
    let report = Report {
        calls: latencies.len(),
        errors: *errors,
        first_error: first_error.clone(),
        seconds,
        p50_us: latencies.value_at_quantile(0.5),
        p99_us: latencies.value_at_quantile(0.99),
    };
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

/// A connected agent.
struct Agent {
    connection: Connection,
    client: Client,
    calls: u64,
}

impl Agent {
    async fn connect(plan: &Plan, index: usize) -> Result<Self> {
        let mut connection = Connection::open(plan.addr).await?;
        let mut client = Client::new(plan.path.clone(), plan.era);
        if let Some(token) = plan.tokens.get(index) {
            client.sign_in(token);
        }
        client.connect(&mut connection).await?;
        Ok(Self { connection, client, calls: 0 })
    }

    /// Calls the tool and checks the ID and the length of the result.
    async fn call(&mut self, plan: &Plan) -> Result<()> {
        self.calls += 1;
        let body = self.client.call_with_id(&mut self.connection, &plan.tool, self.calls).await?;
        check(body, self.calls, plan.size)
    }

    /// Calls the tool until the time is up.
    async fn work(
        &mut self,
        (plan, index): (&Plan, usize),
        start: Instant,
        measured: &RefCell<Measured>,
    ) -> Result<()> {
        let end = start + Duration::from_secs_f64(plan.seconds);
        let interval = plan.rate.map(|rate| Duration::from_secs_f64(plan.agents as f64 / rate));
        // Spread the first calls of the agents over the interval.
        let mut due = start + interval.unwrap_or_default().mul_f64(index as f64 / plan.agents as f64);
        loop {
            let mut began = Instant::now();
            if let Some(interval) = interval {
                if due > began {
                    tokio::time::sleep_until(due.into()).await;
                    // The inaccuracy of the timer is not part of the latency.
                    began = Instant::now();
                } else {
                    // The time for which a call waited for the previous one is part of its latency.
                    began = due;
                }
                due += interval;
            }
            if began >= end || Instant::now() >= end {
                return Ok(());
            }
            let outcome = self.call(plan).await;
            let elapsed = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            let failed = {
                let mut measured = measured.borrow_mut();
                match outcome {
                    Ok(()) => {
                        measured.latencies.record(elapsed.max(1))?;
                        false
                    }
                    Err(error) => {
                        measured.errors += 1;
                        measured.first_error.get_or_insert_with(|| format!("{error:#}"));
                        true
                    }
                }
            };
            if failed {
                // The connection may be in the middle of a response.
                *self = Self { calls: self.calls, ..Self::connect(plan, index).await? };
            }
        }
    }
}

/// Checks a response without parsing it: the ID at its beginning or end, and the length of the text.
fn check(body: &[u8], id: u64, size: usize) -> Result<()> {
    const NEAR: usize = 200;
    const TEXT: &[u8] = br#""text":""#;
    let (start, end) = (&body[..body.len().min(NEAR)], &body[body.len().saturating_sub(NEAR)..]);
    let excerpt = || String::from_utf8_lossy(start).into_owned();
    let has_id = [start, end].iter().any(|part| has_number(part, br#""id":"#, id));
    ensure!(has_id, "the ID is not {id}: {}", excerpt());
    let Some(at) = start.windows(TEXT.len()).position(|window| window == TEXT) else {
        bail!("no text: {}", excerpt());
    };
    let text = &body[at + TEXT.len()..];
    ensure!(text.get(size) == Some(&b'"'), "the text does not have {size} characters: {}", excerpt());
    ensure!(text[..size].iter().rposition(|byte| *byte == b'"').is_none(), "the text is shorter than {size}");
    Ok(())
}

/// Whether `text` contains `key` followed by this number.
fn has_number(text: &[u8], key: &[u8], number: u64) -> bool {
    text.windows(key.len()).enumerate().filter(|(_, window)| *window == key).any(|(at, _)| {
        let mut digits = text[at + key.len()..].iter().take_while(|byte| byte.is_ascii_digit());
        digits.try_fold(0_u64, |value, digit| value.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
            == Some(number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_id_or_length_is_an_error() {
        let body = br#"{"jsonrpc":"2.0","id":12,"result":{"content":[{"type":"text","text":"abc"}]}}"#;
        assert!(check(body, 12, 3).is_ok());
        assert!(check(body, 1, 3).is_err() && check(body, 122, 3).is_err());
        assert!(check(body, 12, 2).is_err() && check(body, 12, 4).is_err());
        assert!(check(br#"{"result":{"content":[{"text":"abc"}]},"id":12}"#, 12, 3).is_ok());
        assert!(check(br#"{"jsonrpc":"2.0","id":12,"error":{"code":-1,"message":"no"}}"#, 12, 3).is_err());
    }
}
