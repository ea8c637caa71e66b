//! Accepting an invitation.

use serde_json::json;
use waypost_core::access::authorize_user;
use waypost_core::caller::{Caller, Ctx};
use waypost_core::email::{self, Email};
use waypost_core::id::UserId;
use waypost_core::organization::{Organization, SignUpPolicy, User};
use waypost_core::secret::hash;
use waypost_core::{Code, Error, Result, name};
pub use waypost_store::invitation_accept::OpenInvitation;
use waypost_store::{Conn, Tx, invitation_accept, system, user as store};

use super::code::CLOSED;
use super::verification::{Verified, verify_address};
use super::{NewUserSession, UserAccounts, new_user, set_password};
use crate::audit::{Entry, record};
use crate::user_sessions::Browser;

/// Unverified accounts that one address can have, one for each organisation.
const MAX_UNVERIFIED: usize = 50;

/// What somebody says of themselves who comes by a link.
#[derive(Clone, Copy)]
pub struct AccountDetails<'a> {
    /// What they want to be called.
    pub name: &'a str,
    /// Their password.
    pub password: &'a str,
}

/// An invitation, as who is invited sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvitationDetails {
    /// The invitation.
    pub invitation: OpenInvitation,
    /// Who invited them, for people; none when they have gone, or it was a script.
    pub invited_by: Option<String>,
}

impl UserAccounts {
    /// The invitation of a link.
    ///
    /// # Errors
    /// `not_found` when it was accepted, taken back, has expired or was never made.
    pub async fn get_invitation(&self, cx: &Ctx, token: &str) -> Result<InvitationDetails> {
        let mut conn = self.ops.db.read().await?;
        let invitation = find(cx, &mut conn, token).await?;
        let invited_by = match invitation.invited_by.parse::<UserId>() {
            Ok(id) => store::find(&mut conn, &id).await?.map(|user| user.display_name().to_owned()),
            Err(_) => None,
        };
        Ok(InvitationDetails { invitation, invited_by })
    }

    /// Accepts an invitation as the user who asks; gives the organisation.
    ///
    /// # Errors
    /// As [`Self::get_invitation`]; `forbidden` when it is for another address, nobody is signed in, or the address of the
    /// user is not verified: such an account is valid for no further organisation.
    pub async fn accept_invitation(&self, cx: &Ctx, token: &str) -> Result<Organization> {
        let user = authorize_user(&cx.caller)?;
        let mut tx = self.ops.db.begin().await?;
        let invitation = find(cx, &mut tx, token).await?;
        let user = store::find(&mut tx, user).await?.ok_or_else(|| Error::not_found("user"))?;
        if email::key(&user.email) != invitation.email_key {
            let message = format!("This invitation is for {}. Sign in with that address.", invitation.email);
            return Err(Error::new(Code::Forbidden, message));
        }
        if user.verified_at.is_none() {
            let message = "The address of your account is not verified, so the account cannot join another organisation. \
                           Create one for this organisation with the invitation.";
            return Err(Error::new(Code::Forbidden, message));
        }
        accept(cx, &mut tx, &invitation).await?;
        become_member(cx, &mut tx, &invitation, &user).await?;
        tx.commit().await?;
        Ok(invitation.organization)
    }

    /// Accepts an invitation as somebody who is not signed in. A link that was only sent by email verifies the address. Any
    /// other link creates an account that is valid for the inviting organisation only, also if the address has a verified
    /// account: whoever has such a link must not learn of it.
    ///
    /// # Errors
    /// As [`Self::get_invitation`]; `forbidden` when no new accounts are made here; `conflict` when the organisation has a
    /// member with this address, or the link was sent by email, so its reader owns the address, and that has a verified
    /// account, which has to sign in; `invalid_arguments` naming `name` or `password`.
    pub async fn accept_and_sign_up(
        &self,
        cx: &Ctx,
        token: &str,
        newcomer: AccountDetails<'_>,
        browser: Browser<'_>,
    ) -> Result<(NewUserSession, Organization)> {
        let InvitationDetails { invitation, .. } = self.get_invitation(cx, token).await?;
        let name = name::check("name", newcomer.name)?;
        let password_hash = self.hash(cx, browser.address, ("password", newcomer.password), &invitation.email).await?;
        let mut tx = self.ops.db.begin().await?;
        // Whoever comes first holds the invitation until the end of the transaction.
        accept(cx, &mut tx, &invitation).await?;
        let Verified { user, revoked } = self.account_of(cx, &mut tx, &invitation, &name).await?;
        become_member(cx, &mut tx, &invitation, &user).await?;
        set_password(cx, &mut tx, &user, (&password_hash, None)).await?;
        let session = self.sign_in(cx, &mut tx, &user, (browser, "invitation")).await?;
        tx.commit().await?;
        Ok((NewUserSession { revoked, ..session }, invitation.organization))
    }

    /// The account that an invitation leads to: the verified one of the address if the link proves it, else a new one for the
    /// inviting organisation.
    async fn account_of(&self, cx: &Ctx, tx: &mut Tx, invitation: &OpenInvitation, name: &str) -> Result<Verified> {
        let email = Email { address: invitation.email.clone(), key: invitation.email_key.clone() };
        let accounts = system::lock_accounts(tx, &email.key).await?;
        let is_closed = self.sign_up == SignUpPolicy::Closed;
        if invitation.emailed {
            if accounts.iter().any(|account| account.user.verified_at.is_some()) {
                return Err(has_one());
            }
            let verified = verify_address(cx, tx, &email, (Some(name.to_owned()), !is_closed)).await?;
            return verified.ok_or_else(|| Error::new(Code::Forbidden, CLOSED));
        }
        let organization = &invitation.organization.id;
        if store::find_member_by_email(tx, organization, &email.key).await?.is_some_and(|member| member.is_verified) {
            return Err(has_one());
        }
        // The operator may have made an account for the organisation that nobody has used yet.
        if let Some(own) = accounts.iter().find(|account| account.user.organization_id.as_ref() == Some(organization)) {
            if own.password_hash.is_some() {
                return Err(has_one());
            }
            store::set_name(tx, &own.user.id, name).await?;
            let user = User { name: Some(name.to_owned()), ..own.user.clone() };
            return Ok(Verified { user, revoked: false });
        }
        if is_closed {
            return Err(Error::new(Code::Forbidden, CLOSED));
        }
        if accounts.len() >= MAX_UNVERIFIED {
            let message = format!("{} has {MAX_UNVERIFIED} accounts, which is the maximum.", invitation.email);
            return Err(Error::new(Code::Conflict, message));
        }
        let user = new_user(cx, tx, &email, (Some(name), Some(organization))).await?;
        Ok(Verified { user, revoked: false })
    }
}

async fn find(cx: &Ctx, conn: &mut Conn, token: &str) -> Result<OpenInvitation> {
    system::find_invitation(conn, &hash(token), cx.now()).await?.ok_or_else(gone)
}

async fn accept(cx: &Ctx, tx: &mut Tx, invitation: &OpenInvitation) -> Result<()> {
    let accepted = invitation_accept::accept(tx, &invitation.organization.id, &invitation.id, cx.now()).await?;
    if accepted { Ok(()) } else { Err(gone()) }
}

/// Makes `user` a member with the role of the invitation; who is one already keeps theirs.
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

fn has_one() -> Error {
    Error::new(Code::Conflict, "There is an account with this address. Sign in with it to accept the invitation.")
}

fn gone() -> Error {
    let message = "This invitation was accepted already, was taken back, or is older than 48 hours. Ask for a new one.";
    Error::new(Code::NotFound, message)
}
