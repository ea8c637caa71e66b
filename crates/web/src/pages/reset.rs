//! `/forgot`: a code for a new password.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use waypost_core::account::CodePurpose;

use super::code;
use super::entry;
use super::form::Form;
use super::frame::Frame;
use super::routes::{Access, Routes};
use super::view::{self, PageResult, Wrong};
use crate::Web;
use crate::request_info::RequestInfo;

/// The page.
pub(super) fn routes() -> Routes {
    Routes::new().get("/forgot", Access::Public, show).post("/forgot", Access::Public, post)
}

#[derive(Template)]
#[template(path = "login/forgot.html")]
struct ForgotPage<'a> {
    frame: Frame,
    wrong: Wrong,
    email: &'a str,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields {
    email: String,
}

async fn show(State(web): State<Web>) -> Response {
    if web.mail.is_none() {
        return no_mail();
    }
    view::page(&ForgotPage { frame: Frame::empty(), wrong: Wrong::default(), email: "" })
}

async fn post(State(web): State<Web>, info: RequestInfo, headers: HeaderMap, Form(fields): Form<Fields>) -> PageResult {
    if web.mail.is_none() {
        return Ok(no_mail());
    }
    match code::send((&web, &info, &headers), (CodePurpose::Reset, &fields.email, None), "/").await {
        Ok(response) => Ok(response),
        Err(error) => {
            let (status, wrong) = Wrong::of(error)?;
            Ok(view::refused(
                status,
                wrong.retry_after,
                &ForgotPage { frame: Frame::empty(), wrong, email: &fields.email },
            ))
        }
    }
}

/// What people are told where no mail can be sent.
pub(super) fn no_mail() -> Response {
    let message = "This installation cannot send mails (setting smtp_url), so there are no codes. Its operator can make a \
        link for you on the command line: waypost user link.";
    entry::notice(StatusCode::SERVICE_UNAVAILABLE, ("No mail can be sent", message), ("/login", "Back to sign in"))
}
