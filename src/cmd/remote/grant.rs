//! `waypost grant` through the REST API.

use serde_json::json;
use waypost_core::{Clock, SystemClock};

use super::{RemoteSession, agent, instance, not_found_message, text, without_nulls};
use crate::cmd::grant::{AddOptions, Command, MEMBERS, parse_id, print, print_list, print_removed};

/// Runs the command.
///
/// # Errors
/// If the operation is rejected.
pub async fn run(remote: &RemoteSession, command: Command) -> anyhow::Result<()> {
    let client = &remote.client;
    remote.check_organization(command.organization())?;
    match command {
        Command::Add { options, .. } => add(remote, options).await,
        Command::List { agent, instance, .. } => {
            let agent = match &agent {
                Some(text) => Some(agent::find(remote, text).await?),
                None => None,
            };
            let instance = match &instance {
                Some(text) => Some(instance::find(remote, text).await?),
                None => None,
            };
            let filters = [("agent_id", &agent), ("instance_id", &instance)];
            let query: Vec<_> =
                filters.iter().filter_map(|(name, found)| Some((*name, text(found.as_ref()?, "id")))).collect();
            let items = client.list_paged(&["grants"], &query).await?;
            print_list(remote.json, remote.select_all(&items, MEMBERS))
        }
        Command::Show { grant, .. } => {
            let found = client.find(&["grants", parse_id(&grant)?.as_str()]).await?;
            let found = found.ok_or_else(|| anyhow::Error::msg(not_found_message("grant", &grant, "grant")))?;
            print(remote.json, &remote.select(&found, MEMBERS))
        }
        Command::Remove { grant, .. } => {
            let id = parse_id(&grant)?;
            if client.find(&["grants", id.as_str()]).await?.is_none() {
                anyhow::bail!(not_found_message("grant", &grant, "grant"));
            }
            client.delete(&["grants", id.as_str()]).await?;
            print_removed(remote.json, &grant)
        }
    }
}

async fn add(remote: &RemoteSession, options: AddOptions) -> anyhow::Result<()> {
    let agent = agent::find(remote, &options.agent).await?;
    let instance = instance::find(remote, &options.instance).await?;
    let new = without_nulls(json!({
        "agent_id": text(&agent, "id"),
        "instance_id": text(&instance, "id"),
        "access": options.access,
        "tools": options.tool,
        "prompts": options.prompt,
        "resources": options.resource,
        "rules": options.rule,
        "expires_at": options.expires.map(|expires| expires.time(SystemClock.now()).rfc3339()),
    }));
    let created = remote.client.post(&["grants"], new).await?;
    print(remote.json, &remote.select(&created, MEMBERS))
}
