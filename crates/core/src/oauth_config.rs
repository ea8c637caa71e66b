//! An organisation's identity provider, which signs end users in on servers with `custom_oauth`.

use crate::clock::Timestamp;
use crate::id::{OauthConfigId, OrganizationId};
use crate::walkthrough::names;

names! {
    /// The provider's protocol.
    ProviderKind {
        /// OpenID Connect: an ID token identifies the user.
        Openid = "openid",
        /// Plain OAuth: only the userinfo endpoint identifies the user.
        Oauth = "oauth",
    }
}

names! {
    /// The method by which Waypost authenticates at the token endpoint (RFC 6749, section 2.3.1; OpenID Connect Core,
    /// section 9).
    TokenAuthMethod {
        /// HTTP Basic.
        ClientSecretBasic = "client_secret_basic",
        /// Credentials in the request body.
        ClientSecretPost = "client_secret_post",
        /// No authentication: a public client that relies on PKCE.
        None = "none",
    }
}

/// The validated configuration of an identity provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OauthConfig {
    /// The configuration's ID.
    pub id: OauthConfigId,
    /// The organisation that owns it.
    pub organization_id: OrganizationId,
    /// Display name, unique in the organisation.
    pub name: String,
    /// The provider's protocol.
    pub kind: ProviderKind,
    /// The issuer identifier; empty if the endpoints were entered manually.
    pub issuer: String,
    /// The URL that browsers are redirected to.
    pub authorization_endpoint: String,
    /// The URL at which codes are exchanged for tokens.
    pub token_endpoint: String,
    /// The URL that returns further claims; with plain OAuth, the user's identity.
    pub userinfo_endpoint: Option<String>,
    /// The URL of the provider's signing keys.
    pub jwks_uri: Option<String>,
    /// Waypost's client ID at the provider.
    pub client_id: String,
    /// Waypost's client secret at the provider, sealed for its row; `None` for a public client.
    pub client_secret: Option<String>,
    /// The method by which Waypost authenticates at the token endpoint.
    pub token_auth_method: TokenAuthMethod,
    /// The requested scopes.
    pub scopes: Vec<String>,
    /// The claim that permanently identifies a user.
    pub subject_claim: String,
    /// Whether the provider's users are linked to users of other providers with the same verified email.
    pub link_verified_email: bool,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl OauthConfig {
    /// Whether the provider's users may be linked by verified email. Always false for plain OAuth, whose userinfo does
    /// not prove ownership of an email.
    #[must_use]
    pub fn can_link_by_email(&self) -> bool {
        self.link_verified_email && self.kind == ProviderKind::Openid
    }
}
