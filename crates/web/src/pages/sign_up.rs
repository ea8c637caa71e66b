//! `/sign-up`: creating an account where sign-up is open. The account is created when the emailed code is entered.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use waypost_core::Result;
use waypost_core::account::CodePurpose;

use super::code;
use super::form::Form;
use super::layout::Layout;
use super::reset::mail_unavailable;
use super::routes::{Access, Routes};
use super::sign_in;
use super::view::{self, FormError, PageResult};
use crate::Web;
use crate::limits::LimitKind;
use crate::request_info::RequestInfo;

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

async fn show(State(web): State<Web>) -> Response {
    if let Some(refusal) = sign_up_refusal(&web) {
        return refusal;
    }
    view::page(&SignUpPage { layout: Layout::empty(), form_error: FormError::default(), email: "" })
}

async fn submit(
    State(web): State<Web>,
    info: RequestInfo,
    headers: HeaderMap,
    Form(fields): Form<SignUpForm>,
) -> PageResult {
    if let Some(refusal) = sign_up_refusal(&web) {
        return Ok(refusal);
    }
    match send_code(&web, &info, &headers, &fields).await {
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

async fn send_code(web: &Web, info: &RequestInfo, headers: &HeaderMap, fields: &SignUpForm) -> Result<Response> {
    sign_in::check_limit(web, LimitKind::SignUp, info)?;
    let request = (CodePurpose::SignUp, fields.email.as_str(), Some(fields.password.as_str()));
    code::send((web, info, headers), request, "/").await
}

fn sign_up_refusal(web: &Web) -> Option<Response> {
    if let Err(error) = web.accounts().check_sign_up_open() {
        let text = ("Sign-up is not available", error.message);
        return Some(sign_in::notice(StatusCode::FORBIDDEN, text, ("/login", "Sign in")));
    }
    web.mail.is_none().then(mail_unavailable)
}
