//! How users of the console sign in: with a password, a code by email, an identity provider, or a link.
//!
//! Nothing here reveals whether an address has an account: codes can be requested for every address, one without an account
//! is refused like one with a wrong password, and both cost the same statements and hashes. Attempts are limited as
//! [`crate::sign_in_limits`] says. Whoever has only a link that somebody else could read gets an unverified account, which is
//! valid for one organisation ([`verification`]).

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
pub(crate) use self::password::wrong;
pub use self::provider::{PendingUserLogin, ProviderIdentity, UserLoginCallback};
pub use self::set_up::{NewOwner, set_up_token};
use crate::Ops;
use crate::audit::{Entry, record};
use crate::user_sessions::{self, Browser};

/// Signing in to the console of this installation.
#[derive(Clone)]
pub struct UserAccounts {
    ops: Ops,
    secret: SecretKey,
    sign_up: SignUpPolicy,
}

/// A user has signed in.
pub struct NewUserSession {
    /// Who.
    pub user: User,
    /// The value of the session's cookie.
    pub token: String,
    /// The value of the cookie of a browser that has signed in before ([`crate::devices`]).
    pub device: String,
    /// Whether this sign-in verified the address and revoked what accounts of it had created before.
    pub revoked: bool,
}

impl fmt::Debug for UserAccounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserAccounts")
    }
}

/// Never shows the token.
impl fmt::Debug for NewUserSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewUserSession").field("user", &self.user).finish_non_exhaustive()
    }
}

impl UserAccounts {
    /// Accounts on the database of `ops`, whose limits hold for the whole process; codes and the cookies of browsers depend on
    /// `secret`.
    #[must_use]
    pub fn new(ops: Ops, secret: SecretKey, sign_up: SignUpPolicy) -> Self {
        Self { ops, secret, sign_up }
    }

    /// Who may make an account for themselves.
    #[must_use]
    pub fn sign_up(&self) -> SignUpPolicy {
        self.sign_up
    }
}

impl UserAccounts {
    /// Begins a session of `user`, who has just shown who they are; `by` says how.
    async fn sign_in(
        &self,
        cx: &Ctx,
        tx: &mut Tx,
        user: &User,
        (browser, by): (Browser<'_>, &'static str),
    ) -> Result<NewUserSession> {
        let cx = cx.with_caller(Caller::User { user_id: user.id.clone() });
        sign_ins::succeeded(&cx, tx, user, (browser, by)).await?;
        let token = user_sessions::create(&cx, tx, &user.id, browser).await?;
        let device = self.new_device(&cx, tx, user).await?;
        Ok(NewUserSession { user: user.clone(), token, device, revoked: false })
    }
}

/// Sets a password, and ends what whoever knew the old one may have begun: every session but `keep`.
async fn set_password(cx: &Ctx, tx: &mut Tx, user: &User, (hash, keep): (&str, Option<&UserSessionId>)) -> Result<u64> {
    store::set_password(tx, &user.id, hash).await?;
    let ended = user_session::delete_others(tx, &user.id, keep).await?;
    let cx = cx.with_caller(Caller::User { user_id: user.id.clone() });
    record_of_user(&cx, tx, user, ("user.password", json!({ "sessions": ended }))).await?;
    Ok(ended)
}

/// Creates an unverified user, valid for `organization` only if there is one.
async fn new_user(
    cx: &Ctx,
    tx: &mut Tx,
    email: &email::Email,
    (name, organization): (Option<&str>, Option<&OrganizationId>),
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
            let message = "An account with this address was created at the same time. Sign in with it.";
            Err(Error::new(Code::Conflict, message).caused_by(error))
        }
        inserted => {
            inserted?;
            Ok(user)
        }
    }
}

/// Writes what happened to a user into the log of every organisation that they are a member of: a user belongs to none.
async fn record_of_user(cx: &Ctx, tx: &mut Tx, user: &User, (action, detail): (&'static str, Value)) -> Result<()> {
    for membership in user_session::list_memberships(tx, &user.id).await? {
        let entry = Entry { action, target: user.id.as_str(), detail: detail.clone() };
        record(cx, tx, &membership.organization.id, entry).await?;
    }
    Ok(())
}
