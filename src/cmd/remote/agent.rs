//! `waypost agent` through the REST API.

use serde_json::{Value, json};
use waypost_content::name;
use waypost_core::agent::AgentState;
use waypost_core::{Clock, SystemClock};

use super::{RemoteSession, find_item, text, without_nulls};
use crate::cmd::agent::{
    CONNECTION_MEMBERS, Command, MEMBERS, TOKEN_MEMBERS, confirm_deletion, find_token, print, print_connections,
    print_deleted, print_list, print_revoked, print_secret,
};

/// Runs the command.
///
/// # Errors
/// If the operation is rejected.
pub async fn run(remote: &RemoteSession, command: Command) -> anyhow::Result<()> {
    let client = &remote.client;
    remote.check_organization(command.organization())?;
    match command {
        Command::Create { name, .. } => {
            print(remote.json, remote.select(&client.post(&["agents"], json!({ "name": name })).await?, MEMBERS))
        }
        Command::List { .. } => {
            let items = client.list_paged(&["agents"], &[]).await?;
            print_list(remote.json, remote.select_all(&items, MEMBERS))
        }
        Command::Connections { .. } => {
            let items = client.list_paged(&["agent-connections"], &[]).await?;
            print_connections(remote.json, remote.select_all(&items, CONNECTION_MEMBERS))
        }
        Command::Show { at } => print(remote.json, remote.select(&find(remote, &at.agent).await?, MEMBERS)),
        Command::Update { at, name } => update(remote, &at.agent, json!({ "name": name })).await,
        Command::Enable { at } => update(remote, &at.agent, json!({ "state": AgentState::Active })).await,
        Command::Disable { at } => update(remote, &at.agent, json!({ "state": AgentState::Disabled })).await,
        Command::Token { at, name, expires } => {
            let agent = find(remote, &at.agent).await?;
            let expires_at = expires.map(|expires| expires.time(SystemClock.now()).rfc3339());
            let new = without_nulls(json!({ "name": name, "expires_at": expires_at }));
            let created = client.post(&["agents", text(&agent, "id"), "tokens"], new).await?;
            print_secret(remote.json, &remote.select(&created, TOKEN_MEMBERS))
        }
        Command::TokenRevoke { token, .. } => {
            let candidates = match token.as_slice() {
                [agent, _] => vec![find(remote, agent).await?],
                _ => client.list_paged(&["agents"], &[]).await?,
            };
            let found = find_token(&candidates, &token)?;
            client.delete(&["agents", found.agent_id, "tokens", found.id]).await?;
            print_revoked(remote.json, &found)
        }
        Command::Delete { at, yes } => {
            let agent = find(remote, &at.agent).await?;
            let (id, name) = (text(&agent, "id"), text(&agent, "name"));
            confirm_deletion(yes, name)?;
            client.delete(&["agents", id]).await?;
            print_deleted(remote.json, id, name)
        }
    }
}

async fn update(remote: &RemoteSession, agent: &str, change: Value) -> anyhow::Result<()> {
    let agent = find(remote, agent).await?;
    let updated = remote.client.patch(&["agents", text(&agent, "id")], change).await?;
    print(remote.json, remote.select(&updated, MEMBERS))
}

/// Returns an agent by ID or name.
pub(super) async fn find(remote: &RemoteSession, text: &str) -> anyhow::Result<Value> {
    let agents = remote.client.list_paged(&["agents"], &[]).await?;
    let name = name::clean(text);
    find_item(agents, |agent| agent["id"] == text || agent["name"] == name.as_str(), "agent", text, "agent")
}
