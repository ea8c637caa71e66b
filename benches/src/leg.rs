//! A leg: one contestant under one kind of load, measured from outside.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{ChildStdout, Command};

use crate::cluster::{Cluster, StatementCounts};
use crate::content::{LONG, Spec};
use crate::contestants::{Contestant, Kind};
use crate::mcp::Era;
use crate::plan::{Limit, LoadReport, Op, Plan, histogram};
use crate::process;
use crate::waypost::{self, WriterCounts};

/// Timeout of a leg.
const LEG_TIMEOUT: Duration = Duration::from_secs(600);

/// State shared by all legs.
pub struct Driver {
    /// Path of this program, which is also the load generator.
    pub program: PathBuf,
    /// Random ID of the run, which makes tracking IDs unique.
    pub run: String,
    /// Number of legs so far.
    pub legs: u32,
    /// Number of users per leg whose progress is verified afterwards.
    pub verify: usize,
    /// Number of signed-in users that a leg may use.
    pub token_users: u32,
    /// The PostgreSQL cluster, if there is one.
    pub cluster: Option<Cluster>,
}

/// The load of a leg.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// The measured operation.
    pub op: Op,
    /// Protocol era.
    pub era: Era,
    /// Number of parallel connections.
    pub connections: usize,
    /// The stop condition.
    pub limit: Limit,
    /// The walkthrough to play.
    pub walkthrough: Spec,
}

/// The result of a leg.
#[derive(Debug, Clone, Serialize)]
pub struct Leg {
    /// Section of the run.
    pub section: &'static str,
    /// Round within the section.
    pub round: u32,
    /// Number of seeded progress rows, if relevant.
    pub seeded_rows: Option<u32>,
    /// Whether the users sent tokens.
    pub signed_in: bool,
    /// Name of the contestant.
    pub contestant: &'static str,
    /// Kind of the contestant.
    #[serde(skip)]
    pub kind: Kind,
    /// Protocol era.
    pub era: Era,
    /// The measured operation.
    pub op: Op,
    /// Number of parallel connections.
    pub connections: usize,
    /// Number of steps of the walkthrough.
    pub steps: u32,
    /// Number of measured calls.
    pub calls: u64,
    /// Duration in seconds.
    pub seconds: f64,
    /// Measured calls per second.
    pub calls_per_second: f64,
    /// Median latency.
    pub p50_us: u64,
    /// 99th percentile of the latency.
    pub p99_us: u64,
    /// Maximum latency.
    pub max_us: u64,
    /// CPU time of the server's processes per call.
    pub server_cpu_us: f64,
    /// CPU time of PostgreSQL per call.
    pub database_cpu_us: Option<f64>,
    /// CPU time of the load generator per call.
    pub load_cpu_us: f64,
    /// Number of acknowledged advances.
    pub advances: u64,
    /// Number of users whose progress was verified.
    pub verified: usize,
    /// Increase of the counters of Waypost's writer during the leg.
    pub writer: Option<WriterCounts>,
    /// Increase of PostgreSQL's counters during the leg.
    pub statements: Option<StatementCounts>,
}

impl Driver {
    /// Runs one leg. Any incorrect response is an error.
    pub async fn run_leg(&mut self, contestant: &mut Contestant, load: Load) -> Result<Leg> {
        let context =
            format!("{} {} {} x{}", contestant.kind.name(), load.era.name(), load.op.name(), load.connections);
        tokio::time::timeout(LEG_TIMEOUT, self.measure(contestant, load))
            .await
            .with_context(|| format!("{context}: timed out"))?
            .context(context)
    }

    fn plan(&mut self, contestant: &mut Contestant, load: Load) -> Result<Plan> {
        self.legs += 1;
        let users = match (load.limit, load.op) {
            (Limit::Calls(calls), Op::Next) => calls.div_ceil(u64::from(load.walkthrough.steps)),
            (Limit::Calls(calls), Op::Select) => calls,
            _ => 1,
        };
        let tokens = contestant.tokens.as_mut().map(|tokens| tokens.take(self.token_users)).transpose()?;
        Ok(Plan {
            addr: contestant.server.addr,
            path: contestant.path.clone(),
            era: load.era,
            op: load.op,
            constant: contestant.kind == Kind::Floor,
            connections: load.connections,
            limit: load.limit,
            users: usize::try_from(users)?,
            tokens,
            user_prefix: format!("{}-{}", self.run, self.legs),
            walkthrough: contestant.walkthrough(load.walkthrough)?,
            verify: self.verify,
        })
    }

    async fn measure(&mut self, contestant: &mut Contestant, load: Load) -> Result<Leg> {
        let plan = self.plan(contestant, load)?;
        let mut command = Command::new(&self.program);
        command.arg("load").stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let pid = child.id().context("the load generator has exited")?;
        let mut input = child.stdin.take().context("no standard input")?;
        let mut output = BufReader::new(child.stdout.take().context("no standard output")?).lines();
        input.write_all(format!("{}\n", serde_json::to_string(&plan)?).as_bytes()).await?;
        expect(&mut output, "ready").await?;
        let counts_before = self.counts(contestant).await?;
        let before = self.cpu(contestant, pid)?;
        input.write_all(b"go\n").await?;
        expect(&mut output, "done").await?;
        let after = self.cpu(contestant, pid)?;
        let counts = self.counts(contestant).await?;
        let report = output.next_line().await?.context("the load generator ended without a report")?;
        let report: LoadReport = serde_json::from_str(&report)?;
        ensure!(child.wait().await?.success(), "the load generator failed");
        contestant.served += report.calls + report.other_calls;
        let all_calls = (report.calls + report.other_calls) as f64;
        let cpu = |index: usize| (after[index] - before[index]) / all_calls * 1e6;
        let latencies = merge(&report.latencies)?;
        Ok(Leg {
            section: "",
            round: 0,
            seeded_rows: None,
            signed_in: contestant.tokens.is_some(),
            contestant: contestant.kind.name(),
            kind: contestant.kind,
            era: load.era,
            op: load.op,
            connections: load.connections,
            steps: load.walkthrough.steps,
            calls: report.calls,
            seconds: report.seconds,
            calls_per_second: report.calls as f64 / report.seconds,
            p50_us: latencies.value_at_quantile(0.5),
            p99_us: latencies.value_at_quantile(0.99),
            max_us: latencies.max(),
            server_cpu_us: cpu(0),
            database_cpu_us: contestant.kind.uses_cluster().then(|| cpu(1)),
            load_cpu_us: cpu(2),
            advances: report.advances,
            verified: report.verified,
            writer: counts.0.zip(counts_before.0).map(|(after, before)| after.since(before)),
            statements: counts.1.zip(counts_before.1).map(|(after, before)| after.since(before)),
        })
    }

    /// Returns the counters of Waypost's writer and of PostgreSQL, if available.
    async fn counts(&self, contestant: &Contestant) -> Result<(Option<WriterCounts>, Option<StatementCounts>)> {
        let mut counts = (None, None);
        if let Some(diagnostics) = contestant.diagnostics {
            counts.0 = waypost::writer_counts(diagnostics).await.ok();
        }
        if let (Some(cluster), Some(database)) = (&self.cluster, &contestant.database) {
            counts.1 = cluster.statement_counts(database).await?;
        }
        Ok(counts)
    }

    /// Returns the CPU seconds used so far by the server, PostgreSQL (0 without a cluster) and the load generator.
    fn cpu(&self, contestant: &Contestant, load: u32) -> Result<[f64; 3]> {
        let database = self.cluster.as_ref().map(|cluster| process::cpu_seconds(cluster.pid())).transpose()?;
        Ok([process::cpu_seconds(contestant.server.pid())?, database.unwrap_or(0.0), process::cpu_seconds(load)?])
    }
}

impl Load {
    /// Creates a load that advances users through the long walkthrough.
    pub fn next(era: Era, connections: usize, limit: Limit) -> Self {
        Self { op: Op::Next, era, connections, limit, walkthrough: LONG }
    }
}

async fn expect(output: &mut Lines<BufReader<ChildStdout>>, expected: &str) -> Result<()> {
    match output.next_line().await? {
        Some(line) if line == expected => Ok(()),
        Some(line) => bail!("the load generator printed {line:?} instead of {expected:?}"),
        None => bail!("the load generator failed before {expected:?}; its message is above"),
    }
}

fn merge(latencies: &[(u64, u64)]) -> Result<Histogram<u64>> {
    let mut all = histogram();
    for (value, count) in latencies {
        all.record_n(*value, *count)?;
    }
    Ok(all)
}

/// Returns the median; `None` if there are no values.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    Some(if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_of_values_is_their_mean() {
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(vec![9.0, 1.0, 3.0]), Some(3.0));
        assert_eq!(median(Vec::new()), None);
    }
}
