//! `waypost secret`: the secret key of this installation.

use std::process::ExitCode;

use serde_json::json;
use waypost_core::SystemRandom;
use waypost_core::caller::Ctx;
use waypost_ops::Ops;
use waypost_ops::secrets::{self, ResealSummary};

use super::{App, UsageError, output};
use crate::config::Settings;
use crate::storage;

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Replaces the key, and seals everything anew; the former key still opens and verifies.
    ///
    /// Where the key is kept in a file, a new one is made and the former one kept beside it, as secret.key.previous. Where
    /// it is set, set the new one as WAYPOST_SECRET_KEY and the former one as WAYPOST_SECRET_KEY_PREVIOUS before. A
    /// command that was interrupted is finished by the next one.
    Rotate,
}

/// What came of it.
struct Done {
    /// Whether a new key was made.
    new_key: bool,
    resealed: ResealSummary,
}

/// Does it.
///
/// # Errors
/// When the key cannot be replaced; what is sealed can then still be opened.
pub async fn run(app: &App, command: Command) -> anyhow::Result<ExitCode> {
    let Command::Rotate = command;
    let settings = &app.settings;
    // On SQLite nobody serves meanwhile: who has read the former key would not know the new one.
    let _lock = storage::serve_lock(settings)?;
    if settings.secret_key.is_some() && settings.secret_key_previous.is_none() {
        let message = "the key is set: set the new one as WAYPOST_SECRET_KEY and the former one as WAYPOST_SECRET_KEY_PREVIOUS, and say it again";
        return Err(UsageError(message.to_owned()).into());
    }
    let db = app.open().await?.db;
    let done = rotate(settings, &Ops::new(db.clone())).await;
    db.close().await;
    tell(app, &done?)
}

async fn rotate(settings: &Settings, ops: &Ops) -> anyhow::Result<Done> {
    let cx = Ctx::operator();
    let keys = storage::keys(settings, &SystemRandom)?;
    // First what an interrupted command has left: the former key is about to be forgotten.
    let resealed = secrets::reseal(&cx, ops, &keys.keyring()).await?;
    if settings.secret_key.is_some() || resealed.resealed > 0 {
        return Ok(Done { new_key: false, resealed });
    }
    replace(settings)?;
    let keys = storage::keys(settings, &SystemRandom)?;
    Ok(Done { new_key: true, resealed: secrets::reseal(&cx, ops, &keys.keyring()).await? })
}

/// In this order, so that at every moment the two files open everything: interrupted after the first step they are the
/// same; after the second, everything is sealed with the previous one.
fn replace(settings: &Settings) -> anyhow::Result<()> {
    let current = storage::secret_key(settings, &SystemRandom)?;
    storage::replace_secret(&storage::previous_secret_file(settings), &current)?;
    storage::replace_secret(&storage::secret_file(settings), &storage::new_key(&SystemRandom))
}

fn tell(app: &App, done: &Done) -> anyhow::Result<ExitCode> {
    let ResealSummary { resealed, unreadable } = done.resealed;
    if app.json {
        output::json(&json!({"new_key": done.new_key, "resealed": resealed, "unreadable": unreadable}))?;
    } else {
        let key = match (done.new_key, &app.settings.secret_key) {
            (true, _) => {
                let previous = storage::previous_secret_file(&app.settings);
                format!("There is a new key; the former one is kept in {}.\n", previous.display())
            }
            (false, Some(_)) => String::new(),
            (false, None) => "A rotation that was interrupted is finished now; there is no new key.\n".to_owned(),
        };
        output::text(&format!("{key}{resealed} secrets were sealed anew.\n"))?;
        if unreadable > 0 {
            output::text(&format!(
                "{unreadable} secrets are sealed with neither key: `waypost doctor` says what to do.\n"
            ))?;
        }
    }
    Ok(if unreadable > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
