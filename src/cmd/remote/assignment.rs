//! `waypost assignment` through the REST API.

use anyhow::Context;
use serde_json::{Value, json};

use super::{RemoteSession, server, text, walkthrough, without_nulls};
use crate::cmd::assignment::{Command, MEMBERS, print_list, print_removed};
use crate::cmd::output;

/// Runs the command.
///
/// # Errors
/// If the operation is rejected.
pub async fn run(remote: &RemoteSession, command: Command) -> anyhow::Result<()> {
    let client = &remote.client;
    let (Command::Add { server: slug, .. } | Command::Remove { server: slug, .. } | Command::List { server: slug, .. }) =
        &command;
    let server = server::find(remote, slug).await?;
    let server_id = text(&server, "id");
    match command {
        Command::Add { walkthrough, order, disabled, enabled, .. } => {
            let head = walkthrough::find(remote, &walkthrough).await?;
            let placement = without_nulls(json!({
                "server_id": server_id,
                "walkthrough_id": head["id"],
                "display_order": order,
                "enabled": (disabled || enabled).then_some(enabled),
            }));
            let assignment = client.post(&["assignments"], placement).await?;
            output::object(remote.json, &remote.select(&assignment, MEMBERS))
        }
        Command::Remove { walkthrough, .. } => {
            let head = walkthrough::find(remote, &walkthrough).await?;
            let id = text(&head, "id");
            let assignments = list(remote, server_id, Some(id)).await?;
            let assignment = assignments.first().context("There is no such assignment.")?;
            client.delete(&["assignments", text(assignment, "id")]).await?;
            print_removed(remote.json, id, text(&head, "title"), &output::clean(text(&server, "slug")))
        }
        Command::List { walkthrough, .. } => {
            let only = match &walkthrough {
                Some(name) => Some(walkthrough::find(remote, name).await?),
                None => None,
            };
            let assignments = list(remote, server_id, only.as_ref().map(|head| text(head, "id"))).await?;
            let items = assignments.iter().map(|assignment| {
                let mut value = remote.select(assignment, MEMBERS);
                value["title"] = assignment["walkthrough"]["title"].clone();
                value["state"] = assignment["walkthrough"]["state"].clone();
                value
            });
            print_list(remote.json, items.collect())
        }
    }
}

async fn list(remote: &RemoteSession, server_id: &str, walkthrough_id: Option<&str>) -> anyhow::Result<Vec<Value>> {
    let mut query = vec![("server_id", server_id)];
    query.extend(walkthrough_id.map(|id| ("walkthrough_id", id)));
    remote.client.list(&["assignments"], &query).await
}
