//! `waypost toolbox`: an organisation's machines that run tool servers.

mod diagnostics;
pub mod machine;

use serde_json::{Value, json};
use waypost_core::Timestamp;
use waypost_core::id::OrganizationId;
use waypost_ops::toolboxes::{self, JoinToken, ToolboxView, join_command};
use waypost_toolbox_proto::runtime::find_vulnerability;

use super::output;
use super::session::{Session, not_found_message};
use super::user::Org;

/// The number of toolboxes that are read at a time.
const PAGE_SIZE: u32 = 200;

/// Subcommands of `waypost toolbox`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    #[command(flatten)]
    Operator(OperatorCommand),
    #[command(flatten)]
    Machine(machine::Command),
}

/// The subcommands that manage toolboxes.
#[derive(Debug, clap::Subcommand)]
pub enum OperatorCommand {
    /// Create a toolbox. Prints a token, with which one machine can join it within 15 minutes.
    Create {
        /// Name, unique in the organisation.
        name: String,
        #[command(flatten)]
        org: Org,
    },
    /// List the toolboxes of an organisation.
    List {
        #[command(flatten)]
        org: Org,
    },
    /// Show a toolbox.
    Show {
        /// Name or ID of the toolbox.
        toolbox: String,
        #[command(flatten)]
        org: Org,
    },
    /// Revoke a toolbox: its machine is disconnected and can no longer connect. This cannot be undone.
    Revoke {
        /// Name or ID of the toolbox.
        toolbox: String,
        #[command(flatten)]
        org: Org,
        /// Do not ask for confirmation.
        #[arg(long)]
        yes: bool,
    },
    /// Make the daemon of a toolbox replace its key, at its next heartbeat.
    RotateKey {
        /// Name or ID of the toolbox.
        toolbox: String,
        #[command(flatten)]
        org: Org,
    },
    /// Create a new token for a toolbox whose machine has not connected yet. The earlier token becomes invalid.
    RenewToken {
        /// Name or ID of the toolbox.
        toolbox: String,
        #[command(flatten)]
        org: Org,
    },
    /// Delete a toolbox. A toolbox with instances must be revoked first; they are deleted with it.
    Delete {
        /// Name or ID of the toolbox.
        toolbox: String,
        #[command(flatten)]
        org: Org,
        /// Do not ask for confirmation.
        #[arg(long)]
        yes: bool,
    },
}

impl Command {
    /// Whether the command is the daemon, which runs until it is stopped.
    pub(super) fn is_daemon(&self) -> bool {
        matches!(self, Self::Machine(machine::Command::Run(_)))
    }
}

impl OperatorCommand {
    /// Returns the organisation given by `--org`.
    pub(super) fn organization(&self) -> Option<&str> {
        let (Self::Create { org, .. }
        | Self::List { org }
        | Self::Show { org, .. }
        | Self::Revoke { org, .. }
        | Self::RotateKey { org, .. }
        | Self::RenewToken { org, .. }
        | Self::Delete { org, .. }) = self;
        org.org.as_deref()
    }
}

/// Runs the command.
///
/// # Errors
/// If the operation is rejected.
pub async fn run(session: &Session, command: OperatorCommand) -> anyhow::Result<()> {
    let Session { cx, ops, json, .. } = session;
    let organization = session.organization(command.organization()).await?.id;
    match command {
        OperatorCommand::Create { name, .. } => {
            let (created, token) = toolboxes::create(cx, ops, &organization, &name).await?;
            print_token(*json, "Created the toolbox", &token_to_json(session, &created, &token))
        }
        OperatorCommand::List { .. } => {
            let (mut items, mut after) = (Vec::new(), None::<String>);
            loop {
                let found = toolboxes::list(cx, ops, &organization, after.as_deref(), PAGE_SIZE).await?;
                after = found.last().map(|last| last.toolbox.name.clone());
                items.extend(found.iter().map(to_json));
                if after.is_none() {
                    return print_list(*json, items);
                }
            }
        }
        OperatorCommand::Show { toolbox, .. } => print(*json, to_json(&find(session, &organization, &toolbox).await?)),
        OperatorCommand::Revoke { toolbox, yes, .. } => {
            let found = find(session, &organization, &toolbox).await?.toolbox;
            confirm_revocation(yes, &found.name)?;
            print(*json, to_json(&toolboxes::revoke(cx, ops, &organization, &found.id).await?))
        }
        OperatorCommand::RotateKey { toolbox, .. } => {
            let found = find(session, &organization, &toolbox).await?.toolbox;
            print(*json, to_json(&toolboxes::rotate_key(cx, ops, &organization, &found.id).await?))
        }
        OperatorCommand::RenewToken { toolbox, .. } => {
            let found = find(session, &organization, &toolbox).await?.toolbox;
            let (renewed, token) = toolboxes::renew_token(cx, ops, &organization, &found.id).await?;
            print_token(*json, RENEWED, &token_to_json(session, &renewed, &token))
        }
        OperatorCommand::Delete { toolbox, yes, .. } => {
            let found = find(session, &organization, &toolbox).await?.toolbox;
            confirm_deletion(yes, &found.name)?;
            toolboxes::delete(cx, ops, &organization, &found.id).await?;
            print_deleted(*json, found.id.as_str(), &found.name)
        }
    }
}

async fn find(session: &Session, organization: &OrganizationId, text: &str) -> anyhow::Result<ToolboxView> {
    let toolbox = toolboxes::resolve(&session.cx, &session.ops, organization, text).await;
    toolbox.map_err(|error| not_found_message(error, "toolbox", text, "toolbox"))
}

/// The start of the output of `renew-token`.
pub(super) const RENEWED: &str = "Created a new token for the toolbox";

/// The members of the output of `create` and `renew-token`.
pub(super) const TOKEN_MEMBERS: &[&str] = &["id", "name", "token", "expires_at", "command"];

fn token_to_json(session: &Session, view: &ToolboxView, token: &JoinToken) -> Value {
    let JoinToken { token, expires_at } = token;
    json!({
        "id": view.toolbox.id,
        "name": view.toolbox.name,
        "token": token.expose(),
        "expires_at": expires_at.rfc3339(),
        "command": join_command(&session.public_url, token),
    })
}

/// Prints a toolbox with its new token: as JSON, or as `done` and the command to run on the machine.
pub(super) fn print_token(json: bool, done: &str, value: &Value) -> anyhow::Result<()> {
    if json {
        return output::json(value);
    }
    let text = |name: &str| output::clean(value[name].as_str().unwrap_or_default());
    output::text(&format!(
        "{done} {} ({}).\nRun this command on its machine, then `waypost toolbox run`. The token works once, until {}.\n\n  {}\n",
        text("name"),
        text("id"),
        text("expires_at"),
        text("command"),
    ))
}

/// Prints a toolbox. Text output describes the engine and the resources in words.
pub(super) fn print(json: bool, mut toolbox: Value) -> anyhow::Result<()> {
    if !json {
        describe(&mut toolbox);
    }
    output::object(json, &toolbox)
}

/// Replaces the engine and the resources with text, and adds a warning if the runtime of the engine has a known
/// vulnerability.
fn describe(toolbox: &mut Value) {
    let warning = toolbox["engine"]["runtime"].as_str().and_then(find_vulnerability);
    toolbox["engine"] = describe_engine(&toolbox["engine"]);
    for resources in ["capacity", "allocated"] {
        toolbox[resources] = describe_resources(&toolbox[resources]);
    }
    if let Some(warning) = warning {
        toolbox["warning"] = warning.into();
    }
}

pub(super) fn print_list(json: bool, items: Vec<Value>) -> anyhow::Result<()> {
    output::list(json, &["name", "state", "instance_count", "version", "id", "last_seen_at"], items)
}

/// Returns a text such as `20.10.24 (runc 1.1.5, linux/amd64)`; null without an engine.
fn describe_engine(engine: &Value) -> Value {
    let text = |name: &str| engine[name].as_str().unwrap_or_default();
    match engine.is_object() {
        true => format!("{} ({}, {}/{})", text("version"), text("runtime"), text("os"), text("architecture")).into(),
        false => Value::Null,
    }
}

/// Returns a text such as `4 CPUs, 7.8 GiB memory, 20.0 GiB disk free`; null if the resources are unknown.
fn describe_resources(resources: &Value) -> Value {
    let gib =
        |name: &str| resources[name].as_u64().map(|bytes| format!("{:.1} GiB", bytes as f64 / (1_u64 << 30) as f64));
    let Some(cpus) = resources["cpus"].as_f64() else { return Value::Null };
    let parts = [
        Some(format!("{cpus} CPUs")),
        gib("memory_bytes").map(|size| format!("{size} memory")),
        gib("disk_free_bytes").map(|size| format!("{size} disk free")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ").into()
}

pub(super) fn confirm_revocation(yes: bool, name: &str) -> anyhow::Result<()> {
    let name = output::clean(name);
    output::confirm(yes, &format!("Revoke the toolbox {name}? Its machine can never connect again."))
}

pub(super) fn confirm_deletion(yes: bool, name: &str) -> anyhow::Result<()> {
    output::confirm(yes, &format!("Delete the toolbox {}?", output::clean(name)))
}

pub(super) fn print_deleted(json: bool, id: &str, name: &str) -> anyhow::Result<()> {
    output::deleted(json, id, &format!("Deleted the toolbox {}.", output::clean(name)))
}

/// The members of the output, in the order of [`to_json`].
pub(super) const MEMBERS: &[&str] =
    &["id", "name", "state", "version", "engine", "capacity", "allocated", "instance_count", "last_seen_at"];

fn to_json(view: &ToolboxView) -> Value {
    let ToolboxView { toolbox, state, allocated } = view;
    json!({
        "id": toolbox.id,
        "name": toolbox.name,
        "state": state.as_str(),
        "version": toolbox.version,
        "engine": toolbox.engine,
        "capacity": toolbox.capacity,
        "allocated": {
            "cpus": allocated.millicpus as f64 / 1_000.0,
            "memory_bytes": allocated.memory_bytes,
        },
        "instance_count": allocated.instances,
        "last_seen_at": toolbox.last_seen_at.map(Timestamp::rfc3339),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vulnerable_runtime_is_described_with_a_warning() {
        let describe_runtime = |runtime: &str| {
            let engine = json!({ "version": "28.0.0", "runtime": runtime, "os": "linux", "architecture": "amd64" });
            let mut toolbox = json!({ "name": "rack", "engine": engine, "capacity": null, "allocated": null });
            describe(&mut toolbox);
            toolbox
        };
        let old = describe_runtime("runc 1.1.5");
        assert_eq!(old["engine"], "28.0.0 (runc 1.1.5, linux/amd64)");
        assert!(old["warning"].as_str().unwrap().contains("CVE-2024-21626"), "{old}");
        assert_eq!(describe_runtime("runc 1.1.12").get("warning"), None);
        let mut pending = json!({ "engine": null });
        describe(&mut pending);
        assert_eq!((&pending["engine"], pending.get("warning")), (&Value::Null, None));
    }
}
