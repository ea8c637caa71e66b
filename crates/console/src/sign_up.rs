//! `/sign-up`: creating an account where sign-up is open. The account is created when the emailed code is entered.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use waypost_core::Result;
use waypost_core::account::CodePurpose;

use crate::Console;
use crate::code;
use crate::form::Form;
use crate::layout::Layout;
use crate::reset::mail_unavailable;
use crate::routes::{Access, Routes};
use crate::sign_in;
use crate::view::{self, FormError, PageResult};
use waypost_http_kit::limits::LimitKind;
use waypost_http_kit::request_info::RequestInfo;

/// Returns the routes of this page.
pub(super) fn routes() -> Routes {
    Routes::new().get("/sign-up", Access::Public, show).post("/sign-up", Access::Public, submit)
}

#[derive(Template)]
#[template(path = "login/sign_up.html")]
struct SignUpPage<'a> {
    layout: Layout,
    form_error: FormError,
    email: &'a str,
}

/// The form fields. Does not implement `Debug` because it contains a password.
#[derive(Default, Deserialize)]
#[serde(default)]
struct SignUpForm {
    email: String,
    password: String,
}

async fn show(State(console): State<Console>) -> Response {
    if let Some(refusal) = sign_up_refusal(&console) {
        return refusal;
    }
    view::page(&SignUpPage { layout: Layout::empty(), form_error: FormError::default(), email: "" })
}

async fn submit(
    State(console): State<Console>,
    info: RequestInfo,
    headers: HeaderMap,
    Form(fields): Form<SignUpForm>,
) -> PageResult {
    if let Some(refusal) = sign_up_refusal(&console) {
        return Ok(refusal);
    }
    match send_code(&console, &info, &headers, &fields).await {
        Ok(response) => Ok(response),
        Err(error) => {
            let (status, form_error) = FormError::from_error(error)?;
            Ok(view::html_with_retry_after(
                status,
                form_error.retry_after,
                &SignUpPage { layout: Layout::empty(), form_error, email: &fields.email },
            ))
        }
    }
}

async fn send_code(
    console: &Console,
    info: &RequestInfo,
    headers: &HeaderMap,
    fields: &SignUpForm,
) -> Result<Response> {
    sign_in::check_limit(console, LimitKind::SignUp, info)?;
    let password = Some(fields.password.as_str());
    code::send(console, info, headers, CodePurpose::SignUp, &fields.email, password, "/").await
}

fn sign_up_refusal(console: &Console) -> Option<Response> {
    if let Err(error) = console.accounts().check_sign_up_open() {
        let title = "Sign-up is not available";
        return Some(sign_in::notice(StatusCode::FORBIDDEN, title, error.message, "/login", "Sign in"));
    }
    console.mail.is_none().then(mail_unavailable)
}
