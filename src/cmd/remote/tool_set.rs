//! `waypost tool-set` through the REST API.

use serde_json::{Value, json};

use super::{RemoteSession, find_item, instance, text, without_nulls};
use crate::cmd::tool_set::{
    AtToolSet, Command, MEMBERS, MemberArg, confirm_deletion, print, print_deleted, print_list,
};

/// Runs the command.
///
/// # Errors
/// If the operation is rejected.
pub async fn run(remote: &RemoteSession, command: Command) -> anyhow::Result<()> {
    let client = &remote.client;
    remote.check_organization(command.organization())?;
    match command {
        Command::Create { slug, options, .. } => {
            let members = find_members(remote, options.members).await?;
            let new = json!({ "slug": slug, "name": options.name, "prefix": options.prefix, "members": members });
            let created = client.post(&["tool-sets"], without_nulls(new)).await?;
            print(remote.json, remote.select(&created, MEMBERS))
        }
        Command::List { .. } => {
            let items = client.list_paged(&["tool-sets"], &[]).await?;
            print_list(remote.json, remote.select_all(&items, MEMBERS))
        }
        Command::Show { at } => print(remote.json, remote.select(&find(remote, &at).await?, MEMBERS)),
        Command::Update { at, slug, options } => {
            let found = find(remote, &at).await?;
            let members = find_members(remote, options.members).await?;
            let members = (!members.is_empty()).then_some(members);
            let change = json!({ "slug": slug, "name": options.name, "prefix": options.prefix, "members": members });
            let updated = client.patch(&["tool-sets", text(&found, "id")], without_nulls(change)).await?;
            print(remote.json, remote.select(&updated, MEMBERS))
        }
        Command::Delete { at, yes } => {
            let found = find(remote, &at).await?;
            let (id, slug) = (text(&found, "id"), text(&found, "slug"));
            confirm_deletion(yes, slug)?;
            client.delete(&["tool-sets", id]).await?;
            print_deleted(remote.json, id, slug)
        }
    }
}

async fn find(remote: &RemoteSession, at: &AtToolSet) -> anyhow::Result<Value> {
    let name = at.tool_set.as_str();
    let tool_sets = remote.client.list_paged(&["tool-sets"], &[]).await?;
    find_item(tool_sets, |found| found["id"] == name || found["slug"] == name, "tool set", name, "tool-set")
}

async fn find_members(remote: &RemoteSession, arguments: Vec<MemberArg>) -> anyhow::Result<Vec<Value>> {
    let mut members = Vec::with_capacity(arguments.len());
    for MemberArg { instance, tools } in arguments {
        let found = instance::find(remote, &instance).await?;
        members.push(json!({ "instance_id": text(&found, "id"), "tools": tools }));
    }
    Ok(members)
}
