//! Waypost as a contestant: set up with its command line, then started.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use tokio::process::Command;

use crate::client::Connection;
use crate::content::{self, Spec};
use crate::mcp::{Client, Era};
use crate::process::{self, Server};

/// Slug of the measured server.
pub const SLUG: &str = "bench-server";
/// Slug of its organisation.
pub const ORGANIZATION: &str = "bench-organization";

/// A Waypost installation.
#[derive(Debug, Clone)]
pub struct Installation {
    /// Path of the `waypost` program.
    pub program: PathBuf,
    /// Data directory.
    pub data: PathBuf,
    /// Database URL.
    pub database: String,
    /// Secret key, which is required on PostgreSQL.
    pub secret: String,
}

/// Returns the path of a user's personal MCP URL.
pub fn path() -> String {
    format!("/s/{SLUG}/t/{{user}}/mcp")
}

/// Returns the path of the shared MCP URL.
pub fn shared_path() -> String {
    format!("/s/{SLUG}/mcp")
}

impl Installation {
    /// Creates a SQLite installation in `data`.
    pub fn sqlite(program: &Path, data: PathBuf) -> Result<Self> {
        let database = format!("sqlite://{}", data.join("waypost.db").display());
        Ok(Self { program: program.to_owned(), data, database, secret: process::random_hex(32)? })
    }

    /// Creates an installation with a PostgreSQL database.
    pub fn postgres(program: &Path, data: PathBuf, database: String) -> Result<Self> {
        Ok(Self { program: program.to_owned(), data, database, secret: process::random_hex(32)? })
    }

    /// Returns a command that runs `waypost` with the given arguments on this installation.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("WAYPOST_") {
                command.env_remove(name);
            }
        }
        command.args(arguments).current_dir(&self.data);
        command.args(["--database", &self.database]).arg("--data-dir").arg(&self.data);
        command.env("WAYPOST_SECRET_KEY", &self.secret);
        command
    }

    /// Creates the organisation, the server and the walkthroughs.
    pub async fn fill(&self, specs: &[Spec]) -> Result<()> {
        std::fs::create_dir_all(&self.data)?;
        process::run(self.command(&["org", "create", ORGANIZATION])).await?;
        process::run(self.command(&["server", "create", SLUG, "--org", ORGANIZATION])).await?;
        for (index, spec) in specs.iter().enumerate() {
            let file = self.data.join(format!("import-{index}.json"));
            std::fs::write(&file, serde_json::to_vec(&content::import_file(*spec))?)?;
            self.import(&[file]).await?;
        }
        Ok(())
    }

    /// Imports and publishes walkthroughs, and assigns them to the server.
    pub async fn import(&self, files: &[PathBuf]) -> Result<()> {
        let mut command = self.command(&["walkthrough", "import", "--org", ORGANIZATION, "--server", SLUG]);
        command.arg("--publish").args(files);
        process::run(command).await?;
        Ok(())
    }

    /// Makes users of the server sign in with Waypost.
    pub async fn require_sign_in(&self) -> Result<()> {
        process::run(self.command(&["server", "update", SLUG, "--auth-type", "platform_oauth"])).await?;
        Ok(())
    }

    /// Starts `waypost serve` without rate limits. Returns the server and its diagnostics address.
    pub async fn serve(&self, name: &str, logs: &Path) -> Result<(Server, SocketAddr)> {
        let unlimited = [
            ("WAYPOST_RATE_LIMIT_PER_CALLER", "0"),
            ("WAYPOST_RATE_LIMIT_PER_SERVER", "0"),
            ("WAYPOST_NEW_USERS_PER_ADDRESS", "0"),
        ];
        self.start(name, logs, &unlimited).await
    }

    /// Starts `waypost serve` with the default limits and with email.
    pub async fn serve_with_limits(&self, name: &str, logs: &Path) -> Result<(Server, SocketAddr)> {
        self.start(name, logs, &[("WAYPOST_SMTP_URL", "console:")]).await
    }

    /// Starts `waypost serve` with additional settings, which may replace the default addresses.
    pub async fn start(&self, name: &str, logs: &Path, settings: &[(&str, &str)]) -> Result<(Server, SocketAddr)> {
        let diagnostics = SocketAddr::from(([127, 0, 0, 1], process::free_port()?));
        let mut command = self.command(&["serve"]);
        command.env("WAYPOST_LISTEN", "127.0.0.1:0").env("WAYPOST_DIAGNOSTICS_LISTEN", diagnostics.to_string());
        command.envs(settings.iter().copied());
        Ok((Server::start(name, command, logs).await?, diagnostics))
    }
}

/// Returns the IDs of the served walkthroughs by title.
pub async fn walkthrough_ids(addr: SocketAddr, specs: &[Spec]) -> Result<HashMap<&'static str, String>> {
    let mut connection = Connection::open(addr).await?;
    let mut client = Client::new(path().replace("{user}", "setup"), Era::Modern);
    let outcome = client.call(&mut connection, "list_walkthroughs", "{}").await?;
    let rows = outcome.structured_content.and_then(|result| result.walkthroughs).context("list: no walkthroughs")?;
    let mut ids = HashMap::new();
    for spec in specs {
        let row = rows.iter().find(|row| row.title == spec.title);
        ids.insert(spec.title, row.with_context(|| format!("{} is not listed", spec.title))?.id.to_string());
    }
    Ok(ids)
}

/// The writer's counters from `/metrics`.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct WriterCounts {
    /// Number of transactions.
    pub groups: f64,
    /// Number of calls in these transactions.
    pub calls: f64,
    /// Number of statements of these transactions.
    pub statements: f64,
}

impl WriterCounts {
    /// Returns the increase since `before`.
    pub fn since(self, before: Self) -> Self {
        Self {
            groups: self.groups - before.groups,
            calls: self.calls - before.calls,
            statements: self.statements - before.statements,
        }
    }
}

/// Reads the writer's counters.
pub async fn writer_counts(diagnostics: SocketAddr) -> Result<WriterCounts> {
    let mut connection = Connection::open(diagnostics).await?;
    let reply = connection.get("/metrics").await?;
    ensure!(reply.status == 200, "/metrics returned {}", reply.status);
    let text = std::str::from_utf8(reply.body)?;
    let value = |name: &str| sum_metric(text, name).with_context(|| format!("/metrics has no {name}"));
    Ok(WriterCounts {
        groups: value("waypost_writer_groups_total")?,
        calls: value("waypost_writer_calls_total")?,
        statements: value("waypost_writer_statements_total")?,
    })
}

/// Returns the sum of a metric over all labels.
fn sum_metric(text: &str, name: &str) -> Option<f64> {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        rest.starts_with(['{', ' ']).then(|| rest.rsplit(' ').next()?.parse::<f64>().ok()).flatten()
    });
    values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_labels() {
        let text =
            "# TYPE a_total counter\na_total{kind=\"x\"} 3\na_total{kind=\"y z\"} 4.5\na_total_more 9\nb_total 1\n";
        assert_eq!(sum_metric(text, "a_total"), Some(7.5));
        assert_eq!(sum_metric(text, "b_total"), Some(1.0));
        assert_eq!(sum_metric(text, "c_total"), None);
    }
}
