//! Measures edits through the REST API, as the editor sends them: changes to a field of one of many large steps,
//! insertions and moves in a long chain, and polls of an unchanged draft.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::client::Connection;
use crate::contestants::Kind;
use crate::harness::{Bench, print_progress};
use crate::leg::median;
use crate::listing::import_file;
use crate::process;
use crate::report::Editing;
use crate::settings::{EditSize, Size};
use crate::waypost::{Installation, ORGANIZATION};

/// Measures edits for each database.
pub async fn measure_edits(bench: &mut Bench) -> Result<()> {
    let size = bench.settings.editing;
    for (kind, program) in bench.installations.iter().map(|(kind, it)| (*kind, it.program.clone())).collect::<Vec<_>>()
    {
        print_progress(&format!("importing long walkthroughs for {}", kind.name()));
        let (installation, key) = set_up(bench, kind, &program).await?;
        let (server, _) = installation.serve("editing", &bench.logs).await?;
        let mut api = Api { connection: Connection::open(server.addr).await?, key };
        let editing = measure(&mut api, kind, size).await?;
        server.stop().await?;
        print_progress(&format!(
            "edits of {}: a field {:.2} ms, insertion {:.2} ms, move {:.2} ms, poll {:.2} ms",
            kind.name(),
            editing.patch_ms,
            editing.insert_ms,
            editing.move_ms,
            editing.poll_ms
        ));
        bench.findings.editing.push(editing);
    }
    Ok(())
}

/// Creates a separate installation with the two walkthroughs. Returns it with an API key.
async fn set_up(bench: &Bench, kind: Kind, program: &Path) -> Result<(Installation, String)> {
    let data = bench.dir.join(format!("{}-editing", kind.name().replace('/', "-")));
    let installation = match (&bench.driver.cluster, kind) {
        (Some(cluster), Kind::Postgres) => {
            cluster.create_database("waypost_editing", None).await?;
            Installation::postgres(program, data, cluster.url("waypost_editing"))?
        }
        _ => Installation::sqlite(program, data)?,
    };
    installation.fill(&[]).await?;
    let EditSize { steps, step_bytes, chain, .. } = bench.settings.editing;
    for (number, steps, step_bytes) in [(1, steps, step_bytes), (2, chain, 1_000)] {
        let file = installation.data.join(format!("editing-{number}.json"));
        let size = Size { walkthroughs: 1, steps, step_bytes, calls: 0 };
        std::fs::write(&file, serde_json::to_vec(&import_file(number, size))?)?;
        installation.import(&[file]).await?;
    }
    let created = installation.command(&["key", "create", "--org", ORGANIZATION, "--name", "bench"]);
    let output = process::run(created).await?;
    let mut words = output.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_' && letter != '-');
    let key = words.find(|word| word.starts_with("wpk_")).context("`key create` printed no key")?.to_owned();
    Ok((installation, key))
}

struct Api {
    connection: Connection,
    key: String,
}

impl Api {
    /// Sends a request below `/api/v1`. Returns the time in milliseconds and the body. Any status other than `expected`
    /// is an error.
    async fn send(
        &mut self,
        method: &str,
        path: &str,
        more: &str,
        body: Option<&Value>,
        expected: u16,
    ) -> Result<(f64, Value)> {
        let headers = format!("Authorization: Bearer {}\r\nContent-Type: application/json\r\n{more}", self.key);
        let body = body.map(Value::to_string).unwrap_or_default();
        let path = format!("/api/v1{path}");
        let start = Instant::now();
        let reply = self.connection.send(method, &path, &headers, &body).await?;
        let elapsed_ms = start.elapsed().as_secs_f64() * 1e3;
        let text = String::from_utf8_lossy(reply.body);
        ensure!(reply.status == expected, "{method} {path} returned {}: {text}", reply.status);
        Ok((elapsed_ms, if reply.body.is_empty() { Value::Null } else { serde_json::from_str(&text)? }))
    }
}

/// The IDs of a walkthrough and its steps.
struct Draft {
    path: String,
    steps: Vec<String>,
}

async fn find(api: &mut Api, number: usize) -> Result<Draft> {
    let (_, list) = api.send("GET", "/walkthroughs", "", None, 200).await?;
    let title = format!("Walkthrough {number}");
    let row = list["items"].as_array().into_iter().flatten().find(|row| row["title"] == title.as_str());
    let path = format!("/walkthroughs/{}", row.and_then(|row| row["id"].as_str()).context("no such walkthrough")?);
    let (_, draft) = api.send("GET", &path, "", None, 200).await?;
    let steps = draft["steps"].as_array().context("the draft has no steps")?;
    let steps = steps.iter().filter_map(|step| step["id"].as_str().map(str::to_owned)).collect();
    Ok(Draft { path, steps })
}

async fn measure(api: &mut Api, kind: Kind, size: EditSize) -> Result<Editing> {
    let large = find(api, 1).await?;
    let (mut patches, mut polls, mut inserts, mut moves) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let step = format!("{}/steps/{}", large.path, large.steps[large.steps.len() / 2]);
    for call in 0..=size.calls {
        let change = json!({ "section_title": format!("Section {call}") });
        let (elapsed_ms, edited) = api.send("PATCH", &step, "", Some(&change), 200).await?;
        ensure!(edited["step"]["section_title"] == change["section_title"], "the change was not saved");
        let etag = format!("If-None-Match: \"{}\"\r\n", edited["revision"]);
        let (poll_ms, _) = api.send("GET", &large.path, &etag, None, 304).await?;
        // Not counted: the first edit prepares the connection's statements and creates the history of the step.
        if call > 0 {
            patches.push(elapsed_ms);
            polls.push(poll_ms);
        }
    }
    let long = find(api, 2).await?;
    // The last step is deleted before each insertion, because a walkthrough can have at most 500 steps.
    let (mut last, middle) = (long.steps[size.chain - 1].clone(), &long.steps[size.chain / 2]);
    for call in 0..=size.calls {
        api.send("DELETE", &format!("{}/steps/{last}", long.path), "", None, 200).await?;
        let new = json!({ "title": format!("New {call}"), "content": "Do it.", "after": middle });
        let (insert_ms, inserted) = api.send("POST", &format!("{}/steps", long.path), "", Some(&new), 201).await?;
        ensure!(inserted["step"]["position"] == size.chain / 2 + 2, "the step has the wrong position");
        last = inserted["step"]["id"].as_str().context("the new step has no ID")?.to_owned();
        let to = json!({ "after": long.steps[call % 2] });
        let moved = format!("{}/steps/{middle}/move", long.path);
        let (move_ms, _) = api.send("POST", &moved, "", Some(&to), 200).await?;
        if call > 0 {
            inserts.push(insert_ms);
            moves.push(move_ms);
        }
        let back = json!({ "after": long.steps[size.chain / 2 - 1] });
        api.send("POST", &moved, "", Some(&back), 200).await?;
    }
    let p50 = |values: Vec<f64>| median(values).context("nothing was measured");
    Ok(Editing {
        contestant: kind.name(),
        size,
        patch_ms: p50(patches)?,
        insert_ms: p50(inserts)?,
        move_ms: p50(moves)?,
        poll_ms: p50(polls)?,
    })
}
