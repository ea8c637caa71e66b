//! Measures toolboxes with a real Docker Engine and a real registry: deployments, calls, many daemons, memory, leaks.
//! See `benches/README.md`.

mod gateway;
mod link;
mod measure;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;
use futures::future::try_join_all;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::engine::Engine;
use crate::harness::print_progress;
use crate::image::Image;
use crate::installation::{Control, Daemon};
use crate::leg::median;
use crate::registry::Registry;
use crate::summary::Target;
use crate::{process, table};
use gateway::AgentCalls;
use measure::{Deployments, Fleet, Leaks};

/// The maximum number of daemons: each has its own part of 10.214.0.0 to 10.217.255.255, and one measures calls.
const MAX_DAEMONS: u8 = 63;

/// Arguments of `toolbox`.
#[derive(Args)]
pub struct ToolboxArgs {
    /// Use small numbers to check that everything works, in less than two minutes.
    #[arg(long)]
    smoke: bool,
    /// Write all measurements to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Path of the Waypost program [default: `waypost` next to this program].
    #[arg(long, value_name = "PATH")]
    waypost: Option<PathBuf>,
    /// Number of timed deployments [default: 20].
    #[arg(long)]
    deployments: Option<usize>,
    /// Number of repeated deployments, half of them over HTTP [default: 50].
    #[arg(long)]
    repeat: Option<usize>,
    /// Number of daemons with two instances each [default: 20].
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=i64::from(MAX_DAEMONS)))]
    daemons: Option<u8>,
    /// Number of calls of each kind for the cost of the link [default: 2000].
    #[arg(long)]
    calls: Option<usize>,
    /// Folder for data and logs during the run [default: the system's temporary directory].
    #[arg(long, value_name = "DIR")]
    work_dir: Option<PathBuf>,
}

/// The context that all measurements use.
pub struct Setup<'a> {
    engine: &'a Engine,
    program: &'a Path,
    folder: &'a Path,
    versions: Versions,
}

/// The versions of catalogue entries, and the image of the first one.
struct Versions {
    image: String,
    stdio: String,
    http: String,
    lazy: String,
    /// A version with two CPUs.
    fast: String,
}

/// The results.
struct Findings {
    deployments: Deployments,
    parallel: (usize, usize),
    resident_bytes: u64,
    repeated: (usize, usize),
    calls: link::Calls,
    agents: AgentCalls,
    leaks: Leaks,
    fleet: Fleet,
}

/// Runs all measurements and prints the tables.
pub fn main(args: ToolboxArgs) -> Result<()> {
    let socket = waypost_testkit::docker_socket().context(
        "no Docker Engine: DOCKER_HOST must be the Unix socket of a running engine. `eval \"$(just docker)\"` starts one",
    )?;
    ensure!(
        process::find_in_path("docker-registry").is_some(),
        "`docker-registry` is not in PATH; Debian's package has the same name"
    );
    let engine = Engine::at(&socket);
    ensure!(engine.is_running(), "no Docker Engine listens on {}", socket.display());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        // On an interrupt, everything is dropped, which removes all created objects.
        tokio::select! {
            outcome = run(&args, &engine) => outcome,
            _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
        }
    })
}

async fn run(args: &ToolboxArgs, engine: &Engine) -> Result<()> {
    let started = Instant::now();
    let own = std::env::current_exe()?;
    let program = args.waypost.clone().unwrap_or_else(|| own.with_file_name("waypost"));
    ensure!(program.is_file(), "{} does not exist; build it or use --waypost", program.display());
    let program = program.canonicalize()?;
    let folder = match &args.work_dir {
        Some(folder) => TempDir::new_in(folder)?,
        None => TempDir::new()?,
    };
    let registry = Registry::start().await;
    let (stdio, http) = (registry.push("stdio", &Image::stdio()).await, registry.push("http", &Image::http()).await);
    let mut control = Control::start(&program, folder.path(), &[]).await?;
    let versions = Versions {
        stdio: control.import("stdio", &stdio, &Value::Null).await?,
        http: control.import("http", &http, &json!({ "transport": "streamable_http", "port": 8080 })).await?,
        lazy: control.import("lazy", &stdio, &measure::lazy_fields()).await?,
        fast: control.import("fast", &stdio, &json!({ "resources": "heavy" })).await?,
        image: stdio.clone(),
    };
    let setup = Setup { engine, program: &program, folder: folder.path(), versions };
    let number = |given: Option<usize>, full, smoke| given.unwrap_or(if args.smoke { smoke } else { full });
    let daemon = Daemon::start(&control, engine, folder.path(), 0).await?;
    let count = number(args.deployments, 20, 3);
    print_progress(&format!("{count} deployments and bare containers"));
    let deployments = measure::deployments(&setup, (&control, &daemon), count).await?;
    let count = if args.smoke { 4 } else { 10 };
    print_progress(&format!("{count} parallel deployments"));
    let (succeeded, resident_bytes) = measure::parallel(&setup, (&control, &daemon), count).await?;
    let parallel = (succeeded, count);
    let count = number(args.repeat, 50, 4);
    print_progress(&format!("{count} repeated deployments"));
    let repeated = (measure::repeated(&setup, (&control, &daemon), count).await?, count);
    let size = if args.smoke { (4, 25) } else { (10, 100) };
    print_progress(&format!("{} clients with {} parallel calls", size.0, size.1));
    let leaks = measure::leaks(&setup, (&control, &daemon), size).await?;
    print_progress("calls through the link");
    let calls = link::measure(&setup, &stdio, number(args.calls, 2_000, 200)).await?;
    print_progress("agents");
    let size = if args.smoke { (1, 0.5) } else { (10, 4.0) };
    let agents = gateway::measure(&setup, (&control, &daemon), &own, size).await?;
    let count = args.daemons.unwrap_or(if args.smoke { 3 } else { 20 });
    print_progress(&format!("{count} daemons"));
    let starts = (1..count).map(|number| Daemon::start(&control, engine, setup.folder, number));
    let mut daemons = vec![daemon];
    daemons.extend(try_join_all(starts).await?);
    let fleet = measure::fleet(&setup, &mut control, &daemons).await?;
    for daemon in daemons {
        daemon.stop().await?;
    }
    let findings = Findings { deployments, parallel, resident_bytes, repeated, calls, agents, leaks, fleet };
    let profile = profile(&program);
    print(&findings, engine, args.smoke, &profile);
    print_progress(&format!("{:.0} s in total", started.elapsed().as_secs_f64()));
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&json(&findings, &profile))?;
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let all = [parallel, repeated, (findings.fleet.deployed, findings.fleet.instances)];
    ensure!(all.iter().all(|(succeeded, count)| succeeded == count), "some deployments failed");
    Ok(())
}

/// Returns the request for a container like that of `docker run --interactive`, without a network.
fn bare_container(image: &str) -> Value {
    json!({
        "Image": image, "OpenStdin": true, "AttachStdin": true, "AttachStdout": true,
        "HostConfig": { "NetworkMode": "none" },
    })
}

/// Returns the profile of a program, according to its folder, such as `debug` or `dist`.
fn profile(program: &Path) -> String {
    let folder = program.parent().and_then(Path::file_name);
    folder.map_or_else(|| "unknown".to_owned(), |name| name.to_string_lossy().into_owned())
}

fn print(findings: &Findings, engine: &Engine, smoke: bool, profile: &str) {
    let version = engine.call("GET", "/version", &Value::Null);
    println!("\nDocker Engine {}, profile {profile}", version["Version"].as_str().unwrap_or("unknown"));
    if smoke {
        println!("This is a smoke run: the counts are too small for meaningful numbers.");
    }
    println!("{}", table::grid(&measured_rows(findings)));
    println!("{}", table::grid(&table::target_rows(&targets(findings))));
    let leaks = &findings.leaks;
    println!("parallel calls: {} answered, {} rejected with 429", leaks.answered, leaks.rejected);
    println!("before them {:?}\nafter them {:?}", leaks.before, leaks.after);
}

fn measured_rows(findings: &Findings) -> Vec<Vec<String>> {
    let mut rows = vec![["", "count", "p50 ms", "max ms", "× reference"].map(str::to_owned).to_vec()];
    let (times, calls) = (&findings.deployments, &findings.calls);
    let mut add = |name: &str, seconds: &[f64], reference: &[f64]| {
        let p50 = median(seconds.to_vec()).unwrap_or_default();
        let ratio = median(reference.to_vec()).map_or(String::new(), |reference| format!("{:.2}", p50 / reference));
        let max = seconds.iter().copied().fold(0.0, f64::max);
        rows.push(vec![
            name.to_owned(),
            seconds.len().to_string(),
            format!("{:.3}", p50 * 1e3),
            format!("{:.3}", max * 1e3),
            ratio,
        ]);
    };
    add("deployment accepted", &times.accepted, &[]);
    add("deployment healthy (reference: bare container)", &times.healthy, &times.bare);
    add("bare container: create and start", &times.bare, &[]);
    add("call through the link (reference: pipe)", &calls.link, &calls.pipe);
    add("call over the engine's attached streams (reference: pipe)", &calls.attached, &calls.pipe);
    add("call over the pipes of a child process", &calls.pipe, &[]);
    add("deployment with approval and grant, until an agent has called", &findings.agents.first_calls, &[]);
    rows
}

/// Returns the targets with the measured values.
fn targets(findings: &Findings) -> Vec<Target> {
    let difference = |of: &[f64], from: &[f64]| Some((median(of.to_vec())? - median(from.to_vec())?) * 1e3);
    let (times, calls, fleet) = (&findings.deployments, &findings.calls, &findings.fleet);
    let all = |what: String, (succeeded, count): (usize, usize)| {
        Target::at_least(what, Some(succeeded as f64), "", count as f64)
    };
    let slowest = times.accepted.iter().copied().reduce(f64::max);
    vec![
        Target::at_most("a deployment is accepted: maximum".to_owned(), slowest, "s", 2.0),
        Target::at_most("a deployment is healthy: p50".to_owned(), median(times.healthy.clone()), "s", 5.0),
        all("parallel deployments that succeed".to_owned(), findings.parallel),
        all("repeated deployments that succeed".to_owned(), findings.repeated),
        Target::at_most(
            "a call through the link: p50 above that of a pipe".to_owned(),
            difference(&calls.link, &calls.pipe),
            "ms",
            0.5,
        ),
        Target::at_most(
            "a call through the link: p50 above that of the engine's streams".to_owned(),
            difference(&calls.link, &calls.attached),
            "ms",
            0.5,
        ),
        Target::at_least(
            "calls/s of 32 agents through gateway and link to a server on standard input and output".to_owned(),
            Some(findings.agents.report.calls as f64 / findings.agents.report.seconds),
            "",
            5_000.0,
        ),
        Target::at_most(
            "from a deployment with approval and grant until an agent has called: maximum".to_owned(),
            findings.agents.first_calls.iter().copied().reduce(f64::max),
            "s",
            30.0,
        ),
        all(format!("deployments on {} daemons that succeed", fleet.daemons), (fleet.deployed, fleet.instances)),
        Target::at_most(
            "all daemons are reconciled after a restart".to_owned(),
            Some(fleet.reconciled_seconds),
            "s",
            30.0,
        ),
        Target::at_most("containers replaced by the restart".to_owned(), Some(fleet.replaced as f64), "", 0.0),
        Target::at_most(
            format!("resident memory of the daemon with {} instances", findings.parallel.0),
            Some(findings.resident_bytes as f64 / 1e6),
            "MB",
            25.0,
        ),
        Target::at_most(
            "containers, networks, files, processes left by parallel calls".to_owned(),
            Some(findings.leaks.after.growth(&findings.leaks.before) as f64),
            "",
            0.0,
        ),
    ]
}

fn json(findings: &Findings, profile: &str) -> Value {
    let calls = &findings.calls;
    json!({
        "profile": profile,
        "targets": targets(findings),
        "deployments": findings.deployments,
        "parallel": findings.parallel,
        "repeated": findings.repeated,
        "daemon_resident_bytes": findings.resident_bytes,
        "calls": { "link": calls.link, "attached": calls.attached, "pipe": calls.pipe },
        "agents": findings.agents,
        "fleet": findings.fleet,
        "leaks": findings.leaks,
    })
}
