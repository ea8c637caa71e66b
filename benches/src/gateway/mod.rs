//! Measures the gateway against direct calls and a bare relay, side by side in one run. See
//! `benches/README.md`.

pub mod leg;
pub mod load;
mod peers;
pub mod relay;
mod report;
mod site;
pub mod upstream;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;
use tempfile::TempDir;
use tokio::process::Command;

use crate::harness::print_progress;
use crate::mcp::Era;
use crate::process::{self, Server};
use crate::report::Environment;
use leg::{Contestant, Leg, Load};
use site::Site;

/// The number of servers whose tools are listed, and the number of those that are dead.
const LISTED_SERVERS: usize = 20;
const DEAD_SERVERS: usize = 2;
/// The calls per second of the measurements of latency.
const RATE: f64 = 3_000.0;
/// The paths of the server for agents of each era.
const MODERN_PATH: &str = "/modern/mcp";
const LEGACY_PATH: &str = "/legacy/mcp";
/// The name of the direct calls in tables.
pub const DIRECT: &str = "direct";
/// The name of the bare relay in tables.
pub const RELAY: &str = "bare relay";
/// The name of Waypost in tables.
pub const WAYPOST: &str = "Waypost";

/// Arguments of `gateway`.
#[derive(Args)]
pub struct GatewayArgs {
    /// Use small numbers to check that everything works.
    #[arg(long)]
    smoke: bool,
    /// Write all measurements to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Path of the Waypost program [default: `waypost` next to this program].
    #[arg(long, value_name = "PATH")]
    waypost: Option<PathBuf>,
    /// Number of rounds, whose medians are shown [default: 3].
    #[arg(long)]
    rounds: Option<usize>,
    /// Seconds of each measurement [default: 4].
    #[arg(long)]
    seconds: Option<f64>,
    /// Also measure other gateways, which are installed if necessary: mcp-proxy (Rust), FastMCP, mcp-proxy (Python),
    /// supergateway.
    #[arg(long)]
    peers: bool,
    /// Folder for data and logs during the run [default: the system's temporary directory].
    #[arg(long, value_name = "DIR")]
    work_dir: Option<PathBuf>,
}

/// The amounts of a run.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Amounts {
    /// Whether the amounts are too small for meaningful numbers.
    pub smoke: bool,
    /// The number of rounds.
    pub rounds: usize,
    /// The seconds of each measurement.
    pub seconds: f64,
    /// The numbers of connected agents: one, some and many.
    pub agents: [usize; 3],
    /// The number of timed lists.
    pub lists: usize,
    /// The number of timed approvals.
    pub approvals: usize,
}

/// The results.
#[derive(Debug, Serialize)]
pub struct Findings {
    /// The machine.
    pub environment: Environment,
    /// The profile with which the programs were built.
    pub profile: String,
    /// The amounts.
    pub amounts: Amounts,
    /// The measurements.
    pub legs: Vec<Leg>,
    /// The times in seconds from the approval of tools until a connected agent is notified of them.
    pub announcements: Vec<f64>,
    /// The times of `tools/list` in seconds.
    pub lists: Vec<f64>,
    /// The resident memory of `serve` in bytes, with the gateway on and off.
    pub resident: (u64, u64),
    /// The resident memory in bytes of each idle connected agent.
    pub resident_per_agent: f64,
}

/// The servers of a run.
struct Servers {
    upstream: Server,
    /// The server behind some of the lists, which is killed.
    mortal: Server,
    relay: Server,
    site: Site,
}

/// Runs all measurements and prints the tables.
pub fn main(args: GatewayArgs) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        // On an interrupt, everything is dropped, which ends the processes.
        tokio::select! {
            outcome = run(&args) => outcome,
            _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
        }
    })
}

async fn run(args: &GatewayArgs) -> Result<()> {
    let started = Instant::now();
    let own = std::env::current_exe()?;
    let program = args.waypost.clone().unwrap_or_else(|| own.with_file_name("waypost"));
    ensure!(program.is_file(), "{} does not exist; build it or use --waypost", program.display());
    let program = program.canonicalize()?;
    let folder = match &args.work_dir {
        Some(folder) => TempDir::new_in(folder)?,
        None => TempDir::new()?,
    };
    if args.peers {
        // Before anything is measured, because it can fail and uses all cores.
        print_progress("installation of other gateways");
        peers::install().await?;
    }
    let amounts = amounts(args);
    let environment = Environment::inspect(folder.path(), None).await?;
    print_progress("memory with the gateway on and off");
    let resident = site::resident_on_and_off(&program, folder.path()).await?;
    print_progress(&format!("{} agents", amounts.agents[2]));
    let servers = Servers::start(&own, &program, folder.path(), amounts.agents[2]).await?;
    print_progress("memory of idle agents");
    let resident_per_agent = idle_agents(&servers.site).await?;
    let mut legs = measure(&own, &servers.contestants()?, (&loads(amounts.agents), amounts), Err).await?;
    if args.peers {
        legs.extend(measure_peers(&own, &servers, folder.path(), amounts).await?);
    }
    print_progress("approvals");
    let announcements = servers.site.announce(servers.upstream.addr, amounts.approvals).await?;
    print_progress("tools/list of many servers, two of them dead");
    let lists = lists(servers, amounts.lists).await?;
    let profile = program.parent().and_then(Path::file_name).context("a folder")?.to_string_lossy().into_owned();
    let findings = Findings { environment, profile, amounts, legs, announcements, lists, resident, resident_per_agent };
    println!("{}", report::render(&findings));
    print_progress(&format!("{:.0} s in total", started.elapsed().as_secs_f64()));
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&report::json(&findings))?;
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let failed = findings.legs.iter().find(|leg| leg.contestant == WAYPOST && leg.report.errors > 0);
    let message =
        |leg: &Leg| format!("{} calls failed: {:?}: {:?}", leg.report.errors, leg.load, leg.report.first_error);
    ensure!(failed.is_none(), "{}", failed.map(message).unwrap_or_default());
    Ok(())
}

fn amounts(args: &GatewayArgs) -> Amounts {
    let smoke = args.smoke;
    Amounts {
        smoke,
        rounds: args.rounds.unwrap_or(if smoke { 1 } else { 3 }).max(1),
        seconds: args.seconds.unwrap_or(if smoke { 0.5 } else { 4.0 }),
        agents: if smoke { [1, 8, 40] } else { [1, 32, 1_000] },
        lists: if smoke { 50 } else { 1_000 },
        approvals: if smoke { 2 } else { 20 },
    }
}

impl Servers {
    async fn start(own: &Path, program: &Path, folder: &Path, agents: usize) -> Result<Self> {
        let start = async |name: &'static str, arguments: &[&str]| {
            let mut command = Command::new(own);
            command.args(arguments);
            Server::start(name, command, folder).await
        };
        let upstream = start("upstream", &["gateway-upstream"]).await?;
        let mortal = start("mortal", &["gateway-upstream"]).await?;
        let relay = start("relay", &["gateway-relay", "--upstream", &upstream.addr.to_string()]).await?;
        let site = Site::start(program, folder, upstream.addr, agents).await?;
        Ok(Self { upstream, mortal, relay, site })
    }

    fn contestants(&self) -> Result<Vec<Contestant>> {
        let path = |era: Era| if era == Era::Modern { MODERN_PATH } else { LEGACY_PATH };
        let server = |name: &str, addr: SocketAddr, pid: u32| Contestant {
            name: name.to_owned(),
            addr,
            pid,
            path,
            has_prefix: false,
            tokens: Vec::new(),
        };
        let waypost = Contestant {
            path: |_| site::PATH,
            has_prefix: true,
            tokens: self.site.tokens.clone(),
            ..server(WAYPOST, self.site.addr()?, self.site.control.pid())
        };
        Ok(vec![
            server(DIRECT, self.upstream.addr, self.upstream.pid()),
            server(RELAY, self.relay.addr, self.relay.pid()),
            waypost,
        ])
    }
}

/// Returns the loads of a round.
fn loads(agents: [usize; 3]) -> Vec<Load> {
    let mut loads = Vec::new();
    for era in Era::ALL {
        let load = |tool, agents, rate| Load { era, tool, agents, rate };
        loads.extend(agents.map(|agents| load(0, agents, None)));
        loads.extend([1, 2].map(|tool| load(tool, agents[1], None)));
        loads.extend(agents[1..].iter().map(|agents| load(0, *agents, Some(RATE))));
    }
    loads
}

/// Runs all loads, in each round with all contestants in turn. A measurement that fails is passed to `fail`.
async fn measure(
    own: &Path,
    contestants: &[Contestant],
    (loads, amounts): (&[Load], Amounts),
    fail: impl Fn(anyhow::Error) -> Result<()>,
) -> Result<Vec<Leg>> {
    let mut legs = Vec::new();
    for round in 1..=amounts.rounds {
        for load in loads {
            for contestant in contestants {
                match leg::run(own, contestant, *load, amounts.seconds).await {
                    Ok(leg) => {
                        print_progress(&format!("{round}: {}", report::describe(&leg)));
                        legs.push(leg);
                    }
                    Err(error) => fail(error)?,
                }
            }
        }
    }
    Ok(legs)
}

/// Runs the loads that other gateways support: agents with a handshake, each of which may cost a process. A measurement
/// that fails is printed and omitted.
async fn measure_peers(own: &Path, servers: &Servers, folder: &Path, amounts: Amounts) -> Result<Vec<Leg>> {
    print_progress("other gateways");
    let peers = peers::start(own, servers.upstream.addr, folder).await?;
    let contestants: Vec<Contestant> = peers.iter().map(peers::Peer::contestant).collect();
    let is_supported = |load: &Load| load.era == Era::Legacy && load.agents < amounts.agents[2] && load.rate.is_none();
    let loads: Vec<Load> = loads(amounts.agents).into_iter().filter(is_supported).collect();
    let print = |error: anyhow::Error| {
        print_progress(&format!("not measured: {error:#}"));
        Ok(())
    };
    measure(own, &contestants, (&loads, amounts), print).await
}

/// Returns the resident memory in bytes of an idle agent with an open stream.
async fn idle_agents(site: &Site) -> Result<f64> {
    let pid = site.control.pid();
    let before = process::resident_bytes(pid)?;
    let streams = site.open_streams().await?;
    // Every stream looks for changes several times.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let after = process::resident_bytes(pid)?;
    Ok(after.saturating_sub(before) as f64 / streams.len().max(1) as f64)
}

/// Returns the times of `tools/list` after two of the servers have died.
async fn lists(servers: Servers, count: usize) -> Result<Vec<f64>> {
    let token = servers.site.connect_many(servers.upstream.addr, servers.mortal.addr).await?;
    servers.mortal.kill().await?;
    servers.site.list(&token, count).await
}
