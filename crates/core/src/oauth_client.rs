//! OAuth clients that registered themselves (RFC 7591).

use crate::clock::Timestamp;
use crate::id::{OrganizationId, ServerId};
use crate::walkthrough::names;

names! {
    /// What a client is (OpenID Connect Dynamic Client Registration, section 2).
    ApplicationType {
        /// A program on the user's machine: it may use loopback and schemes of its own.
        Native = "native",
        /// A web application.
        Web = "web",
    }
}

names! {
    /// How a client proves at the token endpoint who it is (RFC 7591, section 2).
    ClientAuthMethod {
        /// A public client: it does not.
        None = "none",
        /// HTTP Basic (RFC 6749, section 2.3.1).
        Basic = "client_secret_basic",
        /// Id and secret in the form.
        Post = "client_secret_post",
    }
}

/// A client of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OauthClient {
    /// The server that it registered at.
    pub server_id: ServerId,
    /// The id that it got.
    pub client_id: String,
    /// The server's organisation.
    pub organization_id: OrganizationId,
    /// What it calls itself.
    pub name: String,
    /// Where it may have browsers sent.
    pub redirect_uris: Vec<String>,
    /// What it is.
    pub application_type: ApplicationType,
    /// How it proves who it is.
    pub auth_method: ClientAuthMethod,
    /// SHA-256 of its secret, hexadecimal; none for a public client.
    pub secret_hash: Option<String>,
    /// When it registered.
    pub created_at: Timestamp,
    /// When it last got a grant or a token; the time of registration until then.
    pub last_used_at: Timestamp,
    /// When it got its first authorization; `None` until then.
    pub used_at: Option<Timestamp>,
}
