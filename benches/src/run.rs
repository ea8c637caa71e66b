//! The benchmark run: sets up all contestants, measures them alternately, and reports the results.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use tempfile::TempDir;
use tokio::process::Command;

use crate::cluster::Cluster;
use crate::contestants::{Contestant, Kind};
use crate::harness::{Bench, copy_installation, print_progress, specs};
use crate::leg::{Driver, Load};
use crate::plan::Limit;
use crate::process::{self, Server};
use crate::report::{Environment, Findings};
use crate::settings::Settings;
use crate::waypost::Installation;
use crate::{analytics, editing, growth, listing, peer, sign_in, single, summary};

/// Arguments of `run`.
#[derive(Args)]
pub struct RunArgs {
    /// Use tiny counts to check that everything works. The numbers are not meaningful.
    #[arg(long)]
    smoke: bool,
    /// Write all measurements to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Path of the Waypost program [default: `waypost` next to this program].
    #[arg(long, value_name = "PATH")]
    waypost: Option<PathBuf>,
    /// Contestants or measurements to skip; can be repeated.
    #[arg(long, value_name = "PART", value_enum, value_delimiter = ',')]
    without: Vec<Part>,
    /// Number of alternating rounds [default: 5].
    #[arg(long)]
    rounds: Option<u32>,
    /// Duration of a leg with 64 connections in seconds [default: 3].
    #[arg(long)]
    seconds: Option<f64>,
    /// Folder for databases and logs during the run [default: the system's temporary directory].
    #[arg(long, value_name = "DIR")]
    work_dir: Option<PathBuf>,
    /// Folder of the peer [default: `peer-ts` in the source folder of this program].
    #[arg(long, value_name = "DIR")]
    peer: Option<PathBuf>,
}

/// A contestant or a measurement that can be skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Floor,
    Sqlite,
    Postgres,
    Peer,
    /// Throughput comparison, other operations, sizes, memory, start-up time.
    Races,
    /// Long walkthroughs and many progress rows.
    Growth,
    /// Users with and without tokens.
    Token,
    /// The analytics page with many events.
    Analytics,
    /// `list_walkthroughs` with many large walkthroughs.
    Listing,
    /// Edits of walkthroughs with many steps.
    Editing,
}

impl RunArgs {
    fn settings(&self) -> Settings {
        let mut settings = if self.smoke { Settings::SMOKE } else { Settings::FULL };
        settings.rounds = self.rounds.unwrap_or(settings.rounds).max(1);
        settings.seconds = self.seconds.unwrap_or(settings.seconds);
        settings
    }
}

/// Runs all benchmarks and reports the results.
pub fn main(args: RunArgs) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            outcome = run(args) => outcome,
            _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
        }
    })
}

async fn run(args: RunArgs) -> Result<()> {
    let parent = args.work_dir.clone().unwrap_or_else(std::env::temp_dir);
    let dir = tempfile::Builder::new().prefix("waypost-bench-").tempdir_in(parent)?;
    let outcome = measure(&args, &dir).await;
    let findings = match outcome {
        Ok(findings) => findings,
        Err(error) => {
            eprintln!("the logs are in {}", keep_logs(dir).display());
            return Err(error);
        }
    };
    print!("{}", crate::table::render(&findings));
    if let Some(file) = &args.json {
        std::fs::write(file, serde_json::to_vec_pretty(&summary::json(&findings))?)
            .with_context(|| format!("cannot write {}", file.display()))?;
        println!("\nWrote all measurements to {}.", file.display());
    }
    Ok(())
}

/// Deletes the databases of a failed run and keeps its logs. Returns the folder of the logs.
fn keep_logs(dir: TempDir) -> PathBuf {
    let kept = dir.keep();
    let logs = kept.join("logs");
    for entry in std::fs::read_dir(&kept).into_iter().flatten().flatten().filter(|entry| entry.path() != logs) {
        let _ = std::fs::remove_dir_all(entry.path());
    }
    logs
}

async fn measure(args: &RunArgs, dir: &TempDir) -> Result<Findings> {
    let is_enabled = |part| !args.without.contains(&part);
    let mut bench = Bench::set_up(args, dir.path()).await?;
    if is_enabled(Part::Races) || is_enabled(Part::Growth) {
        bench.warm_up().await?;
    }
    if is_enabled(Part::Races) {
        bench.throughput().await?;
        single::measure_operations(&mut bench).await?;
        single::measure_sizes(&mut bench).await?;
    }
    if is_enabled(Part::Growth) {
        growth::measure_steps(&mut bench).await?;
    }
    if is_enabled(Part::Races) {
        single::measure_memory(&mut bench).await?;
        single::measure_starts(&mut bench).await?;
    }
    if is_enabled(Part::Token) {
        sign_in::measure(&mut bench).await?;
    }
    if is_enabled(Part::Growth) {
        growth::measure_rows(&mut bench).await?;
    }
    if is_enabled(Part::Analytics) {
        analytics::measure_page(&mut bench).await?;
    }
    if is_enabled(Part::Listing) {
        listing::measure_lists(&mut bench).await?;
    }
    if is_enabled(Part::Editing) {
        editing::measure_edits(&mut bench).await?;
    }
    bench.tear_down().await
}

impl Bench {
    async fn set_up(args: &RunArgs, dir: &Path) -> Result<Self> {
        let is_enabled = |part| !args.without.contains(&part);
        let logs = dir.join("logs");
        std::fs::create_dir(&logs)?;
        let program = std::env::current_exe()?;
        let needs_cluster = is_enabled(Part::Postgres) || is_enabled(Part::Peer);
        if needs_cluster {
            print_progress("starting PostgreSQL");
        }
        let cluster = if needs_cluster { Some(Cluster::start(dir, &logs).await?) } else { None };
        let environment = Environment::inspect(dir, cluster.as_ref()).await?;
        let settings = args.settings();
        let (run, token_users) = (process::random_hex(4)?, settings.token_users);
        let driver = Driver { program: program.clone(), run, legs: 0, verify: 16, token_users, cluster };
        let mut bench = Self {
            settings,
            driver,
            contestants: Vec::new(),
            installations: Vec::new(),
            copies: Vec::new(),
            pairs: Vec::new(),
            played: Vec::new(),
            logs,
            findings: Findings::new(environment, settings),
            dir: dir.to_owned(),
        };
        if is_enabled(Part::Floor) {
            let mut floor = Command::new(&program);
            floor.arg("floor");
            bench.contestants.push(Contestant::floor(Server::start("floor", floor, &bench.logs).await?));
        }
        let waypost = args.waypost.clone().unwrap_or_else(|| program.with_file_name("waypost"));
        for (part, kind) in [(Part::Sqlite, Kind::Sqlite), (Part::Postgres, Kind::Postgres)] {
            if is_enabled(part) {
                ensure!(
                    waypost.is_file(),
                    "the program {} does not exist; specify it with `--waypost`",
                    waypost.display()
                );
                bench.add_waypost(kind, &std::fs::canonicalize(&waypost)?).await?;
            }
        }
        if is_enabled(Part::Peer) {
            bench.add_peer(args.peer.as_deref()).await?;
        }
        Ok(bench)
    }

    async fn add_waypost(&mut self, kind: Kind, program: &Path) -> Result<()> {
        print_progress(&format!("setting up {}", kind.name()));
        let data = self.dir.join(kind.name().replace('/', "-"));
        let installation = match (&self.driver.cluster, kind) {
            (Some(cluster), Kind::Postgres) => {
                cluster.create_database("waypost", None).await?;
                Installation::postgres(program, data, cluster.url("waypost"))?
            }
            _ => Installation::sqlite(program, data)?,
        };
        installation.fill(&specs()).await?;
        self.copies.push((kind, copy_installation(self, &installation, growth::NAMES).await?));
        self.pairs.push((kind, copy_installation(self, &installation, sign_in::NAMES).await?));
        self.played.push((kind, copy_installation(self, &installation, analytics::NAMES).await?));
        self.serve(kind, &installation).await?;
        self.installations.push((kind, installation));
        Ok(())
    }

    async fn add_peer(&mut self, source: Option<&Path>) -> Result<()> {
        print_progress("setting up the peer");
        let default_dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("peer-ts");
        let source = std::fs::canonicalize(source.unwrap_or(&default_dir)).context("cannot find the peer's folder")?;
        let cluster = self.driver.cluster.as_ref().context("no cluster")?;
        let server = peer::start(&source, cluster, &specs(), &self.logs).await?;
        self.contestants.push(Contestant::peer(server, &specs()));
        Ok(())
    }

    /// Measures all contestants in turn, era by era, so that other load on the machine affects all of them.
    async fn alternate(&mut self, section: &'static str, round: u32, connections: usize, limit: Limit) -> Result<()> {
        for era in crate::mcp::Era::ALL {
            for index in 0..self.contestants.len() {
                if self.contestants[index].kind.eras().contains(&era) {
                    self.run_leg(index, Load::next(era, connections, limit), section, round).await?;
                }
            }
        }
        Ok(())
    }

    async fn warm_up(&mut self) -> Result<()> {
        self.alternate("warm-up", 0, 64, Limit::Seconds(self.settings.warm_up_seconds)).await
    }

    async fn throughput(&mut self) -> Result<()> {
        for round in 1..=self.settings.rounds {
            self.alternate("throughput", round, 64, Limit::Seconds(self.settings.seconds)).await?;
            self.alternate("throughput", round, 1, Limit::Seconds(self.settings.seconds_alone)).await?;
        }
        Ok(())
    }

    async fn tear_down(self) -> Result<Findings> {
        for contestant in self.contestants {
            contestant.server.stop().await?;
        }
        if let Some(cluster) = self.driver.cluster {
            cluster.stop().await?;
        }
        Ok(self.findings)
    }
}
