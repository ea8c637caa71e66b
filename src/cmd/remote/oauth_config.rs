//! `waypost oauth-config` through the API: the server looks at the provider, from where it is.

use std::process::ExitCode;

use serde_json::{Value, json};
use waypost_core::name;
use waypost_ops::oauth_configs::Settings;

use super::{RemoteSession, given, only, text};
use crate::cmd::oauth_config::{Command, MEMBERS, confirm_deletion, deleted, print, print_check, print_list};

/// Does it.
///
/// # Errors
/// When it is refused.
pub async fn run(remote: &RemoteSession, command: Command) -> anyhow::Result<ExitCode> {
    let client = &remote.client;
    let (Command::Create { org, .. }
    | Command::List { org }
    | Command::Show { org, .. }
    | Command::Update { org, .. }
    | Command::Delete { org, .. }
    | Command::Check { org, .. }) = &command;
    remote.organization(org.org.as_deref())?;
    match command {
        Command::Create { name, flags, .. } => {
            let made = client.post(&["oauth-configs"], body(flags.settings(Some(name))?)).await?;
            show(remote, &made)?;
        }
        Command::List { .. } => {
            let items = client.list(&["oauth-configs"], &[]).await?;
            print_list(remote.json, items.iter().map(|config| shape(remote, config)).collect())?;
        }
        Command::Show { provider, .. } => show(remote, &find(remote, &provider).await?)?,
        Command::Update { provider, name, flags, .. } => {
            let old = find(remote, &provider).await?;
            let changes = body(flags.settings(name)?);
            show(remote, &client.patch(&["oauth-configs", text(&old, "id")], changes).await?)?;
        }
        Command::Delete { provider, yes, .. } => {
            let config = find(remote, &provider).await?;
            let (id, name) = (text(&config, "id"), text(&config, "name"));
            confirm_deletion(yes, name)?;
            client.delete(&["oauth-configs", id]).await?;
            deleted(remote.json, id, name)?;
        }
        Command::Check { provider, .. } => {
            let config = find(remote, &provider).await?;
            let mut checked = client.post(&["oauth-configs", text(&config, "id"), "check"], json!({})).await?;
            return print_check(remote.json, findings(&mut checked));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// By id or name.
pub(super) async fn find(remote: &RemoteSession, wanted: &str) -> anyhow::Result<Value> {
    let configs = remote.client.list(&["oauth-configs"], &[]).await?;
    let name = name::clean(wanted);
    let is = |config: &Value| config["id"] == wanted || config["name"] == name.as_str();
    only(configs, is, ("identity provider", wanted, "oauth-config"))
}

/// The settings as the API takes them.
fn body(settings: Settings) -> Value {
    given(json!({
        "name": settings.name,
        "issuer": settings.issuer,
        "metadata_url": settings.metadata_url,
        "authorization_endpoint": settings.authorization_endpoint,
        "token_endpoint": settings.token_endpoint,
        "userinfo_endpoint": settings.userinfo_endpoint,
        "client_id": settings.client_id,
        "client_secret": settings.client_secret.as_ref().map(|secret| secret.expose()),
        "scopes": settings.scopes,
        "token_auth_method": settings.token_auth_method.map(|it| it.as_str()),
        "subject_claim": settings.subject_claim,
        "link_verified_email": settings.link_verified_email,
    }))
}

fn shape(remote: &RemoteSession, config: &Value) -> Value {
    let mut value = remote.shape(config, MEMBERS);
    value["client_secret"] = if config["has_client_secret"] == true { json!("set") } else { Value::Null };
    value
}

fn show(remote: &RemoteSession, config: &Value) -> anyhow::Result<()> {
    let mut value = shape(remote, config);
    value["redirect_uris"] = config["redirect_uris"].clone();
    value["servers"] = config["servers"].clone();
    print(remote.json, value, findings(&mut config.clone()))
}

fn findings(answer: &mut Value) -> Vec<Value> {
    match answer["findings"].take() {
        Value::Array(findings) => findings,
        _ => Vec::new(),
    }
}
