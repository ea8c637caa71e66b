//! `/code`: the code that came by mail is typed, to sign in, to make an account, or to set a new password.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;
use url::form_urlencoded;
use waypost_core::account::CodePurpose;
use waypost_core::{Code, Error, Result};
use waypost_ops::user_accounts::{UserCodeEntry, UserCodeRequest};

use super::entry::{self, Device};
use super::form::Form;
use super::frame::Frame;
use super::routes::{Access, Routes};
use super::sign_in_mail;
use super::view::{self, PageResult, Wrong};
use crate::request_info::RequestInfo;
use crate::{Web, cookies};

/// The page.
pub(super) fn routes() -> Routes {
    Routes::new().get("/code", Access::Public, show).post("/code", Access::Public, post)
}

/// Sends a code and gives the redirect to the page that asks for it, in this browser only.
///
/// # Errors
/// As [`sign_in_mail::send_code`].
pub(super) async fn send(
    (web, info, headers): (&Web, &RequestInfo, &HeaderMap),
    (purpose, email, password): (CodePurpose, &str, Option<&str>),
    next: &str,
) -> Result<Response> {
    let known = cookies::read(headers, cookies::BROWSER);
    let cookie = known.clone().unwrap_or_else(|| cookies::new_value(&*web.random));
    let asked = UserCodeRequest { email, purpose, password, cookie: &cookie };
    let id = sign_in_mail::send_code(web, info, asked, &Device::of(headers, info)).await?;
    let next = view::own_path(next);
    let query =
        form_urlencoded::Serializer::new(String::new()).append_pair("sent", &id).append_pair("next", next).finish();
    let mut response = view::redirect(&format!("/code?{query}"));
    if known.is_none() {
        cookies::set_browser(response.headers_mut(), &cookie);
    }
    Ok(response)
}

#[derive(Template)]
#[template(path = "login/code.html")]
struct CodePage<'a> {
    frame: Frame,
    wrong: Wrong,
    address: &'a str,
    sent: &'a str,
    next: &'a str,
    typed: &'a str,
    full_name: &'a str,
    is_sign_up: bool,
    is_reset: bool,
    again: &'static str,
}

/// What the address and the form say. Without `Debug`: a code and a password are in it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields {
    sent: String,
    next: String,
    code: String,
    name: String,
    new_password: String,
}

async fn show(
    State(web): State<Web>,
    info: RequestInfo,
    headers: HeaderMap,
    Query(fields): Query<Fields>,
) -> PageResult {
    page(&web, &info, &headers, (&fields, Wrong::default(), StatusCode::OK)).await
}

async fn post(State(web): State<Web>, info: RequestInfo, headers: HeaderMap, Form(fields): Form<Fields>) -> PageResult {
    match enter(&web, &info, &headers, &fields).await {
        Ok(response) => Ok(response),
        Err(error) => {
            let (status, wrong) = Wrong::of(error)?;
            page(&web, &info, &headers, (&fields, wrong, status)).await
        }
    }
}

async fn enter(web: &Web, info: &RequestInfo, headers: &HeaderMap, fields: &Fields) -> Result<Response> {
    // No limit comes before the code: a right one is never rejected, and a wrong one is counted.
    let (cx, device) = (entry::visitor(web, info), Device::of(headers, info));
    let cookie = cookies::read(headers, cookies::BROWSER).unwrap_or_default();
    let Fields { sent, code, name, new_password, .. } = fields;
    let entered = UserCodeEntry { id: sent, code, cookie: &cookie, name, new_password };
    let session = web.accounts().sign_in_with_code(&cx, entered, device.browser()).await?;
    Ok(entry::signed_in(web, headers, &session, &fields.next).await)
}

/// The page, while the code can be entered; else a notice.
async fn page(
    web: &Web,
    info: &RequestInfo,
    headers: &HeaderMap,
    (fields, wrong, status): (&Fields, Wrong, StatusCode),
) -> PageResult {
    let cookie = cookies::read(headers, cookies::BROWSER).unwrap_or_default();
    let found = web.accounts().get_code(&entry::visitor(web, info), &fields.sent, &cookie).await;
    let open = match found {
        Ok(open) => open,
        Err(error) if error.code == Code::InvalidArguments => return Ok(gone(status, wrong, error)),
        Err(error) => return Err(error.into()),
    };
    let retry_after = wrong.retry_after;
    // A code that was not wrong stays in its field.
    let typed = if wrong.field == "code" { "" } else { &fields.code };
    let again = match open.purpose {
        CodePurpose::SignIn => "/login",
        CodePurpose::SignUp => "/sign-up",
        CodePurpose::Reset => "/forgot",
    };
    let page = CodePage {
        frame: Frame::empty(),
        wrong,
        address: &open.email,
        sent: &fields.sent,
        next: view::own_path(&fields.next),
        typed,
        full_name: &fields.name,
        is_sign_up: open.purpose == CodePurpose::SignUp,
        is_reset: open.purpose == CodePurpose::Reset,
        again,
    };
    Ok(view::refused(status, retry_after, &page))
}

fn gone(status: StatusCode, wrong: Wrong, error: Error) -> Response {
    // "Wrong, and it was the last try" says more than "cannot be used any more".
    let message = if wrong.message.is_empty() { error.message } else { wrong.message };
    let status = if status == StatusCode::OK { StatusCode::UNPROCESSABLE_ENTITY } else { status };
    let mut response = entry::notice(status, ("This code does not work", message), ("/login", "Back to sign in"));
    if let Some(seconds) = wrong.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
