//! `waypost org` through the REST API. A key has access only to its own organisation.

use reqwest::Method;
use serde_json::json;

use super::{Body, RemoteSession, without_nulls};
use crate::cmd::org::{Command, MEMBERS, confirm_deletion, print_deleted, print_list, read_logo};
use crate::cmd::output;

/// Runs the command.
///
/// # Errors
/// If the operation is rejected.
pub async fn run(remote: &RemoteSession, command: Command) -> anyhow::Result<()> {
    let client = &remote.client;
    let id = remote.organization_id();
    match command {
        Command::Create { slug, name } => {
            let created = client.post(&["organizations"], without_nulls(json!({"slug": slug, "name": name}))).await?;
            output::object(remote.json, &remote.select(&created, MEMBERS))
        }
        Command::List => print_list(remote.json, vec![remote.select(&remote.organization, MEMBERS)]),
        Command::Show { org } => {
            remote.check_organization(Some(&org))?;
            output::object(remote.json, &remote.select(&remote.organization, MEMBERS))
        }
        Command::Update { org, slug, name, logo, toolboxes, gateway } => {
            remote.check_organization(Some(&org))?;
            if let Some(file) = logo {
                let path = &["organizations", id, "logo"];
                match read_logo(&file)? {
                    None => client.delete(path).await?,
                    Some(bytes) => {
                        let body = Body::Bytes("application/octet-stream".to_owned(), bytes);
                        client.send(Method::PUT, path, &[], body).await?
                    }
                };
            }
            let changes = without_nulls(
                json!({"slug": slug, "name": name, "toolboxes_enabled": toolboxes, "gateway_enabled": gateway}),
            );
            let updated = client.patch(&["organizations", id], changes).await?;
            output::object(remote.json, &remote.select(&updated, MEMBERS))
        }
        Command::Delete { org, yes } => {
            remote.check_organization(Some(&org))?;
            let slug = remote.organization_slug();
            confirm_deletion(yes, &slug)?;
            client.delete(&["organizations", id]).await?;
            print_deleted(remote.json, id, &slug)
        }
    }
}
