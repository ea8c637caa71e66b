//! Waypost accounts of end users. Every account has an email that its owner verified with a code.

use crate::clock::Timestamp;
use crate::id::{AccountId, OrganizationId};
use crate::walkthrough::names;

/// The issuer of these accounts' identities.
pub const ISSUER: &str = "waypost";

names! {
    /// The purpose of an emailed code.
    CodePurpose {
        /// Sign in.
        SignIn = "sign_in",
        /// Create an account with a password.
        SignUp = "sign_up",
        /// Set a new password.
        Reset = "reset",
    }
}

/// An end user's account.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    /// The account's ID, which is also the subject of its identity.
    pub id: AccountId,
    /// The organisation to which the account belongs.
    pub organization_id: OrganizationId,
    /// The verified email, as first entered.
    pub email: String,
    /// The hash of the password; `None` if the account has no password.
    pub password_hash: Option<String>,
    /// When the account was created.
    pub created_at: Timestamp,
}

/// Omits the email and the password hash.
impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account")
            .field("id", &self.id)
            .field("organization_id", &self.organization_id)
            .field("has_password", &self.password_hash.is_some())
            .finish_non_exhaustive()
    }
}
