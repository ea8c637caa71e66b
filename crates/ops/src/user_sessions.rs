//! Sessions of console users, and the organisations that they act for.

use std::net::IpAddr;

use data_encoding::BASE64URL_NOPAD;
use waypost_content::name;
use waypost_core::access::authorize_user;
use waypost_core::caller::{Caller, Ctx};
use waypost_core::id::{OrganizationId, UserId, UserSessionId};
use waypost_core::organization::{Membership, User};
use waypost_core::secret::hash;
use waypost_core::{Error, Result};
use waypost_store::Tx;
pub use waypost_store::user_session::UserSession;
use waypost_store::{user, user_session as store};

use crate::Ops;

/// The lifetime of a session.
pub const LIFETIME_MS: i64 = 30 * 24 * 60 * 60 * 1_000;
/// The minimum time between two writes of a session's last use.
const TOUCH_EVERY_MS: i64 = 60 * 1_000;
/// The number of random bytes in a token: 256 bits.
const TOKEN_BYTES: usize = 32;
/// The maximum stored length of a user agent, in characters.
const MAX_USER_AGENT: usize = 200;

/// The browser of a request.
#[derive(Debug, Clone, Copy)]
pub struct Browser<'a> {
    /// The user agent.
    pub user_agent: &'a str,
    /// The client's IP address.
    pub address: IpAddr,
    /// The device cookie ([`crate::devices`]). Empty if there is none.
    pub device: &'a str,
}

impl Browser<'_> {
    /// Returns the user agent without invisible characters and with limited length.
    pub(crate) fn clean_user_agent(&self) -> String {
        name::clean(&self.user_agent.chars().take(MAX_USER_AGENT).collect::<String>())
    }
}

/// Creates a session in the transaction of the sign-in. Returns the token for the cookie, which cannot be retrieved
/// again. The caller must have authenticated the user.
///
/// # Errors
/// Any error of the store.
pub async fn create(cx: &Ctx, tx: &mut Tx, user: &UserId, browser: Browser<'_>) -> Result<String> {
    let mut bytes = [0_u8; TOKEN_BYTES];
    cx.random.fill(&mut bytes);
    let token = BASE64URL_NOPAD.encode(&bytes);
    let now = cx.now();
    let session = UserSession {
        id: UserSessionId::new(now, &*cx.random),
        user_id: user.clone(),
        organization_id: None,
        user_agent: browser.clean_user_agent(),
        address: browser.address.to_string(),
        created_at: now,
        last_used_at: now,
        expires_at: now.plus(LIFETIME_MS),
    };
    store::insert(tx, &session, &hash(&token)).await?;
    Ok(token)
}

/// Returns the session of a cookie. Returns `None` if it is unknown or has ended.
///
/// # Errors
/// Any error of the store.
pub async fn find(cx: &Ctx, ops: &Ops, token: &str) -> Result<Option<UserSession>> {
    // The lookup uses a hash of 256 random bits, so its timing reveals nothing about the token.
    Ok(store::find(&mut ops.store.read().await?, &hash(token), cx.now()).await?)
}

/// Deletes the session of a cookie. Succeeds if there is none.
///
/// # Errors
/// Any error of the store.
pub async fn delete_by_token(ops: &Ops, token: &str) -> Result<()> {
    let mut tx = ops.store.begin().await?;
    store::delete_by_token(&mut tx, &hash(token)).await?;
    tx.commit().await?;
    Ok(())
}

/// Records the use of a session with its IP address and organisation. Writes if the organisation has changed, otherwise
/// at most once a minute.
///
/// # Errors
/// Any error of the store.
pub async fn touch(
    cx: &Ctx,
    ops: &Ops,
    session: &UserSession,
    organization: Option<&OrganizationId>,
    address: &str,
) -> Result<()> {
    let organization_id = organization.cloned().or_else(|| session.organization_id.clone());
    let recent = cx.now().0 - session.last_used_at.0 < TOUCH_EVERY_MS;
    if recent && organization_id == session.organization_id {
        return Ok(());
    }
    let touched =
        UserSession { organization_id, address: address.to_owned(), last_used_at: cx.now(), ..session.clone() };
    let mut tx = ops.store.begin().await?;
    store::record_use(&mut tx, &touched).await?;
    tx.commit().await?;
    Ok(())
}

/// Lists the sessions of the calling user, most recently used first.
///
/// # Errors
/// `forbidden` if the caller is not a user.
pub async fn list(cx: &Ctx, ops: &Ops) -> Result<Vec<UserSession>> {
    let user = authorize_user(&cx.caller)?;
    Ok(store::list(&mut ops.store.read().await?, user, cx.now()).await?)
}

/// Deletes a session of the calling user.
///
/// # Errors
/// The same as for [`list`]; `not_found` if there is no such session.
pub async fn delete(cx: &Ctx, ops: &Ops, id: &UserSessionId) -> Result<()> {
    let user = authorize_user(&cx.caller)?;
    let mut tx = ops.store.begin().await?;
    if !store::delete(&mut tx, user, id).await? {
        return Err(Error::not_found("session"));
    }
    tx.commit().await?;
    Ok(())
}

/// Deletes all sessions of the calling user except `except`. Returns the number of deleted sessions.
///
/// # Errors
/// The same as for [`list`].
pub async fn delete_others(cx: &Ctx, ops: &Ops, except: Option<&UserSessionId>) -> Result<u64> {
    let user = authorize_user(&cx.caller)?;
    let mut tx = ops.store.begin().await?;
    let ended = store::delete_others(&mut tx, user, except).await?;
    tx.commit().await?;
    Ok(ended)
}

/// Returns the calling user.
///
/// # Errors
/// The same as for [`list`]; `not_found` if the user was deleted in the meantime.
pub async fn get_user(cx: &Ctx, ops: &Ops) -> Result<User> {
    let user = authorize_user(&cx.caller)?;
    user::find(&mut ops.store.read().await?, user).await?.ok_or_else(|| Error::not_found("user"))
}

/// Returns the organisations of the calling user with the user's role in each, ordered by slug.
///
/// # Errors
/// The same as for [`list`].
pub async fn list_memberships(cx: &Ctx, ops: &Ops) -> Result<Vec<Membership>> {
    let user = authorize_user(&cx.caller)?;
    Ok(store::list_memberships(&mut ops.store.read().await?, user).await?)
}

/// Returns `user` as the caller of operations in the organisation of `membership`.
#[must_use]
pub fn member_caller(user: &UserId, membership: &Membership) -> Caller {
    Caller::Member {
        organization_id: membership.organization.id.clone(),
        role: membership.role,
        actor: user.as_str().to_owned(),
    }
}
