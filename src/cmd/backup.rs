//! `waypost backup` and `waypost restore`.

use std::fs::File;
use std::io::{BufReader, BufWriter, ErrorKind, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};
use serde_json::json;
use waypost_core::{Clock, SystemClock};
use waypost_store::backup::{self, Summary};
use waypost_store::migrate;

use super::{App, output};
use crate::storage;

/// Flags of `backup`.
#[derive(Debug, clap::Args)]
pub struct BackupArgs {
    /// Where the backup goes.
    file: PathBuf,
    /// Replaces a file that is there.
    #[arg(long)]
    force: bool,
}

/// Flags of `restore`.
#[derive(Debug, clap::Args)]
pub struct RestoreArgs {
    /// The backup.
    file: PathBuf,
}

/// Writes a backup beside everything that goes on meanwhile. The file has its name only once it is whole.
///
/// # Errors
/// When the database or the file fails.
pub async fn backup(app: &App, args: BackupArgs) -> anyhow::Result<()> {
    let name = args.file.display();
    if args.file.is_dir() {
        bail!("{name} is a folder: name a file in it");
    }
    if args.file.exists() && !args.force {
        bail!("{name} is there already: choose another name, or say --force to replace it");
    }
    let opened = app.open().await?;
    let folder = storage::folder_of(&args.file);
    // Only the owner may read a temporary file, and that stays so when it is renamed.
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
    let kept = if args.force { file.persist(&args.file) } else { file.persist_noclobber(&args.file) };
    match kept {
        Ok(_) => {}
        Err(error) if error.error.kind() == ErrorKind::AlreadyExists => {
            bail!("{name} was made by somebody else meanwhile: choose another name, or say --force to replace it")
        }
        Err(error) => return Err(error.error).with_context(|| format!("cannot write {name}")),
    }
    // The new name has to survive a power cut as well. Not every file system can do this for a folder.
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
    let done = format!(
        "Backed up {} rows to {name}.\nThe secret key is not in it: keep a copy of that, too.\n",
        total(&summary)
    );
    tell(app, &args.file, &summary, &done)
}

/// Restores a backup into a database without content.
///
/// # Errors
/// When the file is damaged, the database has content, or either fails.
pub async fn restore(app: &App, args: RestoreArgs) -> anyhow::Result<()> {
    let name = args.file.display();
    let file = File::open(&args.file).with_context(|| format!("cannot read {name}"))?;
    let (db, _lock) = storage::connect_locked(&app.settings).await?;
    let summary = backup::read(&db, &mut BufReader::new(file)).await?;
    migrate::migrate(&db)
        .await
        .context("the rows are restored, but the database could not be brought up to date: run `waypost migrate`")?;
    db.close().await;
    let done = format!(
        "Restored {} rows of {}.\nPut the secret key that belongs to them in place before `waypost serve`.\n",
        total(&summary),
        summary.created_at
    );
    tell(app, &args.file, &summary, &done)
}

fn total(summary: &Summary) -> u64 {
    summary.rows.values().sum()
}

fn tell(app: &App, file: &std::path::Path, summary: &Summary, text: &str) -> anyhow::Result<()> {
    if !app.json {
        return output::text(text);
    }
    output::json(&json!({
        "file": file.display().to_string(),
        "schema_version": summary.schema_version,
        "created_at": summary.created_at,
        "rows": summary.rows,
    }))
}
