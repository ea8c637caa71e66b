//! Organisations, the users that operate them, and their API keys.

use crate::clock::Timestamp;
use crate::id::{ApiKeyId, OrganizationId, UserId};
use crate::walkthrough::names;

/// The tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Organization {
    /// The organisation.
    pub id: OrganizationId,
    /// Short name, unique.
    pub slug: String,
    /// Name for people.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
}

names! {
    /// What a user may do in an organisation.
    Role {
        /// Everything, members included.
        Owner = "owner",
        /// Everything but owners.
        Admin = "admin",
        /// Reads and writes content.
        Member = "member",
    }
}

impl Role {
    /// Whether who has this role may give `other` to somebody, or take it away: nobody hands out more than they have.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        let rank = |role| match role {
            Self::Member => 1,
            Self::Admin => 2,
            Self::Owner => 3,
        };
        rank(self) >= rank(other)
    }
}

/// A person who operates organisations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The user.
    pub id: UserId,
    /// E-mail address as it was typed.
    pub email: String,
    /// What they want to be called, once they have said so.
    pub name: Option<String>,
    /// When the address was verified, by a code or a link that was sent to it by email or by an identity provider;
    /// `None` if it never was.
    pub verified_at: Option<Timestamp>,
    /// The only organisation that an unverified account is valid for. `None` for a verified account, and for unverified
    /// ones from before accounts were separate: these are valid for the organisations that they had then.
    pub organization_id: Option<OrganizationId>,
    /// When they were first made a member of anything.
    pub created_at: Timestamp,
}

impl User {
    /// Their name, or else their address.
    #[must_use]
    pub fn display_name(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.email)
    }
}

names! {
    /// Who may make an account for themselves.
    SignUpPolicy {
        /// Whoever was invited.
        Invite = "invite",
        /// Everybody who can read mail at their address.
        Open = "open",
        /// Nobody: not even whoever was invited.
        Closed = "closed",
    }
}

/// A user in an organisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The user.
    pub user_id: UserId,
    /// E-mail address as it was typed.
    pub email: String,
    /// Their role in this organisation.
    pub role: Role,
    /// Whether their address is verified.
    pub is_verified: bool,
    /// When they became a member.
    pub created_at: Timestamp,
}

/// An organisation that a user is a member of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The organisation.
    pub organization: Organization,
    /// The user's role there.
    pub role: Role,
}

/// An API key, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// The key.
    pub id: ApiKeyId,
    /// Whose it is.
    pub organization_id: OrganizationId,
    /// Name for people.
    pub name: String,
    /// The role that it acts as.
    pub scope: Role,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it stops working; none when it works until it is deleted.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, to the minute; none when it never was.
    pub last_used_at: Option<Timestamp>,
}

impl ApiKey {
    /// Whether it has stopped working.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}
