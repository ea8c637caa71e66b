//! The benchmark run: sets up all contestants, measures them alternately, and reports the results.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use tempfile::TempDir;
use tokio::process::Command;

use crate::cluster::Cluster;
use crate::content::{LONG, SHORT, Spec};
use crate::contestants::{Contestant, Kind};
use crate::leg::{Driver, Leg, Load};
use crate::listing::Size;
use crate::load::Limit;
use crate::process::{self, Server};
use crate::report::{Environment, Findings};
use crate::waypost::Installation;
use crate::{analytics, growth, listing, peer, report, single, tokens};

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
    #[arg(long, value_name = "WHAT", value_enum, value_delimiter = ',')]
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
    /// Folder of the peer [default: the source folder of this program].
    #[arg(long, value_name = "DIR")]
    peer: Option<PathBuf>,
}

/// Parts that can be skipped.
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
}

/// The amounts and durations of the measurements.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct Settings {
    /// Whether this is a smoke run.
    pub smoke: bool,
    /// Number of alternating rounds.
    pub rounds: u32,
    /// Duration of the uncounted warm-up, which the peer's JIT compiler needs.
    pub warm_up_seconds: f64,
    /// Duration of a leg with 64 connections in seconds.
    pub seconds: f64,
    /// Duration of a leg with one connection in seconds.
    pub seconds_alone: f64,
    /// Number of calls per other operation on one connection.
    pub single_calls: u64,
    /// Number of calls on each of 64 connections when short and long walkthroughs are compared.
    pub growth_calls: u64,
    /// Number of rounds for comparisons of data size.
    pub growth_rounds: u32,
    /// The two numbers of progress rows to compare.
    pub growth_rows: [u32; 2],
    /// Number of signed-in users of a leg. More than its connections, because a user who finishes is replaced by another one.
    pub token_users: u32,
    /// Number of calls before the resident memory is read.
    pub memory_calls: u64,
    /// Number of starts, of which the median is reported.
    pub starts: u32,
    /// Approximate number of events of the organisation.
    pub analytics_events: u64,
    /// Number of page loads, of which the median is reported.
    pub analytics_pages: u32,
    /// Size of the list benchmark.
    pub listing: Size,
}

impl Settings {
    const FULL: Self = Self {
        smoke: false,
        rounds: 5,
        warm_up_seconds: 8.0,
        seconds: 3.0,
        seconds_alone: 2.0,
        single_calls: 3_000,
        growth_calls: 500,
        growth_rounds: 3,
        growth_rows: [1_000, 1_000_000],
        token_users: 2_000,
        memory_calls: 100_000,
        starts: 7,
        analytics_events: 1_000_000,
        analytics_pages: 7,
        listing: Size { walkthroughs: 200, steps: 100, step_bytes: 6_000, calls: 200 },
    };
    const SMOKE: Self = Self {
        smoke: true,
        rounds: 1,
        warm_up_seconds: 0.4,
        seconds: 0.4,
        seconds_alone: 0.3,
        single_calls: 40,
        growth_calls: 12,
        growth_rounds: 1,
        growth_rows: [100, 1_000],
        token_users: 256,
        memory_calls: 2_000,
        starts: 2,
        analytics_events: 20_000,
        analytics_pages: 2,
        listing: Size { walkthroughs: 10, steps: 5, step_bytes: 6_000, calls: 5 },
    };

    fn from_args(args: &RunArgs) -> Self {
        let mut settings = if args.smoke { Self::SMOKE } else { Self::FULL };
        settings.rounds = args.rounds.unwrap_or(settings.rounds).max(1);
        settings.seconds = args.seconds.unwrap_or(settings.seconds);
        settings
    }
}

/// The state of a run.
pub struct Bench {
    /// The amounts and durations of the measurements.
    pub settings: Settings,
    /// Runs the legs.
    pub driver: Driver,
    /// The servers under test.
    pub contestants: Vec<Contestant>,
    /// The Waypost installations among them.
    pub installations: Vec<(Kind, Installation)>,
    /// Two copies of each, for the comparison of few and many progress rows.
    pub copies: Vec<(Kind, [Installation; 2])>,
    /// Two copies of each, for the comparison of users without and with tokens.
    pub pairs: Vec<(Kind, [Installation; 2])>,
    /// Two copies of each, of which the first one gets many events.
    pub played: Vec<(Kind, [Installation; 2])>,
    /// Folder for logs.
    pub logs: PathBuf,
    /// The results so far.
    pub findings: Findings,
    /// Folder for databases.
    pub dir: PathBuf,
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
        std::fs::write(file, serde_json::to_vec_pretty(&report::json(&findings))?)
            .with_context(|| format!("cannot write {}", file.display()))?;
        println!("\nWrote all measurements to {}.", file.display());
    }
    Ok(())
}

/// Deletes the databases of a failed run and keeps its logs.
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
        single::operations(&mut bench).await?;
        single::sizes(&mut bench).await?;
    }
    if is_enabled(Part::Growth) {
        growth::steps(&mut bench).await?;
    }
    if is_enabled(Part::Races) {
        single::memory(&mut bench).await?;
        single::starts(&mut bench).await?;
    }
    if is_enabled(Part::Token) {
        tokens::measure(&mut bench).await?;
    }
    if is_enabled(Part::Growth) {
        growth::rows(&mut bench).await?;
    }
    if is_enabled(Part::Analytics) {
        analytics::page(&mut bench).await?;
    }
    if is_enabled(Part::Listing) {
        listing::list(&mut bench).await?;
    }
    bench.tear_down().await
}

/// Prints progress to standard error.
pub fn print_progress(text: &str) {
    eprintln!("… {text}");
}

/// Returns the walkthroughs that all contestants serve.
fn specs() -> Vec<Spec> {
    vec![LONG, SHORT]
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
        let environment = Environment::of(dir, cluster.as_ref()).await?;
        let settings = Settings::from_args(args);
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
        self.copies.push((kind, growth::copy(self, &installation, growth::NAMES).await?));
        self.pairs.push((kind, growth::copy(self, &installation, tokens::NAMES).await?));
        self.played.push((kind, growth::copy(self, &installation, analytics::NAMES).await?));
        self.serve(kind, &installation).await?;
        self.installations.push((kind, installation));
        Ok(())
    }

    /// Starts an installation as an additional contestant.
    pub async fn serve(&mut self, kind: Kind, installation: &Installation) -> Result<()> {
        let name = installation.data.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let served = installation.serve(&name, &self.logs).await?;
        let mut contestant = Contestant::waypost(kind, served, &specs()).await?;
        if kind == Kind::Postgres {
            contestant.database = installation.database.rsplit('/').next().map(str::to_owned);
        }
        self.contestants.push(contestant);
        Ok(())
    }

    async fn add_peer(&mut self, source: Option<&Path>) -> Result<()> {
        print_progress("setting up the peer");
        let built_from = Path::new(env!("CARGO_MANIFEST_DIR")).join("peer-ts");
        let source = std::fs::canonicalize(source.unwrap_or(&built_from)).context("the folder of the peer")?;
        let cluster = self.driver.cluster.as_ref().context("no cluster")?;
        let server = peer::start(&source, cluster, &specs(), &self.logs).await?;
        self.contestants.push(Contestant::peer(server, &specs()));
        Ok(())
    }

    /// Runs one leg of a contestant and stores its result.
    pub async fn leg(&mut self, index: usize, load: Load, section: &'static str, round: u32) -> Result<&mut Leg> {
        let mut leg = self.driver.leg(&mut self.contestants[index], load).await?;
        leg.section = section;
        leg.round = round;
        print_progress(&format!(
            "{section} {round}: {} {} {} x{}{}: {:.0} calls/s, p50 {} µs, p99 {} µs, {:.0} µs CPU",
            leg.contestant,
            leg.era.name(),
            leg.op.name(),
            leg.connections,
            if leg.signed_in { " token" } else { "" },
            leg.calls_per_second,
            leg.p50_us,
            leg.p99_us,
            leg.server_cpu_us
        ));
        self.findings.legs.push(leg);
        self.findings.legs.last_mut().context("just pushed")
    }

    /// Measures all contestants in turn, era by era, so that disturbances of the machine affect all of them.
    async fn alternate(&mut self, section: &'static str, round: u32, connections: usize, limit: Limit) -> Result<()> {
        for era in crate::mcp::Era::ALL {
            for index in 0..self.contestants.len() {
                if self.contestants[index].kind.eras().contains(&era) {
                    self.leg(index, Load::next(era, connections, limit), section, round).await?;
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
