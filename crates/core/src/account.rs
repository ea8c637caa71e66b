//! Waypost's own accounts of end users. There is none without an address that its owner proved by a code.

use crate::clock::Timestamp;
use crate::id::{AccountId, OrganizationId};
use crate::walkthrough::names;

/// The issuer of the identities of these accounts.
pub const ISSUER: &str = "waypost";

names! {
    /// What somebody asked for when a code was sent to them.
    CodePurpose {
        /// To sign in.
        SignIn = "sign_in",
        /// To make an account with a password.
        SignUp = "sign_up",
        /// To set a new password.
        Reset = "reset",
    }
}

/// An account.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    /// The account; the subject of its identity.
    pub id: AccountId,
    /// In which organisation.
    pub organization_id: OrganizationId,
    /// The proved address, as it was typed first.
    pub email: String,
    /// The password's hash, when there is a password.
    pub password_hash: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Never shows the hash.
impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account")
            .field("id", &self.id)
            .field("organization_id", &self.organization_id)
            .field("has_password", &self.password_hash.is_some())
            .finish_non_exhaustive()
    }
}
