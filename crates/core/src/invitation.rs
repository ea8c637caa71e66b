//! Invitations to an organisation: single-use links, each for one email.

use crate::clock::Timestamp;
use crate::id::{InvitationId, OrganizationId};
use crate::organization::Role;
use crate::walkthrough::names;

/// Lifetime of an invitation: 48 hours, in milliseconds.
pub const LIFETIME_MS: i64 = 48 * 60 * 60 * 1_000;
/// Maximum number of pending invitations per organisation.
pub const MAX_PENDING: i64 = 200;

names! {
    /// The state of an invitation.
    InvitationState {
        /// It can be accepted.
        Pending = "pending",
        /// It was accepted.
        Accepted = "accepted",
        /// It expired.
        Expired = "expired",
        /// It was revoked, or replaced by a newer one.
        Revoked = "revoked",
    }
}

/// An invitation, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// The invitation's ID.
    pub id: InvitationId,
    /// The organisation.
    pub organization_id: OrganizationId,
    /// The email of the only user who can accept it.
    pub email: String,
    /// The role that the new member gets.
    pub role: Role,
    /// The inviter: the ID of a user or an API key, or `operator`.
    pub invited_by: String,
    /// When the invitation was created.
    pub created_at: Timestamp,
    /// When the invitation expires.
    pub expires_at: Timestamp,
    /// When it was accepted.
    pub accepted_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

impl Invitation {
    /// Returns the state at `now`.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> InvitationState {
        if self.accepted_at.is_some() {
            InvitationState::Accepted
        } else if self.revoked_at.is_some() {
            InvitationState::Revoked
        } else if self.expires_at <= now {
            InvitationState::Expired
        } else {
            InvitationState::Pending
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_and_revoked_take_precedence_over_expired() {
        let now = Timestamp(1_000);
        let open = Invitation {
            id: InvitationId::from_store("inv_1".into()),
            organization_id: OrganizationId::from_store("org_1".into()),
            email: "a@b.de".into(),
            role: Role::Member,
            invited_by: "operator".into(),
            created_at: now,
            expires_at: now.plus(LIFETIME_MS),
            accepted_at: None,
            revoked_at: None,
        };
        assert_eq!(open.state(now.plus(LIFETIME_MS - 1)), InvitationState::Pending);
        assert_eq!(open.state(now.plus(LIFETIME_MS)), InvitationState::Expired);
        let revoked = Invitation { revoked_at: Some(now), ..open.clone() };
        assert_eq!(revoked.state(now.plus(LIFETIME_MS)), InvitationState::Revoked);
        let accepted = Invitation { accepted_at: Some(now), ..open };
        assert_eq!(accepted.state(now.plus(LIFETIME_MS)), InvitationState::Accepted);
    }
}
