//! `waypost org` through the API: a key sees its own organisation.

use reqwest::Method;
use serde_json::json;

use super::{Body, RemoteSession, given};
use crate::cmd::org::{Command, MEMBERS, confirm_deletion, deleted, print_list, read_logo};
use crate::cmd::output;

/// Does it.
///
/// # Errors
/// When it is refused.
pub async fn run(remote: &RemoteSession, command: Command) -> anyhow::Result<()> {
    let client = &remote.client;
    let id = remote.organization_id();
    match command {
        Command::Create { slug, name } => {
            let made = client.post(&["organizations"], given(json!({"slug": slug, "name": name}))).await?;
            output::object(remote.json, &remote.shape(&made, MEMBERS))
        }
        Command::List => print_list(remote.json, vec![remote.shape(&remote.organization, MEMBERS)]),
        Command::Show { org } => {
            remote.organization(Some(&org))?;
            output::object(remote.json, &remote.shape(&remote.organization, MEMBERS))
        }
        Command::Update { org, slug, name, logo } => {
            remote.organization(Some(&org))?;
            if let Some(file) = logo {
                let path = &["organizations", id, "logo"];
                match read_logo(&file)? {
                    None => client.delete(path).await?,
                    Some(bytes) => {
                        let body = Body::Bytes("application/octet-stream".to_owned(), bytes);
                        client.send(Method::PUT, (path, &[]), body).await?
                    }
                };
            }
            let changes = given(json!({"slug": slug, "name": name}));
            let changed = client.patch(&["organizations", id], changes).await?;
            output::object(remote.json, &remote.shape(&changed, MEMBERS))
        }
        Command::Delete { org, yes } => {
            remote.organization(Some(&org))?;
            let slug = remote.organization_slug();
            confirm_deletion(yes, &slug)?;
            client.delete(&["organizations", id]).await?;
            deleted(remote.json, id, &slug)
        }
    }
}
