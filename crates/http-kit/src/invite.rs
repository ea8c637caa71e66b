//! Sending invitations, for the pages and the API: the operation, the link and the email.

use waypost_core::caller::Ctx;
use waypost_core::id::{InvitationId, OrganizationId};
use waypost_core::organization::Role;
use waypost_core::{Code, Error, Result};
use waypost_mail::{EmailKind, EmailMessage, quote_name};
use waypost_ops::invitations::{self, InvitationView, InvitationWithSecret};

use crate::limits::LimitKind;
use crate::request_info::RequestInfo;
use crate::web::Web;

/// An invitation that was just created or resent.
pub struct SentInvitation {
    /// The invitation.
    pub listed: InvitationView,
    /// The link to hand over, shown once. `None` if this installation sends email: the link then proves the ownership
    /// of the email, so it is sent to that email only.
    pub link: Option<String>,
    /// Whether an email with the link was enqueued.
    pub mailed: bool,
}

/// Creates an invitation for `email` and sends it.
///
/// # Errors
/// As [`invitations::create`]; `rate_limited`.
pub async fn create(
    web: &Web,
    (cx, info): (&Ctx, &RequestInfo),
    organization: &OrganizationId,
    (email, role): (&str, Role),
) -> Result<SentInvitation> {
    check_limits(web, info)?;
    let invited = invitations::create(cx, web.ops(), organization, email, role).await?;
    send(web, cx, invited).await
}

/// Gives an invitation a new link and sends it.
///
/// # Errors
/// As [`invitations::resend`]; `rate_limited`.
pub async fn resend(
    web: &Web,
    (cx, info): (&Ctx, &RequestInfo),
    organization: &OrganizationId,
    id: &InvitationId,
) -> Result<SentInvitation> {
    check_limits(web, info)?;
    let invited = invitations::resend(cx, web.ops(), organization, id).await?;
    send(web, cx, invited).await
}

fn check_limits(web: &Web, info: &RequestInfo) -> Result<()> {
    check(web, LimitKind::Invitation, info)?;
    if web.mail.is_some() { check(web, LimitKind::Mail, info) } else { Ok(()) }
}

fn check(web: &Web, kind: LimitKind, info: &RequestInfo) -> Result<()> {
    web.limits.check(kind, info.client).map_err(|wait| {
        let seconds = wait.as_secs().max(1);
        let message = format!("Too many invitations from your network. Try again in {seconds} seconds.");
        Error::new(Code::RateLimited, message).with("retry_after_seconds", seconds)
    })
}

async fn send(web: &Web, cx: &Ctx, invited: InvitationWithSecret) -> Result<SentInvitation> {
    let InvitationWithSecret { invitation, organization, secret } = &invited;
    let listed = invitations::get(cx, web.ops(), &organization.id, &invitation.id).await?;
    let link = format!("{}/invite?token={secret}", web.public_url.origin());
    let Some(outbox) = &web.mail else {
        return Ok(SentInvitation { listed, link: Some(link), mailed: false });
    };
    invitations::mark_emailed(cx, web.ops(), &invited).await?;
    // The invitation is valid even if the email cannot be sent. In that case the inviter can resend it.
    let sent =
        outbox.enqueue(EmailKind::Invitation, organization.id.as_str(), mail(&listed, &organization.name, &link));
    let mailed = sent.inspect_err(|error| tracing::error!(%error, "failed to enqueue an invitation")).is_ok();
    Ok(SentInvitation { listed, link: None, mailed })
}

fn mail(listed: &InvitationView, organization: &str, link: &str) -> EmailMessage {
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
