//! `waypost grant`: the access of agents to instances.

use serde_json::{Value, json};
use waypost_core::Timestamp;
use waypost_core::argument_rule::ArgumentRule;
use waypost_core::grant::{AccessLevel, Grant, GrantedNames};
use waypost_core::id::{GrantId, OrganizationId};
use waypost_ops::grants::{self, GrantFilter, NewGrant};
use waypost_ops::instances;

use super::expiry::{Expiry, parse_expiry};
use super::session::{Session, not_found_message, one_of};
use super::user::Org;
use super::{agent, output};

/// The number of grants that are read at a time.
const PAGE_SIZE: u32 = 200;

/// Subcommands of `waypost grant`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Grant an agent access to an instance. It applies within one second.
    Add {
        #[command(flatten)]
        options: AddOptions,
        #[command(flatten)]
        org: Org,
    },
    /// List grants, newest first.
    List {
        /// Only grants of this agent (name or ID).
        #[arg(long)]
        agent: Option<String>,
        /// Only grants for this instance (slug, name or ID).
        #[arg(long)]
        instance: Option<String>,
        #[command(flatten)]
        org: Org,
    },
    /// Show a grant.
    Show {
        /// ID of the grant.
        grant: String,
        #[command(flatten)]
        org: Org,
    },
    /// Remove a grant. The access ends within one second.
    Remove {
        /// ID of the grant.
        grant: String,
        #[command(flatten)]
        org: Org,
    },
}

/// A grant to create.
#[derive(Debug, clap::Args)]
pub struct AddOptions {
    /// Name or ID of the agent.
    #[arg(long)]
    pub(super) agent: String,
    /// Slug, name or ID of the instance.
    #[arg(long)]
    pub(super) instance: String,
    /// Access level: what an admin classified as `read`, the listed names, or everything.
    #[arg(long, value_parser = one_of(AccessLevel::ALL, AccessLevel::as_str))]
    pub(super) access: AccessLevel,
    /// Original name of a tool, for `custom`; can be repeated.
    #[arg(long, value_name = "TOOL", num_args = 1..)]
    pub(super) tool: Vec<String>,
    /// Original name of a prompt, for `custom`; can be repeated.
    #[arg(long, value_name = "PROMPT", num_args = 1..)]
    pub(super) prompt: Vec<String>,
    /// URI or URI template of resources, for `custom`; can be repeated.
    #[arg(long, value_name = "URI", num_args = 1..)]
    pub(super) resource: Vec<String>,
    /// Rule on an argument, such as '{"tool": "search", "field": "limit", "comparison": "at_most", "value": 10}'; can be
    /// repeated.
    #[arg(long, value_name = "JSON", value_parser = parse_rule)]
    pub(super) rule: Vec<ArgumentRule>,
    /// Duration (30d, 12h, 90m) or time after which the grant expires; by default, it never expires.
    #[arg(long, value_name = "WHEN", value_parser = parse_expiry)]
    pub(super) expires: Option<Expiry>,
}

fn parse_rule(text: &str) -> Result<ArgumentRule, String> {
    serde_json::from_str(text)
        .map_err(|error| format!("expected an object with `tool`, `field`, `comparison` and `value`: {error}"))
}

impl Command {
    /// Returns the organisation given by `--org`.
    pub(super) fn organization(&self) -> Option<&str> {
        let (Self::Add { org, .. } | Self::List { org, .. } | Self::Show { org, .. } | Self::Remove { org, .. }) = self;
        org.org.as_deref()
    }
}

/// Runs the command.
///
/// # Errors
/// If the operation is rejected.
pub async fn run(session: &Session, command: Command) -> anyhow::Result<()> {
    let Session { cx, ops, json, .. } = session;
    let organization = session.organization(command.organization()).await?.id;
    match command {
        Command::Add { options, .. } => {
            let new = NewGrant {
                agent_id: agent::find(session, &organization, &options.agent).await?.agent.id,
                instance_id: find_instance(session, &organization, &options.instance).await?,
                access: options.access,
                names: GrantedNames { tools: options.tool, prompts: options.prompt, resources: options.resource },
                rules: options.rule,
                expires_at: options.expires.map(|expires| expires.time(cx.now())),
            };
            print(*json, &to_json(&grants::create(cx, ops, &organization, &new).await?))
        }
        Command::List { agent, instance, .. } => {
            let agent = match &agent {
                Some(text) => Some(agent::find(session, &organization, text).await?.agent.id),
                None => None,
            };
            let instance = match &instance {
                Some(text) => Some(find_instance(session, &organization, text).await?),
                None => None,
            };
            let filter = GrantFilter { agent: agent.as_ref(), instance: instance.as_ref() };
            let (mut items, mut before) = (Vec::new(), None::<GrantId>);
            loop {
                let page = (before.as_ref(), PAGE_SIZE);
                let found = grants::list(cx, ops, &organization, filter, page).await?;
                before = found.last().map(|last| last.id.clone());
                items.extend(found.iter().map(to_json));
                if before.is_none() {
                    return print_list(*json, items);
                }
            }
        }
        Command::Show { grant, .. } => {
            let found = grants::get(cx, ops, &organization, &parse_id(&grant)?).await;
            print(*json, &to_json(&found.map_err(|error| not_found_message(error, "grant", &grant, "grant"))?))
        }
        Command::Remove { grant, .. } => {
            let deleted = grants::delete(cx, ops, &organization, &parse_id(&grant)?).await;
            deleted.map_err(|error| not_found_message(error, "grant", &grant, "grant"))?;
            print_removed(*json, &grant)
        }
    }
}

/// Returns the ID of the instance with this slug, name or ID.
pub(super) async fn find_instance(
    session: &Session,
    organization: &OrganizationId,
    text: &str,
) -> anyhow::Result<waypost_core::id::InstanceId> {
    let found = instances::resolve(&session.cx, &session.ops, organization, text).await;
    Ok(found.map_err(|error| not_found_message(error, "instance", text, "instance"))?.instance.id)
}

/// Parses the ID of a grant. Grants have no names, so a malformed ID is reported like an unknown one.
pub(super) fn parse_id(text: &str) -> anyhow::Result<GrantId> {
    text.parse().map_err(|_| not_found_message(waypost_core::Error::not_found("grant"), "grant", text, "grant"))
}

pub(super) fn print(json: bool, grant: &Value) -> anyhow::Result<()> {
    output::object(json, grant)
}

pub(super) fn print_list(json: bool, items: Vec<Value>) -> anyhow::Result<()> {
    output::list(json, &["id", "agent_id", "instance_id", "access", "tools", "expires_at"], items)
}

pub(super) fn print_removed(json: bool, id: &str) -> anyhow::Result<()> {
    output::deleted(json, id, &format!("Removed the grant {}.", output::clean(id)))
}

/// The members of a grant, in the order of [`to_json`].
pub(super) const MEMBERS: &[&str] = &[
    "id",
    "agent_id",
    "instance_id",
    "access",
    "tools",
    "prompts",
    "resources",
    "rules",
    "expires_at",
    "created_at",
    "created_by",
];

fn to_json(grant: &Grant) -> Value {
    json!({
        "id": grant.id,
        "agent_id": grant.agent_id,
        "instance_id": grant.instance_id,
        "access": grant.access.as_str(),
        "tools": grant.names.tools,
        "prompts": grant.names.prompts,
        "resources": grant.names.resources,
        "rules": grant.rules,
        "expires_at": grant.expires_at.map(Timestamp::rfc3339),
        "created_at": grant.created_at.rfc3339(),
        "created_by": grant.created_by,
    })
}
