//! `waypost backup` and `waypost restore`.

use std::fs::File;
use std::io::{BufReader, BufWriter, ErrorKind, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};
use serde_json::json;
use waypost_core::{Clock, SystemClock};
use waypost_store::backup::{self, BackupSummary};
use waypost_store::migrate;

use super::{App, output};
use crate::storage;

/// Arguments of `waypost backup`.
#[derive(Debug, clap::Args)]
pub struct BackupArgs {
    /// Backup file to write.
    file: PathBuf,
    /// Overwrite an existing file.
    #[arg(long)]
    force: bool,
}

/// Arguments of `waypost restore`.
#[derive(Debug, clap::Args)]
pub struct RestoreArgs {
    /// Backup file to read.
    file: PathBuf,
}

/// Writes a backup while the database is in use. The file gets its final name only when it is complete.
///
/// # Errors
/// If the database cannot be read or the file cannot be written.
pub async fn backup(app: &App, args: BackupArgs) -> anyhow::Result<()> {
    let name = args.file.display();
    if args.file.is_dir() {
        bail!("{name} is a folder: specify a file in it");
    }
    if args.file.exists() && !args.force {
        bail!("{name} already exists: choose another name, or pass --force to overwrite it");
    }
    let opened = app.open().await?;
    let folder = storage::folder_of(&args.file);
    // A temporary file is readable only by its owner. Renaming it keeps these permissions.
    let file = tempfile::Builder::new()
        .prefix(".waypost-backup")
        .tempfile_in(folder)
        .with_context(|| format!("cannot write to the folder {}", folder.display()))?;
    let mut writer = BufWriter::new(file);
    let summary = backup::write(&opened.db, &mut writer, SystemClock.now()).await?;
    opened.db.close().await;
    writer.flush().with_context(|| format!("cannot write {name}"))?;
    let file = writer.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    file.as_file().sync_all().with_context(|| format!("cannot write {name}"))?;
    let persisted = if args.force { file.persist(&args.file) } else { file.persist_noclobber(&args.file) };
    match persisted {
        Ok(_) => {}
        Err(error) if error.error.kind() == ErrorKind::AlreadyExists => {
            bail!(
                "{name} was created by another process in the meantime: choose another name, or pass --force to overwrite it"
            )
        }
        Err(error) => return Err(error.error).with_context(|| format!("cannot write {name}")),
    }
    // Makes the rename durable. Not every file system supports syncing a folder.
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
    let message = format!(
        "Backed up {} rows to {name}.\nThe secret key is not included: back it up separately.\n",
        total_rows(&summary)
    );
    print_summary(app, &args.file, &summary, &message)
}

/// Restores a backup into an empty database.
///
/// # Errors
/// If the file is damaged, the database is not empty, or either cannot be accessed.
pub async fn restore(app: &App, args: RestoreArgs) -> anyhow::Result<()> {
    let name = args.file.display();
    let file = File::open(&args.file).with_context(|| format!("cannot read {name}"))?;
    let (db, _lock) = storage::connect_locked(&app.settings).await?;
    let summary = backup::read(&db, &mut BufReader::new(file)).await?;
    migrate::migrate(&db).await.context("the rows were restored, but the migrations failed: run `waypost migrate`")?;
    db.close().await;
    let message = format!(
        "Restored {} rows from {}.\nInstall the matching secret key before you run `waypost serve`.\n",
        total_rows(&summary),
        summary.created_at
    );
    print_summary(app, &args.file, &summary, &message)
}

fn total_rows(summary: &BackupSummary) -> u64 {
    summary.rows.values().sum()
}

fn print_summary(app: &App, file: &std::path::Path, summary: &BackupSummary, message: &str) -> anyhow::Result<()> {
    if !app.json {
        return output::text(message);
    }
    output::json(&json!({
        "file": file.display().to_string(),
        "schema_version": summary.schema_version,
        "created_at": summary.created_at,
        "rows": summary.rows,
    }))
}
