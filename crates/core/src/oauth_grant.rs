//! OAuth grants: a user's consent for a client at an issuer, and the lifetimes of the tokens issued for it
//! (docs/sign-in.md, invariants 2 to 5).

use crate::clock::Timestamp;
use crate::id::{AgentId, EndUserId, OauthGrantId, OrganizationId, ServerId};
use crate::issuer::IssuerId;

/// Lifetime of an authorization code.
pub const CODE_LIFETIME_MS: i64 = 60 * 1_000;
/// Lifetime of an access token.
pub const ACCESS_LIFETIME_MS: i64 = 60 * 60 * 1_000;
/// Lifetime of a grant after its last refresh; the same as that of an anonymous user's handle.
pub const GRANT_LIFETIME_MS: i64 = 90 * 24 * 60 * 60 * 1_000;
/// The time after a rotation during which the previous refresh token can still be exchanged.
pub const GRACE_MS: i64 = 10 * 1_000;

/// The user who consented, and the issuer at which they consented.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum GrantOwner {
    /// An end user of a hosted server, which is the only one on which the grant is valid.
    EndUser {
        /// The server.
        server_id: ServerId,
        /// The end user.
        end_user_id: EndUserId,
    },
    /// A person at the gateway.
    Agent(AgentId),
}

impl GrantOwner {
    /// Returns the issuer of a grant with this owner in an organisation.
    #[must_use]
    pub fn issuer_id(&self, organization: &OrganizationId) -> IssuerId {
        match self {
            Self::EndUser { server_id, .. } => {
                IssuerId::Server { organization_id: organization.clone(), server_id: server_id.clone() }
            }
            Self::Agent(_) => IssuerId::Gateway,
        }
    }
}

/// An OAuth grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OauthGrant {
    /// The grant's ID.
    pub id: OauthGrantId,
    /// The organisation of the server or the agent.
    pub organization_id: OrganizationId,
    /// The user who consented.
    pub owner: GrantOwner,
    /// The client's ID.
    pub client_id: String,
    /// The client's name as registered.
    pub client_name: String,
    /// The granted scopes, separated by spaces.
    pub scope: String,
    /// The requested resource. At the gateway, it is the only one for which the grant is valid.
    pub resource: String,
    /// When the user consented.
    pub created_at: Timestamp,
    /// When the grant expires unless it is refreshed.
    pub expires_at: Timestamp,
}
