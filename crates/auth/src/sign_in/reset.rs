//! `/oauth/sign-in/forgotten` and `/oauth/sign-in/reset`: sets a new password after a code has verified the email.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use http::HeaderMap;
use waypost_core::account::CodePurpose;
use waypost_ops::accounts::{CodeEntry, CodeRequest};

use crate::Auth;
use crate::page::Layout;
use crate::pending::PendingAuthorization;

use super::code::CodeQuery;
use super::email_unavailable;
use super::form::{Fields, PlatformSignIn};
use super::mail::{self, SendError};
use super::view::{self, View};

#[derive(Template)]
#[template(path = "forgotten_password.html")]
struct ForgottenPasswordPage<'a> {
    layout: Layout,
    view: View<'a>,
}

#[derive(Template)]
#[template(path = "reset.html")]
struct ResetPage<'a> {
    layout: Layout,
    view: View<'a>,
    sent: &'a str,
    code: &'a str,
}

/// Shows the page on which the user enters their email.
pub(super) async fn show_forgotten(State(auth): State<Auth>, PlatformSignIn(pending): PlatformSignIn) -> Response {
    if auth.mail.is_none() {
        return email_unavailable(&pending);
    }
    let hint = pending.request.login_hint.clone().unwrap_or_default();
    forgotten_page(&auth, &pending, View::new(&pending, &hint, "email")).await
}

/// Sends the code.
pub(super) async fn send(
    State(auth): State<Auth>,
    PlatformSignIn(pending): PlatformSignIn,
    headers: HeaderMap,
    fields: Fields,
) -> Response {
    if let Err(page) = fields.check(&auth, &pending, &headers) {
        return page;
    }
    let request = CodeRequest { email: &fields.email, purpose: CodePurpose::Reset, password: None };
    match mail::send(&auth, &pending, &headers, request).await {
        Ok(response) | Err(SendError::Page(response)) => response,
        Err(SendError::Problem(error)) => forgotten_page_with_error(&auth, &pending, &fields.email, &error).await,
    }
}

/// Shows the page on which the user enters the code and a new password.
pub(super) async fn show(
    State(auth): State<Auth>,
    PlatformSignIn(pending): PlatformSignIn,
    Query(query): Query<CodeQuery>,
) -> Response {
    match auth.accounts().get_code(&pending.cx, &pending.request, &query.sent).await {
        Ok(open) => page(&auth, &pending, View::new(&pending, &open.email, "code"), &query.sent, "").await,
        Err(error) => forgotten_page_with_error(&auth, &pending, "", &error).await,
    }
}

/// Sets the password and signs in.
pub(super) async fn post(
    State(auth): State<Auth>,
    PlatformSignIn(pending): PlatformSignIn,
    headers: HeaderMap,
    fields: Fields,
) -> Response {
    if let Err(page) = fields.check(&auth, &pending, &headers) {
        return page;
    }
    let code = fields.code.as_deref().unwrap_or_default();
    let entry = CodeEntry { id: &fields.sent, code, new_password: Some(&fields.new_password) };
    let error =
        match auth.accounts().sign_in_with_code(&pending.cx, &pending.request, entry, pending.incoming.client).await {
            Ok(session) => return super::signed_in(&auth, &pending, &headers, &session).await,
            Err(error) => error,
        };
    let open = auth.accounts().get_code(&pending.cx, &pending.request, &fields.sent).await;
    let Ok(open) = open else { return forgotten_page_with_error(&auth, &pending, &fields.email, &error).await };
    // A correct code stays in its field.
    let kept_code = if error.details.get("field").is_some_and(|field| field == "code") { "" } else { code };
    match View::new(&pending, &open.email, "code").with_error(&error) {
        Ok(view) => page(&auth, &pending, view, &fields.sent, kept_code).await,
        Err(page) => page,
    }
}

/// Returns the page for the code and the new password.
pub(super) async fn page(
    auth: &Auth,
    pending: &PendingAuthorization,
    view: View<'_>,
    sent: &str,
    code: &str,
) -> Response {
    view::render(auth, pending, view, |layout, view| ResetPage { layout, view, sent, code }).await
}

async fn forgotten_page(auth: &Auth, pending: &PendingAuthorization, view: View<'_>) -> Response {
    view::render(auth, pending, view, |layout, view| ForgottenPasswordPage { layout, view }).await
}

async fn forgotten_page_with_error(
    auth: &Auth,
    pending: &PendingAuthorization,
    email: &str,
    error: &waypost_core::Error,
) -> Response {
    match View::new(pending, email, "email").with_error(error) {
        Ok(view) => forgotten_page(auth, pending, view).await,
        Err(page) => page,
    }
}
