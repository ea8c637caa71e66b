//! The identity provider of an organisation: who signs end users in on servers with `custom_oauth`.

use crate::clock::Timestamp;
use crate::id::{OauthConfigId, OrganizationId};
use crate::walkthrough::names;

names! {
    /// What the provider speaks.
    ProviderKind {
        /// OpenID Connect: it says in an ID token who the user is.
        Openid = "openid",
        /// Plain OAuth: only its userinfo endpoint says who the user is.
        Oauth = "oauth",
    }
}

names! {
    /// How Waypost proves to the token endpoint who it is (RFC 6749, 2.3.1; OpenID Connect Core, 9).
    TokenAuthMethod {
        /// HTTP Basic.
        ClientSecretBasic = "client_secret_basic",
        /// In the body.
        ClientSecretPost = "client_secret_post",
        /// Not at all: a public client, PKCE alone.
        None = "none",
    }
}

/// A provider, as it was checked and saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OauthConfig {
    /// The configuration.
    pub id: OauthConfigId,
    /// Whose it is.
    pub organization_id: OrganizationId,
    /// Name for people, unique in the organisation.
    pub name: String,
    /// What it speaks.
    pub kind: ProviderKind,
    /// Its issuer identifier; empty when its endpoints were typed in.
    pub issuer: String,
    /// Where browsers are sent.
    pub authorization_endpoint: String,
    /// Where codes become tokens.
    pub token_endpoint: String,
    /// Where it says more of a user; for plain OAuth, who the user is.
    pub userinfo_endpoint: Option<String>,
    /// Where its keys are.
    pub jwks_uri: Option<String>,
    /// Waypost's name there.
    pub client_id: String,
    /// Waypost's secret there, sealed to the row.
    pub client_secret: Option<String>,
    /// How it is shown.
    pub token_auth_method: TokenAuthMethod,
    /// What is asked for.
    pub scopes: Vec<String>,
    /// The claim that names a user for ever.
    pub subject_claim: String,
    /// Whether a verified address links its users with those of other providers that have the same one.
    pub link_verified_email: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl OauthConfig {
    /// Whether its users may be linked by a verified address: never those of plain OAuth, whose userinfo proves
    /// nothing of an address.
    #[must_use]
    pub fn links(&self) -> bool {
        self.link_verified_email && self.kind == ProviderKind::Openid
    }
}
