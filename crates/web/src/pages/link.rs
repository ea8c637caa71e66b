//! `/link`: name and password by a link that the operator made.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use waypost_core::{Code, Error, Result};
use waypost_ops::user_accounts::AccountDetails;

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
    Routes::new().get("/link", Access::Public, show).post("/link", Access::Public, post)
}

#[derive(Template)]
#[template(path = "login/link.html")]
struct LinkPage<'a> {
    frame: Frame,
    wrong: Wrong,
    token: &'a str,
    address: &'a str,
    full_name: &'a str,
    is_new: bool,
}

/// What the link and the form send. Without `Debug`: a password is in it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields {
    token: String,
    name: String,
    password: String,
}

async fn show(State(web): State<Web>, info: RequestInfo, Query(fields): Query<Fields>) -> PageResult {
    page(&web, &info, (&fields.token, None), (Wrong::default(), StatusCode::OK)).await
}

async fn post(State(web): State<Web>, info: RequestInfo, headers: HeaderMap, Form(fields): Form<Fields>) -> PageResult {
    match enter(&web, &info, &headers, &fields).await {
        Ok(response) => Ok(response),
        Err(error) if error.code == Code::NotFound => refused(error),
        Err(error) => {
            let (status, wrong) = Wrong::of(error)?;
            page(&web, &info, (&fields.token, Some(&fields.name)), (wrong, status)).await
        }
    }
}

async fn enter(web: &Web, info: &RequestInfo, headers: &HeaderMap, fields: &Fields) -> Result<Response> {
    entry::check_limit(web, LimitKind::SignIn, info)?;
    let (cx, device) = (entry::visitor(web, info), Device::of(headers, info));
    let newcomer = AccountDetails { name: &fields.name, password: &fields.password };
    let session = web.accounts().use_account_link(&cx, &fields.token, newcomer, device.browser()).await?;
    Ok(entry::signed_in(web, headers, &session, "/").await)
}

async fn page(
    web: &Web,
    info: &RequestInfo,
    (token, typed): (&str, Option<&str>),
    (wrong, status): (Wrong, StatusCode),
) -> PageResult {
    let user = match web.accounts().get_account_link_user(&entry::visitor(web, info), token).await {
        Ok(user) => user,
        Err(error) => return refused(error),
    };
    let full_name = typed.or(user.name.as_deref()).unwrap_or_default();
    let (address, is_new) = (user.email.as_str(), user.name.is_none());
    Ok(view::refused(
        status,
        wrong.retry_after,
        &LinkPage { frame: Frame::empty(), wrong, token, address, full_name, is_new },
    ))
}

fn refused(error: Error) -> PageResult {
    if error.code != Code::NotFound {
        return Err(error.into());
    }
    Ok(entry::notice(StatusCode::NOT_FOUND, ("This link is not valid any more", error.message), ("/login", "Sign in")))
}
