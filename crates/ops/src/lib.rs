//! The operations: everything that a caller can do, shared by the console, the API, the MCP tools and the command line.
//!
//! Every operation takes the context as its first argument, authorizes the caller, validates the arguments, and writes
//! its changes and the audit entry in one transaction. Objects that the caller must not know about are reported as
//! `not_found`. The operations of end users on hosted servers are in [`progress`]; they use a [`hosting::Hosting`].

pub mod accounts;
pub mod activity;
pub mod agent_secrets;
pub mod agent_tokens;
pub mod agents;
pub mod analytics;
pub mod api_keys;
pub mod assignments;
mod audit;
pub mod audit_events;
pub mod audit_export;
pub mod authorizations;
pub mod browser_sessions;
mod caches;
pub mod call_contents;
pub mod call_records;
pub mod calls;
pub mod catalog;
mod checks;
pub mod claim_links;
mod codes;
mod config_template;
pub mod deployments;
pub mod devices;
pub mod end_users;
mod fair_queue;
pub mod follows;
pub mod gateway_sign_in;
pub mod gateway_url;
pub mod grants;
pub mod hosting;
pub mod idempotency;
pub mod identities;
pub mod identity;
pub mod identity_provider;
pub mod instances;
pub mod invitation_emails;
pub mod invitations;
pub mod job_leases;
pub mod joins;
pub mod limits;
pub mod link_leases;
pub mod login;
pub mod logos;
pub mod notifications;
pub mod oauth_clients;
pub mod oauth_configs;
pub mod oauth_grants;
pub mod offers;
pub mod organizations;
mod origins;
pub mod overview;
mod passwords;
pub mod progress;
pub mod public_url;
pub mod redirect_uri;
pub mod remote_checks;
mod remote_endpoint;
mod remote_servers;
pub mod remote_tokens;
pub mod retention;
pub mod search;
pub mod secret_key;
pub mod servers;
pub mod sessions;
mod sign_in_limits;
mod slots;
mod slugs;
pub mod spreadsheet;
pub mod ticket_comments;
pub mod ticket_creation;
pub mod ticket_replies;
pub mod tickets;
pub mod tool_access;
pub mod tool_approvals;
pub mod tool_definitions;
pub mod tool_overrides;
pub mod tool_secrets;
pub mod tool_sets;
mod toolbox_access;
pub mod toolbox_counts;
pub mod toolbox_directory;
pub mod toolboxes;
pub mod try_it;
pub mod user_accounts;
pub mod user_sessions;
pub mod users;
pub mod visibility;
pub mod walkthroughs;
pub mod webhook_deliveries;
pub mod webhooks;

use std::sync::Arc;

use waypost_core::caller::Ctx;
use waypost_core::id::OrganizationId;
use waypost_core::seal::Keyring;
use waypost_core::{Error, Result};
use waypost_link::{Forward, Links};
use waypost_mcp_wire::memory::{MemoryShare, MessageMemory};
use waypost_outbound::{Outbound, Purpose, Route};
use waypost_store::{Db, organization};

pub use toolbox_access::ToolboxSwitch;

/// The resources that operations use. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ops {
    pub(crate) store: Db,
    outbound: Option<Outbound>,
    keyring: Option<Keyring>,
    pub(crate) notifier: notifications::Notifications,
    /// Shared by all clones, like the sign-in limits, so that both apply to the whole process.
    pub(crate) passwords: passwords::Passwords,
    pub(crate) sign_in_limits: sign_in_limits::SignInLimits,
    pub(crate) instance_limit: u32,
    background: Ctx,
    toolboxes: ToolboxSwitch,
    links: Links,
    /// The origin of the console, for URLs of pages in messages.
    console_origin: String,
    pub(crate) remote_servers: remote_servers::RemoteServers,
    pub(crate) connection_limit: limits::ConnectionLimit,
    pub(crate) calls: slots::Slots,
    pub(crate) follows: slots::Slots,
    pub(crate) tool_access: tool_access::AccessEntries,
    message_memory: MessageMemory,
}

/// The maximum memory that a process uses for large messages of tool servers, in bytes.
const MESSAGE_MEMORY: usize = 256 * 1024 * 1024;

/// The default maximum number of instances of an organisation.
pub const INSTANCE_LIMIT: u32 = 5;

impl Ops {
    /// Creates operations on `store` without a keyring or an HTTP client, which is sufficient for everything except
    /// identity providers, webhooks, stored responses, secrets of tool servers and imports of images by tag.
    #[must_use]
    pub fn new(store: Db) -> Self {
        let background = Ctx::operator();
        Self {
            store,
            outbound: None,
            keyring: None,
            notifier: notifications::Notifications::default(),
            passwords: passwords::Passwords::default(),
            sign_in_limits: sign_in_limits::SignInLimits::default(),
            instance_limit: INSTANCE_LIMIT,
            connection_limit: limits::ConnectionLimit::new(Arc::clone(&background.clock)),
            background,
            toolboxes: ToolboxSwitch::On,
            links: Links::new(),
            console_origin: String::new(),
            remote_servers: remote_servers::RemoteServers::default(),
            calls: slots::Slots::new(instances::call::MAX_CALLS),
            follows: slots::Slots::new(follows::MAX_FOLLOWS),
            tool_access: tool_access::AccessEntries::default(),
            message_memory: MessageMemory::new(MESSAGE_MEMORY),
        }
    }

    /// Returns the links to toolboxes. All clones share them.
    #[must_use]
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// Sets the HTTP client for requests to URLs that users specify.
    #[must_use]
    pub fn with_outbound(self, outbound: Outbound) -> Self {
        Self { outbound: Some(outbound), ..self }
    }

    /// Sets the keys that seal and open stored secrets.
    #[must_use]
    pub fn with_keyring(self, keyring: Keyring) -> Self {
        Self { keyring: Some(keyring), ..self }
    }

    /// Sets the origin of the console. Without it, messages contain only the paths of pages.
    #[must_use]
    pub fn with_console_origin(self, console_origin: String) -> Self {
        Self { console_origin, ..self }
    }

    /// Returns the URL of a page of the console.
    pub(crate) fn console_url(&self, path: &str) -> String {
        format!("{}{path}", self.console_origin)
    }

    /// Sets the notifier, which sends emails.
    #[must_use]
    pub fn with_notifier(self, notifier: Arc<dyn notifications::Notifier>) -> Self {
        Self { notifier: notifications::Notifications::new(notifier), ..self }
    }

    /// Sets the maximum number of instances of an organisation.
    #[must_use]
    pub fn with_instance_limit(self, instance_limit: u32) -> Self {
        Self { instance_limit, ..self }
    }

    /// Sets the context of work that is done on behalf of a call through the gateway, such as the refresh of a token.
    /// By default, it has the clock and the random number generator of the system.
    #[must_use]
    pub fn with_background(self, background: Ctx) -> Self {
        let connection_limit = limits::ConnectionLimit::new(Arc::clone(&background.clock));
        Self { background, connection_limit, ..self }
    }

    pub(crate) fn background(&self) -> &Ctx {
        &self.background
    }

    /// Switches toolboxes and instances on or off for the whole installation.
    #[must_use]
    pub fn with_toolboxes(self, toolboxes: ToolboxSwitch) -> Self {
        Self { toolboxes, ..self }
    }

    /// Sets how requests are forwarded to toolboxes that have no link to this process.
    #[must_use]
    pub fn with_forward(self, forward: Arc<dyn Forward>) -> Self {
        Self { links: self.links.with_forward(forward), ..self }
    }

    /// Whether toolboxes and instances are switched on for the installation.
    #[must_use]
    pub fn is_toolboxes_enabled(&self) -> bool {
        self.toolboxes == ToolboxSwitch::On
    }

    /// Returns an organisation's share of the memory for large messages of tool servers.
    pub(crate) fn message_memory(&self, organization: &OrganizationId) -> MemoryShare {
        self.message_memory.share(organization.as_str())
    }

    /// Returns the number of passwords that this process has hashed or verified.
    #[must_use]
    pub fn hashed_passwords(&self) -> u64 {
        self.passwords.hashed()
    }

    /// Returns the database.
    #[must_use]
    pub fn store(&self) -> &Db {
        &self.store
    }

    /// Returns the keys that seal and open stored secrets.
    ///
    /// # Errors
    /// `internal` if there is no keyring.
    pub fn keyring(&self) -> Result<&Keyring> {
        self.keyring.as_ref().ok_or_else(|| Error::internal("operations without a keyring cannot use secrets"))
    }

    /// Returns the HTTP client for requests to URLs that users specify.
    ///
    /// # Errors
    /// `internal` if there is no HTTP client.
    pub fn outbound(&self) -> Result<&Outbound> {
        self.outbound.as_ref().ok_or_else(|| Error::internal("operations without an HTTP client cannot send requests"))
    }

    /// Returns the route for requests with `purpose` to URLs that users of `organization` have specified. Reads the
    /// organisation's slug if an entry of `outbound_allow` for this purpose names an organisation.
    ///
    /// # Errors
    /// Returns an error if the store fails or the HTTP client cannot be created.
    pub async fn route(&self, purpose: Purpose, organization: &OrganizationId) -> Result<Route> {
        let outbound = self.outbound()?;
        let slug = match outbound.is_limited_to_organizations(purpose) {
            true => organization::find(&mut self.store.read().await?, organization)
                .await?
                .map(|organization| organization.slug),
            false => None,
        };
        let names: Vec<&str> = std::iter::once(organization.as_str()).chain(slug.as_deref()).collect();
        outbound.route(purpose, &names).map_err(Error::internal)
    }

    /// Returns the route for requests with `purpose` to URLs that belong to no organisation. Entries of
    /// `outbound_allow` that name an organisation do not apply.
    ///
    /// # Errors
    /// Returns an error if the HTTP client cannot be created.
    pub fn route_without_organization(&self, purpose: Purpose) -> Result<Route> {
        self.outbound()?.route(purpose, &[]).map_err(Error::internal)
    }
}
