//! How users of the console sign in: with a password, a code by mail, or a link that the operator made.
//!
//! Nothing here tells whether an address has a user: codes can be asked for with every address, and one without a user is
//! refused, and locked, like one with a wrong password. A user without `verified_at` (made on the command line) has
//! nothing to sign in with until they show that the address is theirs.

mod code;
mod invitation;
mod link;
mod own;
mod provider;
mod set_up;

use std::fmt;

use serde_json::{Value, json};
use waypost_core::caller::{Caller, Ctx};
use waypost_core::id::{UserId, UserSessionId};
use waypost_core::organization::{SignUp, User};
use waypost_core::secret::SecretKey;
use waypost_core::{Code, Error, Result, email};
use waypost_store::user::Credentials;
use waypost_store::{Tx, system, user as store, user_session};

pub use self::code::{Asked, Entered, Made};
pub use self::invitation::{Invited, Newcomer, OpenInvitation};
pub use self::link::{Link, make_first_link, make_link};
pub use self::own::{leave, set_name};
pub use self::provider::{Leaving, Returned, Vouched};
pub use self::set_up::{NewOwner, set_up_token};
use crate::Ops;
use crate::audit::{Entry, record};
use crate::passwords::Passwords;
use crate::tries::{self, Strangers};
use crate::user_sessions::{self, Browser};

/// Signing in to the console of this installation.
#[derive(Clone)]
pub struct UserAccounts {
    ops: Ops,
    secret: SecretKey,
    passwords: Passwords,
    strangers: Strangers<String>,
    sign_up: SignUp,
}

/// A user has signed in.
pub struct Session {
    /// Who.
    pub user: User,
    /// The value of the session's cookie.
    pub token: String,
}

impl fmt::Debug for UserAccounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserAccounts")
    }
}

/// Never shows the token.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("user", &self.user).finish_non_exhaustive()
    }
}

impl UserAccounts {
    /// Accounts on the database of `ops`; codes are hashed with `secret`. One for the whole process: it counts how many
    /// passwords are hashed at once.
    #[must_use]
    pub fn new(ops: Ops, secret: SecretKey, sign_up: SignUp) -> Self {
        Self { ops, secret, passwords: Passwords::default(), strangers: Strangers::default(), sign_up }
    }

    /// Who may make an account for themselves.
    #[must_use]
    pub fn sign_up(&self) -> SignUp {
        self.sign_up
    }

    /// Signs in with a password.
    ///
    /// # Errors
    /// `invalid_arguments` naming `email` when that is no address, and `password` when one of the two is wrong;
    /// `rate_limited`, with `retry_after_seconds`, after too many wrong ones; `unavailable` when the database is away,
    /// or too many passwords are being hashed.
    pub async fn enter_password(
        &self,
        cx: &Ctx,
        address: &str,
        password: &str,
        browser: Browser<'_>,
    ) -> Result<Session> {
        let email = email::parse(address)?;
        let found = system::find_credentials(&mut self.ops.db.read().await?, &email.key).await?;
        match &found {
            Some(found) => self.begin_try(cx, found).await?,
            None => self.strangers.begin_try(email.key.clone(), cx.now())?,
        }
        let hash = found.as_ref().and_then(|found| found.password_hash.as_deref());
        let right = self.passwords.verify(password, hash).await?;
        let Some(found) = found.filter(|found| right && found.user.verified_at.is_some()) else {
            return Err(tries::wrong());
        };
        let mut tx = self.ops.db.begin().await?;
        let now = store::credentials(&mut tx, &found.user.id).await?;
        if now.is_none_or(|now| now.password_hash != found.password_hash) {
            // It was changed while we looked at it.
            return Err(tries::wrong());
        }
        let session = sign_in(cx, &mut tx, &found.user, (browser, "password")).await?;
        tx.commit().await?;
        Ok(session)
    }

    /// Counts a try before it is made, and locks the user out when it was the last one.
    async fn begin_try(&self, cx: &Ctx, found: &Credentials) -> Result<()> {
        let (user, now) = (&found.user, cx.now());
        let mut tx = self.ops.db.begin().await?;
        let Some(failures) = store::begin_try(&mut tx, &user.id, now).await? else {
            return Err(tries::locked(found.locked_until.unwrap_or(now), now));
        };
        if let Some(duration) = tries::lock_ms(failures) {
            store::lock(&mut tx, &user.id, now.plus(duration)).await?;
            let detail = json!({ "failures": failures, "seconds": duration / 1_000 });
            record_of_user(cx, &mut tx, user, ("user.lock", detail)).await?;
        }
        Ok(tx.commit().await?)
    }

    /// The hash of a new password of the user with `address`.
    async fn hash(&self, cx: &Ctx, field: &'static str, password: &str, address: &str) -> Result<String> {
        let local = address.split('@').next().unwrap_or_default();
        self.passwords.hash(&*cx.random, field, password, &[address, local, "waypost"]).await
    }
}

/// Begins a session of `user`, who has just shown who they are; `by` says how.
async fn sign_in(cx: &Ctx, tx: &mut Tx, user: &User, (browser, by): (Browser<'_>, &'static str)) -> Result<Session> {
    store::unlock(tx, &user.id).await?;
    let cx = cx.with_caller(Caller::User { user_id: user.id.clone() });
    record_of_user(&cx, tx, user, ("user.sign_in", json!({ "by": by }))).await?;
    let token = user_sessions::create(&cx, tx, &user.id, browser).await?;
    Ok(Session { user: user.clone(), token })
}

/// Sets a password, and ends what whoever knew the old one may have begun: every session but `keep`.
async fn set_password(cx: &Ctx, tx: &mut Tx, user: &User, (hash, keep): (&str, Option<&UserSessionId>)) -> Result<u64> {
    store::set_password(tx, &user.id, hash).await?;
    let ended = user_session::delete_others(tx, &user.id, keep).await?;
    let cx = cx.with_caller(Caller::User { user_id: user.id.clone() });
    record_of_user(&cx, tx, user, ("user.password", json!({ "sessions": ended }))).await?;
    Ok(ended)
}

/// The user with this address, who has just shown that it is theirs; `name` is what they are called, if they say so.
async fn verified(cx: &Ctx, tx: &mut Tx, user: User, name: Option<String>) -> Result<User> {
    store::verify(tx, &user.id, cx.now()).await?;
    if let Some(name) = &name {
        store::set_name(tx, &user.id, name).await?;
    }
    let verified_at = user.verified_at.or(Some(cx.now()));
    Ok(User { verified_at, name: name.or(user.name.clone()), ..user })
}

/// A new user, whose address is theirs.
async fn new_user(cx: &Ctx, tx: &mut Tx, email: &email::Email, name: &str) -> Result<User> {
    let (id, now) = (UserId::new(&*cx.random), cx.now());
    let (email_key, name) = (&email.key, Some(name.to_owned()));
    let user = User { id, email: email.address.clone(), name, verified_at: Some(now), created_at: now };
    match store::insert(tx, &user, email_key).await {
        Err(error) if error.is_unique_violation() => {
            let message = "An account with this address was made at this moment. Sign in with it.";
            Err(Error::new(Code::Conflict, message).caused_by(error))
        }
        inserted => {
            inserted?;
            Ok(user)
        }
    }
}

/// Writes what happened to a user into the log of every organisation that they are a member of: a user belongs to none.
async fn record_of_user(cx: &Ctx, tx: &mut Tx, user: &User, (act, detail): (&'static str, Value)) -> Result<()> {
    for membership in user_session::memberships(tx, &user.id).await? {
        let entry = Entry { act, target: user.id.as_str(), detail: detail.clone() };
        record(cx, tx, &membership.organization.id, entry).await?;
    }
    Ok(())
}
