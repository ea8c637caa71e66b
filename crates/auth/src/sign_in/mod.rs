//! The pages on which end users sign in with Waypost accounts: with a code, with a password, by creating an account, or
//! by resetting a password.
//!
//! Every page belongs to an authorization request and its browser. Pages never reveal whether an email has an account
//! (docs/sign-in.md, invariant 11).

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
use crate::page::{self, ErrorPage, Layout};
use crate::pending::{self, PendingAuthorization};
use waypost_http_kit::cookies;

use self::form::{Fields, PlatformSignIn};
use self::view::View;

/// Returns the routes of the pages, below `/oauth` of a server.
pub fn routes() -> Router<Auth> {
    Router::new()
        .route("/sign-in", get(show))
        .route("/sign-in/code", get(code::show).post(code::post))
        .route("/sign-in/link", get(link::show).post(link::post))
        .route("/sign-in/password", get(password::show).post(password::post))
        .route("/sign-in/forgotten", get(reset::show_forgotten).post(reset::send))
        .route("/sign-in/reset", get(reset::show).post(reset::post))
        .route("/sign-up", get(sign_up::show).post(sign_up::post))
        .route("/sign-out", post(sign_out))
}

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage<'a> {
    layout: Layout,
    view: View<'a>,
}

/// `GET /oauth/sign-in`: the user enters their email and selects a sign-in method.
async fn show(State(auth): State<Auth>, PlatformSignIn(pending): PlatformSignIn) -> Response {
    if auth.mail.is_none() {
        return password::show(State(auth), PlatformSignIn(pending)).await;
    }
    let hint = pending.request.login_hint.clone().unwrap_or_default();
    first_page(&auth, &pending, View::new(&pending, &hint, "email")).await
}

/// Returns the first page of a sign-in, with the problem of `view`, if any.
async fn first_page(auth: &Auth, pending: &PendingAuthorization, view: View<'_>) -> Response {
    view::render(auth, pending, view, |layout, view| SignInPage { layout, view }).await
}

/// Redirects the browser to the next step, signed in. Ends its previous session.
async fn signed_in(auth: &Auth, pending: &PendingAuthorization, headers: &HeaderMap, session: &NewSession) -> Response {
    if let Err(error) = end_session(auth, pending, headers).await {
        return pending::failed(&pending.incoming, &error);
    }
    let mut response = page::redirect(&pending.path("authorize/continue"));
    let organization = &pending.incoming.server().organization_id;
    cookies::set_session(response.headers_mut(), cookies::end_user_session(organization), &session.token);
    cookies::set_device(response.headers_mut(), cookies::end_user_device(organization), &session.device);
    response
}

/// `POST /oauth/sign-out`: ends the browser's session. The authorization request stays pending, so that another user
/// can sign in.
async fn sign_out(
    State(auth): State<Auth>,
    pending: PendingAuthorization,
    headers: HeaderMap,
    fields: Fields,
) -> Response {
    if let Err(page) = fields.check(&auth, &pending, &headers) {
        return page;
    }
    if let Err(error) = end_session(&auth, &pending, &headers).await {
        return pending::failed(&pending.incoming, &error);
    }
    let mut response = page::redirect(&pending.path("authorize/continue"));
    cookies::clear(response.headers_mut(), cookies::end_user_session(&pending.incoming.server().organization_id));
    response
}

/// Returns the value of the device cookie, which shows that an end user of the organisation has signed in with this
/// browser before. Returns an empty string if there is no cookie.
fn device_cookie(pending: &PendingAuthorization, headers: &HeaderMap) -> String {
    cookies::read(headers, &cookies::end_user_device(&pending.incoming.server().organization_id)).unwrap_or_default()
}

async fn end_session(auth: &Auth, pending: &PendingAuthorization, headers: &HeaderMap) -> waypost_core::Result<()> {
    let organization = &pending.incoming.server().organization_id;
    match cookies::read(headers, &cookies::end_user_session(organization)) {
        Some(cookie) => browser_sessions::delete(&pending.cx, auth.hosting.ops(), organization, &cookie).await,
        None => Ok(()),
    }
}

/// Returns the page for an action that requires email, if this installation cannot send any.
fn email_unavailable(pending: &PendingAuthorization) -> Response {
    page::error(
        &pending.incoming,
        StatusCode::SERVICE_UNAVAILABLE,
        ErrorPage {
            title: "Email is unavailable",
            message: "This requires a code by email, but this installation cannot send email at the moment.",
            advice: "Go back and sign in with a password, or contact the operator.",
        },
    )
}
