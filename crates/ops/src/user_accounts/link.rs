//! Links that the operator makes for an account, to set name and password with: for the first time, or because its user
//! cannot sign in any more and no email can be sent. They verify no address: the operator can read them.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use serde_json::json;
use waypost_core::access::authorize_operator;
use waypost_core::caller::Ctx;
use waypost_core::id::{OrganizationId, UserCodeId, UserId};
use waypost_core::organization::User;
use waypost_core::secret::hash;
use waypost_core::{Code, Error, Result, Timestamp, email, name};
use waypost_store::user as store;
use waypost_store::user_code::{self, NewUserLink};

use super::{AccountDetails, NewUserSession, UserAccounts, record_of_user, set_password};
use crate::Ops;
use crate::user_sessions::Browser;

/// A link works this long.
const LIFETIME_MS: i64 = 48 * 60 * 60 * 1_000;
/// Random bytes in a token: 256 bits.
const TOKEN_BYTES: usize = 32;

/// A link that was made.
pub struct AccountLink {
    /// What stands in it; cannot be had again.
    pub token: String,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// Never shows the token.
impl fmt::Debug for AccountLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccountLink").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// Makes a link for a member; the one before cannot be used any more. Whoever has it gets access to every organisation of
/// the account, so only the operator makes it.
///
/// # Errors
/// `forbidden` for everybody but the operator; `not_found` when there is no such member.
pub async fn create_account_link(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    user: &UserId,
) -> Result<AccountLink> {
    authorize_operator(&cx.caller)?;
    let mut tx = ops.db.begin().await?;
    store::find_member(&mut tx, organization, user).await?.ok_or_else(|| Error::not_found("member"))?;
    let user = store::find(&mut tx, user).await?.ok_or_else(|| Error::not_found("user"))?;
    let mut bytes = [0_u8; TOKEN_BYTES];
    cx.random.fill(&mut bytes);
    let token = BASE64URL_NOPAD.encode(&bytes);
    let now = cx.now();
    let expires_at = now.plus(LIFETIME_MS);
    let link = NewUserLink {
        id: &UserCodeId::new(now, &*cx.random),
        user: &user.id,
        email: &user.email,
        email_key: &email::key(&user.email),
        token_hash: &hash(&token),
        created_at: now,
        expires_at,
    };
    user_code::insert_link(&mut tx, &link).await?;
    let detail = json!({ "email": user.email, "expires_at": expires_at.rfc3339() });
    record_of_user(cx, &mut tx, &user, ("user.link", detail)).await?;
    tx.commit().await?;
    Ok(AccountLink { token, expires_at })
}

/// As [`create_account_link`] for a member who cannot sign in yet; `None` for the others.
///
/// # Errors
/// As [`create_account_link`].
pub async fn create_first_account_link(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    user: &UserId,
) -> Result<Option<AccountLink>> {
    authorize_operator(&cx.caller)?;
    let found = store::find_credentials(&mut ops.db.read().await?, user).await?;
    if found.is_some_and(|found| found.user.verified_at.is_some() || found.password_hash.is_some()) {
        return Ok(None);
    }
    create_account_link(cx, ops, organization, user).await.map(Some)
}

impl UserAccounts {
    /// The user that a link is for.
    ///
    /// # Errors
    /// `not_found` when the link was used, replaced, has expired or was never made.
    pub async fn get_account_link_user(&self, cx: &Ctx, token: &str) -> Result<User> {
        let mut conn = self.ops.db.read().await?;
        let Some(id) = user_code::find_link(&mut conn, &hash(token), cx.now()).await? else { return Err(gone()) };
        store::find(&mut conn, &id).await?.ok_or_else(gone)
    }

    /// Sets name and password of the user that a link is for, ends the sessions that they had, and signs them in.
    ///
    /// # Errors
    /// As [`Self::get_account_link_user`]; `invalid_arguments` naming `name` or `password`: then the link can still be used.
    pub async fn use_account_link(
        &self,
        cx: &Ctx,
        token: &str,
        newcomer: AccountDetails<'_>,
        browser: Browser<'_>,
    ) -> Result<NewUserSession> {
        let user = self.get_account_link_user(cx, token).await?;
        let name = name::check("name", newcomer.name)?;
        let password_hash = self.hash(cx, browser.address, ("password", newcomer.password), &user.email).await?;
        let mut tx = self.ops.db.begin().await?;
        let id = user_code::consume_link(&mut tx, &hash(token), cx.now()).await?.ok_or_else(gone)?;
        store::set_name(&mut tx, &id, &name).await?;
        let user = store::find(&mut tx, &id).await?.ok_or_else(gone)?;
        set_password(cx, &mut tx, &user, (&password_hash, None)).await?;
        let session = self.sign_in(cx, &mut tx, &user, (browser, "link")).await?;
        tx.commit().await?;
        Ok(session)
    }
}

fn gone() -> Error {
    let message = "This link was used already, a newer one was made, or it is older than 48 hours. Ask for a new one.";
    Error::new(Code::NotFound, message)
}
