//! `waypost migrate`: brings the database up to date.

use anyhow::Context;
use serde_json::json;
use waypost_store::{Dialect, space};

use super::{App, output};
use crate::storage;

/// Flags of `migrate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also rewrites a SQLite file without its free space; needed once for a file that an older Waypost made.
    #[arg(long)]
    compact: bool,
}

/// Migrates, and says from which version to which.
///
/// # Errors
/// When the database cannot be reached or brought up to date.
pub async fn run(app: &App, args: Args) -> anyhow::Result<()> {
    // Of SQLite: nobody else may use the file while it is rewritten.
    let _lock = if args.compact { storage::serve_lock(&app.settings)? } else { None };
    let opened = app.open().await?;
    let is_compacted = args.compact && opened.db.dialect() == Dialect::Sqlite;
    if is_compacted {
        space::compact(&opened.db).await.context(
            "the database could not be compacted, and is as it was: check that the disk has room for a second copy, and \
             that no other command uses it",
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
        output::text(&format!("The database was brought from schema {before} to {now}.\n"))?;
    }
    if is_compacted { output::text("The file was rewritten without free space.\n") } else { Ok(()) }
}
