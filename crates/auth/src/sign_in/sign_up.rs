//! `/oauth/sign-up`: an account with a password. It is made when the code that comes by mail proves the address.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use waypost_core::account::CodePurpose;
use waypost_ops::accounts::CodeRequest;

use crate::Auth;
use crate::page::Layout;

use super::form::{Fields, Platform};
use super::mail::{self, Unsent};
use super::no_mail;
use super::view::{self, View};

#[derive(Template)]
#[template(path = "sign_up.html")]
struct SignUpPage<'a> {
    layout: Layout,
    view: View<'a>,
}

/// Asks for address and password.
pub(super) async fn show(State(auth): State<Auth>, Platform(pending): Platform) -> Response {
    if auth.mail.is_none() {
        return no_mail(&pending);
    }
    let hint = pending.request.login_hint.clone().unwrap_or_default();
    let view = View::new(&pending, &hint, "email");
    view::answer(&auth, &pending, view, |layout, view| SignUpPage { layout, view }).await
}

/// Sends the code.
pub(super) async fn post(
    State(auth): State<Auth>,
    Platform(pending): Platform,
    headers: HeaderMap,
    fields: Fields,
) -> Response {
    if let Err(page) = fields.check(&auth, &pending, &headers) {
        return page;
    }
    let password = Some(fields.password.as_deref().unwrap_or_default());
    let asked = CodeRequest { email: &fields.email, purpose: CodePurpose::SignUp, password };
    let error = match mail::send(&auth, &pending, &headers, asked).await {
        Ok(response) | Err(Unsent::Page(response)) => return response,
        Err(Unsent::Problem(error)) => error,
    };
    match View::new(&pending, &fields.email, "email").with(&error) {
        Ok(view) => view::answer(&auth, &pending, view, |layout, view| SignUpPage { layout, view }).await,
        Err(page) => page,
    }
}
