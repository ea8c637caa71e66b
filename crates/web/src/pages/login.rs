//! `/login` and `/logout`.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use http::HeaderMap;
use serde::Deserialize;
use waypost_core::Error;
use waypost_ops::user_sessions;

use super::entry::{self, Device};
use super::form::Form;
use super::frame::Frame;
use super::routes::{Access, Routes};
use super::session::Anyone;
use super::view::{self, PageResult, Wrong};
use crate::limits::Kind;
use crate::visit::Visit;
use crate::{Web, cookies};

/// The pages.
pub(super) fn routes() -> Routes {
    Routes::new().get("/login", Access::Public, show).post("/login", Access::Public, post).post(
        "/logout",
        Access::Public,
        logout,
    )
}

#[derive(Template)]
#[template(path = "login/login.html")]
struct LoginPage<'a> {
    frame: Frame,
    wrong: Wrong,
    email: &'a str,
    next: &'a str,
}

/// Where to go on to.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Next {
    pub(super) next: String,
}

/// Asks for address and password; who is signed in goes on.
async fn show(
    State(_): State<Web>,
    Anyone(user): Anyone,
    Query(Next { next }): Query<Next>,
    headers: HeaderMap,
) -> Response {
    let next = view::own_path(&next);
    if user.is_some() {
        return view::redirect(next);
    }
    let frame = Frame { flash: cookies::flash(&headers), ..Frame::empty() };
    view::page(&LoginPage { frame, wrong: Wrong::default(), email: "", next })
}

/// What the form sends. Without `Debug`: a password is in it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields {
    email: String,
    password: String,
    next: String,
}

/// Signs in.
async fn post(State(web): State<Web>, visit: Visit, headers: HeaderMap, Form(fields): Form<Fields>) -> PageResult {
    match enter(&web, &visit, &headers, &fields).await {
        Ok(response) => Ok(response),
        Err(error) => {
            let (status, wrong) = Wrong::of(error)?;
            let Fields { email, next, .. } = &fields;
            let next = view::own_path(next);
            Ok(view::html(status, &LoginPage { frame: Frame::empty(), wrong, email, next }))
        }
    }
}

async fn enter(web: &Web, visit: &Visit, headers: &HeaderMap, fields: &Fields) -> Result<Response, Error> {
    entry::check_limit(web, Kind::SignIn, visit)?;
    let (cx, device) = (entry::visitor(web, visit), Device::of(headers, visit));
    let session = web.accounts().enter_password(&cx, &fields.email, &fields.password, device.browser()).await?;
    Ok(entry::signed_in(web, headers, &session, &fields.next).await)
}

/// Ends the session of this browser.
async fn logout(State(web): State<Web>, headers: HeaderMap) -> PageResult {
    if let Some(token) = cookies::read(&headers, cookies::SESSION) {
        user_sessions::end(web.ops(), &token).await?;
    }
    let mut response = view::redirect_saying("/login", "You are signed out.");
    cookies::clear(response.headers_mut(), cookies::SESSION);
    Ok(response)
}
