//! `waypost assignment` through the API.

use anyhow::Context;
use serde_json::{Value, json};

use super::{RemoteSession, given, server, text, walkthrough};
use crate::cmd::assignment::{Command, MEMBERS, print_list, removed};
use crate::cmd::output;

/// Does it.
///
/// # Errors
/// When it is refused.
pub async fn run(remote: &RemoteSession, command: Command) -> anyhow::Result<()> {
    let client = &remote.client;
    let (Command::Add { server: slug, .. } | Command::Remove { server: slug, .. } | Command::List { server: slug, .. }) =
        &command;
    let server = server::find(remote, slug).await?;
    let server_id = text(&server, "id");
    match command {
        Command::Add { walkthrough, order, disabled, enabled, .. } => {
            let head = walkthrough::find(remote, &walkthrough).await?;
            let placement = given(json!({
                "server_id": server_id,
                "walkthrough_id": head["id"],
                "display_order": order,
                "enabled": (disabled || enabled).then_some(enabled),
            }));
            let made = client.post(&["assignments"], placement).await?;
            output::object(remote.json, &remote.shape(&made, MEMBERS))
        }
        Command::Remove { walkthrough, .. } => {
            let head = walkthrough::find(remote, &walkthrough).await?;
            let id = text(&head, "id");
            let placed = list(remote, server_id, Some(id)).await?;
            let placed = placed.first().context("There is no such assignment.")?;
            client.delete(&["assignments", text(placed, "id")]).await?;
            removed(remote.json, id, (text(&head, "title"), &output::clean(text(&server, "slug"))))
        }
        Command::List { walkthrough, .. } => {
            let only = match &walkthrough {
                Some(wanted) => Some(walkthrough::find(remote, wanted).await?),
                None => None,
            };
            let found = list(remote, server_id, only.as_ref().map(|head| text(head, "id"))).await?;
            let items = found.iter().map(|listed| {
                let mut value = remote.shape(listed, MEMBERS);
                value["title"] = listed["walkthrough"]["title"].clone();
                value["state"] = listed["walkthrough"]["state"].clone();
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
