//! Organisations, the users that operate them, and their API keys.

use crate::clock::Timestamp;
use crate::id::{ApiKeyId, OrganizationId, UserId};
use crate::walkthrough::names;

/// An organisation: the tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Organization {
    /// The organisation's ID.
    pub id: OrganizationId,
    /// Short unique name.
    pub slug: String,
    /// Display name.
    pub name: String,
    /// Whether its toolboxes may connect, and its instances can be changed and called.
    pub toolboxes_enabled: bool,
    /// Whether its agents can use the gateway.
    pub gateway_enabled: bool,
    /// When the organisation was created.
    pub created_at: Timestamp,
}

names! {
    /// The role of a member or an API key. `owner`: everything. `admin`: everything except managing owners and
    /// deleting the organisation. `member`: reads and writes content.
    Role {
        /// Everything.
        Owner = "owner",
        /// Everything except managing owners and deleting the organisation.
        Admin = "admin",
        /// Reads and writes content.
        Member = "member",
    }
}

impl Role {
    /// Whether this role includes the permissions of `other`, and so may grant or revoke it.
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

/// A user of the console, who operates organisations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The user's ID.
    pub id: UserId,
    /// The email as entered.
    pub email: String,
    /// The display name, if the user has chosen one.
    pub name: Option<String>,
    /// When the email was verified, by a code, by a link sent to it, or by an identity provider. `None` if it never
    /// was.
    pub verified_at: Option<Timestamp>,
    /// The only organisation for which an unverified account is valid. `None` for verified accounts, and for unverified
    /// accounts created before accounts were separated: these are valid for the organisations that they had at that
    /// time.
    pub organization_id: Option<OrganizationId>,
    /// When the user was created.
    pub created_at: Timestamp,
}

impl User {
    /// Returns the name, or the email if there is no name.
    #[must_use]
    pub fn display_name(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.email)
    }
}

names! {
    /// The policy for creating accounts.
    SignUpPolicy {
        /// Only invited users can create an account.
        Invite = "invite",
        /// Anyone with a verified email can create an account.
        Open = "open",
        /// No one can create an account, not even invited users.
        Closed = "closed",
    }
}

/// A member of an organisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The user.
    pub user_id: UserId,
    /// The email as entered.
    pub email: String,
    /// The display name, if the user has chosen one.
    pub name: Option<String>,
    /// The user's role in this organisation.
    pub role: Role,
    /// Whether the email is verified.
    pub is_verified: bool,
    /// When the user became a member.
    pub created_at: Timestamp,
}

impl Member {
    /// Returns the name, or the email if there is no name.
    #[must_use]
    pub fn display_name(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.email)
    }
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
    /// The key's ID.
    pub id: ApiKeyId,
    /// The organisation that owns the key.
    pub organization_id: OrganizationId,
    /// Display name.
    pub name: String,
    /// The role that the key grants.
    pub scope: Role,
    /// When the key was created.
    pub created_at: Timestamp,
    /// When the key expires; `None` if it never expires.
    pub expires_at: Option<Timestamp>,
    /// When the key was last used, to the minute; `None` if it never was.
    pub last_used_at: Option<Timestamp>,
}

impl ApiKey {
    /// Whether the key has expired.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_covers_itself_and_lower_roles() {
        let roles = [Role::Member, Role::Admin, Role::Owner];
        for (rank, role) in roles.into_iter().enumerate() {
            for (other_rank, other) in roles.into_iter().enumerate() {
                assert_eq!(role.covers(other), other_rank <= rank, "{role} {other}");
            }
        }
    }

    #[test]
    fn an_api_key_expires_at_its_expiry() {
        let key = |expires_at| ApiKey {
            id: ApiKeyId::from_store("key_1".into()),
            organization_id: OrganizationId::from_store("org_1".into()),
            name: "CI".to_owned(),
            scope: Role::Admin,
            created_at: Timestamp(0),
            expires_at,
            last_used_at: None,
        };
        let expiring = key(Some(Timestamp(1_000)));
        assert!(!expiring.is_expired(Timestamp(999)));
        assert!(expiring.is_expired(Timestamp(1_000)) && expiring.is_expired(Timestamp(1_001)));
        assert!(!key(None).is_expired(Timestamp(i64::MAX)), "a key without an expiry");
    }

    #[test]
    fn a_user_is_shown_by_name_or_else_by_email() {
        for (name, shown) in [(Some("Ada"), "Ada"), (None, "ada@example.com")] {
            let user = User {
                id: UserId::from_store("usr_1".into()),
                email: "ada@example.com".to_owned(),
                name: name.map(str::to_owned),
                verified_at: None,
                organization_id: None,
                created_at: Timestamp(0),
            };
            assert_eq!(user.display_name(), shown);
            let member = Member {
                user_id: user.id.clone(),
                email: user.email.clone(),
                name: user.name.clone(),
                role: Role::Member,
                is_verified: false,
                created_at: Timestamp(0),
            };
            assert_eq!(member.display_name(), shown);
        }
    }
}
