//! The emails that contain codes.

use axum::response::Response;
use http::HeaderMap;
use waypost_core::account::CodePurpose;
use waypost_core::{Code, Error};
use waypost_mail::{EmailKind, EmailMessage, quote_name};
use waypost_ops::accounts::{CodeRequest, IssuedCode, SignInClient};

use crate::Auth;
use crate::page;
use crate::pending::PendingAuthorization;
use waypost_http_kit::limits::LimitKind;

use super::email_unavailable;

/// The reason why no code was sent.
pub(super) enum SendError {
    /// An error to show with the form.
    Problem(Error),
    /// An error page.
    Page(Response),
}

/// Creates a code, sends it and returns a redirect to the page on which the code is entered.
pub(super) async fn send(
    auth: &Auth,
    pending: &PendingAuthorization,
    headers: &HeaderMap,
    request: CodeRequest<'_>,
) -> Result<Response, SendError> {
    let Some(outbox) = &auth.mail else { return Err(SendError::Page(email_unavailable(pending))) };
    let device = super::device_cookie(pending, headers);
    let client = SignInClient { address: pending.incoming.client, device: &device };
    let org = &pending.incoming.server().organization_id;
    if !auth.accounts().is_known_browser(&pending.cx, org, request.email, &device)
        && let Err(wait) = auth.limits.check(LimitKind::EndUserMail, pending.incoming.client)
    {
        return Err(SendError::Page(page::too_many(&pending.incoming, wait)));
    }
    let issued = auth
        .accounts()
        .create_code(&pending.cx, &pending.request, request, client)
        .await
        .map_err(SendError::Problem)?;
    let link = format!(
        "{}{}&sent={}&code={}",
        pending.incoming.address.origin(),
        pending.path("sign-in/link"),
        issued.id,
        issued.code
    );
    if let Err(error) = outbox.enqueue(
        EmailKind::SignIn,
        pending.incoming.server().organization_id.as_str(),
        code_email(&issued, request.purpose, &link),
    ) {
        tracing::error!(request_id = pending.incoming.request_id, %error, "failed to enqueue email with code");
        let message = "Email cannot be sent at the moment. Try again in a few minutes.";
        return Err(SendError::Problem(Error::new(Code::Unavailable, message).caused_by(error)));
    }
    let name = if request.purpose == CodePurpose::Reset { "sign-in/reset" } else { "sign-in/code" };
    Ok(page::redirect(&format!("{}&sent={}", pending.path(name), issued.id)))
}

/// Returns the email with a code. The code comes first, so that notifications show it.
fn code_email(issued: &IssuedCode, purpose: CodePurpose, link: &str) -> EmailMessage {
    let IssuedCode { code, organization, email, has_account, .. } = issued;
    let purpose_text = match (purpose, has_account) {
        (CodePurpose::SignIn, _) => format!("is your code to sign in to {organization}."),
        (CodePurpose::SignUp, false) => format!("is your code to create your account with {organization}."),
        (CodePurpose::SignUp, true) => format!(
            "is your code for {organization}. You already have an account: the code signs you in and sets the password \
             that was just entered."
        ),
        (CodePurpose::Reset, true) => format!("is your code to set a new password for {organization}."),
        (CodePurpose::Reset, false) => format!(
            "is your code for {organization}. There is no account with your email yet: the code creates one with the \
             password that you choose."
        ),
    };
    let text = format!(
        "{code}\n\n{purpose_text}\n\nEnter it on the page where you requested it. It is valid for 10 minutes.\n\n\
         Or open this link in the same browser:\n{link}\n\n\
         If you did not request this code, ignore this email. Never share the code: it gives access to your account.\n"
    );
    EmailMessage::plain(email, format!("{code} is your code for {}", quote_name(organization)), text)
}
