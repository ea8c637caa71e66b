//! `waypost instance agent-secret` through the REST API. Values are read here and sent in the body of a request.

use serde_json::json;

use super::{RemoteSession, agent, instance, text};
use crate::cmd::agent_secret::{AtSecret, Command, MEMBERS, confirm_deletion, print_deleted, print_list, print_set};

/// Runs the command.
///
/// # Errors
/// If the operation is rejected.
pub(super) async fn run(remote: &RemoteSession, command: Command) -> anyhow::Result<()> {
    let client = &remote.client;
    match command {
        Command::Set { at, value } => {
            let (instance, agent) = find(remote, &at).await?;
            let path = ["instances", &instance, "agents", &agent, "personal-secrets", &at.name];
            client.put(&path, json!({ "value": value.read()?.expose() })).await?;
            print_set(remote.json, &at)
        }
        Command::List { instance, .. } => {
            let found = instance::find(remote, &instance).await?;
            let items = client.list(&["instances", text(&found, "id"), "personal-secrets"], &[]).await?;
            print_list(remote.json, remote.select_all(&items, MEMBERS))
        }
        Command::Delete { at, yes } => {
            let (instance, agent) = find(remote, &at).await?;
            confirm_deletion(yes, &at)?;
            client.delete(&["instances", &instance, "agents", &agent, "personal-secrets", &at.name]).await?;
            print_deleted(remote.json, &instance, &at)
        }
    }
}

/// Returns the IDs of the instance and of the agent.
async fn find(remote: &RemoteSession, at: &AtSecret) -> anyhow::Result<(String, String)> {
    let instance = instance::find(remote, &at.instance).await?;
    let agent = agent::find(remote, &at.agent).await?;
    Ok((text(&instance, "id").to_owned(), text(&agent, "id").to_owned()))
}
