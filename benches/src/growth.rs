//! The effect of data size: long and short walkthroughs, few and many progress rows.

use anyhow::{Context, Result};

use crate::content::{LONG, SHORT};
use crate::leg::Load;
use crate::load::Limit;
use crate::mcp::Era;
use crate::run::{Bench, print_progress};
use crate::seed::{self, Database, SeedData};
use crate::waypost::Installation;

/// Names of the two copies of an installation: with few and many progress rows.
pub const NAMES: [&str; 2] = ["few", "many"];

/// Creates two copies of an unused installation.
pub async fn copy(bench: &Bench, installation: &Installation, names: [&str; 2]) -> Result<[Installation; 2]> {
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

/// Measures the same number of advances in short and long walkthroughs, alternately.
pub async fn steps(bench: &mut Bench) -> Result<()> {
    let limit = Limit::Calls(bench.settings.growth_calls);
    for round in 1..=bench.settings.growth_rounds {
        for index in 0..bench.contestants.len() {
            if bench.contestants[index].kind.is_waypost() {
                for walkthrough in [SHORT, LONG] {
                    let load = Load { walkthrough, ..Load::next(Era::Modern, 64, limit) };
                    bench.leg(index, load, "steps", round).await?;
                }
            }
        }
    }
    Ok(())
}

/// Measures advances with few and many progress rows, alternately. Each copy has a separate server.
pub async fn rows(bench: &mut Bench) -> Result<()> {
    let rows = bench.settings.growth_rows;
    let limit = Limit::Seconds(bench.settings.seconds);
    for (kind, copies) in bench.copies.clone() {
        let first = bench.contestants.len();
        for (installation, n) in copies.iter().zip(rows) {
            print_progress(&format!("seeding {n} progress rows for {}", kind.name()));
            seed_copy(bench, installation, SeedData::Progress(n)).await?;
            bench.serve(kind, installation).await?;
        }
        for index in [first, first + 1] {
            bench.leg(index, Load::next(Era::Modern, 64, limit), "warm-up", 0).await?;
        }
        for round in 1..=bench.settings.growth_rounds {
            for (offset, n) in rows.into_iter().enumerate() {
                let leg = bench.leg(first + offset, Load::next(Era::Modern, 64, limit), "rows", round).await?;
                leg.seeded_rows = Some(n);
            }
        }
        for contestant in bench.contestants.split_off(first) {
            contestant.server.stop().await?;
        }
    }
    Ok(())
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
