//! Grants: what a user allowed a client on a server, and how the tokens that came of it live and die
//! (docs/sign-in.md, invariants 2 to 5).

use crate::clock::Timestamp;
use crate::id::{EndUserId, OauthGrantId, OrganizationId, ServerId};

/// An authorization code lives this long.
pub const CODE_LIFETIME_MS: i64 = 60 * 1_000;
/// An access token lives this long.
pub const ACCESS_LIFETIME_MS: i64 = 60 * 60 * 1_000;
/// A grant lives this long after its last refresh: as long as the handle of an anonymous user.
pub const GRANT_LIFETIME_MS: i64 = 90 * 24 * 60 * 60 * 1_000;
/// For so long after a rotation the token before it still gets a pair.
pub const GRACE_MS: i64 = 10 * 1_000;

/// A grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OauthGrant {
    /// The grant.
    pub id: OauthGrantId,
    /// The server's organisation.
    pub organization_id: OrganizationId,
    /// The only server on which it means anything.
    pub server_id: ServerId,
    /// Whose it is.
    pub end_user_id: EndUserId,
    /// To which client it was given.
    pub client_id: String,
    /// What the client called itself.
    pub client_name: String,
    /// The scopes, separated by spaces.
    pub scope: String,
    /// The resource that was asked for.
    pub resource: String,
    /// When it was given.
    pub created_at: Timestamp,
    /// When it ends unless it is refreshed.
    pub expires_at: Timestamp,
}
