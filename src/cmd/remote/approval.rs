//! `waypost approval` through the REST API.

use serde_json::{Value, json};

use super::{RemoteSession, instance, text};
use crate::cmd::approval::Command;
use crate::cmd::output;

/// The number of approvals per page: the maximum of the API.
const PAGE: &str = "100";
/// The members of the output of one approval.
const MEMBERS: &[&str] = &[
    "id",
    "instance_id",
    "kind",
    "name",
    "state",
    "class",
    "is_current",
    "problem",
    "reason",
    "digest",
    "previous_digest",
    "decided_by",
    "decided_at",
    "first_seen_at",
];

/// Runs the command.
///
/// # Errors
/// If the operation is rejected.
pub async fn run(remote: &RemoteSession, command: Command) -> anyhow::Result<()> {
    let client = &remote.client;
    remote.check_organization(command.organization())?;
    match command {
        Command::List { state, instance, .. } => {
            let instance = match instance {
                Some(name) => Some(instance_id(remote, &name).await?),
                None => None,
            };
            let mut query = vec![("limit", PAGE)];
            query.extend(state.map(|state| ("state", state.as_str())));
            query.extend(instance.as_deref().map(|id| ("instance_id", id)));
            let items = client.list(&["tool-approvals"], &query).await?;
            let columns = &["state", "kind", "name", "class", "is_current", "id", "instance_id", "first_seen_at"];
            output::list(remote.json, columns, remote.select_all(&items, MEMBERS))
        }
        Command::Show { approval, .. } => {
            let found = client.get(&["tool-approvals", &approval]).await?;
            if remote.json {
                return output::json(&found);
            }
            output::object(false, &remote.select(&found, MEMBERS))?;
            print_definition(&found)
        }
        Command::Approve { approval, class, digest, .. } => {
            let digest = match digest {
                Some(digest) => digest,
                None => text(&client.get(&["tool-approvals", &approval]).await?, "digest").to_owned(),
            };
            let body = json!({ "digest": digest, "class": class });
            print(remote, client.post(&["tool-approvals", &approval, "approve"], body).await?)
        }
        Command::Reject { approval, reason, .. } => {
            let body = json!({ "reason": reason });
            print(remote, client.post(&["tool-approvals", &approval, "reject"], body).await?)
        }
        Command::Check { instance, .. } => {
            let id = instance_id(remote, &instance).await?;
            let found = client.post(&["instances", &id, "check-definitions"], json!({})).await?;
            output::object(remote.json, &found)
        }
    }
}

async fn instance_id(remote: &RemoteSession, name: &str) -> anyhow::Result<String> {
    Ok(text(&instance::find(remote, name).await?, "id").to_owned())
}

fn print(remote: &RemoteSession, approval: Value) -> anyhow::Result<()> {
    output::object(remote.json, &remote.select(&approval, MEMBERS))
}

/// Prints the difference from the previous definition; without one, the definition.
fn print_definition(approval: &Value) -> anyhow::Result<()> {
    let lines = approval["diff"].as_array().map(Vec::as_slice).unwrap_or_default();
    if lines.is_empty() {
        let definition = serde_json::to_string_pretty(&approval["definition"])?;
        let lines = definition.lines().map(output::clean).collect::<Vec<_>>();
        return output::text(&format!("\n{}\n", lines.join("\n")));
    }
    let line = |line: &Value| {
        let sign = match text(line, "tag") {
            "added" => "+ ",
            "removed" => "- ",
            "skipped" => "  …",
            _ => "  ",
        };
        format!("{sign}{}", output::clean(text(line, "text")))
    };
    output::text(&format!("\n{}\n", lines.iter().map(line).collect::<Vec<_>>().join("\n")))
}
