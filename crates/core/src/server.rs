//! A hosted MCP server and its settings.

use crate::clock::Timestamp;
use crate::id::{OauthConfigId, OrganizationId, ServerId};
use crate::walkthrough::names;

names! {
    /// How end users of a server are recognised.
    AuthType {
        /// No sign-in: handle, tracking id or session.
        None = "none",
        /// Asks for an e-mail address, unproved.
        CollectEmail = "collect_email",
        /// Waypost's authorization server signs them in.
        PlatformOauth = "platform_oauth",
        /// The organisation's identity provider signs them in.
        CustomOauth = "custom_oauth",
    }
}

impl AuthType {
    /// Whether end users sign in: then only a token names anybody.
    #[must_use]
    pub fn has_sign_in(self) -> bool {
        matches!(self, Self::PlatformOauth | Self::CustomOauth)
    }
}

names! {
    /// When a server with sign-in asks for it.
    SignInPolicy {
        /// When a call needs a user, except for clients that are known to fail then: those are asked when they connect.
        Auto = "auto",
        /// At the first call that needs an identity.
        WhenNeeded = "when_needed",
        /// At once.
        OnConnect = "on_connect",
    }
}

names! {
    /// Which walkthrough tools a server lists.
    Toolset {
        /// The server leads: select, next, status, reset.
        Guided = "guided",
        /// The client picks steps: details, current, complete, steps.
        Stepwise = "stepwise",
        /// Both.
        All = "all",
    }
}

names! {
    /// Whether a server offers support.
    Support {
        /// No tool for it.
        Off = "off",
        /// The tool `get_support` opens tickets.
        Tickets = "tickets",
    }
}

/// A hosted MCP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// The server.
    pub id: ServerId,
    /// Whose it is.
    pub organization_id: OrganizationId,
    /// Its host name label, unique over all organisations.
    pub slug: String,
    /// Name for people.
    pub name: String,
    /// The product that it guides through.
    pub product_name: String,
    /// How end users are recognised.
    pub auth_type: AuthType,
    /// When it asks for sign-in.
    pub sign_in: SignInPolicy,
    /// The provider that signs end users in; only with `custom_oauth` it is asked.
    pub oauth_config_id: Option<OauthConfigId>,
    /// Whether the walkthrough tools are offered at all.
    pub walkthrough_tools_enabled: bool,
    /// Which of them.
    pub toolset: Toolset,
    /// Whether it offers support.
    pub support: Support,
    /// Origins of browsers that may call it, beside its own hosts.
    pub allowed_origins: Vec<String>,
    /// Whether the public page is served; if not, its address returns 404.
    pub public_page: bool,
    /// Whether search engines may index the public page.
    pub public_page_indexed: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When a setting last changed.
    pub updated_at: Timestamp,
}
