//! The state of a run and the operations that all measurements share: starting servers, running legs, copying and
//! seeding installations.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::content::{LONG, SHORT, Spec};
use crate::contestants::{Contestant, Kind};
use crate::leg::{Driver, Leg, Load};
use crate::report::Findings;
use crate::seed::{self, Database, SeedData};
use crate::settings::Settings;
use crate::waypost::Installation;

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
    /// Two copies of each; the first one gets many events.
    pub played: Vec<(Kind, [Installation; 2])>,
    /// Folder for logs.
    pub logs: PathBuf,
    /// The results so far.
    pub findings: Findings,
    /// Folder for databases.
    pub dir: PathBuf,
}

/// Prints progress to standard error.
pub fn print_progress(text: &str) {
    eprintln!("… {text}");
}

/// Returns the walkthroughs that all contestants serve.
pub fn specs() -> Vec<Spec> {
    vec![LONG, SHORT]
}

impl Bench {
    /// Starts an installation as an additional contestant.
    pub async fn serve(&mut self, kind: Kind, installation: &Installation) -> Result<()> {
        let name = installation.data.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (server, diagnostics) = installation.serve(&name, &self.logs).await?;
        let mut contestant = Contestant::waypost(kind, server, diagnostics, &specs()).await?;
        if kind == Kind::Postgres {
            contestant.database = installation.database.rsplit('/').next().map(str::to_owned);
        }
        self.contestants.push(contestant);
        Ok(())
    }

    /// Runs one leg of a contestant and stores its result.
    pub async fn run_leg(&mut self, index: usize, load: Load, section: &'static str, round: u32) -> Result<&mut Leg> {
        let mut leg = self.driver.run_leg(&mut self.contestants[index], load).await?;
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
}

/// Creates two copies of an unused installation.
pub async fn copy_installation(
    bench: &Bench,
    installation: &Installation,
    names: [&str; 2],
) -> Result<[Installation; 2]> {
    let mut copies = [installation.clone(), installation.clone()];
    for (copy, name) in copies.iter_mut().zip(names) {
        let file_name = installation.data.file_name().unwrap_or_default().to_string_lossy();
        copy.data = installation.data.with_file_name(format!("{file_name}-{name}"));
        std::fs::create_dir(&copy.data)?;
        for entry in std::fs::read_dir(&installation.data)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                std::fs::copy(entry.path(), copy.data.join(entry.file_name()))?;
            }
        }
        if installation.database.starts_with("postgres:") {
            let cluster = bench.driver.cluster.as_ref().context("no cluster")?;
            let database = format!("waypost_{name}");
            cluster.create_database(&database, Some("waypost")).await?;
            copy.database = cluster.url(&database);
        } else {
            copy.database = format!("sqlite://{}", copy.data.join("waypost.db").display());
        }
    }
    Ok(copies)
}

/// Seeds the database of an installation that is not running.
pub async fn seed_copy(bench: &Bench, installation: &Installation, what: SeedData<'_>) -> Result<()> {
    match &bench.driver.cluster {
        Some(cluster) if installation.database.starts_with("postgres:") => {
            let name = installation.database.rsplit('/').next().unwrap_or_default();
            let pool = cluster.pool(name).await?;
            seed::seed(Database::Postgres(&pool), what).await?;
            pool.close().await;
        }
        _ => seed::seed(Database::Sqlite(&installation.data.join("waypost.db")), what).await?,
    }
    Ok(())
}
