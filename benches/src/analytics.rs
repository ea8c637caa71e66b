//! Measures the analytics page of an organisation with many events: seeds the events, waits until they are packed, and
//! loads the page over HTTP with a session.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use crate::activity::events;
use crate::client::Connection;
use crate::harness::{Bench, print_progress, seed_copy};
use crate::leg::median;
use crate::process::random_hex;
use crate::report::Analytics;
use crate::seed::SeedData;
use crate::waypost::ORGANIZATION;

/// Names of the two copies of an installation. The second one is not used.
pub const NAMES: [&str; 2] = ["played", "unplayed"];

/// Timeout for packing. A million events take some seconds.
const PACKING_TIMEOUT: Duration = Duration::from_secs(300);

#[expect(clippy::disallowed_methods, reason = "seeded rows must be older than the server's current time")]
fn now() -> Result<i64> {
    Ok(i64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis())?)
}

/// Measures the page for each database.
pub async fn measure_page(bench: &mut Bench) -> Result<()> {
    let attempts = bench.settings.analytics_events / 10;
    for (kind, [installation, _]) in bench.played.clone() {
        let (now, token) = (now()?, random_hex(32)?);
        let hash: String = Sha256::digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        print_progress(&format!("seeding {} events for {}", events(attempts), kind.name()));
        seed_copy(bench, &installation, SeedData::Activity(attempts, now, &hash)).await?;
        let (server, _) = installation.serve("played", &bench.logs).await?;
        let mut page = Page { connection: Connection::open(server.addr).await?, token };
        let packing_seconds = page.wait_until_packed(attempts).await?;
        let mut seconds = Vec::new();
        for _ in 0..bench.settings.analytics_pages {
            seconds.push(page.load(attempts).await?.as_secs_f64());
        }
        print_progress(&format!(
            "analytics of {}: packed after {packing_seconds:.1} s, page {seconds:.3?} s",
            kind.name()
        ));
        server.stop().await?;
        bench.findings.analytics.push(Analytics {
            contestant: kind.name(),
            events: events(attempts),
            median_seconds: median(seconds.clone()).context("no page was loaded")?,
            seconds,
            packing_seconds,
        });
    }
    Ok(())
}

struct Page {
    connection: Connection,
    token: String,
}

impl Page {
    /// Loads the page for the last 30 days and checks its numbers.
    async fn load(&mut self, attempts: u64) -> Result<Duration> {
        let headers = format!("Cookie: __Host-wp_console={}\r\n", self.token);
        let begin = Instant::now();
        let path = format!("/o/{ORGANIZATION}/analytics?range=30");
        let reply = self.connection.get_with(&path, &headers).await?;
        let elapsed = begin.elapsed();
        let text = String::from_utf8_lossy(reply.body);
        ensure!(reply.status == 200, "the analytics page returned {}", reply.status);
        let exact = format!("<dt>Started</dt><dd>{attempts}</dd>");
        ensure!(text.contains(&exact), "the analytics page does not show {attempts} starts");
        Ok(elapsed)
    }

    /// Waits until the page no longer becomes faster, which means that the events are packed. Returns the elapsed
    /// seconds.
    async fn wait_until_packed(&mut self, attempts: u64) -> Result<f64> {
        let begin = Instant::now();
        let mut best = self.load(attempts).await?;
        let mut waited = 0;
        while waited < 5 && begin.elapsed() < PACKING_TIMEOUT {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let took = self.load(attempts).await?;
            waited = if took < best.mul_f64(0.9) { 0 } else { waited + 1 };
            best = best.min(took);
        }
        Ok(begin.elapsed().as_secs_f64())
    }
}
