//! `/login` and `/logout`.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use http::HeaderMap;
use serde::Deserialize;
use url::form_urlencoded;
use waypost_core::Error;
use waypost_core::account::CodePurpose;
use waypost_ops::user_accounts::UserPasswordSignIn;
use waypost_ops::user_sessions;

use crate::Console;
use crate::code;
use crate::form::Form;
use crate::layout::Layout;
use crate::reset;
use crate::routes::{Access, Routes};
use crate::session::OptionalUser;
use crate::sign_in::{self, Device};
use crate::view::{self, FormError, PageResult};
use waypost_http_kit::cookies;
use waypost_http_kit::limits::LimitKind;
use waypost_http_kit::request_info::RequestInfo;

/// Returns the routes of these pages.
pub(super) fn routes() -> Routes {
    Routes::new()
        .get("/login", Access::Public, show)
        .post("/login", Access::Public, submit)
        .post("/login/code", Access::Public, send_code)
        .post("/logout", Access::Public, logout)
}

#[derive(Template)]
#[template(path = "login/login.html")]
struct LoginPage<'a> {
    layout: Layout,
    form_error: FormError,
    email: &'a str,
    next: &'a str,
    can_mail: bool,
    can_sign_up: bool,
    /// Whether the installation has no accounts yet.
    needs_set_up: bool,
    /// The name and sign-in URL of each provider.
    providers: Vec<(&'a str, String)>,
}

impl<'a> LoginPage<'a> {
    async fn new(console: &'a Console, email: &'a str, next: &'a str, form_error: FormError) -> Result<Self, Error> {
        let needs_set_up = !console.accounts().is_set_up().await?;
        let can_mail = console.mail.is_some();
        let can_sign_up = can_mail && console.accounts().check_sign_up_open().is_ok();
        let next = view::local_path(next);
        let query = form_urlencoded::Serializer::new(String::new()).append_pair("next", next).finish();
        let providers = console.providers().iter();
        let providers = providers
            .map(|provider| (provider.name.as_str(), format!("/login/with/{}?{query}", provider.key)))
            .collect();
        Ok(Self { layout: Layout::empty(), form_error, email, next, can_mail, can_sign_up, needs_set_up, providers })
    }
}

/// The path to redirect to after signing in or out.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct NextQuery {
    pub(super) next: String,
}

/// Renders the sign-in form, or redirects if the user is signed in.
async fn show(
    State(console): State<Console>,
    OptionalUser(user): OptionalUser,
    Query(NextQuery { next }): Query<NextQuery>,
    headers: HeaderMap,
) -> PageResult {
    let next = view::local_path(&next);
    if user.is_some() {
        return Ok(view::redirect(next));
    }
    let mut page = LoginPage::new(&console, "", next, FormError::default()).await?;
    page.layout.flash = cookies::flash(&headers);
    Ok(view::page(&page))
}

/// The form fields. Does not implement `Debug` because it contains a password.
#[derive(Default, Deserialize)]
#[serde(default)]
struct LoginForm {
    email: String,
    password: String,
    next: String,
}

/// Signs in with email and password.
async fn submit(
    State(console): State<Console>,
    info: RequestInfo,
    headers: HeaderMap,
    Form(fields): Form<LoginForm>,
) -> PageResult {
    match sign_in_with_password(&console, &info, &headers, &fields).await {
        Ok(response) => Ok(response),
        Err(error) => {
            let (status, form_error) = FormError::from_error(error)?;
            let retry_after = form_error.retry_after;
            Ok(view::html_with_retry_after(
                status,
                retry_after,
                &LoginPage::new(&console, &fields.email, &fields.next, form_error).await?,
            ))
        }
    }
}

/// Sends a sign-in code by email.
async fn send_code(
    State(console): State<Console>,
    info: RequestInfo,
    headers: HeaderMap,
    Form(fields): Form<LoginForm>,
) -> PageResult {
    if console.mail.is_none() {
        return Ok(reset::mail_unavailable());
    }
    match code::send(&console, &info, &headers, CodePurpose::SignIn, &fields.email, None, &fields.next).await {
        Ok(response) => Ok(response),
        Err(error) => {
            let (status, form_error) = FormError::from_error(error)?;
            let retry_after = form_error.retry_after;
            Ok(view::html_with_retry_after(
                status,
                retry_after,
                &LoginPage::new(&console, &fields.email, &fields.next, form_error).await?,
            ))
        }
    }
}

async fn sign_in_with_password(
    console: &Console,
    info: &RequestInfo,
    headers: &HeaderMap,
    fields: &LoginForm,
) -> Result<Response, Error> {
    let (cx, device) = (sign_in::visitor_context(console, info), Device::from_request(headers, info));
    sign_in::check_limit_for_email(console, LimitKind::SignIn, info, &fields.email, &device)?;
    let organization = organization_slug(view::local_path(&fields.next));
    let credentials = UserPasswordSignIn { email: &fields.email, password: &fields.password, organization };
    let session = console.accounts().sign_in_with_password(&cx, credentials, device.browser()).await?;
    Ok(sign_in::start_session(console, headers, &session, &fields.next).await)
}

/// Returns the slug of the organisation in a path, or an empty string.
fn organization_slug(path: &str) -> &str {
    path.strip_prefix("/o/").and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default()
}

/// Signs out: ends the session of this browser.
async fn logout(
    State(console): State<Console>,
    headers: HeaderMap,
    Form(NextQuery { next }): Form<NextQuery>,
) -> PageResult {
    if let Some(token) = cookies::read(&headers, cookies::SESSION) {
        user_sessions::delete_by_token(console.ops(), &token).await?;
    }
    let next = if next.is_empty() { "/login" } else { view::local_path(&next) };
    let mut response = view::redirect_with_flash(next, "You have signed out.");
    cookies::clear(response.headers_mut(), cookies::SESSION);
    Ok(response)
}
