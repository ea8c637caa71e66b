//! Operations of users on their own account.

use serde_json::json;
use waypost_content::name;
use waypost_core::access::authorize_user;
use waypost_core::caller::Ctx;
use waypost_core::id::{OrganizationId, UserSessionId};
use waypost_core::{Code, Error, Result, email};
use waypost_store::user as store;

use super::limits::check_account;
use super::password::wrong_password;
use super::{UserAccounts, set_password};
use crate::audit::{Entry, record};
use crate::passwords::ChosenPassword;
use crate::remote_tokens::revoke;
use crate::sign_in_limits::AttemptKind;
use crate::user_sessions::Browser;
use crate::{Ops, agents, invitations};

/// The result of a password change.
pub struct PasswordChange {
    /// The number of other sessions that were ended.
    pub ended: u64,
    /// The new device cookie of this browser ([`crate::devices`]). The previous one is no longer valid.
    pub device: String,
}

/// Omits the cookie.
impl std::fmt::Debug for PasswordChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PasswordChange").field("ended", &self.ended).finish_non_exhaustive()
    }
}

/// Changes the name of the calling user.
///
/// # Errors
/// `forbidden` if the caller is not a user; `invalid_arguments` with `name`.
pub async fn set_name(cx: &Ctx, ops: &Ops, text: &str) -> Result<()> {
    let user = authorize_user(&cx.caller)?;
    let name = name::check("name", text)?;
    let mut tx = ops.store.begin().await?;
    store::set_name(&mut tx, user, &name).await?;
    tx.commit().await?;
    Ok(())
}

/// Ends the membership of the calling user and revokes their pending invitations. A verified user keeps the account,
/// with or without another organisation; an unverified user without another organisation is deleted.
///
/// # Errors
/// The same as for [`set_name`]; `not_found` if the caller is not a member; `conflict` if the organisation would have
/// no owner left.
pub async fn leave_organization(cx: &Ctx, ops: &Ops, organization: &OrganizationId) -> Result<()> {
    let user = authorize_user(&cx.caller)?;
    let mut tx = ops.store.begin().await?;
    let owners = store::lock_owners(&mut tx, organization).await?;
    let member = store::find_member(&mut tx, organization, user).await?;
    let member = member.ok_or_else(|| Error::not_found("organisation"))?;
    if owners.as_slice() == [user.clone()] {
        let message = "You are the last owner. Make another member an owner first, or delete the organisation.";
        return Err(Error::new(Code::Conflict, message));
    }
    store::remove_member(&mut tx, organization, user).await?;
    let connections = agents::delete_for_user(cx, &mut tx, organization, user).await?;
    invitations::revoke_by_inviter(cx, &mut tx, organization, user.as_str(), None).await?;
    store::delete_without_membership(&mut tx, user).await?;
    let detail = json!({ "email": member.email, "role": member.role.as_str(), "left": true });
    record(cx, &mut tx, organization, Entry { action: "member.delete", target: user.as_str(), detail }).await?;
    tx.commit().await?;
    revoke(ops, connections).await;
    Ok(())
}

impl UserAccounts {
    /// Whether the calling user has a password.
    ///
    /// # Errors
    /// `forbidden` if the caller is not a user.
    pub async fn has_password(&self, cx: &Ctx) -> Result<bool> {
        let user = authorize_user(&cx.caller)?;
        let credentials = store::find_credentials(&mut self.ops.store.read().await?, user).await?;
        Ok(credentials.is_some_and(|credentials| credentials.password_hash.is_some()))
    }

    /// Sets a new password for the calling user and ends all their sessions except `keep`. A user with a password must
    /// provide it: an open session alone is not sufficient.
    ///
    /// # Errors
    /// `forbidden` if the caller is not a user; `invalid_arguments` with `password` if it is not the current one, or
    /// with `new_password`; `rate_limited` after too many wrong passwords.
    pub async fn change_password(
        &self,
        cx: &Ctx,
        password: &str,
        new_password: &str,
        keep: &UserSessionId,
        browser: Browser<'_>,
    ) -> Result<PasswordChange> {
        let user = authorize_user(&cx.caller)?;
        let credentials = store::find_credentials(&mut self.ops.store.read().await?, user).await?;
        let credentials = credentials.ok_or_else(|| Error::not_found("user"))?;
        if credentials.password_hash.is_some() {
            let email_key = email::key(&credentials.user.email);
            let admitted = self.admit(cx, &email_key, AttemptKind::Password, browser).await?;
            check_account(&admitted, AttemptKind::Password)?;
            if !self.ops.passwords.verify(browser.address, password, credentials.password_hash.as_deref()).await? {
                let mut tx = self.ops.store.begin().await?;
                self.count(cx, &mut tx, AttemptKind::Password, &email_key).await?;
                tx.commit().await?;
                return Err(Error::invalid("password", "The current password is incorrect. Try again."));
            }
            admitted.counted.refund();
        }
        let chosen = ChosenPassword { field: "new_password", password: new_password };
        let hash = self.hash(cx, browser.address, chosen, &credentials.user.email).await?;
        let mut tx = self.ops.store.begin().await?;
        let now = store::find_credentials(&mut tx, user).await?;
        if now.is_none_or(|now| now.password_hash != credentials.password_hash) {
            return Err(wrong_password());
        }
        let ended = set_password(cx, &mut tx, &credentials.user, &hash, Some(keep)).await?;
        let device = self.new_device(cx, &mut tx, &credentials.user).await?;
        tx.commit().await?;
        Ok(PasswordChange { ended, device })
    }
}
