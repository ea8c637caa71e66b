//! `waypost call` through the REST API.

use reqwest::Method;
use serde_json::Value;
use waypost_core::call::CallOutcome;
use waypost_core::id::{AgentId, CallId, InstanceId};

use super::{Body, RemoteSession, agent, error, instance, not_found_message, text};
use crate::cmd::call::{Command, ListOptions, MEMBERS, PageRequest, print_calls, print_detail};

/// Runs the command.
///
/// # Errors
/// If the operation is rejected.
pub async fn run(remote: &RemoteSession, command: Command) -> anyhow::Result<()> {
    remote.check_organization(command.organization())?;
    let options = match command {
        Command::List { options, .. } => options,
        Command::Show { call, .. } => {
            let missing = || anyhow::Error::msg(not_found_message("call", &call, "call"));
            let id: CallId = call.parse().map_err(|_| missing())?;
            let found = remote.client.find(&["calls", id.as_str()]).await?.ok_or_else(missing)?;
            let members: Vec<&str> = MEMBERS.iter().copied().chain(["contents"]).collect();
            return print_detail(remote.json, remote.select(&found, &members));
        }
    };
    let filter = find_filter(remote, &options).await?;
    let fetch = async |page: PageRequest| {
        let (since, limit) = (page.since.map(|since| since.rfc3339()), page.limit.to_string());
        let mut query: Vec<(&str, &str)> = filter.iter().map(|(name, value)| (*name, value.as_str())).collect();
        query.push(("limit", &limit));
        query.extend(since.as_deref().map(|since| ("since", since)));
        query.extend(page.cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let found = remote.client.send(Method::GET, &["calls"], &query, Body::None).await?;
        let items = found["items"].as_array().ok_or_else(|| error::not_an_api_response(remote.client.origin()))?;
        Ok((remote.select_all(items, MEMBERS), found["next_cursor"].as_str().map(str::to_owned)))
    };
    print_calls(remote.json, &options, fetch).await
}

/// Returns the query parameters that are the same for all pages. IDs of agents and instances that were deleted are
/// accepted, because the log outlives them.
async fn find_filter(remote: &RemoteSession, options: &ListOptions) -> anyhow::Result<Vec<(&'static str, String)>> {
    let id = |found: Value| text(&found, "id").to_owned();
    let agent = match &options.agent {
        Some(name) if name.parse::<AgentId>().is_err() => Some(id(agent::find(remote, name).await?)),
        id => id.clone(),
    };
    let instance = match &options.instance {
        Some(name) if name.parse::<InstanceId>().is_err() => Some(id(instance::find(remote, name).await?)),
        id => id.clone(),
    };
    let members = [
        ("agent_id", agent),
        ("instance_id", instance),
        ("tool", options.tool.clone()),
        ("outcome", options.outcome.map(CallOutcome::as_str).map(str::to_owned)),
        ("until", options.until.map(|until| until.rfc3339())),
    ];
    Ok(members.into_iter().filter_map(|(name, value)| Some((name, value?))).collect())
}
