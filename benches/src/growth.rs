//! Measures the effect of data size: long and short walkthroughs, few and many progress rows.

use anyhow::Result;

use crate::content::{LONG, SHORT};
use crate::harness::{Bench, print_progress, seed_copy};
use crate::leg::Load;
use crate::mcp::Era;
use crate::plan::Limit;
use crate::seed::SeedData;

/// Names of the two copies of an installation: with few and many progress rows.
pub const NAMES: [&str; 2] = ["few", "many"];

/// Measures the same number of advances in short and long walkthroughs, alternately.
pub async fn measure_steps(bench: &mut Bench) -> Result<()> {
    let limit = Limit::Calls(bench.settings.growth_calls);
    for round in 1..=bench.settings.growth_rounds {
        for index in 0..bench.contestants.len() {
            if bench.contestants[index].kind.is_waypost() {
                for walkthrough in [SHORT, LONG] {
                    let load = Load { walkthrough, ..Load::next(Era::Modern, 64, limit) };
                    bench.run_leg(index, load, "steps", round).await?;
                }
            }
        }
    }
    Ok(())
}

/// Measures advances with few and many progress rows, alternately. Each copy has a separate server.
pub async fn measure_rows(bench: &mut Bench) -> Result<()> {
    let rows = bench.settings.growth_rows;
    let limit = Limit::Seconds(bench.settings.seconds);
    for (kind, copies) in bench.copies.clone() {
        let first = bench.contestants.len();
        for (installation, count) in copies.iter().zip(rows) {
            print_progress(&format!("seeding {count} progress rows for {}", kind.name()));
            seed_copy(bench, installation, SeedData::Progress(count)).await?;
            bench.serve(kind, installation).await?;
        }
        for index in [first, first + 1] {
            bench.run_leg(index, Load::next(Era::Modern, 64, limit), "warm-up", 0).await?;
        }
        for round in 1..=bench.settings.growth_rounds {
            for (offset, count) in rows.into_iter().enumerate() {
                let leg = bench.run_leg(first + offset, Load::next(Era::Modern, 64, limit), "rows", round).await?;
                leg.seeded_rows = Some(count);
            }
        }
        for contestant in bench.contestants.split_off(first) {
            contestant.server.stop().await?;
        }
    }
    Ok(())
}
