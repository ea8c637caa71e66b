//! `waypost join` through the API.

use anyhow::Context;
use serde_json::{Value, json};

use super::{RemoteSession, server, text, unknown};
use crate::cmd::join::{COLUMNS, Command, MEMBERS, confirm_undo};
use crate::cmd::output;

/// Does it.
///
/// # Errors
/// When it is refused.
pub async fn run(remote: &RemoteSession, command: Command) -> anyhow::Result<()> {
    let client = &remote.client;
    let (Command::List { org } | Command::Show { org, .. } | Command::Link { org, .. } | Command::Undo { org, .. }) =
        &command;
    remote.organization(org.org.as_deref())?;
    match command {
        Command::List { .. } => {
            let items = client.pages(&["joins"], &[]).await?;
            output::list(remote.json, &COLUMNS, remote.shapes(&items, MEMBERS))
        }
        Command::Show { join, .. } => output::object(remote.json, &remote.shape(&find(remote, &join).await?, MEMBERS)),
        Command::Link { label, server, expires_in_hours, .. } => {
            let server = server::find(remote, &server).await?;
            let new = json!({ "tracking_id": label, "expires_in_hours": expires_in_hours });
            let made = client.post(&["servers", text(&server, "id"), "claim-links"], new).await?;
            output::object(remote.json, &remote.shape(&made, &["url", "expires_at"]))
        }
        Command::Undo { join, yes, .. } => {
            let found = find(remote, &join).await?;
            let id = text(&found, "id");
            confirm_undo(yes, id)?;
            let undone = client.post(&["joins", id, "undo"], json!({})).await?;
            output::object(remote.json, &remote.shape(&undone, MEMBERS))
        }
    }
}

async fn find(remote: &RemoteSession, id: &str) -> anyhow::Result<Value> {
    remote.client.find(&["joins", id]).await?.with_context(|| unknown("join", id, "join"))
}
