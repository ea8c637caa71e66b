//! `/sign-up`: an account for everybody, where that is allowed. It is made when the code that comes by mail is typed.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use waypost_core::Result;
use waypost_core::account::CodePurpose;

use super::code;
use super::entry;
use super::form::Form;
use super::frame::Frame;
use super::reset::no_mail;
use super::routes::{Access, Routes};
use super::view::{self, PageResult, Wrong};
use crate::Web;
use crate::limits::LimitKind;
use crate::request_info::RequestInfo;

/// The page.
pub(super) fn routes() -> Routes {
    Routes::new().get("/sign-up", Access::Public, show).post("/sign-up", Access::Public, post)
}

#[derive(Template)]
#[template(path = "login/sign_up.html")]
struct SignUpPage<'a> {
    frame: Frame,
    wrong: Wrong,
    email: &'a str,
}

/// What the form sends. Without `Debug`: a password is in it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields {
    email: String,
    password: String,
}

async fn show(State(web): State<Web>) -> Response {
    if let Some(refused) = refused(&web) {
        return refused;
    }
    view::page(&SignUpPage { frame: Frame::empty(), wrong: Wrong::default(), email: "" })
}

async fn post(State(web): State<Web>, info: RequestInfo, headers: HeaderMap, Form(fields): Form<Fields>) -> PageResult {
    if let Some(refused) = refused(&web) {
        return Ok(refused);
    }
    match send(&web, &info, &headers, &fields).await {
        Ok(response) => Ok(response),
        Err(error) => {
            let (status, wrong) = Wrong::of(error)?;
            Ok(view::refused(
                status,
                wrong.retry_after,
                &SignUpPage { frame: Frame::empty(), wrong, email: &fields.email },
            ))
        }
    }
}

async fn send(web: &Web, info: &RequestInfo, headers: &HeaderMap, fields: &Fields) -> Result<Response> {
    entry::check_limit(web, LimitKind::SignUp, info)?;
    let asked = (CodePurpose::SignUp, fields.email.as_str(), Some(fields.password.as_str()));
    code::send((web, info, headers), asked, "/").await
}

fn refused(web: &Web) -> Option<Response> {
    if let Err(error) = web.accounts().check_sign_up_open() {
        let words = ("You cannot make an account here", error.message);
        return Some(entry::notice(StatusCode::FORBIDDEN, words, ("/login", "Sign in")));
    }
    web.mail.is_none().then(no_mail)
}
