//! `waypost server` through the API.

use serde_json::{Value, json};
use waypost_core::id::ServerId;
use waypost_ops::servers::ServerSettings;

use super::{RemoteSession, given, oauth_config, text, unknown};
use crate::cmd::output;
use crate::cmd::server::{Command, MEMBERS, confirm_deletion, deleted, print_list};

/// Does it.
///
/// # Errors
/// When it is refused.
pub async fn run(remote: &RemoteSession, command: Command) -> anyhow::Result<()> {
    let client = &remote.client;
    match command {
        Command::Create { slug, org, flags } => {
            remote.organization(org.org.as_deref())?;
            let new = body(remote, flags.settings(Some(slug))).await?;
            let made = client.post(&["servers"], new).await?;
            output::object(remote.json, &remote.shape(&made, MEMBERS))
        }
        Command::List { org } => {
            remote.organization(org.org.as_deref())?;
            let items = client.pages(&["servers"], &[]).await?;
            print_list(remote.json, remote.shapes(&items, MEMBERS))
        }
        Command::Show { server } => show(remote, &find(remote, &server).await?).await,
        Command::Update { server, slug, flags } => {
            let old = find(remote, &server).await?;
            let changes = body(remote, flags.settings(slug)).await?;
            show(remote, &client.patch(&["servers", text(&old, "id")], changes).await?).await
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
            deleted(remote.json, id, &slug)
        }
    }
}

/// The settings as the API takes them.
async fn body(remote: &RemoteSession, settings: ServerSettings) -> anyhow::Result<Value> {
    let mut body = given(json!({
        "slug": settings.slug,
        "name": settings.name,
        "product_name": settings.product_name,
        "auth_type": settings.auth_type.map(|it| it.as_str()),
        "sign_in": settings.sign_in.map(|it| it.as_str()),
        "walkthrough_tools_enabled": settings.walkthrough_tools_enabled,
        "toolset": settings.toolset.map(|it| it.as_str()),
        "support": settings.support.map(|it| it.as_str()),
        "allowed_origins": settings.allowed_origins,
        "public_page": settings.public_page,
        "public_page_indexed": settings.public_page_indexed,
    }));
    if let Some(provider) = settings.oauth_config {
        // What a name means may change between two requests: the API takes ids.
        body["oauth_config_id"] = match provider.as_str() {
            "none" => Value::Null,
            named => oauth_config::find(remote, named).await?["id"].take(),
        };
    }
    Ok(body)
}

/// By id, slug, or a former slug that it still answers to.
pub(super) async fn find(remote: &RemoteSession, wanted: &str) -> anyhow::Result<Value> {
    let client = &remote.client;
    if wanted.parse::<ServerId>().is_ok() {
        let found = client.find(&["servers", wanted]).await?;
        return found.ok_or_else(|| anyhow::anyhow!(unknown("server", wanted, "server")));
    }
    let servers = client.pages(&["servers"], &[]).await?;
    if let Some(found) = servers.iter().find(|server| server["slug"] == wanted) {
        return Ok(found.clone());
    }
    for server in servers {
        if former_slugs(remote, &server).await?.iter().any(|slug| slug == wanted) {
            return Ok(server);
        }
    }
    Err(anyhow::anyhow!(unknown("server", wanted, "server")))
}

async fn former_slugs(remote: &RemoteSession, server: &Value) -> anyhow::Result<Vec<Value>> {
    let slugs = remote.client.list(&["servers", text(server, "id"), "slugs"], &[]).await?;
    Ok(slugs.into_iter().map(|mut slug| slug["slug"].take()).collect())
}

/// With what only one server at a time is asked for.
async fn show(remote: &RemoteSession, server: &Value) -> anyhow::Result<()> {
    let mut value = remote.shape(server, MEMBERS);
    value["former_slugs"] = Value::Array(former_slugs(remote, server).await?);
    output::object(remote.json, &value)
}
