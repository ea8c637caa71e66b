//! `/invite`: accepts an invitation.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use url::form_urlencoded;
use waypost_core::organization::SignUpPolicy;
use waypost_core::{Code, Error, Result, email};
use waypost_ops::user_accounts::{AccountDetails, InvitationDetails};

use crate::Console;
use crate::form::Form;
use crate::layout::Layout;
use crate::routes::{Access, Routes};
use crate::session::{CurrentUser, OptionalUser};
use crate::sign_in::{self, Device};
use crate::view::{self, FormError, PageResult};
use waypost_http_kit::cookies;
use waypost_http_kit::limits::LimitKind;
use waypost_http_kit::request_info::RequestInfo;

/// Returns the routes of this page.
pub(super) fn routes() -> Routes {
    Routes::new().get("/invite", Access::Public, show).post("/invite", Access::Public, submit)
}

/// The available action for the viewer of an invitation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum InvitationAction {
    /// Accept the invitation: the invited user is signed in.
    Accept,
    /// Sign out: the viewer is signed in with another email.
    SignOut,
    /// Sign in or create an account. The page does not reveal whether an account exists.
    Create,
    /// Sign in: new accounts cannot be created on this installation.
    SignIn,
}

#[derive(Template)]
#[template(path = "invitation/accept.html")]
struct InvitationPage<'a> {
    layout: Layout,
    form_error: FormError,
    action: InvitationAction,
    token: &'a str,
    organization: &'a str,
    role: &'a str,
    email: &'a str,
    invited_by: Option<&'a str>,
    expires_at: String,
    own_email: &'a str,
    full_name: &'a str,
    /// The path of this page.
    return_path: String,
    /// The path of the sign-in page, which redirects back to this page.
    login: String,
}

/// The fields of the link and the form. Does not implement `Debug` because it contains a password.
#[derive(Default, Deserialize)]
#[serde(default)]
struct InvitationForm {
    token: String,
    name: String,
    password: String,
}

async fn show(
    State(console): State<Console>,
    info: RequestInfo,
    headers: HeaderMap,
    OptionalUser(user): OptionalUser,
    Query(fields): Query<InvitationForm>,
) -> PageResult {
    let details =
        match console.accounts().get_invitation(&sign_in::visitor_context(&console, &info), &fields.token).await {
            Ok(details) => details,
            Err(error) => return render_invalid_invitation(error),
        };
    let mut page = build_page(&console, &details, user.as_ref(), &fields);
    page.layout.flash = cookies::flash(&headers);
    Ok(view::page(&page))
}

async fn submit(
    State(console): State<Console>,
    info: RequestInfo,
    headers: HeaderMap,
    OptionalUser(user): OptionalUser,
    Form(fields): Form<InvitationForm>,
) -> PageResult {
    let error = match accept(&console, &info, &headers, user.as_ref(), &fields).await {
        Ok(response) => return Ok(response),
        Err(error) => error,
    };
    let details =
        match console.accounts().get_invitation(&sign_in::visitor_context(&console, &info), &fields.token).await {
            Ok(details) => details,
            Err(error) => return render_invalid_invitation(error),
        };
    let (status, form_error) = match error.code {
        Code::Forbidden => (StatusCode::FORBIDDEN, FormError { message: error.message, ..FormError::default() }),
        _ => FormError::from_error(error)?,
    };
    let page = build_page(&console, &details, user.as_ref(), &fields);
    Ok(view::html_with_retry_after(status, form_error.retry_after, &InvitationPage { form_error, ..page }))
}

async fn accept(
    console: &Console,
    info: &RequestInfo,
    headers: &HeaderMap,
    user: Option<&CurrentUser>,
    fields: &InvitationForm,
) -> Result<Response> {
    sign_in::check_limit(console, LimitKind::SignIn, info)?;
    let welcome = |name: &str| format!("Welcome to {name}.");
    let details = console.accounts().get_invitation(&sign_in::visitor_context(console, info), &fields.token).await?;
    if let Some(user) = user.filter(|user| !needs_new_account(user, &details)) {
        let organization = console.accounts().accept_invitation(&user.cx, &fields.token).await?;
        return Ok(view::redirect_with_flash(&format!("/o/{}", organization.slug), &welcome(&organization.name)));
    }
    let (cx, device) = (sign_in::visitor_context(console, info), Device::from_request(headers, info));
    let account = AccountDetails { name: &fields.name, password: &fields.password };
    let (session, organization) =
        console.accounts().accept_and_sign_up(&cx, &fields.token, account, device.browser()).await?;
    let mut response = sign_in::start_session(console, headers, &session, &format!("/o/{}", organization.slug)).await;
    cookies::set_flash(response.headers_mut(), &welcome(&organization.name));
    Ok(response)
}

fn build_page<'a>(
    console: &Console,
    details: &'a InvitationDetails,
    user: Option<&'a CurrentUser>,
    fields: &'a InvitationForm,
) -> InvitationPage<'a> {
    let invitation = &details.invitation;
    let own_email = user.and_then(|user| user.layout.viewer.as_ref()).map_or("", |viewer| viewer.email.as_str());
    let action = match user.filter(|user| !needs_new_account(user, details)) {
        Some(_) if email::key(own_email) == invitation.email_key => InvitationAction::Accept,
        Some(_) => InvitationAction::SignOut,
        None if console.accounts().sign_up() == SignUpPolicy::Closed => InvitationAction::SignIn,
        None => InvitationAction::Create,
    };
    let query =
        |name: &str, value: &str| form_urlencoded::Serializer::new(String::new()).append_pair(name, value).finish();
    let return_path = format!("/invite?{}", query("token", &fields.token));
    InvitationPage {
        layout: user.map_or_else(Layout::empty, |user| user.layout.clone()),
        form_error: FormError::default(),
        action,
        token: &fields.token,
        organization: &invitation.organization.name,
        role: invitation.role.as_str(),
        email: &invitation.email,
        invited_by: details.invited_by.as_deref(),
        expires_at: invitation.expires_at.rfc3339(),
        own_email,
        full_name: &fields.name,
        login: format!("/login?{}", query("next", &return_path)),
        return_path,
    }
}

/// Whether a signed-in user needs a new account to accept this invitation: their account has the invited email, but the
/// email is not verified, so the account is valid for other organisations only.
fn needs_new_account(user: &CurrentUser, details: &InvitationDetails) -> bool {
    !user.is_verified && user.email_key() == details.invitation.email_key
}

fn render_invalid_invitation(error: Error) -> PageResult {
    if error.code != Code::NotFound {
        return Err(error.into());
    }
    let title = "This invitation is no longer valid";
    Ok(sign_in::notice(StatusCode::NOT_FOUND, title, error.message, "/", "Go to the home page"))
}
