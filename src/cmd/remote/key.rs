//! `waypost key` through the REST API.

use serde_json::{Value, json};
use waypost_content::name;
use waypost_core::{Clock, SystemClock};

use super::{RemoteSession, find_item, text, without_nulls};
use crate::cmd::key::{Command, MEMBERS, confirm_deletion, expiry, print_deleted, print_list, print_secret};
use crate::cmd::output;

/// Runs the command.
///
/// # Errors
/// If the operation is rejected.
pub async fn run(remote: &RemoteSession, command: Command) -> anyhow::Result<()> {
    let client = &remote.client;
    let (Command::Create { org, .. }
    | Command::List { org }
    | Command::Show { org, .. }
    | Command::Update { org, .. }
    | Command::Delete { org, .. }) = &command;
    remote.check_organization(org.org.as_deref())?;
    match command {
        Command::Create { name, scope, expires_in_days, .. } => {
            let expires_at = expires_in_days.map(|days| expiry(SystemClock.now(), days).rfc3339());
            let new = without_nulls(json!({"name": name, "scope": scope.as_str(), "expires_at": expires_at}));
            let created = client.post(&["api-keys"], new).await?;
            print_secret(remote.json, &without_nulls(remote.select(&created, &["id", "name", "key", "expires_at"])))
        }
        Command::List { .. } => {
            let items = client.list(&["api-keys"], &[]).await?;
            print_list(remote.json, remote.select_all(&items, MEMBERS))
        }
        Command::Show { key, .. } => output::object(remote.json, &remote.select(&find(remote, &key).await?, MEMBERS)),
        Command::Update { key, name, scope, .. } => {
            let api_key = find(remote, &key).await?;
            let changes = without_nulls(json!({"name": name, "scope": scope.map(|scope| scope.as_str())}));
            let updated = client.patch(&["api-keys", text(&api_key, "id")], changes).await?;
            output::object(remote.json, &remote.select(&updated, MEMBERS))
        }
        Command::Delete { key, yes, .. } => {
            let api_key = find(remote, &key).await?;
            let (id, name) = (text(&api_key, "id"), text(&api_key, "name"));
            confirm_deletion(yes, name)?;
            client.delete(&["api-keys", id]).await?;
            print_deleted(remote.json, id, name)
        }
    }
}

async fn find(remote: &RemoteSession, text: &str) -> anyhow::Result<Value> {
    let keys = remote.client.list(&["api-keys"], &[]).await?;
    let name = name::clean(text);
    find_item(keys, |key| key["id"] == text || key["name"] == name.as_str(), "key", text, "key")
}
