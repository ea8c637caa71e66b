//! A hosted MCP server and its settings.

use crate::clock::Timestamp;
use crate::id::{OauthConfigId, OrganizationId, ServerId};
use crate::walkthrough::names;

names! {
    /// The method by which end users of a server are identified.
    AuthType {
        /// No sign-in: by handle, tracking ID or session.
        None = "none",
        /// Users are asked for an unverified email.
        CollectEmail = "collect_email",
        /// Users sign in with Waypost's authorization server.
        PlatformOauth = "platform_oauth",
        /// Users sign in with the organisation's identity provider.
        CustomOauth = "custom_oauth",
    }
}

impl AuthType {
    /// Whether end users sign in. If so, only a token identifies a user.
    #[must_use]
    pub fn has_sign_in(self) -> bool {
        matches!(self, Self::PlatformOauth | Self::CustomOauth)
    }
}

names! {
    /// The policy that determines when a server asks users to sign in.
    SignInPolicy {
        /// When a call needs a user. Clients that are known to fail in this case are asked when they connect.
        Auto = "auto",
        /// On the first call that needs an identity.
        WhenNeeded = "when_needed",
        /// When the client connects.
        OnConnect = "on_connect",
    }
}

names! {
    /// The walkthrough tools that a server lists.
    Toolset {
        /// The server leads through the steps: select, next, status, reset.
        Guided = "guided",
        /// The client selects steps: details, current, complete, steps.
        Stepwise = "stepwise",
        /// Both.
        All = "all",
    }
}

names! {
    /// The support that a server offers.
    Support {
        /// None.
        Off = "off",
        /// The tool `get_support` creates tickets.
        Tickets = "tickets",
    }
}

/// A hosted MCP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// The server's ID.
    pub id: ServerId,
    /// The organisation that owns the server.
    pub organization_id: OrganizationId,
    /// The host name label, unique across all organisations.
    pub slug: String,
    /// Display name.
    pub name: String,
    /// The name of the product that the walkthroughs are about.
    pub product_name: String,
    /// The method by which end users are identified.
    pub auth_type: AuthType,
    /// The policy that determines when users are asked to sign in.
    pub sign_in: SignInPolicy,
    /// The identity provider for `custom_oauth`.
    pub oauth_config_id: Option<OauthConfigId>,
    /// Whether the walkthrough tools are listed.
    pub walkthrough_tools_enabled: bool,
    /// The walkthrough tools to list.
    pub toolset: Toolset,
    /// The support that the server offers.
    pub support: Support,
    /// Allowed browser origins in addition to the server's own hosts.
    pub allowed_origins: Vec<String>,
    /// Whether the public page is served. If not, its URL returns 404.
    pub public_page: bool,
    /// Whether search engines may index the public page.
    pub public_page_indexed: bool,
    /// When the server was created.
    pub created_at: Timestamp,
    /// When a setting was last changed.
    pub updated_at: Timestamp,
}
