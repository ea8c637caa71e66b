//! `waypost secret-key`: the secret key of this installation.

use std::process::ExitCode;

use serde_json::json;
use waypost_core::SystemRandom;
use waypost_core::caller::Ctx;
use waypost_ops::Ops;
use waypost_ops::secret_key::{self, ResealSummary};

use super::{App, UsageError, output};
use crate::config::Settings;
use crate::storage;

/// Subcommands of `waypost secret-key`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Replace the secret key and re-encrypt all secrets. The previous key remains valid for decryption and verification.
    ///
    /// If the key is stored in a file, a new key is generated and the previous one is kept as secret.key.previous. If the
    /// key is set by a setting, first set the new key as WAYPOST_SECRET_KEY and the previous one as
    /// WAYPOST_SECRET_KEY_PREVIOUS. An interrupted rotation is completed by the next one.
    Rotate,
}

/// The result of a rotation.
struct RotationResult {
    /// Whether a new key was generated.
    new_key: bool,
    resealed: ResealSummary,
}

/// Runs the command.
///
/// # Errors
/// If the key cannot be replaced. All secrets can still be decrypted in that case.
pub async fn run(app: &App, command: Command) -> anyhow::Result<ExitCode> {
    let Command::Rotate = command;
    let settings = &app.settings;
    // On SQLite, `serve` must not run at the same time, because it would not know the new key.
    let _lock = storage::serve_lock(settings)?;
    if settings.secret_key.is_some() && settings.secret_key_previous.is_none() {
        let message = "the secret key is set by a setting: set the new key as WAYPOST_SECRET_KEY and the previous one as WAYPOST_SECRET_KEY_PREVIOUS, then run the command again";
        return Err(UsageError(message.to_owned()).into());
    }
    let db = app.open().await?.db;
    let result = rotate(settings, &Ops::new(db.clone())).await;
    db.close().await;
    print_result(app, &result?)
}

async fn rotate(settings: &Settings, ops: &Ops) -> anyhow::Result<RotationResult> {
    let cx = Ctx::operator();
    let keys = storage::keys(settings, &SystemRandom)?;
    // First complete an interrupted rotation, because the previous key is about to be discarded.
    let resealed = secret_key::reseal(&cx, ops, &keys.keyring()).await?;
    if settings.secret_key.is_some() || resealed.resealed > 0 {
        return Ok(RotationResult { new_key: false, resealed });
    }
    replace_key_files(settings)?;
    let keys = storage::keys(settings, &SystemRandom)?;
    Ok(RotationResult { new_key: true, resealed: secret_key::reseal(&cx, ops, &keys.keyring()).await? })
}

/// Replaces the key files. The order ensures that the two files can decrypt everything at any time: after the first step
/// they contain the same key; after the second, everything is encrypted with the previous key.
fn replace_key_files(settings: &Settings) -> anyhow::Result<()> {
    let current = storage::secret_key(settings, &SystemRandom)?;
    storage::replace_key_file(&storage::previous_secret_file(settings), &current)?;
    storage::replace_key_file(&storage::secret_file(settings), &storage::generate_key(&SystemRandom))
}

fn print_result(app: &App, result: &RotationResult) -> anyhow::Result<ExitCode> {
    let ResealSummary { resealed, unreadable } = result.resealed;
    if app.json {
        output::json(&json!({"new_key": result.new_key, "resealed": resealed, "unreadable": unreadable}))?;
    } else {
        let key = match (result.new_key, &app.settings.secret_key) {
            (true, _) => {
                let previous = storage::previous_secret_file(&app.settings);
                format!("Generated a new key. The previous key is kept in {}.\n", previous.display())
            }
            (false, Some(_)) => String::new(),
            (false, None) => "Completed an interrupted rotation. No new key was generated.\n".to_owned(),
        };
        output::text(&format!("{key}Re-encrypted {resealed} secrets.\n"))?;
        if unreadable > 0 {
            output::text(&format!(
                "{unreadable} secrets cannot be decrypted with either key: run `waypost doctor` for advice.\n"
            ))?;
        }
    }
    Ok(if unreadable > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
