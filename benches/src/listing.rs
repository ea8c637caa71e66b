//! Measures `list_walkthroughs` for a user with progress in many large walkthroughs, and compares it with `tools/list`
//! on the same connection.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::client::Connection;
use crate::contestants::Kind;
use crate::harness::{Bench, print_progress};
use crate::leg::median;
use crate::mcp::{Client, Era};
use crate::process;
use crate::report::Listing;
use crate::settings::Size;
use crate::waypost::{self, Installation};

/// Returns an import file for a walkthrough.
pub fn import_file(number: usize, size: Size) -> Value {
    let line = "Open the settings, compare each value with the expected one, and write down what differs.\n";
    let content = line.repeat(size.step_bytes.div_ceil(line.len()));
    let steps: Vec<Value> = (1..=size.steps)
        .map(|step| {
            let fields = json!({ "version": "v1", "contentForUser": content });
            json!({ "key": format!("step-{step}"), "title": format!("Step {step}"), "contentFields": fields })
        })
        .collect();
    let walkthrough = json!({ "title": format!("Walkthrough {number}"), "type": "course" });
    json!({ "version": "1.1", "walkthrough": walkthrough, "steps": steps })
}

/// Imports the walkthroughs into a separate installation.
async fn set_up(bench: &Bench, kind: Kind, program: &Path) -> Result<Installation> {
    let data = bench.dir.join(format!("{}-listing", kind.name().replace('/', "-")));
    let installation = match (&bench.driver.cluster, kind) {
        (Some(cluster), Kind::Postgres) => {
            cluster.create_database("waypost_listing", None).await?;
            Installation::postgres(program, data, cluster.url("waypost_listing"))?
        }
        _ => Installation::sqlite(program, data)?,
    };
    installation.fill(&[]).await?;
    let size = bench.settings.listing;
    for first in (0..size.walkthroughs).step_by(20) {
        let mut files = Vec::new();
        for number in first..size.walkthroughs.min(first + 20) {
            let file = installation.data.join("listing").with_extension(format!("{number}.json"));
            std::fs::write(&file, serde_json::to_vec(&import_file(number, size))?)?;
            files.push(file);
        }
        installation.import(&files).await?;
        files.iter().try_for_each(std::fs::remove_file)?;
    }
    Ok(installation)
}

fn rows(body: &[u8]) -> Result<Vec<Value>> {
    let response: Value = serde_json::from_slice(body)?;
    let rows = response.pointer("/result/structuredContent/walkthroughs").and_then(Value::as_array);
    rows.cloned().context("list_walkthroughs returned no list")
}

/// Completes one step of every walkthrough.
async fn complete_first_steps(connection: &mut Connection, client: &mut Client, size: Size) -> Result<()> {
    let rows = rows(&client.call_raw(connection, "list_walkthroughs", "{}").await?)?;
    ensure!(rows.len() == size.walkthroughs, "{} walkthroughs are listed", rows.len());
    for row in &rows {
        let arguments = json!({ "walkthrough_id": row["id"] }).to_string();
        for tool in ["select_walkthrough", "next_walkthrough_step"] {
            client.call(connection, tool, &arguments).await?;
        }
    }
    Ok(())
}

/// Measures the list for each database.
pub async fn measure_lists(bench: &mut Bench) -> Result<()> {
    let size = bench.settings.listing;
    for (kind, program) in
        bench.installations.iter().map(|(kind, installation)| (*kind, installation.program.clone())).collect::<Vec<_>>()
    {
        print_progress(&format!(
            "importing {} walkthroughs of {} steps for {}",
            size.walkthroughs,
            size.steps,
            kind.name()
        ));
        let installation = set_up(bench, kind, &program).await?;
        let path = waypost::path().replace("{user}", "listing");
        let mut client = Client::new(path, Era::Modern);
        let (server, _) = installation.serve("listing-setup", &bench.logs).await?;
        complete_first_steps(&mut Connection::open(server.addr).await?, &mut client, size).await?;
        server.stop().await?;
        // A new process, so that the first list is uncached.
        let (server, _) = installation.serve("listing", &bench.logs).await?;
        let listing = measure(&server, &mut client, kind, size).await?;
        server.stop().await?;
        print_progress(&format!(
            "list_walkthroughs of {}: p50 {:.2} ms, {:.1} × tools/list, {:+.1} MB",
            kind.name(),
            listing.list_ms,
            listing.list_ms / listing.reference_ms,
            listing.grown_bytes as f64 / 1e6
        ));
        bench.findings.listings.push(listing);
    }
    Ok(())
}

async fn measure(server: &process::Server, client: &mut Client, kind: Kind, size: Size) -> Result<Listing> {
    let mut connection = Connection::open(server.addr).await?;
    for _ in 0..size.calls {
        client.send_raw(&mut connection, "tools/list").await?;
    }
    let before = process::resident_bytes(server.pid())?;
    let (mut lists, mut references, mut bytes, mut first_ms) = (Vec::new(), Vec::new(), 0, None);
    for _ in 0..size.calls {
        let start = Instant::now();
        let body = client.call_raw(&mut connection, "list_walkthroughs", "{}").await?;
        let elapsed_ms = start.elapsed().as_secs_f64() * 1e3;
        first_ms.get_or_insert(elapsed_ms);
        lists.push(elapsed_ms);
        let rows = rows(&body)?;
        let percent = 100 / size.steps;
        let is_correct = rows.iter().all(|row| row["status"] == "in_progress" && row["progress_percent"] == percent);
        ensure!(rows.len() == size.walkthroughs && is_correct, "a list has wrong numbers");
        bytes = body.len();
        let start = Instant::now();
        client.send_raw(&mut connection, "tools/list").await?;
        references.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let after = process::resident_bytes(server.pid())?;
    Ok(Listing {
        contestant: kind.name(),
        size,
        list_ms: median(lists).context("no list was measured")?,
        first_ms: first_ms.unwrap_or_default(),
        reference_ms: median(references).context("no reference was measured")?,
        list_bytes: bytes,
        grown_bytes: i64::try_from(after)? - i64::try_from(before)?,
    })
}
