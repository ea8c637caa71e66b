//! `waypost server`: hosted MCP servers.

use clap::ArgAction;
use serde_json::{Value, json};
use waypost_core::server::{AuthType, Server, SignInPolicy, Support, Toolset};
use waypost_ops::servers::{self, ServerSettings};

use super::output;
use super::session::{Session, named, one_of};
use super::user::Org;

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Makes a server.
    Create {
        /// Its host name label, unique over all organisations.
        slug: String,
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        flags: Flags,
    },
    /// Lists the servers of an organisation.
    List {
        #[command(flatten)]
        org: Org,
    },
    /// Shows a server.
    Show {
        /// Slug or id.
        server: String,
    },
    /// Changes what is named.
    Update {
        /// Slug or id.
        server: String,
        /// A new slug; the old one goes on serving until it is released.
        #[arg(long)]
        slug: Option<String>,
        #[command(flatten)]
        flags: Flags,
    },
    /// Stops serving a former slug, so that another server can have it.
    ReleaseSlug {
        /// Slug or id of the server.
        server: String,
        /// The former slug.
        former: String,
    },
    /// Deletes a server with its assignments and its end users' progress.
    Delete {
        /// Slug or id.
        server: String,
        /// Does not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// What can be set.
#[derive(Debug, clap::Args)]
pub struct Flags {
    /// Name for people; the slug by default.
    #[arg(long)]
    name: Option<String>,
    /// The product that it guides through; the name by default.
    #[arg(long)]
    product: Option<String>,
    /// How end users are recognised; `none` by default.
    #[arg(long, value_parser = one_of(AuthType::ALL, AuthType::as_str))]
    auth_type: Option<AuthType>,
    /// When it asks users to sign in; `auto` by default: clients that are known to fail during a session are asked
    /// when they connect, others when a call needs a user.
    #[arg(long, value_parser = one_of(SignInPolicy::ALL, SignInPolicy::as_str))]
    sign_in: Option<SignInPolicy>,
    /// The provider that signs end users in with `custom_oauth`, by name or id; by default the only one of the
    /// organisation; `none` for none.
    #[arg(long, value_name = "PROVIDER")]
    oauth_config: Option<String>,
    /// Which walkthrough tools it lists; `guided` by default.
    #[arg(long, value_parser = one_of(Toolset::ALL, Toolset::as_str))]
    toolset: Option<Toolset>,
    /// Whether it lists walkthrough tools at all; `true` by default.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set)]
    walkthrough_tools: Option<bool>,
    /// Whether it offers support; `off` by default.
    #[arg(long, value_parser = one_of(Support::ALL, Support::as_str))]
    support: Option<Support>,
    /// Origin of browsers that may call it; several times for several, `none` for no other than its own.
    #[arg(long = "allowed-origin", value_name = "ORIGIN")]
    allowed_origins: Option<Vec<String>>,
    /// Whether the public page is served; `true` by default.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set)]
    public_page: Option<bool>,
    /// Whether search engines may index the public page; `false` by default.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set)]
    public_page_indexed: Option<bool>,
}

impl Flags {
    /// As the acts take them.
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

/// Does it.
///
/// # Errors
/// When the act is refused.
pub async fn run(session: &Session, command: Command) -> anyhow::Result<()> {
    let Session { cx, ops, json, .. } = session;
    match command {
        Command::Create { slug, org, flags } => {
            let organization = session.organization(org.org.as_deref()).await?.id;
            let made = servers::create(cx, ops, &organization, &slug, &flags.settings(None)).await?;
            output::object(*json, &shape(&made))
        }
        Command::List { org } => {
            let organization = session.organization(org.org.as_deref()).await?.id;
            print_list(*json, servers::list(cx, ops, &organization).await?.iter().map(shape).collect())
        }
        Command::Show { server } => show(session, &find(session, &server).await?).await,
        Command::Update { server, slug, flags } => {
            let old = find(session, &server).await?;
            let settings = flags.settings(slug);
            let changed = servers::update(cx, ops, &old.organization_id, &old.id, &settings).await?;
            show(session, &changed).await
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
            deleted(*json, server.id.as_str(), slug)
        }
    }
}

pub(super) async fn find(session: &Session, text: &str) -> anyhow::Result<Server> {
    let found = servers::resolve(&session.cx, &session.ops, text).await;
    found.map_err(|error| named(error, "server", text, "server"))
}

/// With what only one server at a time is asked for.
async fn show(session: &Session, server: &Server) -> anyhow::Result<()> {
    let former = servers::list_former_slugs(&session.cx, &session.ops, &server.organization_id, &server.id).await?;
    let mut value = shape(server);
    value["former_slugs"] = json!(former);
    output::object(session.json, &value)
}

pub(super) fn print_list(json: bool, items: Vec<Value>) -> anyhow::Result<()> {
    output::list(json, &["slug", "name", "product_name", "auth_type", "toolset", "id"], items)
}

pub(super) fn confirm_deletion(yes: bool, slug: &str) -> anyhow::Result<()> {
    output::confirm(yes, &format!("Delete the server {slug} with its assignments and everybody's progress?"))
}

pub(super) fn deleted(json: bool, id: &str, slug: &str) -> anyhow::Result<()> {
    output::deleted(json, id, &format!("Deleted the server {slug}."))
}

/// What is shown of one, as [`shape`] writes it.
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

fn shape(server: &Server) -> Value {
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
