//! `/code`: entering an emailed code to sign in, create an account or set a new password.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;
use url::form_urlencoded;
use waypost_core::account::CodePurpose;
use waypost_core::{Code, Error, Result};
use waypost_ops::user_accounts::{UserCodeEntry, UserCodeRequest};

use crate::Console;
use crate::form::Form;
use crate::layout::Layout;
use crate::routes::{Access, Routes};
use crate::sign_in::{self, Device};
use crate::sign_in_mail;
use crate::view::{self, FormError, PageResult};
use waypost_http_kit::cookies;
use waypost_http_kit::request_info::RequestInfo;

/// Returns the routes of this page.
pub(super) fn routes() -> Routes {
    Routes::new().get("/code", Access::Public, show).post("/code", Access::Public, submit)
}

/// Sends a code and returns the redirect to the page for entering it. The code is valid in this browser only.
///
/// # Errors
/// See [`sign_in_mail::send_code`].
pub(super) async fn send(
    console: &Console,
    info: &RequestInfo,
    headers: &HeaderMap,
    purpose: CodePurpose,
    email: &str,
    password: Option<&str>,
    next: &str,
) -> Result<Response> {
    let known = cookies::read(headers, cookies::BROWSER);
    let cookie = known.clone().unwrap_or_else(|| cookies::new_value(&*console.random));
    let request = UserCodeRequest { email, purpose, password, cookie: &cookie };
    let id = sign_in_mail::send_code(console, info, request, &Device::from_request(headers, info)).await?;
    let next = view::local_path(next);
    let query =
        form_urlencoded::Serializer::new(String::new()).append_pair("sent", &id).append_pair("next", next).finish();
    let mut response = view::redirect(&format!("/code?{query}"));
    if known.is_none() {
        cookies::set(response.headers_mut(), cookies::BROWSER, &cookie);
    }
    Ok(response)
}

#[derive(Template)]
#[template(path = "login/code.html")]
struct CodePage<'a> {
    layout: Layout,
    form_error: FormError,
    email: &'a str,
    sent: &'a str,
    next: &'a str,
    entered_code: &'a str,
    full_name: &'a str,
    is_sign_up: bool,
    is_reset: bool,
    resend_path: &'static str,
}

/// The query parameters and form fields. Does not implement `Debug` because it contains a code and a password.
#[derive(Default, Deserialize)]
#[serde(default)]
struct CodeForm {
    sent: String,
    next: String,
    code: String,
    name: String,
    new_password: String,
}

async fn show(
    State(console): State<Console>,
    info: RequestInfo,
    headers: HeaderMap,
    Query(fields): Query<CodeForm>,
) -> PageResult {
    render(&console, &info, &headers, &fields, FormError::default(), StatusCode::OK).await
}

async fn submit(
    State(console): State<Console>,
    info: RequestInfo,
    headers: HeaderMap,
    Form(fields): Form<CodeForm>,
) -> PageResult {
    match submit_code(&console, &info, &headers, &fields).await {
        Ok(response) => Ok(response),
        Err(error) => {
            let (status, form_error) = FormError::from_error(error)?;
            render(&console, &info, &headers, &fields, form_error, status).await
        }
    }
}

async fn submit_code(
    console: &Console,
    info: &RequestInfo,
    headers: &HeaderMap,
    fields: &CodeForm,
) -> Result<Response> {
    // No rate limit is checked before the code: a correct code is never rejected, and incorrect codes are counted.
    let (cx, device) = (sign_in::visitor_context(console, info), Device::from_request(headers, info));
    let cookie = cookies::read(headers, cookies::BROWSER).unwrap_or_default();
    let CodeForm { sent, code, name, new_password, .. } = fields;
    let entered = UserCodeEntry { id: sent, code, cookie: &cookie, name, new_password };
    let session = console.accounts().sign_in_with_code(&cx, entered, device.browser()).await?;
    Ok(sign_in::start_session(console, headers, &session, &fields.next).await)
}

/// Renders the form, or a notice if the code can no longer be used.
async fn render(
    console: &Console,
    info: &RequestInfo,
    headers: &HeaderMap,
    fields: &CodeForm,
    form_error: FormError,
    status: StatusCode,
) -> PageResult {
    let cookie = cookies::read(headers, cookies::BROWSER).unwrap_or_default();
    let code = console.accounts().get_code(&sign_in::visitor_context(console, info), &fields.sent, &cookie).await;
    let open = match code {
        Ok(open) => open,
        Err(error) if error.code == Code::InvalidArguments => {
            return Ok(render_unusable_code(status, form_error, error));
        }
        Err(error) => return Err(error.into()),
    };
    let retry_after = form_error.retry_after;
    // Keeps the entered code unless it was incorrect.
    let entered_code = if form_error.field == "code" { "" } else { &fields.code };
    let resend_path = match open.purpose {
        CodePurpose::SignIn => "/login",
        CodePurpose::SignUp => "/sign-up",
        CodePurpose::Reset => "/forgot",
    };
    let page = CodePage {
        layout: Layout::empty(),
        form_error,
        email: &open.email,
        sent: &fields.sent,
        next: view::local_path(&fields.next),
        entered_code,
        full_name: &fields.name,
        is_sign_up: open.purpose == CodePurpose::SignUp,
        is_reset: open.purpose == CodePurpose::Reset,
        resend_path,
    };
    Ok(view::html_with_retry_after(status, retry_after, &page))
}

fn render_unusable_code(status: StatusCode, form_error: FormError, error: Error) -> Response {
    // The error of the last attempt is more specific than "can no longer be used".
    let message = if form_error.message.is_empty() { error.message } else { form_error.message };
    let status = if status == StatusCode::OK { StatusCode::UNPROCESSABLE_ENTITY } else { status };
    let mut response = sign_in::notice(status, "This code is not valid", message, "/login", "Back to sign in");
    if let Some(seconds) = form_error.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
