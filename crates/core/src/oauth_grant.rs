//! OAuth grants: a user's consent for a client on a server, and the lifetimes of the tokens issued for it
//! (docs/sign-in.md, invariants 2 to 5).

use crate::clock::Timestamp;
use crate::id::{EndUserId, OauthGrantId, OrganizationId, ServerId};

/// Lifetime of an authorization code.
pub const CODE_LIFETIME_MS: i64 = 60 * 1_000;
/// Lifetime of an access token.
pub const ACCESS_LIFETIME_MS: i64 = 60 * 60 * 1_000;
/// Lifetime of a grant after its last refresh; the same as that of an anonymous user's handle.
pub const GRANT_LIFETIME_MS: i64 = 90 * 24 * 60 * 60 * 1_000;
/// For this long after a rotation, the previous refresh token can still be exchanged.
pub const GRACE_MS: i64 = 10 * 1_000;

/// An OAuth grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OauthGrant {
    /// The grant's ID.
    pub id: OauthGrantId,
    /// The server's organisation.
    pub organization_id: OrganizationId,
    /// The only server on which the grant is valid.
    pub server_id: ServerId,
    /// The end user who consented.
    pub end_user_id: EndUserId,
    /// The client's ID.
    pub client_id: String,
    /// The client's name as registered.
    pub client_name: String,
    /// The granted scopes, separated by spaces.
    pub scope: String,
    /// The requested resource.
    pub resource: String,
    /// When the user consented.
    pub created_at: Timestamp,
    /// When the grant expires unless it is refreshed.
    pub expires_at: Timestamp,
}
