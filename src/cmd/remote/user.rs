//! `waypost user` through the REST API. Users are invited and become members only when they accept.

use serde_json::{Value, json};
use waypost_core::email;

use super::{RemoteSession, find_item, text};
use crate::cmd::user::{Command, MEMBERS, confirm_deletion, print_deleted, print_list};
use crate::cmd::{UsageError, output};

/// The members of an invitation that are shown, in the same order as those of a member.
const INVITATION_MEMBERS: &[&str] = &["id", "email", "role", "created_at", "expires_at", "link", "mailed"];

/// Runs the command.
///
/// # Errors
/// If the operation is rejected.
pub async fn run(remote: &RemoteSession, command: Command) -> anyhow::Result<()> {
    let client = &remote.client;
    let (Command::Create { org, .. }
    | Command::Link { org, .. }
    | Command::List { org }
    | Command::Show { org, .. }
    | Command::Update { org, .. }
    | Command::Delete { org, .. }) = &command;
    remote.check_organization(org.org.as_deref())?;
    match command {
        Command::Create { email, role, .. } => {
            let new = json!({"email": email, "role": role.as_str()});
            print_invitation(remote.json, &remote.select(&client.post(&["invitations"], new).await?, INVITATION_MEMBERS))
        }
        Command::Link { .. } => Err(UsageError(
            "`waypost user link` does not support --url: run it on the machine of the installation, or invite the user with `waypost user create`".to_owned(),
        )
        .into()),
        Command::List { .. } => {
            let items = client.list(&["members"], &[]).await?;
            print_list(remote.json, remote.select_all(&items, MEMBERS))
        }
        Command::Show { user, .. } => output::object(remote.json, &remote.select(&find(remote, &user).await?, MEMBERS)),
        Command::Update { user, role, .. } => {
            let member = find(remote, &user).await?;
            let updated = client.patch(&["members", text(&member, "id")], json!({"role": role.as_str()})).await?;
            output::object(remote.json, &remote.select(&updated, MEMBERS))
        }
        Command::Delete { user, yes, .. } => {
            let member = find(remote, &user).await?;
            let (id, email, slug) = (text(&member, "id"), text(&member, "email"), remote.organization_slug());
            confirm_deletion(yes, email, &slug)?;
            client.delete(&["members", id]).await?;
            print_deleted(remote.json, id, email, &slug)
        }
    }
}

fn print_invitation(json: bool, invitation: &Value) -> anyhow::Result<()> {
    output::object(json, invitation)?;
    if json {
        return Ok(());
    }
    let email = output::clean(text(invitation, "email"));
    output::text(&match (invitation["mailed"].as_bool(), invitation["link"].as_str()) {
        (Some(true), _) => format!("The invitation was sent to {email}.\n"),
        (_, Some(_)) => format!("Send the link to {email}. It cannot be shown again.\n"),
        _ => format!("The email to {email} could not be sent. Invite the user again.\n"),
    })
}

async fn find(remote: &RemoteSession, text: &str) -> anyhow::Result<Value> {
    let members = remote.client.list(&["members"], &[]).await?;
    let key = email::key(text);
    let matches = |member: &Value| member["id"] == text || email::key(super::text(member, "email")) == key;
    find_item(members, matches, "user", text, "user")
}
