//! Account links: the operator creates them so that a user can set their name and password, either for the first time,
//! or because the user can no longer sign in and no email can be sent. They do not verify the email address, because
//! the operator can read them.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use serde_json::json;
use waypost_content::name;
use waypost_core::access::authorize_operator;
use waypost_core::caller::Ctx;
use waypost_core::id::{OrganizationId, UserCodeId, UserId};
use waypost_core::organization::User;
use waypost_core::secret::hash;
use waypost_core::{Code, Error, Result, Timestamp, email};
use waypost_store::user as store;
use waypost_store::user_code::{self, NewUserLink};

use super::sign_ins::SignInOrigin;
use super::{AccountDetails, NewUserSession, UserAccounts, record_for_user, set_password};
use crate::Ops;
use crate::passwords::ChosenPassword;
use crate::user_sessions::Browser;

/// The lifetime of a link.
const LIFETIME_MS: i64 = 48 * 60 * 60 * 1_000;
/// The number of random bytes in a token: 256 bits.
const TOKEN_BYTES: usize = 32;

/// A new account link.
pub struct AccountLink {
    /// The token in the URL. It cannot be retrieved again.
    pub token: String,
    /// The expiry.
    pub expires_at: Timestamp,
}

/// Omits the token.
impl fmt::Debug for AccountLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccountLink").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// Creates a link for a member and revokes the previous one. The link grants access to every organisation of the
/// account, so only the operator may create it.
///
/// # Errors
/// `forbidden` for everyone except the operator; `not_found` if there is no such member.
pub async fn create_account_link(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    user: &UserId,
) -> Result<AccountLink> {
    authorize_operator(&cx.caller)?;
    let mut tx = ops.store.begin().await?;
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
    record_for_user(cx, &mut tx, &user, "user.link", detail).await?;
    tx.commit().await?;
    Ok(AccountLink { token, expires_at })
}

/// Creates a link, as [`create_account_link`], for a member who cannot sign in yet. Returns `None` for other members.
///
/// # Errors
/// The same as for [`create_account_link`].
pub async fn create_first_account_link(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    user: &UserId,
) -> Result<Option<AccountLink>> {
    authorize_operator(&cx.caller)?;
    let credentials = store::find_credentials(&mut ops.store.read().await?, user).await?;
    if credentials
        .is_some_and(|credentials| credentials.user.verified_at.is_some() || credentials.password_hash.is_some())
    {
        return Ok(None);
    }
    create_account_link(cx, ops, organization, user).await.map(Some)
}

impl UserAccounts {
    /// Returns the user of a link.
    ///
    /// # Errors
    /// `not_found` if the link was used or replaced, has expired, or never existed.
    pub async fn get_account_link_user(&self, cx: &Ctx, token: &str) -> Result<User> {
        let mut conn = self.ops.store.read().await?;
        let Some(id) = user_code::find_link(&mut conn, &hash(token), cx.now()).await? else { return Err(not_usable()) };
        store::find(&mut conn, &id).await?.ok_or_else(not_usable)
    }

    /// Sets the name and password of the user of a link, ends the user's sessions, and signs the user in.
    ///
    /// # Errors
    /// The same as for [`Self::get_account_link_user`]; `invalid_arguments` with `name` or `password`, in which case
    /// the link can still be used.
    pub async fn use_account_link(
        &self,
        cx: &Ctx,
        token: &str,
        account_details: AccountDetails<'_>,
        browser: Browser<'_>,
    ) -> Result<NewUserSession> {
        let user = self.get_account_link_user(cx, token).await?;
        let name = name::check("name", account_details.name)?;
        let password = ChosenPassword { field: "password", password: account_details.password };
        let password_hash = self.hash(cx, browser.address, password, &user.email).await?;
        let mut tx = self.ops.store.begin().await?;
        let id = user_code::consume_link(&mut tx, &hash(token), cx.now()).await?.ok_or_else(not_usable)?;
        store::set_name(&mut tx, &id, &name).await?;
        let user = store::find(&mut tx, &id).await?.ok_or_else(not_usable)?;
        set_password(cx, &mut tx, &user, &password_hash, None).await?;
        let session = self.sign_in(cx, &mut tx, &user, SignInOrigin { browser, by: "link" }).await?;
        tx.commit().await?;
        Ok(session)
    }
}

fn not_usable() -> Error {
    let message =
        "This link was already used, was replaced by a newer one, or is older than 48 hours. Ask for a new one.";
    Error::new(Code::NotFound, message)
}
