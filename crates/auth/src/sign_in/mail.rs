//! The mails with codes.

use axum::response::Response;
use http::HeaderMap;
use waypost_core::account::CodePurpose;
use waypost_core::{Code, Error};
use waypost_mail::{EmailKind, EmailMessage, quote_name};
use waypost_ops::accounts::{ClientInfo, CodeRequest, IssuedCode};

use crate::Auth;
use crate::limits::Kind;
use crate::page;
use crate::pending::Pending;

use super::no_mail;

/// Why no code is on its way.
pub(super) enum Unsent {
    /// What to tell beside the form.
    Problem(Error),
    /// A page of its own.
    Page(Response),
}

/// Makes a code and sends it; gives the page to which the browser goes then.
pub(super) async fn send(
    auth: &Auth,
    pending: &Pending,
    headers: &HeaderMap,
    asked: CodeRequest<'_>,
) -> Result<Response, Unsent> {
    let Some(outbox) = &auth.mail else { return Err(Unsent::Page(no_mail(pending))) };
    let device = super::device(pending, headers);
    let client = ClientInfo { address: pending.incoming.client, device: &device };
    let org = &pending.request.organization_id;
    if !auth.accounts().is_known_browser(&pending.cx, org, asked.email, &device)
        && let Err(wait) = auth.limits.check(Kind::Mail, pending.incoming.client)
    {
        return Err(Unsent::Page(page::too_many(&pending.incoming, wait)));
    }
    let made =
        auth.accounts().create_code(&pending.cx, &pending.request, asked, client).await.map_err(Unsent::Problem)?;
    let link = format!(
        "{}{}&sent={}&code={}",
        pending.incoming.address.origin(),
        pending.path("sign-in/link"),
        made.id,
        made.code
    );
    if let Err(error) =
        outbox.enqueue(EmailKind::SignIn, pending.request.organization_id.as_str(), mail(&made, asked.purpose, &link))
    {
        tracing::error!(request_id = pending.incoming.request_id, %error, "a code could not be sent");
        let message = "No mail can be sent at the moment. Try again in a few minutes.";
        return Err(Unsent::Problem(Error::new(Code::Unavailable, message).caused_by(error)));
    }
    let name = if asked.purpose == CodePurpose::Reset { "sign-in/reset" } else { "sign-in/code" };
    Ok(page::redirect(&format!("{}&sent={}", pending.path(name), made.id)))
}

/// The mail with a code: the code first, where notifications show it.
fn mail(made: &IssuedCode, purpose: CodePurpose, link: &str) -> EmailMessage {
    let IssuedCode { code, organization, email, has_account, .. } = made;
    let what = match (purpose, has_account) {
        (CodePurpose::SignIn, _) => format!("is your code to sign in to {organization}."),
        (CodePurpose::SignUp, false) => format!("is your code to create your account at {organization}."),
        (CodePurpose::SignUp, true) => format!(
            "is your code for {organization}. You have an account there already: the code signs you in and sets the \
             password that was typed just now."
        ),
        (CodePurpose::Reset, true) => format!("is your code to set a new password at {organization}."),
        (CodePurpose::Reset, false) => format!(
            "is your code for {organization}. There is no account with your address yet: the code makes one, with the \
             password that you choose."
        ),
    };
    let text = format!(
        "{code}\n\n{what}\n\nType it on the page that asked for it. It is valid for 10 minutes.\n\n\
         Or open this link in the same browser:\n{link}\n\n\
         If you did not request this code, ignore this email. Never share the code: it gives access to your account.\n"
    );
    EmailMessage { to: email.clone(), subject: format!("{code} is your code for {}", quote_name(organization)), text }
}
