//! `/forgot`: requesting a code to set a new password.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use waypost_core::account::CodePurpose;

use crate::Console;
use crate::code;
use crate::form::Form;
use crate::layout::Layout;
use crate::routes::{Access, Routes};
use crate::sign_in;
use crate::view::{self, FormError, PageResult};
use waypost_http_kit::request_info::RequestInfo;

/// Returns the routes of this page.
pub(super) fn routes() -> Routes {
    Routes::new().get("/forgot", Access::Public, show).post("/forgot", Access::Public, submit)
}

#[derive(Template)]
#[template(path = "login/forgot.html")]
struct ForgotPage<'a> {
    layout: Layout,
    form_error: FormError,
    email: &'a str,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ForgotForm {
    email: String,
}

async fn show(State(console): State<Console>) -> Response {
    if console.mail.is_none() {
        return mail_unavailable();
    }
    view::page(&ForgotPage { layout: Layout::empty(), form_error: FormError::default(), email: "" })
}

async fn submit(
    State(console): State<Console>,
    info: RequestInfo,
    headers: HeaderMap,
    Form(fields): Form<ForgotForm>,
) -> PageResult {
    if console.mail.is_none() {
        return Ok(mail_unavailable());
    }
    match code::send(&console, &info, &headers, CodePurpose::Reset, &fields.email, None, "/").await {
        Ok(response) => Ok(response),
        Err(error) => {
            let (status, form_error) = FormError::from_error(error)?;
            Ok(view::html_with_retry_after(
                status,
                form_error.retry_after,
                &ForgotPage { layout: Layout::empty(), form_error, email: &fields.email },
            ))
        }
    }
}

/// Renders the notice of an installation that cannot send email.
pub(super) fn mail_unavailable() -> Response {
    let message = "This installation cannot send email because smtp_url is not set, so codes are not available. Ask \
        the operator to create a link for you with the command waypost user link.";
    sign_in::notice(StatusCode::SERVICE_UNAVAILABLE, "Email is not available", message, "/login", "Back to sign in")
}
