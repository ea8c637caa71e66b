//! `waypost instance agent-secret`: agents' values for personal secrets.

use serde_json::{Value, json};
use waypost_core::id::OrganizationId;
use waypost_ops::agent_secrets::{self, AgentSecretRef, AgentSecretView};
use waypost_ops::{agents, instances};

use super::secret::ValueSource;
use super::session::{Session, not_found_message};
use super::user::Org;
use super::{App, output};

/// The JSON members of a listed value.
pub(super) const MEMBERS: &[&str] = &["agent_id", "agent", "name", "set_at"];

/// Subcommands of `waypost instance agent-secret`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Set or replace the value of a service agent. Its container is replaced before its next call.
    Set {
        #[command(flatten)]
        at: AtSecret,
        #[command(flatten)]
        value: ValueSource,
    },
    /// List which agents have supplied which personal secrets of an instance, without values.
    List {
        /// Slug, name or ID of the instance.
        instance: String,
        #[command(flatten)]
        org: Org,
    },
    /// Remove the value of an agent.
    Delete {
        #[command(flatten)]
        at: AtSecret,
        /// Do not ask for confirmation.
        #[arg(long)]
        yes: bool,
    },
}

/// A personal secret of an agent.
#[derive(Debug, clap::Args)]
pub struct AtSecret {
    /// Slug, name or ID of the instance.
    pub(super) instance: String,
    /// Name of the secret.
    pub(super) name: String,
    /// Agent (name or ID).
    #[arg(long, value_name = "AGENT")]
    pub(super) agent: String,
    #[command(flatten)]
    org: Org,
}

impl Command {
    /// Returns the organisation given by `--org`.
    pub(super) fn organization(&self) -> Option<&str> {
        let (Self::List { org, .. }
        | Self::Set { at: AtSecret { org, .. }, .. }
        | Self::Delete { at: AtSecret { org, .. }, .. }) = self;
        org.org.as_deref()
    }
}

/// Runs the command.
///
/// # Errors
/// If the operation is rejected.
pub(super) async fn run(
    app: &App,
    session: &Session,
    organization: &OrganizationId,
    command: Command,
) -> anyhow::Result<()> {
    let Session { cx, ops, json, .. } = session;
    let find_instance = async |text: &str| {
        let found = instances::resolve(cx, ops, organization, text).await;
        found.map_err(|error| not_found_message(error, "instance", text, "instance"))
    };
    let find_agent = async |text: &str| {
        let found = agents::resolve(cx, ops, organization, text).await;
        found.map_err(|error| not_found_message(error, "agent", text, "agent"))
    };
    match command {
        Command::Set { at, value } => {
            let (ops, value) = (session.connected_ops(app)?, value.read()?);
            let instance = find_instance(&at.instance).await?.instance.id;
            let agent = find_agent(&at.agent).await?.agent.id;
            let secret = AgentSecretRef { instance: &instance, agent: &agent, name: &at.name };
            agent_secrets::set(cx, &ops, organization, secret, &value).await?;
            print_set(*json, &at)
        }
        Command::List { instance, .. } => {
            let instance = find_instance(&instance).await?.instance.id;
            let found = agent_secrets::list(cx, ops, organization, &instance).await?;
            print_list(*json, found.iter().map(to_json).collect())
        }
        Command::Delete { at, yes } => {
            let instance = find_instance(&at.instance).await?.instance.id;
            let agent = find_agent(&at.agent).await?.agent.id;
            confirm_deletion(yes, &at)?;
            let secret = AgentSecretRef { instance: &instance, agent: &agent, name: &at.name };
            agent_secrets::delete(cx, ops, organization, secret).await?;
            print_deleted(*json, instance.as_str(), &at)
        }
    }
}

/// Returns the JSON object for a value, with the same members as in the API.
fn to_json(view: &AgentSecretView) -> Value {
    json!({
        "agent_id": view.agent_id,
        "agent": view.agent_name,
        "name": view.name,
        "set_at": view.set_at.rfc3339(),
    })
}

pub(super) fn print_list(json: bool, items: Vec<Value>) -> anyhow::Result<()> {
    output::list(json, MEMBERS, items)
}

pub(super) fn print_set(json: bool, at: &AtSecret) -> anyhow::Result<()> {
    output::object(json, &json!({ "instance": at.instance, "agent": at.agent, "name": at.name }))
}

pub(super) fn confirm_deletion(yes: bool, at: &AtSecret) -> anyhow::Result<()> {
    let (name, agent) = (output::clean(&at.name), output::clean(&at.agent));
    output::confirm(
        yes,
        &format!("Remove the value of `{agent}` for {name}? If it is required, calls by the agent fail."),
    )
}

pub(super) fn print_deleted(json: bool, instance: &str, at: &AtSecret) -> anyhow::Result<()> {
    let (name, agent) = (output::clean(&at.name), output::clean(&at.agent));
    output::deleted(json, instance, &format!("Removed the value of {agent} for {name}."))
}
