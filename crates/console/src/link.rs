//! `/link`: sets a user's name and password with a link created by the operator.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use waypost_core::{Code, Error, Result};
use waypost_ops::user_accounts::AccountDetails;

use crate::Console;
use crate::form::Form;
use crate::layout::Layout;
use crate::routes::{Access, Routes};
use crate::sign_in::{self, Device};
use crate::view::{self, FormError, PageResult};
use waypost_http_kit::limits::LimitKind;
use waypost_http_kit::request_info::RequestInfo;

/// Returns the routes of this page.
pub(super) fn routes() -> Routes {
    Routes::new().get("/link", Access::Public, show).post("/link", Access::Public, submit)
}

#[derive(Template)]
#[template(path = "login/link.html")]
struct LinkPage<'a> {
    layout: Layout,
    form_error: FormError,
    token: &'a str,
    email: &'a str,
    full_name: &'a str,
    is_new: bool,
}

/// The fields of the link and the form. Does not implement `Debug` because it contains a password.
#[derive(Default, Deserialize)]
#[serde(default)]
struct LinkForm {
    token: String,
    name: String,
    password: String,
}

async fn show(State(console): State<Console>, info: RequestInfo, Query(fields): Query<LinkForm>) -> PageResult {
    render(&console, &info, &fields.token, None, FormError::default(), StatusCode::OK).await
}

async fn submit(
    State(console): State<Console>,
    info: RequestInfo,
    headers: HeaderMap,
    Form(fields): Form<LinkForm>,
) -> PageResult {
    match accept(&console, &info, &headers, &fields).await {
        Ok(response) => Ok(response),
        Err(error) if error.code == Code::NotFound => render_invalid_link(error),
        Err(error) => {
            let (status, form_error) = FormError::from_error(error)?;
            render(&console, &info, &fields.token, Some(&fields.name), form_error, status).await
        }
    }
}

async fn accept(console: &Console, info: &RequestInfo, headers: &HeaderMap, fields: &LinkForm) -> Result<Response> {
    sign_in::check_limit(console, LimitKind::SignIn, info)?;
    let (cx, device) = (sign_in::visitor_context(console, info), Device::from_request(headers, info));
    let details = AccountDetails { name: &fields.name, password: &fields.password };
    let session = console.accounts().use_account_link(&cx, &fields.token, details, device.browser()).await?;
    Ok(sign_in::start_session(console, headers, &session, "/").await)
}

async fn render(
    console: &Console,
    info: &RequestInfo,
    token: &str,
    entered_name: Option<&str>,
    form_error: FormError,
    status: StatusCode,
) -> PageResult {
    let user = match console.accounts().get_account_link_user(&sign_in::visitor_context(console, info), token).await {
        Ok(user) => user,
        Err(error) => return render_invalid_link(error),
    };
    let full_name = entered_name.or(user.name.as_deref()).unwrap_or_default();
    let (email, is_new) = (user.email.as_str(), user.name.is_none());
    Ok(view::html_with_retry_after(
        status,
        form_error.retry_after,
        &LinkPage { layout: Layout::empty(), form_error, token, email, full_name, is_new },
    ))
}

fn render_invalid_link(error: Error) -> PageResult {
    if error.code != Code::NotFound {
        return Err(error.into());
    }
    Ok(sign_in::notice(StatusCode::NOT_FOUND, "This link is no longer valid", error.message, "/login", "Sign in"))
}
