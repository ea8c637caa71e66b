//! `waypost instance` through the REST API. Commands that need the link to a machine always use it.

use serde_json::{Value, json};

use super::{RemoteSession, agent, agent_secret, catalog, find_item, secret, text, toolbox, without_nulls};
use crate::cmd::instance::{
    CONNECTION_MEMBERS, Command, CreateOptions, GrantArg, MEMBERS, OVERRIDE_MEMBERS, SecretArg, ToolArguments,
    UpdateOptions, apply_all_secrets, apply_secrets, confirm_deletion, log_line, no_entry, no_version, print,
    print_connect, print_connections, print_deleted, print_deployments, print_disconnected, print_list, print_logs,
    print_overrides, print_stats, print_tools, wait, wait_for_remote,
};
use crate::cmd::output;

/// The members of a deployment.
const DEPLOYMENT_MEMBERS: &[&str] = &["id", "state", "step", "error", "started_at", "ended_at"];

/// Runs the command.
///
/// # Errors
/// If the operation is rejected, or the deployment that the command waits for fails.
pub async fn run(remote: &RemoteSession, command: Command) -> anyhow::Result<()> {
    let client = &remote.client;
    remote.check_organization(command.organization())?;
    match command {
        Command::Create { slug, options, .. } => create(remote, slug, options).await,
        Command::List { .. } => {
            let items = client.list_paged(&["instances"], &[]).await?;
            print_list(remote.json, items.iter().map(|item| select(remote, item)).collect())
        }
        Command::Show { at } => print(remote.json, select(remote, &find(remote, &at.instance).await?)),
        Command::Update { at, options } => update(remote, &at.instance, options).await,
        Command::Start { at } => act(remote, &at.instance, "start").await,
        Command::Stop { at } => act(remote, &at.instance, "stop").await,
        Command::Restart { at } => act(remote, &at.instance, "restart").await,
        Command::Connect { at } => {
            let found = find(remote, &at.instance).await?;
            print_connect(remote.json, &found, client.origin(), text(&remote.organization, "slug"))
        }
        Command::Connections { at } => {
            let items = items_paged(remote, &at.instance, "connections").await?;
            print_connections(remote.json, remote.select_all(&items, CONNECTION_MEMBERS))
        }
        Command::Disconnect { at, agent } => {
            let found = find(remote, &at.instance).await?;
            let agent = match &agent {
                Some(text) => Some(agent::find(remote, text).await?),
                None => None,
            };
            let id = agent.as_ref().map_or("shared", |agent| text(agent, "id"));
            client.delete(&["instances", text(&found, "id"), "connections", id]).await?;
            print_disconnected(remote.json, id, text(&found, "slug"))
        }
        Command::Logs { at, follow, tail } => logs(remote, &at.instance, follow, tail).await,
        Command::Tools { at } => print_tools(remote.json, items(remote, &at.instance, "tools").await?),
        Command::ToolOverrides { at } => {
            let items = items(remote, &at.instance, "tool-overrides").await?;
            print_overrides(remote.json, remote.select_all(&items, OVERRIDE_MEMBERS))
        }
        Command::ToolOverride { at, tool, options } => {
            let found = find(remote, &at.instance).await?;
            let mut change = json!({ "tool": tool });
            for (member, value) in [("name", options.name()), ("description", options.description())] {
                if let Some(value) = value {
                    change[member] = value.into();
                }
            }
            let updated = client.patch(&["instances", text(&found, "id"), "tool-overrides"], change).await?;
            output::object(remote.json, &remote.select(&updated, OVERRIDE_MEMBERS))
        }
        Command::Call { instance, tool, arguments, .. } => {
            let arguments = arguments.map(ToolArguments::read).transpose()?.unwrap_or_default();
            let found = find(remote, &instance).await?;
            let body = json!({ "tool": tool, "arguments": arguments });
            output::json(&client.post(&["instances", text(&found, "id"), "call"], body).await?)
        }
        Command::Stats { at } => print_stats(remote.json, items(remote, &at.instance, "stats").await?),
        Command::Deployments { at } => {
            let items = items_paged(remote, &at.instance, "deployments").await?;
            print_deployments(remote.json, remote.select_all(&items, DEPLOYMENT_MEMBERS))
        }
        Command::AgentSecret { command } => agent_secret::run(remote, command).await,
        Command::Delete { at, yes } => {
            let found = find(remote, &at.instance).await?;
            let (id, slug) = (text(&found, "id"), text(&found, "slug"));
            confirm_deletion(yes, slug)?;
            client.delete(&["instances", id]).await?;
            print_deleted(remote.json, id, slug)
        }
    }
}

/// Returns an instance by ID, slug or name.
pub(super) async fn find(remote: &RemoteSession, text: &str) -> anyhow::Result<Value> {
    let mut instances = remote.client.list_paged(&["instances"], &[]).await?;
    if let Some(at) = instances.iter().position(|instance| instance["id"] == text || instance["slug"] == text) {
        return Ok(instances.swap_remove(at));
    }
    instances.retain(|instance| instance["name"] == text);
    if instances.len() > 1 {
        anyhow::bail!("Several instances are named `{}`. Use the slug or the ID.", output::clean(text));
    }
    find_item(instances, |_| true, "instance", text, "instance")
}

async fn act(remote: &RemoteSession, instance: &str, action: &str) -> anyhow::Result<()> {
    let found = find(remote, instance).await?;
    let changed = remote.client.post(&["instances", text(&found, "id"), action], json!({})).await?;
    print(remote.json, select(remote, &changed))
}

/// Returns the items of a list of an instance that has only one page.
async fn items(remote: &RemoteSession, instance: &str, list: &str) -> anyhow::Result<Vec<Value>> {
    let found = find(remote, instance).await?;
    remote.client.list(&["instances", text(&found, "id"), list], &[]).await
}

async fn items_paged(remote: &RemoteSession, instance: &str, list: &str) -> anyhow::Result<Vec<Value>> {
    let found = find(remote, instance).await?;
    remote.client.list_paged(&["instances", text(&found, "id"), list], &[]).await
}

async fn logs(remote: &RemoteSession, instance: &str, follow: bool, tail: Option<u32>) -> anyhow::Result<()> {
    let found = find(remote, instance).await?;
    let path = ["instances", text(&found, "id"), "logs"];
    let tail = tail.map(|tail| tail.to_string());
    let mut query: Vec<_> = tail.iter().map(|tail| ("tail", tail.as_str())).collect();
    if !follow {
        return print_logs(remote.json, remote.client.list(&path, &query).await?);
    }
    query.push(("follow", "true"));
    remote.client.follow(&path, &query, |line| output::text(&log_line(remote.json, &line))).await
}

/// Returns the members that commands on the database print, including those of the deployment.
fn select(remote: &RemoteSession, instance: &Value) -> Value {
    let mut selected = remote.select(instance, MEMBERS);
    if selected["deployment"].is_object() {
        selected["deployment"] = remote.select(&instance["deployment"], DEPLOYMENT_MEMBERS);
    }
    selected
}

async fn create(remote: &RemoteSession, slug: String, options: CreateOptions) -> anyhow::Result<()> {
    let changes = find_secrets(remote, &options.settings.secrets).await?;
    let approve = options.approve.map(|class| json!({ "class": class }));
    let mut grants = Vec::new();
    for GrantArg { agent: name, access } in &options.grants {
        grants.push(json!({ "agent_id": text(&agent::find(remote, name).await?, "id"), "access": access }));
    }
    if let Some(url) = options.read_url()? {
        let client_secret = match &options.client_secret {
            Some(name) => Some(secret::find(remote, name).await?["id"].take()),
            None => None,
        };
        let new = without_nulls(json!({
            "slug": slug,
            "name": options.settings.name,
            "remote": without_nulls(json!({
                "url": url,
                "transport": options.transport,
                "oauth": options.oauth,
                "connection": options.connection,
                "client_id": options.client_id,
                "client_secret_id": client_secret,
            })),
            "secrets": apply_secrets(Default::default(), changes),
            "approve": approve,
            "grants": grants,
        }));
        let created = remote.client.post(&["instances"], new).await?;
        return finish(remote, created, options.settings.wait).await;
    }
    let config = options.settings.read_config()?;
    let entry = catalog::find(remote, options.entry.as_deref().unwrap_or_default()).await?;
    let toolbox_id = match &options.toolbox {
        Some(name) => Some(text(&toolbox::find(remote, name).await?, "id").to_owned()),
        None => None,
    };
    let new = without_nulls(json!({
        "slug": slug,
        "name": options.settings.name,
        "catalog_version_id": find_version(&entry, options.settings.version.as_deref())?,
        "toolbox_id": toolbox_id,
        "config": config,
        "secrets": apply_secrets(Default::default(), changes),
        "personal_secrets": Some(&options.settings.personal_secrets).filter(|names| !names.is_empty()),
        "learn_egress": options.learn_egress,
        "approve": approve,
        "grants": grants,
    }));
    let created = remote.client.post(&["instances"], new).await?;
    finish(remote, created, options.settings.wait).await
}

async fn update(remote: &RemoteSession, instance: &str, options: UpdateOptions) -> anyhow::Result<()> {
    let config = options.settings.read_config()?;
    let found = find(remote, instance).await?;
    let version_id = match &options.settings.version {
        Some(version) => Some(find_version(&find_entry(remote, &found).await?, Some(version))?),
        None => None,
    };
    let changes = find_secrets(remote, &options.settings.secrets).await?;
    let current = found["secrets"].as_object().cloned().unwrap_or_default().into_iter().collect();
    let names = &options.settings.personal_secrets;
    let personal = found["personal_secrets"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let personal = personal.map(str::to_owned).collect();
    let secrets = (!changes.is_empty() || !names.is_empty())
        .then(|| apply_all_secrets((current, personal), changes, names))
        .unzip();
    let patch = without_nulls(json!({
        "name": options.settings.name,
        "catalog_version_id": version_id,
        "config": config,
        "secrets": secrets.0,
        "personal_secrets": secrets.1.filter(|_| found["personal_secrets"].is_array()),
        "learn_egress": options.learn_egress,
        "record_contents": options.record_contents,
    }));
    let updated = remote.client.patch(&["instances", text(&found, "id")], patch).await?;
    let is_deployed = updated["generation"] != found["generation"];
    finish(remote, updated, options.settings.wait && is_deployed).await
}

/// Prints an instance. If `should_wait` is set, waits until its deployment has ended first.
async fn finish(remote: &RemoteSession, instance: Value, should_wait: bool) -> anyhow::Result<()> {
    if !should_wait {
        return print(remote.json, select(remote, &instance));
    }
    let (id, slug) = (text(&instance, "id"), text(&instance, "slug"));
    let outcome = match text(&instance["deployment"], "id") {
        "" => wait_for_remote(slug, async || remote.client.get(&["instances", id]).await).await,
        deployment => {
            let path = ["instances", id, "deployments", deployment];
            wait(remote.json, slug, async || remote.client.get(&path).await).await
        }
    };
    print(remote.json, select(remote, &remote.client.get(&["instances", id]).await?))?;
    outcome
}

/// Returns each argument with the ID of the secret that it names; `None` if it removes an assignment.
async fn find_secrets<'a>(
    remote: &RemoteSession,
    arguments: &'a [SecretArg],
) -> anyhow::Result<Vec<(&'a SecretArg, Option<Value>)>> {
    let mut found = Vec::with_capacity(arguments.len());
    for argument in arguments {
        let id = match &argument.secret {
            Some(name) => Some(secret::find(remote, name).await?["id"].take()),
            None => None,
        };
        found.push((argument, id));
    }
    Ok(found)
}

/// Returns the catalogue entry of an instance.
async fn find_entry(remote: &RemoteSession, instance: &Value) -> anyhow::Result<Value> {
    if instance["catalog_version_id"].is_null() {
        return Err(no_entry());
    }
    let entries = remote.client.list_paged(&["catalog"], &[]).await?;
    let is_deployed = |version: &Value| version["id"] == instance["catalog_version_id"];
    let entry = entries.into_iter().find(|entry| entry["versions"].as_array().into_iter().flatten().any(is_deployed));
    entry.ok_or_else(|| anyhow::anyhow!("the catalogue entry of this instance does not exist"))
}

/// Returns the ID of the version with this number or ID; without one, the ID of the newest version.
fn find_version(entry: &Value, name: Option<&str>) -> anyhow::Result<String> {
    let matches = |version: &&Value| name.is_none_or(|name| version["version"] == name || version["id"] == name);
    let found = entry["versions"].as_array().into_iter().flatten().find(matches);
    found.map(|version| text(version, "id").to_owned()).ok_or_else(|| no_version(name, text(entry, "slug")))
}
