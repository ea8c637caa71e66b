//! `waypost migrate`: brings the database up to date.

use serde_json::json;

use super::{App, output};

/// Migrates, and says from which version to which.
///
/// # Errors
/// When the database cannot be reached or brought up to date.
pub async fn run(app: &App) -> anyhow::Result<()> {
    let opened = app.open().await?;
    opened.db.close().await;
    let (before, now) = (opened.before, opened.now);
    if app.json {
        return output::json(&json!({"schema_version": now, "before": before}));
    }
    if before == now {
        output::text(&format!("The database is up to date (schema {now}).\n"))
    } else {
        output::text(&format!("The database was brought from schema {before} to {now}.\n"))
    }
}
