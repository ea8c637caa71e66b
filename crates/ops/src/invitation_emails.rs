//! Delivers the links of invitations: by email, or to the inviter if the installation sends no email.

use waypost_core::Result;
use waypost_core::caller::Ctx;
use waypost_mail::{EmailKind, EmailMessage, Outbox, quote_name};

use crate::Ops;
use crate::invitations::{self, InvitationView, InvitationWithSecret};
use crate::public_url::PublicUrl;

/// An invitation whose link was delivered.
pub struct SentInvitation {
    /// The invitation.
    pub listed: InvitationView,
    /// The link for the inviter to pass on, shown once. `None` if this installation sends email: the link then proves
    /// ownership of the email address, so it is sent only to that address.
    pub link: Option<String>,
    /// Whether an email with the link was enqueued.
    pub mailed: bool,
}

/// Sends the link of an invitation that was just created or resent. `outbox` is `None` if this installation sends no
/// email.
///
/// # Errors
/// The same as for [`invitations::get`] and [`invitations::mark_emailed`].
pub async fn send(
    cx: &Ctx,
    ops: &Ops,
    invited: &InvitationWithSecret,
    public_url: &PublicUrl,
    outbox: Option<&Outbox>,
) -> Result<SentInvitation> {
    let InvitationWithSecret { invitation, organization, secret } = invited;
    let listed = invitations::get(cx, ops, &organization.id, &invitation.id).await?;
    let link = format!("{}/invite?token={secret}", public_url.origin());
    let Some(outbox) = outbox else {
        return Ok(SentInvitation { listed, link: Some(link), mailed: false });
    };
    invitations::mark_emailed(cx, ops, invited).await?;
    // The invitation is valid even if the email cannot be sent. In that case the inviter can resend it.
    let sent =
        outbox.enqueue(EmailKind::Invitation, organization.id.as_str(), message(&listed, &organization.name, &link));
    let mailed = sent.inspect_err(|error| tracing::error!(%error, "failed to enqueue invitation email")).is_ok();
    Ok(SentInvitation { listed, link: None, mailed })
}

fn message(listed: &InvitationView, organization: &str, link: &str) -> EmailMessage {
    let invitation = &listed.invitation;
    let inviter = listed.invited_by.as_deref().unwrap_or("The operator");
    let text = format!(
        "{inviter} has invited you to join {organization} on Waypost with the role {}.\n\n\
         To accept, open this link. It works once, within 48 hours, and only for {}:\n{link}\n\n\
         If you were not expecting this invitation, ignore this email.\n",
        invitation.role, invitation.email
    );
    EmailMessage::plain(&invitation.email, format!("Invitation to {}", quote_name(organization)), text)
}
