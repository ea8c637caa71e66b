//! `/login` and `/logout`.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use http::HeaderMap;
use serde::Deserialize;
use url::form_urlencoded;
use waypost_core::Error;
use waypost_core::account::CodePurpose;
use waypost_ops::user_accounts::UserPasswordSignIn;
use waypost_ops::user_sessions;

use super::code;
use super::entry::{self, Device};
use super::form::Form;
use super::frame::Frame;
use super::reset;
use super::routes::{Access, Routes};
use super::session::Anyone;
use super::view::{self, PageResult, Wrong};
use crate::limits::LimitKind;
use crate::request_info::RequestInfo;
use crate::{Web, cookies};

/// The pages.
pub(super) fn routes() -> Routes {
    Routes::new()
        .get("/login", Access::Public, show)
        .post("/login", Access::Public, post)
        .post("/login/code", Access::Public, by_code)
        .post("/logout", Access::Public, logout)
}

#[derive(Template)]
#[template(path = "login/login.html")]
struct LoginPage<'a> {
    frame: Frame,
    wrong: Wrong,
    email: &'a str,
    next: &'a str,
    can_mail: bool,
    is_open: bool,
    /// Name and address of each provider.
    providers: Vec<(&'a str, String)>,
}

impl<'a> LoginPage<'a> {
    fn new(web: &'a Web, (email, next): (&'a str, &'a str), wrong: Wrong) -> Self {
        let can_mail = web.mail.is_some();
        let is_open = can_mail && web.accounts().check_sign_up_open().is_ok();
        let next = view::own_path(next);
        let query = form_urlencoded::Serializer::new(String::new()).append_pair("next", next).finish();
        let providers = web.providers.iter();
        let providers = providers.map(|it| (it.name.as_str(), format!("/login/with/{}?{query}", it.key))).collect();
        Self { frame: Frame::empty(), wrong, email, next, can_mail, is_open, providers }
    }
}

/// Where to go on to.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Next {
    pub(super) next: String,
}

/// Asks for address and password; who is signed in goes on.
async fn show(
    State(web): State<Web>,
    Anyone(user): Anyone,
    Query(Next { next }): Query<Next>,
    headers: HeaderMap,
) -> Response {
    let next = view::own_path(&next);
    if user.is_some() {
        return view::redirect(next);
    }
    let mut page = LoginPage::new(&web, ("", next), Wrong::default());
    page.frame.flash = cookies::flash(&headers);
    view::page(&page)
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
async fn post(State(web): State<Web>, info: RequestInfo, headers: HeaderMap, Form(fields): Form<Fields>) -> PageResult {
    match enter(&web, &info, &headers, &fields).await {
        Ok(response) => Ok(response),
        Err(error) => {
            let (status, wrong) = Wrong::of(error)?;
            let retry_after = wrong.retry_after;
            Ok(view::refused(status, retry_after, &LoginPage::new(&web, (&fields.email, &fields.next), wrong)))
        }
    }
}

/// Sends a code to sign in with.
async fn by_code(
    State(web): State<Web>,
    info: RequestInfo,
    headers: HeaderMap,
    Form(fields): Form<Fields>,
) -> PageResult {
    if web.mail.is_none() {
        return Ok(reset::no_mail());
    }
    let asked = (CodePurpose::SignIn, fields.email.as_str(), None);
    match code::send((&web, &info, &headers), asked, &fields.next).await {
        Ok(response) => Ok(response),
        Err(error) => {
            let (status, wrong) = Wrong::of(error)?;
            let retry_after = wrong.retry_after;
            Ok(view::refused(status, retry_after, &LoginPage::new(&web, (&fields.email, &fields.next), wrong)))
        }
    }
}

async fn enter(web: &Web, info: &RequestInfo, headers: &HeaderMap, fields: &Fields) -> Result<Response, Error> {
    let (cx, device) = (entry::visitor(web, info), Device::of(headers, info));
    entry::check_limit_of(web, (LimitKind::SignIn, info), &fields.email, &device)?;
    let organization = organization_of(view::own_path(&fields.next));
    let typed = UserPasswordSignIn { email: &fields.email, password: &fields.password, organization };
    let session = web.accounts().sign_in_with_password(&cx, typed, device.browser()).await?;
    Ok(entry::signed_in(web, headers, &session, &fields.next).await)
}

/// The slug of the organisation that a path leads to; empty if it leads to none.
fn organization_of(path: &str) -> &str {
    path.strip_prefix("/o/").and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default()
}

/// Ends the session of this browser.
async fn logout(State(web): State<Web>, headers: HeaderMap, Form(Next { next }): Form<Next>) -> PageResult {
    if let Some(token) = cookies::read(&headers, cookies::SESSION) {
        user_sessions::delete_by_token(web.ops(), &token).await?;
    }
    let next = if next.is_empty() { "/login" } else { view::own_path(&next) };
    let mut response = view::redirect_saying(next, "You are signed out.");
    cookies::clear(response.headers_mut(), cookies::SESSION);
    Ok(response)
}
