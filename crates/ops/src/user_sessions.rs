//! Signed-in browsers of users, and the organisations that they act for.

use std::net::IpAddr;

use data_encoding::BASE64URL_NOPAD;
use waypost_core::access::authorize_user;
use waypost_core::caller::{Caller, Ctx};
use waypost_core::id::{OrganizationId, UserId, UserSessionId};
use waypost_core::organization::{Membership, User};
use waypost_core::secret::hash;
use waypost_core::{Error, Result, name};
use waypost_store::Tx;
pub use waypost_store::user_session::UserSession;
use waypost_store::{user, user_session as store};

use crate::Ops;

/// A session ends this long after the sign-in.
pub const LIFETIME_MS: i64 = 30 * 24 * 60 * 60 * 1_000;
/// The last use of a session is written this often at most.
const TOUCH_EVERY_MS: i64 = 60 * 1_000;
/// Random bytes in a token: 256 bits.
const TOKEN_BYTES: usize = 32;
/// Characters that are kept of what a browser calls itself.
const MAX_USER_AGENT: usize = 200;

/// The browser that signs in.
#[derive(Debug, Clone, Copy)]
pub struct Browser<'a> {
    /// What it calls itself.
    pub user_agent: &'a str,
    /// The address that it comes from.
    pub address: IpAddr,
    /// The cookie of a browser that has signed in before ([`crate::devices`]); empty without one.
    pub device: &'a str,
}

impl Browser<'_> {
    /// What the browser calls itself, without invisible characters and of limited length.
    pub(crate) fn clean_user_agent(&self) -> String {
        name::clean(&self.user_agent.chars().take(MAX_USER_AGENT).collect::<String>())
    }
}

/// Makes a session in the transaction of the sign-in; gives the cookie's value, which cannot be had again. Whoever calls
/// this has made sure who the user is.
///
/// # Errors
/// When the store fails.
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

/// The session of a cookie; none when it is unknown or has ended.
///
/// # Errors
/// When the store fails.
pub async fn find(cx: &Ctx, ops: &Ops, token: &str) -> Result<Option<UserSession>> {
    // Looked up by a hash of 256 random bits: how long the comparison takes tells nothing of the token.
    Ok(store::find(&mut ops.db.read().await?, &hash(token), cx.now()).await?)
}

/// Ends the session of a cookie; one that is not there is ended already.
///
/// # Errors
/// When the store fails.
pub async fn delete_by_token(ops: &Ops, token: &str) -> Result<()> {
    let mut tx = ops.db.begin().await?;
    store::delete_by_token(&mut tx, &hash(token)).await?;
    tx.commit().await?;
    Ok(())
}

/// Notes that a session is used: from where, and for which organisation. Writes when the organisation changes, else once a
/// minute.
///
/// # Errors
/// When the store fails.
pub async fn touch(
    cx: &Ctx,
    ops: &Ops,
    session: &UserSession,
    (organization, address): (Option<&OrganizationId>, &str),
) -> Result<()> {
    let organization_id = organization.cloned().or_else(|| session.organization_id.clone());
    let recent = cx.now().0 - session.last_used_at.0 < TOUCH_EVERY_MS;
    if recent && organization_id == session.organization_id {
        return Ok(());
    }
    let touched =
        UserSession { organization_id, address: address.to_owned(), last_used_at: cx.now(), ..session.clone() };
    let mut tx = ops.db.begin().await?;
    store::record_use(&mut tx, &touched).await?;
    tx.commit().await?;
    Ok(())
}

/// The sessions of the user who asks, the one used last first.
///
/// # Errors
/// `forbidden` for everybody but a user who acts for themselves.
pub async fn list(cx: &Ctx, ops: &Ops) -> Result<Vec<UserSession>> {
    let user = authorize_user(&cx.caller)?;
    Ok(store::list(&mut ops.db.read().await?, user, cx.now()).await?)
}

/// Ends a session of the user who asks.
///
/// # Errors
/// As [`list`]; `not_found` when they have no such session.
pub async fn delete(cx: &Ctx, ops: &Ops, id: &UserSessionId) -> Result<()> {
    let user = authorize_user(&cx.caller)?;
    let mut tx = ops.db.begin().await?;
    if !store::delete(&mut tx, user, id).await? {
        return Err(Error::not_found("session"));
    }
    tx.commit().await?;
    Ok(())
}

/// Ends all sessions of the user who asks but `except`; says how many.
///
/// # Errors
/// As [`list`].
pub async fn delete_others(cx: &Ctx, ops: &Ops, except: Option<&UserSessionId>) -> Result<u64> {
    let user = authorize_user(&cx.caller)?;
    let mut tx = ops.db.begin().await?;
    let ended = store::delete_others(&mut tx, user, except).await?;
    tx.commit().await?;
    Ok(ended)
}

/// The user who asks.
///
/// # Errors
/// As [`list`]; `not_found` when they were deleted meanwhile.
pub async fn get_user(cx: &Ctx, ops: &Ops) -> Result<User> {
    let user = authorize_user(&cx.caller)?;
    user::find(&mut ops.db.read().await?, user).await?.ok_or_else(|| Error::not_found("user"))
}

/// The organisations that the user who asks is a member of, by slug, with their role there.
///
/// # Errors
/// As [`list`].
pub async fn list_memberships(cx: &Ctx, ops: &Ops) -> Result<Vec<Membership>> {
    let user = authorize_user(&cx.caller)?;
    Ok(store::list_memberships(&mut ops.db.read().await?, user).await?)
}

/// The caller that `user` is where `membership` makes them a member.
#[must_use]
pub fn member_caller(user: &UserId, membership: &Membership) -> Caller {
    Caller::Member {
        organization_id: membership.organization.id.clone(),
        role: membership.role,
        actor: user.as_str().to_owned(),
    }
}
