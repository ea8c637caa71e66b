//! Sign-in emails.

use waypost_core::account::CodePurpose;
use waypost_core::id::OrganizationId;
use waypost_core::organization::SignUpPolicy;
use waypost_core::{Code, Error, Result};
use waypost_mail::{EmailKind, EmailMessage};
use waypost_ops::user_accounts::{IssuedUserCode, UserCodeRequest};

use crate::Console;
use crate::sign_in::{self, Device};
use waypost_http_kit::limits::LimitKind;
use waypost_http_kit::request_info::RequestInfo;

/// Creates a code, sends it by email and returns its ID. Only the email reveals whether the address has an account.
///
/// # Errors
/// `unavailable` if email is not configured or cannot be sent at the moment; otherwise the errors of
/// [`waypost_ops::user_accounts::UserAccounts::create_code`].
pub(super) async fn send_code(
    console: &Console,
    info: &RequestInfo,
    request: UserCodeRequest<'_>,
    device: &Device,
) -> Result<String> {
    let Some(outbox) = &console.mail else {
        return Err(Error::new(Code::Unavailable, "This installation cannot send email, so codes are not available."));
    };
    sign_in::check_limit_for_email(console, LimitKind::Mail, info, request.email, device)?;
    let issued =
        console.accounts().create_code(&sign_in::visitor_context(console, info), request, device.browser()).await?;
    let mail = mail(&issued, console.public_url.host(), &console.public_url.origin(), console.accounts().sign_up());
    // A sign-up belongs to no organisation, even if the email has an account.
    let organization = issued.organization_id.as_ref().filter(|_| issued.purpose != CodePurpose::SignUp);
    let share = organization.map_or("", OrganizationId::as_str);
    if let Err(error) = outbox.enqueue(EmailKind::SignIn, share, mail) {
        if issued.purpose != CodePurpose::SignUp && organization.is_none() {
            // Recipients without an account share one queue. If it is full, the page does not show an error, because
            // it would not show one for a recipient with an account.
            tracing::warn!(request_id = info.request_id, "dropped an email to a recipient without an account");
            return Ok(issued.id.to_string());
        }
        tracing::error!(request_id = info.request_id, %error, "failed to send a code");
        let message = "Email cannot be sent at the moment. Try again in a few minutes.";
        return Err(Error::new(Code::Unavailable, message).caused_by(error));
    }
    Ok(issued.id.to_string())
}

/// Returns the email with a code. The text starts with the code so that notifications show it. Unless the code is for
/// signing up, a recipient without an account gets a notice instead of a code.
fn mail(issued: &IssuedUserCode, host: &str, origin: &str, sign_up: SignUpPolicy) -> EmailMessage {
    let IssuedUserCode { code, email, has_user, purpose, .. } = issued;
    let what = match (purpose, has_user) {
        (CodePurpose::SignIn, true) => format!("is your code to sign in to Waypost at {host}."),
        (CodePurpose::Reset, true) => format!("is your code to set a new password for Waypost at {host}."),
        (CodePurpose::SignUp, false) => format!("is your code to create your account for Waypost at {host}."),
        (CodePurpose::SignUp, true) => format!(
            "is your code for Waypost at {host}. You already have an account: the code signs you in and sets the password \
             that was just entered."
        ),
        (CodePurpose::SignIn | CodePurpose::Reset, false) => return no_account(email, host, origin, sign_up),
    };
    let text = format!(
        "{code}\n\n{what}\n\nEnter it on the page that requested it. It is valid for 10 minutes.\n\n\
         If you did not request this code, ignore this email. Never share the code: it gives access to your account.\n"
    );
    EmailMessage::plain(email, format!("{code} is your code for Waypost"), text)
}

fn no_account(email: &str, host: &str, origin: &str, sign_up: SignUpPolicy) -> EmailMessage {
    let next = match sign_up {
        SignUpPolicy::Open => format!("You can create one:\n{origin}/sign-up"),
        SignUpPolicy::Invite => {
            "Accounts are created by invitation. Ask an owner of your organisation to invite you.".to_owned()
        }
        SignUpPolicy::Closed => "New accounts cannot be created.".to_owned(),
    };
    let text = format!(
        "Someone, possibly you, tried to sign in to Waypost at {host} with this email address.\n\n\
         No account uses it. You may have an account with another email address. {next}\n\n\
         If this was not you, ignore this email.\n"
    );
    EmailMessage::plain(email, format!("Your sign-in to Waypost at {host}"), text)
}

#[cfg(test)]
mod tests {
    use waypost_core::id::UserCodeId;

    use super::*;

    #[test]
    fn an_email_without_an_account_gets_no_sign_in_code() {
        let issued = |purpose, has_user| IssuedUserCode {
            id: UserCodeId::from_store("uco_1".to_owned()),
            code: "12345678".to_owned(),
            email: "a@b.de".to_owned(),
            purpose,
            has_user,
            organization_id: None,
        };
        let text = |purpose, has_user, sign_up| {
            let mail = mail(&issued(purpose, has_user), "way.example", "https://way.example", sign_up);
            (mail.subject.contains("12345678") && mail.text.starts_with("12345678"), mail.text)
        };
        for purpose in [CodePurpose::SignIn, CodePurpose::Reset] {
            assert!(text(purpose, true, SignUpPolicy::Open).0);
            assert!(!text(purpose, false, SignUpPolicy::Open).0);
            assert!(text(purpose, false, SignUpPolicy::Open).1.contains("https://way.example/sign-up"));
            assert!(text(purpose, false, SignUpPolicy::Invite).1.contains("by invitation"));
        }
        assert!(text(CodePurpose::SignUp, true, SignUpPolicy::Open).1.contains("already have an account"));
        assert!(text(CodePurpose::SignUp, false, SignUpPolicy::Open).0);
    }
}
