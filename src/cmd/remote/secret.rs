//! `waypost secret` through the REST API. Values are read here and sent in the body of a request.

use serde_json::{Value, json};

use super::{RemoteSession, find_item, text};
use crate::cmd::secret::{Command, MEMBERS, confirm_deletion, print, print_deleted, print_list};

/// Runs the command.
///
/// # Errors
/// If the operation is rejected.
pub async fn run(remote: &RemoteSession, command: Command) -> anyhow::Result<()> {
    let client = &remote.client;
    let (Command::Create { org, .. }
    | Command::List { org }
    | Command::Show { org, .. }
    | Command::Rotate { org, .. }
    | Command::Delete { org, .. }) = &command;
    remote.check_organization(org.org.as_deref())?;
    match command {
        Command::Create { name, value, .. } => {
            let new = json!({ "name": name, "value": value.read()?.expose() });
            let created = client.post(&["secrets"], new).await?;
            print(remote.json, remote.select(&created, MEMBERS))
        }
        Command::List { .. } => {
            let items = client.list_paged(&["secrets"], &[]).await?;
            print_list(remote.json, remote.select_all(&items, MEMBERS))
        }
        Command::Show { secret, .. } => print(remote.json, remote.select(&find(remote, &secret).await?, MEMBERS)),
        Command::Rotate { secret, value, .. } => {
            let secret = find(remote, &secret).await?;
            let new = json!({ "value": value.read()?.expose() });
            let rotated = client.post(&["secrets", text(&secret, "id"), "rotate"], new).await?;
            print(remote.json, remote.select(&rotated, MEMBERS))
        }
        Command::Delete { secret, yes, .. } => {
            let secret = find(remote, &secret).await?;
            let (id, name) = (text(&secret, "id"), text(&secret, "name"));
            confirm_deletion(yes, name)?;
            client.delete(&["secrets", id]).await?;
            print_deleted(remote.json, id, name)
        }
    }
}

/// Returns a secret by ID or name.
pub(super) async fn find(remote: &RemoteSession, text: &str) -> anyhow::Result<Value> {
    let secrets = remote.client.list_paged(&["secrets"], &[]).await?;
    find_item(secrets, |secret| secret["id"] == text || secret["name"] == text, "secret", text, "secret")
}
