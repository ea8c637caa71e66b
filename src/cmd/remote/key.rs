//! `waypost key` through the API.

use serde_json::{Value, json};
use waypost_core::{Clock, SystemClock, name};

use super::{RemoteSession, given, only, text};
use crate::cmd::key::{Command, MEMBERS, confirm_deletion, deleted, end, print_list, print_secret};
use crate::cmd::output;

/// Does it.
///
/// # Errors
/// When it is refused.
pub async fn run(remote: &RemoteSession, command: Command) -> anyhow::Result<()> {
    let client = &remote.client;
    let (Command::Create { org, .. }
    | Command::List { org }
    | Command::Show { org, .. }
    | Command::Update { org, .. }
    | Command::Delete { org, .. }) = &command;
    remote.organization(org.org.as_deref())?;
    match command {
        Command::Create { name, scope, expires_in_days, .. } => {
            let expires_at = expires_in_days.map(|days| end(SystemClock.now(), days).rfc3339());
            let new = given(json!({"name": name, "scope": scope.as_str(), "expires_at": expires_at}));
            let made = client.post(&["api-keys"], new).await?;
            print_secret(remote.json, &given(remote.shape(&made, &["id", "name", "key", "expires_at"])))
        }
        Command::List { .. } => {
            let items = client.list(&["api-keys"], &[]).await?;
            print_list(remote.json, remote.shapes(&items, MEMBERS))
        }
        Command::Show { key, .. } => output::object(remote.json, &remote.shape(&find(remote, &key).await?, MEMBERS)),
        Command::Update { key, name, scope, .. } => {
            let found = find(remote, &key).await?;
            let changes = given(json!({"name": name, "scope": scope.map(|scope| scope.as_str())}));
            let changed = client.patch(&["api-keys", text(&found, "id")], changes).await?;
            output::object(remote.json, &remote.shape(&changed, MEMBERS))
        }
        Command::Delete { key, yes, .. } => {
            let found = find(remote, &key).await?;
            let (id, name) = (text(&found, "id"), text(&found, "name"));
            confirm_deletion(yes, name)?;
            client.delete(&["api-keys", id]).await?;
            deleted(remote.json, id, name)
        }
    }
}

async fn find(remote: &RemoteSession, wanted: &str) -> anyhow::Result<Value> {
    let keys = remote.client.list(&["api-keys"], &[]).await?;
    let name = name::clean(wanted);
    only(keys, |key| key["id"] == wanted || key["name"] == name.as_str(), ("key", wanted, "key"))
}
