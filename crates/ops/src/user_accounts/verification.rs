//! Verification of email addresses, and its effect on accounts that others may have created for the same address.
//!
//! Only the following verify an email address: a code sent to it, an invitation link that was sent to it and shown to
//! no one, and an identity provider that has verified it. The setup link is exempt (docs/security.md).

use serde_json::json;
use waypost_core::Result;
use waypost_core::caller::{Caller, Ctx};
use waypost_core::email::Email;
use waypost_core::id::UserId;
use waypost_core::organization::User;
use waypost_store::user_account::{self, RevocationCounts};
use waypost_store::{Tx, system, user as store};

use super::{new_user, record_for_user};
use crate::audit::{Entry, record};

/// The account of a user who has just verified an email address.
pub(super) struct VerifiedAccount {
    /// The account.
    pub(super) user: User,
    /// Whether a password, session, API key or provider link from before was revoked.
    pub(super) revoked: bool,
}

/// Returns the verified account of an email address whose owner has just proved access to it.
///
/// If the email address was not verified before, everything that its unverified accounts created is revoked: their
/// passwords, sessions, provider links, API keys, account links and pending invitations may belong to another person.
/// Their memberships remain, because this address was invited. If the address has no account, creates one with
/// `create`, and returns `None` otherwise. `name` is used if the account has no name.
pub(super) async fn verify_address(
    cx: &Ctx,
    tx: &mut Tx,
    email: &Email,
    name: Option<String>,
    create: bool,
) -> Result<Option<VerifiedAccount>> {
    let accounts = system::lock_accounts(tx, &email.key).await?;
    let Some(first) = accounts.first().map(|account| account.user.clone()) else {
        if !create {
            return Ok(None);
        }
        let user = new_user(cx, tx, email, name.as_deref(), None).await?;
        store::mark_verified(tx, &user.id, cx.now()).await?;
        return Ok(Some(VerifiedAccount { user: User { verified_at: Some(cx.now()), ..user }, revoked: false }));
    };
    let unverified: Vec<_> = accounts.into_iter().filter(|account| account.user.verified_at.is_none()).collect();
    let mut revoked = false;
    for account in &unverified {
        let id = &account.user.id;
        revoked |= revoke(cx, tx, &account.user, &first).await?;
        if *id != first.id {
            user_account::merge(tx, id, &first.id).await?;
        }
    }
    store::mark_verified(tx, &first.id, cx.now()).await?;
    let user = store::find(tx, &first.id).await?.ok_or_else(|| waypost_core::Error::not_found("user"))?;
    Ok(Some(VerifiedAccount { user: set_missing_name(tx, user, name).await?, revoked }))
}

async fn set_missing_name(tx: &mut Tx, user: User, name: Option<String>) -> Result<User> {
    let Some(name) = name.filter(|_| user.name.is_none()) else { return Ok(user) };
    store::set_name(tx, &user.id, &name).await?;
    Ok(User { name: Some(name), ..user })
}

/// Revokes everything that an unverified account created, on behalf of `owner`, who has just verified the email
/// address. Returns whether a password, session, API key or provider link was revoked.
async fn revoke(cx: &Ctx, tx: &mut Tx, account: &User, owner: &User) -> Result<bool> {
    let cx = cx.with_caller(Caller::User { user_id: owner.id.clone() });
    let RevocationCounts { passwords, sessions, identities } =
        user_account::revoke_access(tx, &account.id, cx.now()).await?;
    let keys = user_account::delete_api_keys(tx, account.id.as_str()).await?;
    let mut invitations = user_account::revoke_invitations(tx, account.id.as_str(), cx.now()).await?;
    for key in &keys {
        let detail = json!({ "name": key.name, "by": "user.verify" });
        let entry = Entry { action: "key.delete", target: key.id.as_str(), detail };
        record(&cx, tx, &key.organization_id, entry).await?;
        invitations.extend(user_account::revoke_invitations(tx, key.id.as_str(), cx.now()).await?);
    }
    for (organization, id) in &invitations {
        let entry = Entry { action: "invitation.revoke", target: id.as_str(), detail: json!({ "by": "user.verify" }) };
        record(&cx, tx, organization, entry).await?;
    }
    let detail = json!({
        "email": account.email, "account": account.id, "passwords": passwords, "sessions": sessions,
        "identities": identities, "keys": keys.len(), "invitations": invitations.len(),
    });
    record_for_user(&cx, tx, account, "user.verify", detail).await?;
    Ok(passwords + sessions + identities > 0 || !keys.is_empty())
}

/// Whether a user has a verified email address.
pub(crate) async fn is_verified(tx: &mut Tx, user: &UserId) -> Result<bool> {
    Ok(store::find(tx, user).await?.is_some_and(|user| user.verified_at.is_some()))
}
