//! Acceptance of invitations.

use serde_json::json;
use waypost_content::name;
use waypost_core::access::authorize_user;
use waypost_core::caller::{Caller, Ctx};
use waypost_core::email::{self, Email};
use waypost_core::id::UserId;
use waypost_core::organization::{Organization, SignUpPolicy, User};
use waypost_core::secret::hash;
use waypost_core::{Code, Error, Result};
pub use waypost_store::invitation_accept::OpenInvitation;
use waypost_store::{Conn, Tx, invitation_accept, system, user as store};

use super::code::CLOSED;
use super::sign_ins::SignInOrigin;
use super::verification::{VerifiedAccount, verify_address};
use super::{NewUserSession, UserAccounts, new_user, set_password};
use crate::audit::{Entry, record};
use crate::passwords::ChosenPassword;
use crate::user_sessions::Browser;

/// The maximum number of unverified accounts of one email address, one for each organisation.
const MAX_UNVERIFIED: usize = 50;

/// The name and password that a user enters after following a link.
#[derive(Clone, Copy)]
pub struct AccountDetails<'a> {
    /// The name.
    pub name: &'a str,
    /// The password.
    pub password: &'a str,
}

/// An invitation as shown to the invited user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvitationDetails {
    /// The invitation.
    pub invitation: OpenInvitation,
    /// The display name of the inviter. `None` if the user was deleted, or an API key created the invitation.
    pub invited_by: Option<String>,
}

impl UserAccounts {
    /// Returns the invitation of a link.
    ///
    /// # Errors
    /// `not_found` if it was accepted or revoked, has expired, or never existed.
    pub async fn get_invitation(&self, cx: &Ctx, token: &str) -> Result<InvitationDetails> {
        let mut conn = self.ops.store.read().await?;
        let invitation = find(cx, &mut conn, token).await?;
        let invited_by = match invitation.invited_by.parse::<UserId>() {
            Ok(id) => store::find(&mut conn, &id).await?.map(|user| user.display_name().to_owned()),
            Err(_) => None,
        };
        Ok(InvitationDetails { invitation, invited_by })
    }

    /// Accepts an invitation as the calling user. Returns the organisation.
    ///
    /// # Errors
    /// The same as for [`Self::get_invitation`]; `forbidden` if it is for another email address, the caller is not a
    /// user, or the user's email address is not verified: such an account is not valid for another organisation.
    pub async fn accept_invitation(&self, cx: &Ctx, token: &str) -> Result<Organization> {
        let user = authorize_user(&cx.caller)?;
        let mut tx = self.ops.store.begin().await?;
        let invitation = find(cx, &mut tx, token).await?;
        let user = store::find(&mut tx, user).await?.ok_or_else(|| Error::not_found("user"))?;
        if email::key(&user.email) != invitation.email_key {
            let message = format!("This invitation is for {}. Sign in with that email.", invitation.email);
            return Err(Error::new(Code::Forbidden, message));
        }
        if user.verified_at.is_none() {
            let message = "The email of your account is not verified, so the account cannot join another organisation. \
                           Use the invitation to create an account for this organisation.";
            return Err(Error::new(Code::Forbidden, message));
        }
        accept(cx, &mut tx, &invitation).await?;
        become_member(cx, &mut tx, &invitation, &user).await?;
        tx.commit().await?;
        Ok(invitation.organization)
    }

    /// Accepts an invitation as a visitor who is not signed in. A link that was sent only by email verifies the email
    /// address. Any other link creates an account that is valid for the inviting organisation only, even if the email
    /// address has a verified account: a reader of such a link must not learn about it.
    ///
    /// # Errors
    /// The same as for [`Self::get_invitation`]; `forbidden` if sign-up is closed; `conflict` if the organisation has a
    /// member with this email address, or if the link was sent by email (so its reader owns the address) and the
    /// address has a verified account, whose owner must sign in; `invalid_arguments` with `name` or `password`.
    pub async fn accept_and_sign_up(
        &self,
        cx: &Ctx,
        token: &str,
        account_details: AccountDetails<'_>,
        browser: Browser<'_>,
    ) -> Result<(NewUserSession, Organization)> {
        let InvitationDetails { invitation, .. } = self.get_invitation(cx, token).await?;
        let name = name::check("name", account_details.name)?;
        let password = ChosenPassword { field: "password", password: account_details.password };
        let password_hash = self.hash(cx, browser.address, password, &invitation.email).await?;
        let mut tx = self.ops.store.begin().await?;
        // The first caller locks the invitation until the end of the transaction.
        accept(cx, &mut tx, &invitation).await?;
        let VerifiedAccount { user, revoked } = self.account_of(cx, &mut tx, &invitation, &name).await?;
        become_member(cx, &mut tx, &invitation, &user).await?;
        set_password(cx, &mut tx, &user, &password_hash, None).await?;
        let session = self.sign_in(cx, &mut tx, &user, SignInOrigin { browser, by: "invitation" }).await?;
        tx.commit().await?;
        Ok((NewUserSession { revoked, ..session }, invitation.organization))
    }

    /// Returns the account for an invitation: the verified account of the email address if the link verifies it, or a
    /// new account for the inviting organisation.
    async fn account_of(
        &self,
        cx: &Ctx,
        tx: &mut Tx,
        invitation: &OpenInvitation,
        name: &str,
    ) -> Result<VerifiedAccount> {
        let email = Email { address: invitation.email.clone(), key: invitation.email_key.clone() };
        let accounts = system::lock_accounts(tx, &email.key).await?;
        let is_closed = self.sign_up == SignUpPolicy::Closed;
        if invitation.emailed {
            if accounts.iter().any(|account| account.user.verified_at.is_some()) {
                return Err(account_exists());
            }
            let verified = verify_address(cx, tx, &email, Some(name.to_owned()), !is_closed).await?;
            return verified.ok_or_else(|| Error::new(Code::Forbidden, CLOSED));
        }
        let organization = &invitation.organization.id;
        if store::find_member_by_email(tx, organization, &email.key).await?.is_some_and(|member| member.is_verified) {
            return Err(account_exists());
        }
        // The operator may have created an account for the organisation that is not used yet.
        if let Some(own) = accounts.iter().find(|account| account.user.organization_id.as_ref() == Some(organization)) {
            if own.password_hash.is_some() {
                return Err(account_exists());
            }
            store::set_name(tx, &own.user.id, name).await?;
            let user = User { name: Some(name.to_owned()), ..own.user.clone() };
            return Ok(VerifiedAccount { user, revoked: false });
        }
        if is_closed {
            return Err(Error::new(Code::Forbidden, CLOSED));
        }
        if accounts.len() >= MAX_UNVERIFIED {
            let message = format!("{} has {MAX_UNVERIFIED} accounts, which is the maximum.", invitation.email);
            return Err(Error::new(Code::Conflict, message));
        }
        let user = new_user(cx, tx, &email, Some(name), Some(organization)).await?;
        Ok(VerifiedAccount { user, revoked: false })
    }
}

async fn find(cx: &Ctx, conn: &mut Conn, token: &str) -> Result<OpenInvitation> {
    system::find_invitation(conn, &hash(token), cx.now()).await?.ok_or_else(not_usable)
}

async fn accept(cx: &Ctx, tx: &mut Tx, invitation: &OpenInvitation) -> Result<()> {
    let accepted = invitation_accept::accept(tx, &invitation.organization.id, &invitation.id, cx.now()).await?;
    if accepted { Ok(()) } else { Err(not_usable()) }
}

/// Makes `user` a member with the role of the invitation. An existing member keeps their role.
async fn become_member(cx: &Ctx, tx: &mut Tx, invitation: &OpenInvitation, user: &User) -> Result<()> {
    let organization = &invitation.organization.id;
    let cx = cx.with_caller(Caller::User { user_id: user.id.clone() });
    let detail = json!({ "email": user.email, "role": invitation.role.as_str(), "invited_by": invitation.invited_by });
    let entry = Entry { action: "invitation.accept", target: invitation.id.as_str(), detail: detail.clone() };
    record(&cx, tx, organization, entry).await?;
    if store::find_member(tx, organization, &user.id).await?.is_none() {
        store::add_member(tx, organization, &user.id, invitation.role, cx.now()).await?;
        let entry = Entry { action: "member.create", target: user.id.as_str(), detail };
        record(&cx, tx, organization, entry).await?;
    }
    Ok(())
}

fn account_exists() -> Error {
    Error::new(Code::Conflict, "An account with this email exists. Sign in with it to accept the invitation.")
}

fn not_usable() -> Error {
    let message = "This invitation was already accepted, was revoked, or is older than 48 hours. Ask for a new one.";
    Error::new(Code::NotFound, message)
}
