//! Inviting people, for the pages and the API: the act, the link, and the mail.

use waypost_core::caller::Ctx;
use waypost_core::id::{InvitationId, OrganizationId};
use waypost_core::organization::Role;
use waypost_core::{Code, Error, Result};
use waypost_mail::Mail;
use waypost_ops::invitations::{self, Invited, Listed};

use crate::Web;
use crate::limits::Kind;
use crate::visit::Visit;

/// An invitation that was just made or renewed.
pub struct Sent {
    /// The invitation.
    pub listed: Listed,
    /// The link, which cannot be shown again.
    pub link: String,
    /// Whether a mail with the link is on its way.
    pub mailed: bool,
}

/// Invites the person with this address.
///
/// # Errors
/// As [`invitations::create`]; `rate_limited`.
pub async fn create(
    web: &Web,
    (cx, visit): (&Ctx, &Visit),
    organization: &OrganizationId,
    (email, role): (&str, Role),
) -> Result<Sent> {
    check(web, Kind::Invitation, visit)?;
    let invited = invitations::create(cx, web.ops(), organization, email, role).await?;
    send(web, (cx, visit), invited).await
}

/// Gives an invitation a new link.
///
/// # Errors
/// As [`invitations::resend`]; `rate_limited`.
pub async fn resend(
    web: &Web,
    (cx, visit): (&Ctx, &Visit),
    organization: &OrganizationId,
    id: &InvitationId,
) -> Result<Sent> {
    check(web, Kind::Invitation, visit)?;
    let invited = invitations::resend(cx, web.ops(), organization, id).await?;
    send(web, (cx, visit), invited).await
}

fn check(web: &Web, kind: Kind, visit: &Visit) -> Result<()> {
    web.limits.check(kind, visit.client).map_err(|wait| {
        let seconds = wait.as_secs().max(1);
        let message = format!("Too many invitations from your network. Try again in {seconds} seconds.");
        Error::new(Code::RateLimited, message).with("retry_after_seconds", seconds)
    })
}

async fn send(web: &Web, (cx, visit): (&Ctx, &Visit), invited: Invited) -> Result<Sent> {
    let Invited { invitation, organization, secret } = invited;
    let listed = invitations::show(cx, web.ops(), &organization.id, &invitation.id).await?;
    let link = format!("{}/invite?token={secret}", web.public_url.origin());
    let mailed = match &web.mail {
        // The invitation stands either way, and the link is shown: that no mail goes out is no failure.
        Some(outbox) if check(web, Kind::Mail, visit).is_ok() => {
            let sent = outbox.send(mail(&listed, &organization.name, &link));
            sent.inspect_err(|error| tracing::error!(%error, "an invitation could not be sent")).is_ok()
        }
        _ => false,
    };
    Ok(Sent { listed, link, mailed })
}

fn mail(listed: &Listed, organization: &str, link: &str) -> Mail {
    let invitation = &listed.invitation;
    let who = listed.invited_by.as_deref().unwrap_or("The operator");
    let text = format!(
        "{who} invites you to {organization} on Waypost, with the role {}.\n\n\
         Open this link to accept. It is valid for 48 hours, once, and only for {}:\n{link}\n\n\
         If you do not know what this is about, ignore this mail.\n",
        invitation.role, invitation.email
    );
    Mail { to: invitation.email.clone(), subject: format!("Invitation to {organization}"), text }
}
