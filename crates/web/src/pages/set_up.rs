//! `/setup`: the first owner, by the link that `serve` prints.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use waypost_core::{Code, Error};
use waypost_ops::user_accounts::NewOwner;

use super::entry::{self, Device};
use super::form::Form;
use super::frame::Frame;
use super::routes::{Access, Routes};
use super::view::{self, PageResult, Wrong};
use crate::Web;
use crate::limits::LimitKind;
use crate::request_info::RequestInfo;

/// The page.
pub(super) fn routes() -> Routes {
    Routes::new().get("/setup", Access::Public, show).post("/setup", Access::Public, post)
}

#[derive(Template)]
#[template(path = "set_up/set_up.html")]
struct SetUpPage<'a> {
    frame: Frame,
    wrong: Wrong,
    token: &'a str,
    full_name: &'a str,
    email: &'a str,
}

/// What the link and the form send. Without `Debug`: a password is in it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields {
    token: String,
    name: String,
    email: String,
    password: String,
}

async fn show(State(web): State<Web>, info: RequestInfo, Query(fields): Query<Fields>) -> PageResult {
    let checked = match entry::check_limit(&web, LimitKind::SignIn, &info) {
        Ok(()) => web.accounts().check_set_up(&fields.token).await,
        Err(error) => Err(error),
    };
    match checked {
        Ok(()) => {
            let (frame, wrong) = (Frame::empty(), Wrong::default());
            Ok(view::page(&SetUpPage { frame, wrong, token: &fields.token, full_name: "", email: "" }))
        }
        Err(error) => refused(error),
    }
}

async fn post(State(web): State<Web>, info: RequestInfo, headers: HeaderMap, Form(fields): Form<Fields>) -> PageResult {
    match make(&web, &info, &headers, &fields).await {
        Ok(response) => Ok(response),
        Err(error) if error.code == Code::NotFound => refused(error),
        Err(error) => {
            let (status, wrong) = Wrong::of(error)?;
            let Fields { token, name: full_name, email, .. } = &fields;
            Ok(view::refused(
                status,
                wrong.retry_after,
                &SetUpPage { frame: Frame::empty(), wrong, token, full_name, email },
            ))
        }
    }
}

async fn make(web: &Web, info: &RequestInfo, headers: &HeaderMap, fields: &Fields) -> Result<Response, Error> {
    entry::check_limit(web, LimitKind::SignIn, info)?;
    let Fields { token, name, email, password } = fields;
    let (cx, device) = (entry::visitor(web, info), Device::of(headers, info));
    let owner = NewOwner { email, name, password };
    let session = web.accounts().set_up(&cx, token, owner, device.browser()).await?;
    Ok(entry::signed_in(web, headers, &session, "/").await)
}

fn refused(error: Error) -> PageResult {
    if error.code != Code::NotFound {
        return Err(error.into());
    }
    Ok(entry::notice(StatusCode::NOT_FOUND, ("This link is not valid any more", error.message), ("/login", "Sign in")))
}
