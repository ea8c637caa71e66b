//! Invitations to an organisation: by link, for one address, once.

use crate::clock::Timestamp;
use crate::id::{InvitationId, OrganizationId};
use crate::organization::Role;
use crate::walkthrough::names;

/// An invitation is open for 48 hours.
pub const LIFETIME_MS: i64 = 48 * 60 * 60 * 1_000;
/// Open invitations of an organisation at most.
pub const MAX_PENDING: i64 = 200;

names! {
    /// What became of an invitation.
    InvitationState {
        /// It can be accepted.
        Pending = "pending",
        /// It was accepted.
        Accepted = "accepted",
        /// Its time is over.
        Expired = "expired",
        /// It was taken back, or replaced by a newer one.
        Revoked = "revoked",
    }
}

/// An invitation, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// Which.
    pub id: InvitationId,
    /// To where.
    pub organization_id: OrganizationId,
    /// The address of the only one who can accept it.
    pub email: String,
    /// The role that they will have.
    pub role: Role,
    /// Who invited them: the id of a user or a key, or `operator`.
    pub invited_by: String,
    /// When.
    pub created_at: Timestamp,
    /// Until when it can be accepted.
    pub expires_at: Timestamp,
    /// When it was accepted.
    pub accepted_at: Option<Timestamp>,
    /// When it was taken back.
    pub revoked_at: Option<Timestamp>,
}

impl Invitation {
    /// What has become of it by `now`.
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
    fn what_happened_first_stays() {
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
