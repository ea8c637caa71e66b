//! `waypost migrate`: applies pending migrations.

use anyhow::Context;
use serde_json::json;
use waypost_store::{Dialect, space};

use super::{App, output};
use crate::storage;

/// Arguments of `waypost migrate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also compact the SQLite file. Needed once for a file created by an older version.
    #[arg(long)]
    compact: bool,
}

/// Applies pending migrations and prints the old and the new version.
///
/// # Errors
/// If the database cannot be reached or migrated.
pub async fn run(app: &App, args: Args) -> anyhow::Result<()> {
    // No other process may use the SQLite file while it is rewritten.
    let _lock = if args.compact { storage::serve_lock(&app.settings)? } else { None };
    let opened = app.open().await?;
    let is_compacted = args.compact && opened.db.dialect() == Dialect::Sqlite;
    if is_compacted {
        space::compact(&opened.db).await.context(
            "the database could not be compacted and was not changed: check that the disk has enough space for a \
            second copy and that no other command uses the database",
        )?;
    }
    opened.db.close().await;
    let (before, now) = (opened.before, opened.now);
    if app.json {
        return output::json(&json!({"schema_version": now, "before": before}));
    }
    if before == now {
        output::text(&format!("The database is up to date (schema {now}).\n"))?;
    } else {
        output::text(&format!("Migrated the database from schema {before} to {now}.\n"))?;
    }
    if is_compacted { output::text("Compacted the database file.\n") } else { Ok(()) }
}
