//! `waypost server`: hosted MCP servers.

use clap::ArgAction;
use serde_json::{Value, json};
use waypost_core::server::{AuthType, Server, SignInPolicy, Support, Toolset};
use waypost_ops::servers::{self, ServerSettings};

use super::output;
use super::session::{Session, not_found_message, one_of};
use super::user::Org;

/// Subcommands of `waypost server`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Create a server.
    Create {
        /// Slug, used in the server's URLs; unique across all organisations.
        slug: String,
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        flags: Flags,
    },
    /// List the servers of an organisation.
    List {
        #[command(flatten)]
        org: Org,
    },
    /// Show a server.
    Show {
        /// Slug or ID of the server.
        server: String,
    },
    /// Change the given settings of a server.
    Update {
        /// Slug or ID of the server.
        server: String,
        /// New slug. The old slug remains valid until it is released.
        #[arg(long)]
        slug: Option<String>,
        #[command(flatten)]
        flags: Flags,
    },
    /// Release a former slug so that another server can use it.
    ReleaseSlug {
        /// Slug or ID of the server.
        server: String,
        /// Former slug to release.
        former: String,
    },
    /// Delete a server with its assignments and all progress of its end users.
    Delete {
        /// Slug or ID of the server.
        server: String,
        /// Do not ask for confirmation.
        #[arg(long)]
        yes: bool,
    },
}

/// Settings of a server.
#[derive(Debug, clap::Args)]
pub struct Flags {
    /// Display name [default: the slug].
    #[arg(long)]
    name: Option<String>,
    /// Name of the product that the walkthroughs are about [default: the name].
    #[arg(long)]
    product: Option<String>,
    /// How end users are identified [default: none].
    #[arg(long, value_parser = one_of(AuthType::ALL, AuthType::as_str))]
    auth_type: Option<AuthType>,
    /// When users are asked to sign in [default: auto]. With `auto`, clients that are known to fail if asked during a session
    /// are asked when they connect, others when a call requires a user.
    #[arg(long, value_parser = one_of(SignInPolicy::ALL, SignInPolicy::as_str))]
    sign_in: Option<SignInPolicy>,
    /// Identity provider for `custom_oauth` (name or ID), or `none` [default: the organisation's only provider].
    #[arg(long, value_name = "PROVIDER")]
    oauth_config: Option<String>,
    /// Walkthrough tools to list [default: guided].
    #[arg(long, value_parser = one_of(Toolset::ALL, Toolset::as_str))]
    toolset: Option<Toolset>,
    /// Whether to list walkthrough tools [default: true].
    #[arg(long, value_name = "BOOL", action = ArgAction::Set)]
    walkthrough_tools: Option<bool>,
    /// Whether agents can open support tickets [default: off].
    #[arg(long, value_parser = one_of(Support::ALL, Support::as_str))]
    support: Option<Support>,
    /// Origin of a browser-based client that may call the server; can be repeated; `none` removes all.
    #[arg(long = "allowed-origin", value_name = "ORIGIN")]
    allowed_origins: Option<Vec<String>>,
    /// Whether to serve the public page [default: true].
    #[arg(long, value_name = "BOOL", action = ArgAction::Set)]
    public_page: Option<bool>,
    /// Whether search engines may index the public page [default: false].
    #[arg(long, value_name = "BOOL", action = ArgAction::Set)]
    public_page_indexed: Option<bool>,
}

impl Flags {
    /// Converts the flags to settings.
    pub(super) fn settings(self, slug: Option<String>) -> ServerSettings {
        let allowed_origins = self.allowed_origins.map(|mut origins| {
            origins.retain(|origin| origin != "none");
            origins
        });
        ServerSettings {
            slug,
            name: self.name,
            product_name: self.product,
            auth_type: self.auth_type,
            sign_in: self.sign_in,
            oauth_config: self.oauth_config,
            walkthrough_tools_enabled: self.walkthrough_tools,
            toolset: self.toolset,
            support: self.support,
            allowed_origins,
            public_page: self.public_page,
            public_page_indexed: self.public_page_indexed,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// If the operation is rejected.
pub async fn run(session: &Session, command: Command) -> anyhow::Result<()> {
    let Session { cx, ops, json, .. } = session;
    match command {
        Command::Create { slug, org, flags } => {
            let organization = session.organization(org.org.as_deref()).await?.id;
            let created = servers::create(cx, ops, &organization, &slug, &flags.settings(None)).await?;
            output::object(*json, &to_json(&created))
        }
        Command::List { org } => {
            let organization = session.organization(org.org.as_deref()).await?.id;
            print_list(*json, servers::list(cx, ops, &organization).await?.iter().map(to_json).collect())
        }
        Command::Show { server } => show(session, &find(session, &server).await?).await,
        Command::Update { server, slug, flags } => {
            let current = find(session, &server).await?;
            let settings = flags.settings(slug);
            let updated = servers::update(cx, ops, &current.organization_id, &current.id, &settings).await?;
            show(session, &updated).await
        }
        Command::ReleaseSlug { server, former } => {
            let server = find(session, &server).await?;
            servers::release_slug(cx, ops, &server.organization_id, &server.id, &former).await?;
            show(session, &server).await
        }
        Command::Delete { server, yes } => {
            let server = find(session, &server).await?;
            let slug = &server.slug;
            confirm_deletion(yes, slug)?;
            servers::delete(cx, ops, &server.organization_id, &server.id).await?;
            print_deleted(*json, server.id.as_str(), slug)
        }
    }
}

pub(super) async fn find(session: &Session, text: &str) -> anyhow::Result<Server> {
    let server = servers::resolve(&session.cx, &session.ops, text).await;
    server.map_err(|error| not_found_message(error, "server", text, "server"))
}

/// Prints a server, including its former slugs.
async fn show(session: &Session, server: &Server) -> anyhow::Result<()> {
    let former = servers::list_former_slugs(&session.cx, &session.ops, &server.organization_id, &server.id).await?;
    let mut value = to_json(server);
    value["former_slugs"] = json!(former);
    output::object(session.json, &value)
}

pub(super) fn print_list(json: bool, items: Vec<Value>) -> anyhow::Result<()> {
    output::list(json, &["slug", "name", "product_name", "auth_type", "toolset", "id"], items)
}

pub(super) fn confirm_deletion(yes: bool, slug: &str) -> anyhow::Result<()> {
    output::confirm(yes, &format!("Delete the server {slug} with its assignments and the progress of all users?"))
}

pub(super) fn print_deleted(json: bool, id: &str, slug: &str) -> anyhow::Result<()> {
    output::deleted(json, id, &format!("Deleted the server {slug}."))
}

/// The members of the output, in the order of [`to_json`].
pub(super) const MEMBERS: &[&str] = &[
    "id",
    "organization_id",
    "slug",
    "name",
    "product_name",
    "auth_type",
    "sign_in",
    "oauth_config_id",
    "walkthrough_tools_enabled",
    "toolset",
    "support",
    "allowed_origins",
    "public_page",
    "public_page_indexed",
    "created_at",
    "updated_at",
];

fn to_json(server: &Server) -> Value {
    json!({
        "id": server.id,
        "organization_id": server.organization_id,
        "slug": server.slug,
        "name": server.name,
        "product_name": server.product_name,
        "auth_type": server.auth_type.as_str(),
        "sign_in": server.sign_in.as_str(),
        "oauth_config_id": server.oauth_config_id,
        "walkthrough_tools_enabled": server.walkthrough_tools_enabled,
        "toolset": server.toolset.as_str(),
        "support": server.support.as_str(),
        "allowed_origins": server.allowed_origins,
        "public_page": server.public_page,
        "public_page_indexed": server.public_page_indexed,
        "created_at": server.created_at.rfc3339(),
        "updated_at": server.updated_at.rfc3339(),
    })
}
