//! `waypost server` through the REST API.

use serde_json::{Value, json};
use waypost_core::id::ServerId;
use waypost_ops::servers::ServerSettings;

use super::{RemoteSession, not_found_message, oauth_config, text, without_nulls};
use crate::cmd::output;
use crate::cmd::server::{Command, MEMBERS, confirm_deletion, print_deleted, print_list};

/// Runs the command.
///
/// # Errors
/// If the operation is rejected.
pub async fn run(remote: &RemoteSession, command: Command) -> anyhow::Result<()> {
    let client = &remote.client;
    match command {
        Command::Create { slug, org, flags } => {
            remote.check_organization(org.org.as_deref())?;
            let new = body(remote, flags.settings(Some(slug))).await?;
            let created = client.post(&["servers"], new).await?;
            output::object(remote.json, &remote.select(&created, MEMBERS))
        }
        Command::List { org } => {
            remote.check_organization(org.org.as_deref())?;
            let items = client.list_paged(&["servers"], &[]).await?;
            print_list(remote.json, remote.select_all(&items, MEMBERS))
        }
        Command::Show { server } => show(remote, &find(remote, &server).await?).await,
        Command::Update { server, slug, flags } => {
            let current = find(remote, &server).await?;
            let changes = body(remote, flags.settings(slug)).await?;
            show(remote, &client.patch(&["servers", text(&current, "id")], changes).await?).await
        }
        Command::ReleaseSlug { server, former } => {
            let server = find(remote, &server).await?;
            client.delete(&["servers", text(&server, "id"), "slugs", &former]).await?;
            show(remote, &server).await
        }
        Command::Delete { server, yes } => {
            let server = find(remote, &server).await?;
            let (id, slug) = (text(&server, "id"), output::clean(text(&server, "slug")));
            confirm_deletion(yes, &slug)?;
            client.delete(&["servers", id]).await?;
            print_deleted(remote.json, id, &slug)
        }
    }
}

/// Converts the settings to a request body.
async fn body(remote: &RemoteSession, settings: ServerSettings) -> anyhow::Result<Value> {
    let mut body = without_nulls(json!({
        "slug": settings.slug,
        "name": settings.name,
        "product_name": settings.product_name,
        "auth_type": settings.auth_type.map(|auth_type| auth_type.as_str()),
        "sign_in": settings.sign_in.map(|policy| policy.as_str()),
        "walkthrough_tools_enabled": settings.walkthrough_tools_enabled,
        "toolset": settings.toolset.map(|toolset| toolset.as_str()),
        "support": settings.support.map(|support| support.as_str()),
        "allowed_origins": settings.allowed_origins,
        "public_page": settings.public_page,
        "public_page_indexed": settings.public_page_indexed,
    }));
    if let Some(provider) = settings.oauth_config {
        // The API requires an ID.
        body["oauth_config_id"] = match provider.as_str() {
            "none" => Value::Null,
            name => oauth_config::find(remote, name).await?["id"].take(),
        };
    }
    Ok(body)
}

/// Returns a server by ID, slug, or a former slug that is still served.
pub(super) async fn find(remote: &RemoteSession, text: &str) -> anyhow::Result<Value> {
    let client = &remote.client;
    if text.parse::<ServerId>().is_ok() {
        let found = client.find(&["servers", text]).await?;
        return found.ok_or_else(|| anyhow::anyhow!(not_found_message("server", text, "server")));
    }
    let servers = client.list_paged(&["servers"], &[]).await?;
    if let Some(found) = servers.iter().find(|server| server["slug"] == text) {
        return Ok(found.clone());
    }
    for server in servers {
        if former_slugs(remote, &server).await?.iter().any(|slug| slug == text) {
            return Ok(server);
        }
    }
    Err(anyhow::anyhow!(not_found_message("server", text, "server")))
}

async fn former_slugs(remote: &RemoteSession, server: &Value) -> anyhow::Result<Vec<Value>> {
    let slugs = remote.client.list(&["servers", text(server, "id"), "slugs"], &[]).await?;
    Ok(slugs.into_iter().map(|mut slug| slug["slug"].take()).collect())
}

/// Prints a server, including its former slugs.
async fn show(remote: &RemoteSession, server: &Value) -> anyhow::Result<()> {
    let mut value = remote.select(server, MEMBERS);
    value["former_slugs"] = Value::Array(former_slugs(remote, server).await?);
    output::object(remote.json, &value)
}
