//! The soak test: legitimate users work alongside hostile connections of every kind and must not be affected.

pub mod hostile;
mod legitimate;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;
use tokio::process::Command;

use crate::content::{LONG, SHORT};
use crate::harness::print_progress;
use crate::process;
use crate::waypost::{self, Installation, ORGANIZATION, SLUG};
use hostile::Summary;
use legitimate::{Outcome, SystemUnderTest, run_users};

/// Slugs of the server with support and the server with sign-in.
const SUPPORT: &str = "bench-support";
const OAUTH: &str = "bench-oauth";
/// Email and password of a member of the organisation.
const ACCOUNT: (&str, &str) = ("owner@example.com", "correct-horse-battery-staple");
/// Maximum factor by which the 99th percentile may increase.
const MAX_P99_RATIO: f64 = 10.0;
/// Maximum resident memory of the server in MiB.
const MAX_MEMORY_MIB: u64 = 448;
/// Maximum growth of the database in MiB, excluding the calls of legitimate users.
const MAX_GROWTH_MIB: u64 = 64;
/// Maximum growth of the database per legitimate call in bytes.
const MAX_BYTES_PER_CALL: u64 = 1_024;

/// Arguments of `soak`.
#[derive(Args)]
pub struct SoakArgs {
    /// Run for half a minute with 40 hostile connections of each kind. Latency targets are shown but not enforced,
    /// because latencies are not meaningful on a busy machine.
    #[arg(long)]
    smoke: bool,
    /// Duration with hostile connections in seconds [default: 600].
    #[arg(long)]
    seconds: Option<u64>,
    /// Number of hostile connections of each kind [default: 400].
    #[arg(long)]
    hostile: Option<usize>,
    /// Path of the Waypost program [default: `waypost` next to this program].
    #[arg(long, value_name = "PATH")]
    waypost: Option<PathBuf>,
}

/// Raises the limit on open files of this process as far as possible.
pub fn raise_open_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// A requirement and the measured value.
struct Target {
    name: &'static str,
    measured: f64,
    limit: f64,
    unit: &'static str,
    /// Whether the run fails if the target is missed.
    is_required: bool,
}

/// Runs the soak test. Returns an error if a required target is missed.
pub fn main(args: SoakArgs) -> Result<()> {
    raise_open_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            outcome = run(args) => outcome,
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        }
    })
}

async fn run(args: SoakArgs) -> Result<()> {
    let dir = tempfile::Builder::new().prefix("waypost-soak-").tempdir()?;
    let logs = dir.path().join("logs");
    std::fs::create_dir(&logs)?;
    let program = std::env::current_exe()?;
    let waypost = args.waypost.clone().unwrap_or_else(|| program.with_file_name("waypost"));
    ensure!(waypost.is_file(), "the program {} does not exist; specify it with `--waypost`", waypost.display());
    let waypost = std::fs::canonicalize(waypost)?;
    let seconds = args.seconds.unwrap_or(if args.smoke { 20 } else { 600 });
    let hostile = args.hostile.unwrap_or(if args.smoke { 40 } else { 400 });

    print_progress("setting up");
    let installation = Installation::sqlite(&waypost, dir.path().join("data"))?;
    let link = set_up(&installation).await?;
    // Uses the default limits, unlike the other measurements.
    let (server, diagnostics) = installation.serve_with_limits("soak", &logs).await?;
    set_password(&link, server.addr).await?;
    let walkthroughs = waypost::walkthrough_ids(server.addr, &[LONG, SHORT]).await?;
    let system = SystemUnderTest {
        addr: server.addr,
        diagnostics,
        path: waypost::path(),
        walkthrough: walkthroughs.get(LONG.title).context("no walkthrough")?.clone(),
        account: (ACCOUNT.0.to_owned(), ACCOUNT.1.to_owned()),
    };
    let memory = PeakMemory::watch(server.pid());
    run_users(&system, Duration::from_secs(2)).await?;
    let quiet_seconds = (seconds / 4).clamp(5, 60);
    print_progress(&format!("{quiet_seconds} s with legitimate users only"));
    let quiet = run_users(&system, Duration::from_secs(quiet_seconds)).await?;
    let before = database_bytes(&installation.data)?;
    print_progress(&format!("{seconds} s with {hostile} hostile connections of each kind"));
    let attack = attack(&program, &system, hostile, seconds);
    let (attacked, summary) = tokio::join!(run_users(&system, Duration::from_secs(seconds)), attack);
    let (attacked, summary) = (attacked?, summary?);
    let added = database_bytes(&installation.data)?.saturating_sub(before);
    let memory = memory.maximum();
    server.stop().await?;
    print_report(&args, &quiet, &attacked, &summary, memory, added)
}

/// Creates three servers and an account. Returns the link for setting its password.
async fn set_up(installation: &Installation) -> Result<String> {
    installation.fill(&[LONG, SHORT]).await?;
    let run = |arguments: &[&str]| process::run(installation.command(arguments));
    run(&["server", "create", SUPPORT, "--org", ORGANIZATION, "--support", "tickets"]).await?;
    run(&["server", "create", OAUTH, "--org", ORGANIZATION, "--auth-type", "platform_oauth"]).await?;
    let output = run(&["user", "create", ACCOUNT.0, "--org", ORGANIZATION, "--role", "owner", "--json"]).await?;
    let created: Value = serde_json::from_str(&output).context("cannot parse the created account")?;
    Ok(created["link"].as_str().context("no link")?.to_owned())
}

async fn set_password(link: &str, addr: std::net::SocketAddr) -> Result<()> {
    let token = link.rsplit("token=").next().unwrap_or_default();
    let body = format!("token={token}&name=Owner&password={}", ACCOUNT.1);
    let status = legitimate::post_form(addr, "/link", &body).await?;
    ensure!(status == 303, "the password was not set: status {status}");
    Ok(())
}

/// Runs the hostile clients at a lower priority, because in reality they would run on other machines.
async fn attack(program: &Path, system: &SystemUnderTest, connections: usize, seconds: u64) -> Result<Summary> {
    let mut command = Command::new("nice");
    command.args(["-n", "10"]).arg(program).arg("hostile");
    command.arg("--addr").arg(system.addr.to_string());
    command.arg("--connections").arg(connections.to_string()).arg("--seconds").arg(seconds.to_string());
    command.arg("--slugs").arg([SLUG, SUPPORT, OAUTH].join(",")).args(["--email", ACCOUNT.0]);
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true).output().await?;
    ensure!(output.status.success(), "the hostile clients failed");
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The maximum observed resident memory of a process.
struct PeakMemory {
    maximum: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl PeakMemory {
    fn watch(pid: u32) -> Self {
        let maximum = Arc::new(AtomicU64::new(0));
        let observed = Arc::clone(&maximum);
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(500));
            loop {
                ticks.tick().await;
                observed.fetch_max(process::resident_bytes(pid).unwrap_or(0), Ordering::Relaxed);
            }
        });
        Self { maximum, task }
    }

    fn maximum(self) -> u64 {
        self.task.abort();
        self.maximum.load(Ordering::Relaxed)
    }
}

/// Returns the size of the database files in bytes.
fn database_bytes(data: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(data)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("waypost.db") {
            bytes += entry.metadata()?.len();
        }
    }
    Ok(bytes)
}

fn print_report(
    args: &SoakArgs,
    quiet: &Outcome,
    attacked: &Outcome,
    summary: &Summary,
    memory: u64,
    added: u64,
) -> Result<()> {
    println!("\nHostile clients: connections, and responses by status");
    for (kind, counts) in summary {
        let counts: Vec<_> = counts.iter().map(|(outcome, count)| format!("{outcome} {count}")).collect();
        println!("  {:<24} {}", format!("{kind:?}"), counts.join(", "));
    }
    let ms = |micros: u64| micros as f64 / 1_000.0;
    println!("\nLegitimate users            calls    p50 ms    p99 ms    max ms  errors");
    for (name, outcome) in [("alone", quiet), ("with hostile clients", attacked)] {
        let calls = &outcome.calls;
        println!(
            "  {name:<22} {:>8} {:>9.1} {:>9.1} {:>9.1} {:>7}",
            calls.len(),
            ms(calls.value_at_quantile(0.5)),
            ms(calls.value_at_quantile(0.99)),
            ms(calls.max()),
            outcome.errors
        );
    }
    let sign_ins = &attacked.sign_ins;
    println!("  {} sign-ins with a password, {:.0} ms at most", sign_ins.len(), ms(sign_ins.max()));
    for message in quiet.messages.iter().chain(&attacked.messages) {
        println!("  {message}");
    }
    let p99 = |outcome: &Outcome| outcome.calls.value_at_quantile(0.99) as f64;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let allowed = MAX_GROWTH_MIB * (1 << 20) + attacked.calls.len() * MAX_BYTES_PER_CALL;
    let target = |name, measured, limit, unit, is_required| Target { name, measured, limit, unit, is_required };
    let targets = [
        target("errors of legitimate users", (quiet.errors + attacked.errors) as f64, 0.0, "", true),
        target("p99 with hostile clients", p99(attacked) / p99(quiet), MAX_P99_RATIO, "×", !args.smoke),
        target("memory of the server", mib(memory), MAX_MEMORY_MIB as f64, " MiB", true),
        target("growth of the database", mib(added), mib(allowed), " MiB", true),
    ];
    println!();
    for Target { name, measured, limit, unit, .. } in &targets {
        let verdict = if measured <= limit { "met" } else { "MISSED" };
        println!("  {name:<28} {measured:>8.1}{unit:<4} at most {limit:>7.1}{unit:<4} {verdict}");
    }
    let missed = targets.iter().filter(|target| target.is_required && target.measured > target.limit).count();
    ensure!(missed == 0, "{missed} targets were missed");
    Ok(())
}
