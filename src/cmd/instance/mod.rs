//! `waypost instance`: tool servers that are deployed on toolboxes.
//!
//! Commands that need the link to a machine (`logs`, `tools`, `call`, `stats`) are sent to the running `serve` and are
//! implemented in `remote/instance`. All others work on the database.

mod find;
mod options;
mod show;
mod wait;

use serde_json::Value;
use waypost_core::deployment::Deployment;
use waypost_core::id::{AgentId, OrganizationId};
use waypost_core::organization::Organization;
use waypost_ops::instances::connect;
use waypost_ops::instances::remote::NewRemoteServer;
use waypost_ops::instances::{
    self, CatalogServer, InitialAccess, InitialGrant, InstancePatch, InstanceView, NewInstance, NewServer,
};
use waypost_ops::tool_overrides::ToolOverridePatch;
use waypost_ops::{agents, catalog, deployments, tool_overrides, toolboxes};

use super::agent_secret;
use super::session::{Session, not_found_message};
use super::user::Org;
use super::{App, agent, output};
use find::{find_client, find_entry, find_secret, find_version, find_version_id};
pub(super) use find::{no_entry, no_version};
use options::parse_arguments;
pub(super) use options::{
    CreateOptions, GrantArg, OverrideOptions, SecretArg, ToolArguments, UpdateOptions, apply_all_secrets, apply_secrets,
};
pub(super) use show::{
    CONNECTION_MEMBERS, MEMBERS, OVERRIDE_MEMBERS, confirm_deletion, connection_to_json, deployment_to_json, log_line,
    override_to_json, print, print_connect, print_connections, print_deleted, print_deployments, print_disconnected,
    print_list, print_logs, print_overrides, print_stats, print_tools, to_json,
};
pub(super) use wait::{check_is_served, wait, wait_for_remote};

/// The number of instances or deployments that are read at a time.
const PAGE_SIZE: u32 = 200;

/// Subcommands of `waypost instance`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Create an instance of a catalogue entry and deploy it on a toolbox, or connect to a remote server.
    Create {
        /// Slug, unique in the organisation, at most 24 characters.
        slug: String,
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        options: CreateOptions,
    },
    /// List the instances of an organisation.
    List {
        #[command(flatten)]
        org: Org,
    },
    /// Show an instance.
    Show {
        #[command(flatten)]
        at: At,
    },
    /// Change an instance. Changing anything except `--name` and `--record-contents` deploys it again.
    Update {
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        options: UpdateOptions,
    },
    /// Start a stopped instance.
    Start {
        #[command(flatten)]
        at: At,
    },
    /// Stop an instance. Its server has 30 seconds to exit.
    Stop {
        #[command(flatten)]
        at: At,
    },
    /// Restart an instance, or deploy it again if its deployment failed.
    Restart {
        #[command(flatten)]
        at: At,
    },
    /// Print the address of the page on which an admin connects a remote server that requires OAuth.
    Connect {
        #[command(flatten)]
        at: At,
    },
    /// List the OAuth connections of a remote server: that of the organisation, or those of agents.
    Connections {
        #[command(flatten)]
        at: At,
    },
    /// End an OAuth connection of a remote server, and revoke its tokens at the authorization server.
    Disconnect {
        #[command(flatten)]
        at: At,
        /// Agent whose connection is ended (name or ID) [default: the connection of the organisation].
        #[arg(long, value_name = "AGENT")]
        agent: Option<String>,
    },
    /// Print the log of an instance. Requires a running `waypost serve`.
    Logs {
        #[command(flatten)]
        at: At,
        /// Wait for new lines and print them, until the command is interrupted.
        #[arg(short, long)]
        follow: bool,
        /// Number of lines to print from the end of the log.
        #[arg(long, value_name = "N")]
        tail: Option<u32>,
    },
    /// List the tools of an instance. Requires a running `waypost serve`.
    Tools {
        #[command(flatten)]
        at: At,
    },
    /// List the tools of an instance that have another name or description for agents of the gateway.
    ToolOverrides {
        #[command(flatten)]
        at: At,
    },
    /// Give a tool of an instance another name or description for agents of the gateway. Grants, rules and the call log
    /// refer to the original name.
    ToolOverride {
        #[command(flatten)]
        at: At,
        /// Original name of the tool.
        tool: String,
        #[command(flatten)]
        options: OverrideOptions,
    },
    /// Values of agents for personal secrets.
    AgentSecret {
        #[command(subcommand)]
        command: agent_secret::Command,
    },
    /// Call a tool of an instance and print the MCP result, also if it is an error of the tool. Requires a running
    /// `waypost serve`.
    Call {
        /// Slug, name or ID of the instance.
        instance: String,
        /// Name of the tool.
        tool: String,
        /// Arguments as a JSON object; `-` reads them from standard input [default: {}].
        #[arg(value_name = "JSON", value_parser = parse_arguments)]
        arguments: Option<ToolArguments>,
        #[command(flatten)]
        org: Org,
    },
    /// Print the history of the CPU, memory and network use of an instance. Requires a running `waypost serve`.
    Stats {
        #[command(flatten)]
        at: At,
    },
    /// List the deployments of an instance, newest first.
    Deployments {
        #[command(flatten)]
        at: At,
    },
    /// Delete an instance with its containers, volumes and logs.
    Delete {
        #[command(flatten)]
        at: At,
        /// Do not ask for confirmation.
        #[arg(long)]
        yes: bool,
    },
}

/// An instance of an organisation.
#[derive(Debug, clap::Args)]
pub struct At {
    /// Slug, name or ID of the instance.
    pub(super) instance: String,
    #[command(flatten)]
    org: Org,
}

impl Command {
    /// Returns the organisation given by `--org`.
    pub(super) fn organization(&self) -> Option<&str> {
        let org = match self {
            Self::AgentSecret { command } => return command.organization(),
            Self::Create { org, .. } | Self::List { org } | Self::Call { org, .. } => org,
            Self::Show { at }
            | Self::Update { at, .. }
            | Self::Start { at }
            | Self::Stop { at }
            | Self::Restart { at }
            | Self::Connect { at }
            | Self::Connections { at }
            | Self::Disconnect { at, .. }
            | Self::Logs { at, .. }
            | Self::Tools { at }
            | Self::ToolOverrides { at }
            | Self::ToolOverride { at, .. }
            | Self::Stats { at }
            | Self::Deployments { at }
            | Self::Delete { at, .. } => &at.org,
        };
        org.org.as_deref()
    }

    /// Whether the command needs the link to a machine, which only the running `serve` has.
    pub(super) fn needs_link(&self) -> bool {
        matches!(self, Self::Logs { .. } | Self::Tools { .. } | Self::Call { .. } | Self::Stats { .. })
    }
}

/// Runs a command that does not need the link to a machine.
///
/// # Errors
/// If the operation is rejected, or the deployment that the command waits for fails.
pub async fn run(app: &App, session: &Session, command: Command) -> anyhow::Result<()> {
    let Session { cx, json, .. } = session;
    let Organization { id: organization, slug, .. } = session.organization(command.organization()).await?;
    // The instance limit is a setting.
    let ops = &session.ops.clone().with_instance_limit(app.settings.instance_limit);
    match command {
        Command::Create { slug, options, .. } => create(app, session, &organization, slug, options).await,
        Command::List { .. } => {
            let (mut items, mut after) = (Vec::new(), None::<String>);
            loop {
                let found = instances::list(cx, ops, &organization, after.as_deref(), PAGE_SIZE).await?;
                after = found.last().map(|last| last.instance.slug.clone());
                items.extend(found.iter().map(to_json));
                if after.is_none() {
                    return print_list(*json, items);
                }
            }
        }
        Command::Show { at } => print(*json, to_json(&find(session, &organization, &at).await?)),
        Command::Update { at, options } => update(app, session, &organization, &at, options).await,
        Command::Start { at } => {
            let id = find(session, &organization, &at).await?.instance.id;
            print(*json, to_json(&instances::start(cx, ops, &organization, &id).await?))
        }
        Command::Stop { at } => {
            let id = find(session, &organization, &at).await?.instance.id;
            print(*json, to_json(&instances::stop(cx, ops, &organization, &id).await?))
        }
        Command::Restart { at } => {
            let id = find(session, &organization, &at).await?.instance.id;
            print(*json, to_json(&instances::restart(cx, ops, &organization, &id).await?))
        }
        Command::Connect { at } => {
            let found = to_json(&find(session, &organization, &at).await?);
            let url = app.settings.public_url(app.settings.listen.port());
            print_connect(*json, &found, &url.origin().ascii_serialization(), &slug)
        }
        Command::Connections { at } => {
            let id = find(session, &organization, &at).await?.instance.id;
            let (mut items, mut after) = (Vec::new(), None::<AgentId>);
            loop {
                let found = connect::list(cx, ops, &organization, &id, (after.as_ref(), PAGE_SIZE)).await?;
                after = found.last().and_then(|last| last.agent_id.clone());
                items.extend(found.iter().map(connection_to_json));
                if after.is_none() {
                    return print_connections(*json, items);
                }
            }
        }
        Command::Disconnect { at, agent } => {
            let found = find(session, &organization, &at).await?.instance;
            let agent = match &agent {
                Some(text) => {
                    let agent = agents::resolve(cx, ops, &organization, text).await;
                    Some(agent.map_err(|error| not_found_message(error, "agent", text, "agent"))?.agent.id)
                }
                None => None,
            };
            let ops = session.connected_ops(app)?;
            connect::disconnect(cx, &ops, &organization, &found.id, agent.as_ref()).await?;
            print_disconnected(*json, agent.as_ref().map_or("shared", AgentId::as_str), &found.slug)
        }
        Command::Deployments { at } => {
            let id = find(session, &organization, &at).await?.instance.id;
            let (mut items, mut before) = (Vec::new(), None::<u64>);
            loop {
                let found = deployments::list(cx, ops, &organization, &id, before, PAGE_SIZE).await?;
                before = found.last().map(|last| last.generation);
                items.extend(found.iter().map(deployment_to_json));
                if before.is_none() {
                    return print_deployments(*json, items);
                }
            }
        }
        Command::ToolOverrides { at } => {
            let id = find(session, &organization, &at).await?.instance.id;
            let found = tool_overrides::list(cx, ops, &organization, &id).await?;
            print_overrides(*json, found.iter().map(override_to_json).collect())
        }
        Command::ToolOverride { at, tool, options } => {
            let id = find(session, &organization, &at).await?.instance.id;
            let change = ToolOverridePatch { tool, name: options.name(), description: options.description() };
            let updated = tool_overrides::update(cx, ops, &organization, &id, &change).await?;
            output::object(*json, &override_to_json(&updated))
        }
        Command::AgentSecret { command } => agent_secret::run(app, session, &organization, command).await,
        Command::Delete { at, yes } => {
            let found = find(session, &organization, &at).await?.instance;
            confirm_deletion(yes, &found.slug)?;
            // Revokes the tokens of its connections.
            let ops = match found.container().is_err() {
                true => session.deleting_ops(app),
                false => ops.clone(),
            };
            instances::delete(cx, &ops, &organization, &found.id).await?;
            print_deleted(*json, found.id.as_str(), &found.slug)
        }
        Command::Logs { .. } | Command::Tools { .. } | Command::Call { .. } | Command::Stats { .. } => {
            anyhow::bail!("this command needs a running `waypost serve`")
        }
    }
}

async fn find(session: &Session, organization: &OrganizationId, at: &At) -> anyhow::Result<InstanceView> {
    let found = instances::resolve(&session.cx, &session.ops, organization, &at.instance).await;
    found.map_err(|error| not_found_message(error, "instance", &at.instance, "instance"))
}

async fn create(
    app: &App,
    session: &Session,
    organization: &OrganizationId,
    slug: String,
    options: CreateOptions,
) -> anyhow::Result<()> {
    let cx = &session.cx;
    let mut secrets = Vec::new();
    for argument in &options.settings.secrets {
        secrets.push((argument, find_secret(session, organization, argument).await?));
    }
    let server = match options.read_url()? {
        Some(url) => NewServer::Remote(NewRemoteServer {
            url,
            transport: options.transport,
            is_oauth: options.oauth,
            connection: options.connection,
            client: find_client(session, organization, &options).await?,
        }),
        None => NewServer::Catalog(find_container(session, organization, &options).await?),
    };
    let name = options.settings.name.clone();
    let mut access = InitialAccess { approve: options.approve, grants: Vec::new() };
    for GrantArg { agent, access: level } in &options.grants {
        let agent_id = agent::find(session, organization, agent).await?.agent.id;
        access.grants.push(InitialGrant { agent_id, access: *level });
    }
    let new = NewInstance { slug, name, server, secrets: apply_secrets(Default::default(), secrets), access };
    let ops = session.connected_ops(app)?.with_instance_limit(app.settings.instance_limit);
    let created = instances::create(cx, &ops, organization, &new).await?;
    finish(app, session, created, options.settings.wait).await
}

async fn find_container(
    session: &Session,
    organization: &OrganizationId,
    options: &CreateOptions,
) -> anyhow::Result<CatalogServer> {
    let Session { cx, ops, .. } = session;
    let config = options.settings.read_config()?.unwrap_or_default();
    let name = options.entry.as_deref().unwrap_or_default();
    let entry = catalog::resolve(cx, ops, organization, name).await;
    let entry = entry.map_err(|error| not_found_message(error, "catalogue entry", name, "catalog"))?;
    let toolbox_id = match &options.toolbox {
        Some(text) => {
            let toolbox = toolboxes::resolve(cx, ops, organization, text).await;
            Some(toolbox.map_err(|error| not_found_message(error, "toolbox", text, "toolbox"))?.toolbox.id)
        }
        None => None,
    };
    Ok(CatalogServer {
        catalog_version_id: find_version(&entry.versions, options.settings.version.as_deref(), &entry.slug)?,
        toolbox_id,
        config,
        personal_secrets: options.settings.personal_secrets.iter().cloned().collect(),
        learn_egress: options.learn_egress,
    })
}

async fn update(
    app: &App,
    session: &Session,
    organization: &OrganizationId,
    at: &At,
    options: UpdateOptions,
) -> anyhow::Result<()> {
    let cx = &session.cx;
    let config = options.settings.read_config()?;
    let InstanceView { instance, deployment: before } = find(session, organization, at).await?;
    let generation = instance.generation;
    let catalog_version_id = match &options.settings.version {
        Some(version) => {
            let entry = find_entry(session, organization, find_version_id(&instance)?).await?;
            Some(find_version(&entry.versions, Some(version), &entry.slug)?)
        }
        None => None,
    };
    let mut changes = Vec::new();
    for argument in &options.settings.secrets {
        changes.push((argument, find_secret(session, organization, argument).await?));
    }
    let current = instance.secrets.into_iter().map(|used| (used.name, used.secret_id)).collect();
    let personal = instance.personal_secrets.into_iter().map(|secret| secret.name).collect();
    let names = &options.settings.personal_secrets;
    let secrets = (!changes.is_empty() || !names.is_empty())
        .then(|| apply_all_secrets((current, personal), changes, names))
        .unzip();
    let patch = InstancePatch {
        name: options.settings.name.clone(),
        catalog_version_id,
        config,
        secrets: secrets.0,
        personal_secrets: secrets.1,
        learn_egress: options.learn_egress,
        record_contents: options.record_contents,
        remote: None,
    };
    // The URL of another version of a remote server is sealed to the instance.
    let ops = session.connected_ops(app)?;
    let updated = instances::update(cx, &ops, organization, &instance.id, &patch).await?;
    let id = |deployment: &Option<Deployment>| deployment.as_ref().map(|deployment| deployment.id.clone());
    let is_deployed = id(&updated.deployment) != id(&before) || updated.instance.generation != generation;
    finish(app, session, updated, options.settings.wait && is_deployed).await
}

/// Prints an instance. If `should_wait` is set, waits until its deployment has ended first.
async fn finish(app: &App, session: &Session, view: InstanceView, should_wait: bool) -> anyhow::Result<()> {
    if !should_wait {
        return print(session.json, to_json(&view));
    }
    let InstanceView { instance, deployment } = &view;
    let Session { cx, ops, json, .. } = session;
    check_is_served(app, &instance.slug)?;
    let organization = &instance.organization_id;
    let outcome = match deployment {
        Some(deployment) => {
            let outcome = wait(*json, &instance.slug, async || {
                let found = deployments::get(cx, ops, organization, &instance.id, &deployment.id).await?;
                Ok::<Value, anyhow::Error>(deployment_to_json(&found))
            });
            outcome.await
        }
        None => {
            let outcome = wait_for_remote(&instance.slug, async || {
                Ok(to_json(&instances::get(cx, ops, organization, &instance.id).await?))
            });
            outcome.await
        }
    };
    print(*json, to_json(&instances::get(cx, ops, organization, &instance.id).await?))?;
    outcome
}
