//! OAuth clients from dynamic registration (RFC 7591).

use crate::clock::Timestamp;
use crate::issuer::IssuerId;
use crate::walkthrough::names;

names! {
    /// The type of a client (OpenID Connect Dynamic Client Registration, section 2).
    ApplicationType {
        /// A program on the user's machine, which may use loopback URIs and custom schemes.
        Native = "native",
        /// A web application.
        Web = "web",
    }
}

names! {
    /// The method by which a client authenticates at the token endpoint (RFC 7591, section 2).
    ClientAuthMethod {
        /// No authentication: a public client.
        None = "none",
        /// HTTP Basic (RFC 6749, section 2.3.1).
        Basic = "client_secret_basic",
        /// ID and secret in the request body.
        Post = "client_secret_post",
    }
}

/// A registered client of an issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OauthClient {
    /// The issuer that the client is registered with.
    pub issuer_id: IssuerId,
    /// The ID issued at registration.
    pub client_id: String,
    /// The client's name.
    pub name: String,
    /// The allowed redirect URIs.
    pub redirect_uris: Vec<String>,
    /// The client's type.
    pub application_type: ApplicationType,
    /// The method by which the client authenticates.
    pub auth_method: ClientAuthMethod,
    /// SHA-256 of the secret in hexadecimal; `None` for a public client.
    pub secret_hash: Option<String>,
    /// When the client was registered.
    pub created_at: Timestamp,
    /// When the client last received a grant or a token; initially the time of registration.
    pub last_used_at: Timestamp,
    /// When the client was first authorized; `None` until then.
    pub used_at: Option<Timestamp>,
}
