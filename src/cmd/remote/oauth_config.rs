//! `waypost oauth-config` through the REST API. The installation, not this machine, checks the provider.

use std::process::ExitCode;

use serde_json::{Value, json};
use waypost_content::name;
use waypost_ops::oauth_configs::OauthConfigSettings;

use super::{RemoteSession, find_item, text, without_nulls};
use crate::cmd::oauth_config::{Command, MEMBERS, confirm_deletion, print, print_check, print_deleted, print_list};

/// Runs the command.
///
/// # Errors
/// If the operation is rejected.
pub async fn run(remote: &RemoteSession, command: Command) -> anyhow::Result<ExitCode> {
    let client = &remote.client;
    let (Command::Create { org, .. }
    | Command::List { org }
    | Command::Show { org, .. }
    | Command::Update { org, .. }
    | Command::Delete { org, .. }
    | Command::Check { org, .. }) = &command;
    remote.check_organization(org.org.as_deref())?;
    match command {
        Command::Create { name, flags, .. } => {
            let created = client.post(&["oauth-configs"], body(flags.settings(Some(name))?)).await?;
            show(remote, &created)?;
        }
        Command::List { .. } => {
            let items = client.list(&["oauth-configs"], &[]).await?;
            print_list(remote.json, items.iter().map(|config| to_output(remote, config)).collect())?;
        }
        Command::Show { provider, .. } => show(remote, &find(remote, &provider).await?)?,
        Command::Update { provider, name, flags, .. } => {
            let current = find(remote, &provider).await?;
            let changes = body(flags.settings(name)?);
            show(remote, &client.patch(&["oauth-configs", text(&current, "id")], changes).await?)?;
        }
        Command::Delete { provider, yes, .. } => {
            let config = find(remote, &provider).await?;
            let (id, name) = (text(&config, "id"), text(&config, "name"));
            confirm_deletion(yes, name)?;
            client.delete(&["oauth-configs", id]).await?;
            print_deleted(remote.json, id, name)?;
        }
        Command::Check { provider, .. } => {
            let config = find(remote, &provider).await?;
            let mut result = client.post(&["oauth-configs", text(&config, "id"), "check"], json!({})).await?;
            return print_check(remote.json, take_findings(&mut result));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns an identity provider by ID or name.
pub(super) async fn find(remote: &RemoteSession, text: &str) -> anyhow::Result<Value> {
    let configs = remote.client.list(&["oauth-configs"], &[]).await?;
    let name = name::clean(text);
    let matches = |config: &Value| config["id"] == text || config["name"] == name.as_str();
    find_item(configs, matches, "identity provider", text, "oauth-config")
}

/// Converts the settings to a request body.
fn body(settings: OauthConfigSettings) -> Value {
    without_nulls(json!({
        "name": settings.name,
        "issuer": settings.issuer,
        "metadata_url": settings.metadata_url,
        "authorization_endpoint": settings.authorization_endpoint,
        "token_endpoint": settings.token_endpoint,
        "userinfo_endpoint": settings.userinfo_endpoint,
        "client_id": settings.client_id,
        "client_secret": settings.client_secret.as_ref().map(|secret| secret.expose()),
        "scopes": settings.scopes,
        "token_auth_method": settings.token_auth_method.map(|method| method.as_str()),
        "subject_claim": settings.subject_claim,
        "link_verified_email": settings.link_verified_email,
    }))
}

fn to_output(remote: &RemoteSession, config: &Value) -> Value {
    let mut value = remote.select(config, MEMBERS);
    value["client_secret"] = if config["has_client_secret"] == true { json!("set") } else { Value::Null };
    value
}

fn show(remote: &RemoteSession, config: &Value) -> anyhow::Result<()> {
    let mut value = to_output(remote, config);
    value["redirect_uris"] = config["redirect_uris"].clone();
    value["servers"] = config["servers"].clone();
    print(remote.json, value, take_findings(&mut config.clone()))
}

fn take_findings(response: &mut Value) -> Vec<Value> {
    match response["findings"].take() {
        Value::Array(findings) => findings,
        _ => Vec::new(),
    }
}
