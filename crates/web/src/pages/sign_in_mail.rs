//! The mails on the way in.

use waypost_core::account::CodePurpose;
use waypost_core::id::OrganizationId;
use waypost_core::organization::SignUpPolicy;
use waypost_core::{Code, Error, Result};
use waypost_mail::{EmailKind, EmailMessage};
use waypost_ops::user_accounts::{IssuedUserCode, UserCodeRequest};

use super::sign_in::{self, Device};
use crate::Web;
use crate::limits::LimitKind;
use crate::request_info::RequestInfo;

/// Makes a code and sends it; gives its id. Whether somebody has the address is told by the mail only.
///
/// # Errors
/// `unavailable` when this installation cannot send mails, or not at the moment; else those of
/// [`waypost_ops::user_accounts::UserAccounts::create_code`].
pub(super) async fn send_code(
    web: &Web,
    info: &RequestInfo,
    asked: UserCodeRequest<'_>,
    device: &Device,
) -> Result<String> {
    let Some(outbox) = &web.mail else {
        return Err(Error::new(Code::Unavailable, "This installation cannot send mails, so there are no codes."));
    };
    sign_in::check_limit_for_email(web, (LimitKind::Mail, info), asked.email, device)?;
    let made = web.accounts().create_code(&sign_in::visitor_context(web, info), asked, device.browser()).await?;
    let mail = mail(&made, web.public_url.host(), &web.public_url.origin(), web.accounts().sign_up());
    // A sign-up belongs to no organisation, whoever has the address.
    let organization = made.organization_id.as_ref().filter(|_| made.purpose != CodePurpose::SignUp);
    let share = organization.map_or("", OrganizationId::as_str);
    if let Err(error) = outbox.enqueue(EmailKind::SignIn, share, mail) {
        if made.purpose != CodePurpose::SignUp && organization.is_none() {
            // Addresses without an account share a line. If it is full, the page does not say so: for an address with an
            // account it would not be.
            tracing::warn!(request_id = info.request_id, "dropped an email for an address without an account");
            return Ok(made.id.to_string());
        }
        tracing::error!(request_id = info.request_id, %error, "a code could not be sent");
        let message = "No mail can be sent at the moment. Try again in a few minutes.";
        return Err(Error::new(Code::Unavailable, message).caused_by(error));
    }
    Ok(made.id.to_string())
}

/// The mail with a code: the code first, where notifications show it. Who has no account gets no code but is told so.
fn mail(made: &IssuedUserCode, host: &str, origin: &str, sign_up: SignUpPolicy) -> EmailMessage {
    let IssuedUserCode { code, email, has_user, purpose, .. } = made;
    let what = match (purpose, has_user) {
        (CodePurpose::SignIn, true) => format!("is your code to sign in to Waypost at {host}."),
        (CodePurpose::Reset, true) => format!("is your code to set a new password for Waypost at {host}."),
        (CodePurpose::SignUp, false) => format!("is your code to make your account for Waypost at {host}."),
        (CodePurpose::SignUp, true) => format!(
            "is your code for Waypost at {host}. You have an account there already: the code signs you in and sets the \
             password that was typed just now."
        ),
        (CodePurpose::SignIn | CodePurpose::Reset, false) => return no_account(email, host, origin, sign_up),
    };
    let text = format!(
        "{code}\n\n{what}\n\nType it on the page that asked for it. It is valid for 10 minutes.\n\n\
         If this was not you, ignore this mail. Nobody gets in without the code: give it to nobody.\n"
    );
    EmailMessage { to: email.clone(), subject: format!("{code} is your code for Waypost"), text }
}

fn no_account(email: &str, host: &str, origin: &str, sign_up: SignUpPolicy) -> EmailMessage {
    let next = match sign_up {
        SignUpPolicy::Open => format!("You can make one:\n{origin}/sign-up"),
        SignUpPolicy::Invite => {
            "Accounts there are made by invitation: ask an owner of your organisation for one.".to_owned()
        }
        SignUpPolicy::Closed => "No new accounts are made there.".to_owned(),
    };
    let text = format!(
        "Somebody, perhaps you, wanted to sign in to Waypost at {host} with this address.\n\n\
         There is no account with it. Perhaps you have one with another address. {next}\n\n\
         If this was not you, ignore this mail.\n"
    );
    EmailMessage { to: email.to_owned(), subject: format!("Your sign-in to Waypost at {host}"), text }
}

#[cfg(test)]
mod tests {
    use waypost_core::id::UserCodeId;

    use super::*;

    #[test]
    fn nobody_without_an_account_gets_a_code_to_sign_in() {
        let made = |purpose, has_user| IssuedUserCode {
            id: UserCodeId::from_store("uco_1".to_owned()),
            code: "12345678".to_owned(),
            email: "a@b.de".to_owned(),
            purpose,
            has_user,
            organization_id: None,
        };
        let text = |purpose, has_user, sign_up| {
            let mail = mail(&made(purpose, has_user), "way.example", "https://way.example", sign_up);
            (mail.subject.contains("12345678") && mail.text.starts_with("12345678"), mail.text)
        };
        for purpose in [CodePurpose::SignIn, CodePurpose::Reset] {
            assert!(text(purpose, true, SignUpPolicy::Open).0);
            assert!(!text(purpose, false, SignUpPolicy::Open).0);
            assert!(text(purpose, false, SignUpPolicy::Open).1.contains("https://way.example/sign-up"));
            assert!(text(purpose, false, SignUpPolicy::Invite).1.contains("by invitation"));
        }
        assert!(text(CodePurpose::SignUp, true, SignUpPolicy::Open).1.contains("an account there already"));
        assert!(text(CodePurpose::SignUp, false, SignUpPolicy::Open).0);
    }
}
