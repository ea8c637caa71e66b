//! The pages on which end users sign in with Waypost's own accounts: by a code, by a password, with a new account, with
//! a forgotten password.
//!
//! Every page belongs to an authorization request and its browser. Pages say the same whether an address has an account
//! or not (docs/sign-in.md, invariant 11).

mod code;
mod form;
mod link;
mod mail;
mod password;
mod reset;
mod sign_up;
mod view;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use http::{HeaderMap, StatusCode};
use waypost_ops::accounts::NewSession;
use waypost_ops::browser_sessions;

use crate::Auth;
use crate::browser;
use crate::page::{self, ErrorPage, Layout};
use crate::pending::{self, Pending};

use self::form::{Fields, Platform};
use self::view::View;

/// The pages, below `/oauth` of a server.
pub fn routes() -> Router<Auth> {
    Router::new()
        .route("/sign-in", get(choose))
        .route("/sign-in/code", get(code::show).post(code::post))
        .route("/sign-in/link", get(link::show).post(link::post))
        .route("/sign-in/password", get(password::show).post(password::post))
        .route("/sign-in/forgotten", get(reset::ask).post(reset::send))
        .route("/sign-in/reset", get(reset::show).post(reset::post))
        .route("/sign-up", get(sign_up::show).post(sign_up::post))
        .route("/sign-out", post(sign_out))
}

#[derive(Template)]
#[template(path = "sign_in.html")]
struct ChoosePage<'a> {
    layout: Layout,
    view: View<'a>,
}

/// `GET /oauth/sign-in`: the user types their address, and chooses the way.
async fn choose(State(auth): State<Auth>, Platform(pending): Platform) -> Response {
    if auth.mail.is_none() {
        return password::show(State(auth), Platform(pending)).await;
    }
    let hint = pending.request.login_hint.clone().unwrap_or_default();
    page_to_choose(&auth, &pending, View::new(&pending, &hint, "email")).await
}

/// The page on which a sign-in begins, with what went wrong.
async fn page_to_choose(auth: &Auth, pending: &Pending, view: View<'_>) -> Response {
    view::answer(auth, pending, view, |layout, view| ChoosePage { layout, view }).await
}

/// Sends the browser on, signed in. A session that it had before ends.
async fn signed_in(auth: &Auth, pending: &Pending, headers: &HeaderMap, session: &NewSession) -> Response {
    if let Err(error) = end(auth, pending, headers).await {
        return pending::failed(&pending.incoming, &error);
    }
    let mut response = page::redirect(&pending.path("authorize/continue"));
    let organization = &pending.request.organization_id;
    browser::set_session(response.headers_mut(), organization, &session.token);
    browser::set_device(response.headers_mut(), organization, &session.device);
    response
}

/// `POST /oauth/sign-out`: ends the browser's session; the request goes on, as somebody else.
async fn sign_out(State(auth): State<Auth>, pending: Pending, headers: HeaderMap, fields: Fields) -> Response {
    if let Err(page) = fields.check(&auth, &pending, &headers) {
        return page;
    }
    if let Err(error) = end(&auth, &pending, &headers).await {
        return pending::failed(&pending.incoming, &error);
    }
    let mut response = page::redirect(&pending.path("authorize/continue"));
    browser::clear_session(response.headers_mut(), &pending.request.organization_id);
    response
}

/// The cookie of a browser in which an end user of the organisation has signed in before; empty without one.
fn device(pending: &Pending, headers: &HeaderMap) -> String {
    browser::read(headers, &browser::device_cookie(&pending.request.organization_id)).unwrap_or_default()
}

async fn end(auth: &Auth, pending: &Pending, headers: &HeaderMap) -> waypost_core::Result<()> {
    let organization = &pending.request.organization_id;
    match browser::read(headers, &browser::session_cookie(organization)) {
        Some(cookie) => browser_sessions::delete(&pending.cx, auth.hosting.ops(), organization, &cookie).await,
        None => Ok(()),
    }
}

/// The page for what needs a mail, where none can be sent.
fn no_mail(pending: &Pending) -> Response {
    page::error(
        &pending.incoming,
        StatusCode::SERVICE_UNAVAILABLE,
        ErrorPage {
            title: "No mail can be sent",
            message: "This needs a code by mail, and this installation cannot send any at the moment.",
            advice: "Go back and sign in with a password, or tell the operator.",
        },
    )
}
