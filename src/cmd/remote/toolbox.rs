//! `waypost toolbox` through the REST API.

use serde_json::{Value, json};

use super::{RemoteSession, find_item, text};
use crate::cmd::toolbox::{
    MEMBERS, OperatorCommand, RENEWED, TOKEN_MEMBERS, confirm_deletion, confirm_revocation, print, print_deleted,
    print_list, print_token,
};

/// Runs the command.
///
/// # Errors
/// If the operation is rejected.
pub async fn run(remote: &RemoteSession, command: OperatorCommand) -> anyhow::Result<()> {
    let client = &remote.client;
    remote.check_organization(command.organization())?;
    match command {
        OperatorCommand::Create { name, .. } => {
            let created = client.post(&["toolboxes"], json!({ "name": name })).await?;
            print_token(remote.json, "Created the toolbox", &select_token(remote, created))
        }
        OperatorCommand::List { .. } => {
            let items = client.list_paged(&["toolboxes"], &[]).await?;
            print_list(remote.json, remote.select_all(&items, MEMBERS))
        }
        OperatorCommand::Show { toolbox, .. } => {
            print(remote.json, remote.select(&find(remote, &toolbox).await?, MEMBERS))
        }
        OperatorCommand::Revoke { toolbox, yes, .. } => {
            let found = find(remote, &toolbox).await?;
            confirm_revocation(yes, text(&found, "name"))?;
            let revoked = client.post(&["toolboxes", text(&found, "id"), "revoke"], json!({})).await?;
            print(remote.json, remote.select(&revoked, MEMBERS))
        }
        OperatorCommand::RotateKey { toolbox, .. } => {
            let found = find(remote, &toolbox).await?;
            let changed = client.post(&["toolboxes", text(&found, "id"), "rotate-key"], json!({})).await?;
            print(remote.json, remote.select(&changed, MEMBERS))
        }
        OperatorCommand::RenewToken { toolbox, .. } => {
            let found = find(remote, &toolbox).await?;
            let renewed = client.post(&["toolboxes", text(&found, "id"), "renew-token"], json!({})).await?;
            print_token(remote.json, RENEWED, &select_token(remote, renewed))
        }
        OperatorCommand::Delete { toolbox, yes, .. } => {
            let found = find(remote, &toolbox).await?;
            let (id, name) = (text(&found, "id"), text(&found, "name"));
            confirm_deletion(yes, name)?;
            client.delete(&["toolboxes", id]).await?;
            print_deleted(remote.json, id, name)
        }
    }
}

/// Returns the members of the output of a command that creates a token.
fn select_token(remote: &RemoteSession, mut toolbox: Value) -> Value {
    for member in ["token", "expires_at", "command"] {
        toolbox[member] = toolbox["join"][member].take();
    }
    remote.select(&toolbox, TOKEN_MEMBERS)
}

/// Returns a toolbox by ID or name.
pub(super) async fn find(remote: &RemoteSession, text: &str) -> anyhow::Result<Value> {
    let toolboxes = remote.client.list_paged(&["toolboxes"], &[]).await?;
    find_item(toolboxes, |toolbox| toolbox["id"] == text || toolbox["name"] == text, "toolbox", text, "toolbox")
}
