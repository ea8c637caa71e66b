//! `waypost join` through the REST API.

use anyhow::Context;
use serde_json::{Value, json};

use super::{RemoteSession, not_found_message, server, text};
use crate::cmd::join::{COLUMNS, Command, MEMBERS, confirm_undo};
use crate::cmd::output;

/// Runs the command.
///
/// # Errors
/// If the operation is rejected.
pub async fn run(remote: &RemoteSession, command: Command) -> anyhow::Result<()> {
    let client = &remote.client;
    let (Command::List { org } | Command::Show { org, .. } | Command::Link { org, .. } | Command::Undo { org, .. }) =
        &command;
    remote.check_organization(org.org.as_deref())?;
    match command {
        Command::List { .. } => {
            let items = client.list_paged(&["joins"], &[]).await?;
            output::list(remote.json, &COLUMNS, remote.select_all(&items, MEMBERS))
        }
        Command::Show { join, .. } => output::object(remote.json, &remote.select(&find(remote, &join).await?, MEMBERS)),
        Command::Link { label, server, expires_in_hours, .. } => {
            let server = server::find(remote, &server).await?;
            let new = json!({ "tracking_id": label, "expires_in_hours": expires_in_hours });
            let created = client.post(&["servers", text(&server, "id"), "claim-links"], new).await?;
            output::object(remote.json, &remote.select(&created, &["url", "expires_at"]))
        }
        Command::Undo { join, yes, .. } => {
            let found = find(remote, &join).await?;
            let id = text(&found, "id");
            confirm_undo(yes, id)?;
            let undone = client.post(&["joins", id, "undo"], json!({})).await?;
            output::object(remote.json, &remote.select(&undone, MEMBERS))
        }
    }
}

async fn find(remote: &RemoteSession, id: &str) -> anyhow::Result<Value> {
    remote.client.find(&["joins", id]).await?.with_context(|| not_found_message("join", id, "join"))
}
