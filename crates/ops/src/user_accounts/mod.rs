//! Sign-in of console users: with a password, an emailed code, an identity provider, or a link.
//!
//! Nothing here reveals whether an email address has an account: codes can be requested for any email address, and a
//! password sign-in without an account fails like one with a wrong password, at the same cost in statements and hashes.
//! Attempts are limited as described in [`crate::sign_in_limits`]. An account that was created only with a link that
//! another person could read is unverified and valid for one organisation ([`verification`]).

mod code;
mod invitation;
mod limits;
mod link;
mod own;
mod password;
mod provider;
mod set_up;
mod sign_ins;
pub(crate) mod verification;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde_json::{Value, json};
use waypost_core::caller::{Caller, Ctx};
use waypost_core::id::{OrganizationId, UserId, UserSessionId};
use waypost_core::organization::{SignUpPolicy, User};
use waypost_core::secret::SecretKey;
use waypost_core::{Code, Error, Result, email};
use waypost_store::{Tx, user as store, user_session};

pub use self::code::{IssuedUserCode, UserCodeEntry, UserCodeRequest};
pub use self::invitation::{AccountDetails, InvitationDetails, OpenInvitation};
pub use self::link::{AccountLink, create_account_link, create_first_account_link};
pub use self::own::{PasswordChange, leave_organization, set_name};
pub use self::password::UserPasswordSignIn;
pub(crate) use self::password::wrong_password;
pub use self::provider::{ProviderIdentity, UserLoginCallback, UserLoginRequest};
pub use self::set_up::{NewOwner, set_up_token};
use self::sign_ins::SignInOrigin;
use crate::Ops;
use crate::audit::{Entry, record};
use crate::user_sessions;

/// The accounts of console users.
#[derive(Clone)]
pub struct UserAccounts {
    ops: Ops,
    secret: SecretKey,
    sign_up: SignUpPolicy,
    /// Whether this process has seen that the installation is set up.
    is_set_up: Arc<AtomicBool>,
}

/// A new session.
pub struct NewUserSession {
    /// The user.
    pub user: User,
    /// The value of the session cookie.
    pub token: String,
    /// The value of the device cookie ([`crate::devices`]).
    pub device: String,
    /// Whether this sign-in verified the email address and revoked a password, session, API key or provider link from
    /// before.
    pub revoked: bool,
}

impl fmt::Debug for UserAccounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserAccounts")
    }
}

/// Omits the token.
impl fmt::Debug for NewUserSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewUserSession").field("user", &self.user).finish_non_exhaustive()
    }
}

impl UserAccounts {
    /// Creates the account operations on the database of `ops`. Their limits are shared by the whole process; codes and
    /// device cookies depend on `secret`.
    #[must_use]
    pub fn new(ops: Ops, secret: SecretKey, sign_up: SignUpPolicy) -> Self {
        Self { ops, secret, sign_up, is_set_up: Arc::default() }
    }

    /// Returns the sign-up policy.
    #[must_use]
    pub fn sign_up(&self) -> SignUpPolicy {
        self.sign_up
    }
}

impl UserAccounts {
    /// Creates a session for `user`, who has just authenticated.
    async fn sign_in(&self, cx: &Ctx, tx: &mut Tx, user: &User, origin: SignInOrigin<'_>) -> Result<NewUserSession> {
        let cx = cx.with_caller(Caller::User { user_id: user.id.clone() });
        sign_ins::record_success(&cx, tx, user, origin).await?;
        let token = user_sessions::create(&cx, tx, &user.id, origin.browser).await?;
        let device = self.new_device(&cx, tx, user).await?;
        Ok(NewUserSession { user: user.clone(), token, device, revoked: false })
    }
}

/// Sets a password and ends every session except `keep`, because someone who knew the old password may have started
/// them.
async fn set_password(cx: &Ctx, tx: &mut Tx, user: &User, hash: &str, keep: Option<&UserSessionId>) -> Result<u64> {
    store::set_password(tx, &user.id, hash).await?;
    let ended = user_session::delete_others(tx, &user.id, keep).await?;
    let cx = cx.with_caller(Caller::User { user_id: user.id.clone() });
    record_for_user(&cx, tx, user, "user.password", json!({ "sessions": ended })).await?;
    Ok(ended)
}

/// Creates an unverified user, whose account is valid only for `organization` if that is given.
async fn new_user(
    cx: &Ctx,
    tx: &mut Tx,
    email: &email::Email,
    name: Option<&str>,
    organization: Option<&OrganizationId>,
) -> Result<User> {
    let user = User {
        id: UserId::new(&*cx.random),
        email: email.address.clone(),
        name: name.map(str::to_owned),
        verified_at: None,
        organization_id: organization.cloned(),
        created_at: cx.now(),
    };
    match store::insert(tx, &user, &email.key).await {
        Err(error) if error.is_unique_violation() => {
            let message = "An account with this email was created at the same time. Sign in with it.";
            Err(Error::new(Code::Conflict, message).caused_by(error))
        }
        inserted => {
            inserted?;
            Ok(user)
        }
    }
}

/// Records an audit event in every organisation of which the user is a member, because every audit event belongs to one
/// organisation, but a user does not.
async fn record_for_user(cx: &Ctx, tx: &mut Tx, user: &User, action: &'static str, detail: Value) -> Result<()> {
    for membership in user_session::list_memberships(tx, &user.id).await? {
        let entry = Entry { action, target: user.id.as_str(), detail: detail.clone() };
        record(cx, tx, &membership.organization.id, entry).await?;
    }
    Ok(())
}
