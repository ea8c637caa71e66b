//! `/oauth/sign-up`: creates an account with a password after a code has verified the email.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use waypost_core::account::CodePurpose;
use waypost_ops::accounts::CodeRequest;

use crate::Auth;
use crate::page::Layout;

use super::email_unavailable;
use super::form::{Fields, PlatformSignIn};
use super::mail::{self, SendError};
use super::view::{self, View};

#[derive(Template)]
#[template(path = "sign_up.html")]
struct SignUpPage<'a> {
    layout: Layout,
    view: View<'a>,
}

/// Shows the page on which the user enters email and password.
pub(super) async fn show(State(auth): State<Auth>, PlatformSignIn(pending): PlatformSignIn) -> Response {
    if auth.mail.is_none() {
        return email_unavailable(&pending);
    }
    let hint = pending.request.login_hint.clone().unwrap_or_default();
    let view = View::new(&pending, &hint, "email");
    view::render(&auth, &pending, view, |layout, view| SignUpPage { layout, view }).await
}

/// Sends the code.
pub(super) async fn post(
    State(auth): State<Auth>,
    PlatformSignIn(pending): PlatformSignIn,
    headers: HeaderMap,
    fields: Fields,
) -> Response {
    if let Err(page) = fields.check(&auth, &pending, &headers) {
        return page;
    }
    let password = Some(fields.password.as_deref().unwrap_or_default());
    let request = CodeRequest { email: &fields.email, purpose: CodePurpose::SignUp, password };
    let error = match mail::send(&auth, &pending, &headers, request).await {
        Ok(response) | Err(SendError::Page(response)) => return response,
        Err(SendError::Problem(error)) => error,
    };
    match View::new(&pending, &fields.email, "email").with_error(&error) {
        Ok(view) => view::render(&auth, &pending, view, |layout, view| SignUpPage { layout, view }).await,
        Err(page) => page,
    }
}
