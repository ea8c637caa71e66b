//! `waypost user` through the API. Nobody is made a member without knowing: they are invited.

use serde_json::{Value, json};
use waypost_core::email;

use super::{RemoteSession, only, text};
use crate::cmd::user::{Command, MEMBERS, confirm_deletion, deleted, print_list};
use crate::cmd::{UsageError, output};

/// What is shown of an invitation, beginning like a member.
const INVITATION: &[&str] = &["id", "email", "role", "created_at", "expires_at", "link", "mailed"];

/// Does it.
///
/// # Errors
/// When it is refused.
pub async fn run(remote: &RemoteSession, command: Command) -> anyhow::Result<()> {
    let client = &remote.client;
    let (Command::Create { org, .. }
    | Command::Link { org, .. }
    | Command::List { org }
    | Command::Show { org, .. }
    | Command::Update { org, .. }
    | Command::Delete { org, .. }) = &command;
    remote.organization(org.org.as_deref())?;
    match command {
        Command::Create { email, role, .. } => {
            let new = json!({"email": email, "role": role.as_str()});
            invited(remote.json, &remote.shape(&client.post(&["invitations"], new).await?, INVITATION))
        }
        Command::Link { .. } => Err(UsageError(
            "a link is made at the database itself: leave --url away, or invite them with `user create`".to_owned(),
        )
        .into()),
        Command::List { .. } => {
            let items = client.list(&["members"], &[]).await?;
            print_list(remote.json, remote.shapes(&items, MEMBERS))
        }
        Command::Show { user, .. } => output::object(remote.json, &remote.shape(&find(remote, &user).await?, MEMBERS)),
        Command::Update { user, role, .. } => {
            let member = find(remote, &user).await?;
            let changed = client.patch(&["members", text(&member, "id")], json!({"role": role.as_str()})).await?;
            output::object(remote.json, &remote.shape(&changed, MEMBERS))
        }
        Command::Delete { user, yes, .. } => {
            let member = find(remote, &user).await?;
            let (id, email, slug) = (text(&member, "id"), text(&member, "email"), remote.organization_slug());
            confirm_deletion(yes, email, &slug)?;
            client.delete(&["members", id]).await?;
            deleted(remote.json, id, (email, &slug))
        }
    }
}

fn invited(json: bool, invitation: &Value) -> anyhow::Result<()> {
    output::object(json, invitation)?;
    if json {
        return Ok(());
    }
    let email = output::clean(text(invitation, "email"));
    output::text(&match (invitation["mailed"].as_bool(), invitation["link"].as_str()) {
        (Some(true), _) => format!("The link is on its way to {email}, who becomes a member by it.\n"),
        (_, Some(_)) => format!("Give the link to {email}, who becomes a member by it; it cannot be shown again.\n"),
        _ => format!("The e-mail to {email} could not be sent. Invite them again.\n"),
    })
}

async fn find(remote: &RemoteSession, wanted: &str) -> anyhow::Result<Value> {
    let members = remote.client.list(&["members"], &[]).await?;
    let key = email::key(wanted);
    let is = |member: &Value| member["id"] == wanted || email::key(text(member, "email")) == key;
    only(members, is, ("user", wanted, "user"))
}
