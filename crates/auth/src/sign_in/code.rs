//! `/oauth/sign-in/code`: sends a code to an email address and accepts the code.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use http::HeaderMap;
use serde::Deserialize;
use waypost_core::account::CodePurpose;
use waypost_ops::accounts::{CodeEntry, CodeRequest};

use crate::Auth;
use crate::page::{self, Layout};
use crate::pending::PendingAuthorization;

use super::form::{Fields, PlatformSignIn};
use super::mail::{self, SendError};
use super::view::{self, View};

#[derive(Template)]
#[template(path = "code.html")]
struct CodePage<'a> {
    layout: Layout,
    view: View<'a>,
    sent: &'a str,
    /// The page on which the user can request a new code.
    retry_page: &'static str,
}

/// The query parameters of the pages for an emailed code.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
pub(super) struct CodeQuery {
    /// The ID of the code that was sent.
    pub(super) sent: String,
    /// The code itself. Set only by the link in the email.
    pub(super) code: String,
}

/// Shows the page on which the user enters the code.
pub(super) async fn show(
    State(auth): State<Auth>,
    PlatformSignIn(pending): PlatformSignIn,
    Query(query): Query<CodeQuery>,
) -> Response {
    match auth.accounts().get_code(&pending.cx, &pending.request, &query.sent).await {
        Ok(open) if open.purpose == CodePurpose::Reset => {
            page::redirect(&format!("{}&sent={}", pending.path("sign-in/reset"), query.sent))
        }
        Ok(open) => {
            let retry_page = if open.purpose == CodePurpose::SignUp { "sign-up" } else { "sign-in" };
            let view = View::new(&pending, &open.email, "code");
            view::render(&auth, &pending, view, |layout, view| CodePage { layout, view, sent: &query.sent, retry_page })
                .await
        }
        Err(error) => first_page_with_error(&auth, &pending, "", &error).await,
    }
}

/// Sends a code to an email address, or accepts the entered code.
pub(super) async fn post(
    State(auth): State<Auth>,
    PlatformSignIn(pending): PlatformSignIn,
    headers: HeaderMap,
    fields: Fields,
) -> Response {
    if let Err(page) = fields.check(&auth, &pending, &headers) {
        return page;
    }
    if fields.code.is_some() {
        return sign_in(&auth, &pending, &headers, &fields).await;
    }
    let request = CodeRequest { email: &fields.email, purpose: CodePurpose::SignIn, password: None };
    match mail::send(&auth, &pending, &headers, request).await {
        Ok(response) | Err(SendError::Page(response)) => response,
        Err(SendError::Problem(error)) => first_page_with_error(&auth, &pending, &fields.email, &error).await,
    }
}

/// Signs in with the entered code.
pub(super) async fn sign_in(
    auth: &Auth,
    pending: &PendingAuthorization,
    headers: &HeaderMap,
    fields: &Fields,
) -> Response {
    let code = fields.code.as_deref().unwrap_or_default();
    let entry = CodeEntry { id: &fields.sent, code, new_password: None };
    let error =
        match auth.accounts().sign_in_with_code(&pending.cx, &pending.request, entry, pending.incoming.client).await {
            Ok(session) => return super::signed_in(auth, pending, headers, &session).await,
            Err(error) => error,
        };
    // If the code can still be used, the code page is shown again.
    let open = auth.accounts().get_code(&pending.cx, &pending.request, &fields.sent).await;
    let Ok(open) = open else { return first_page_with_error(auth, pending, &fields.email, &error).await };
    let retry_page = if open.purpose == CodePurpose::SignUp { "sign-up" } else { "sign-in" };
    match View::new(pending, &open.email, "code").with_error(&error) {
        Ok(view) => {
            let sent = fields.sent.as_str();
            view::render(auth, pending, view, |layout, view| CodePage { layout, view, sent, retry_page }).await
        }
        Err(page) => page,
    }
}

/// Returns the first sign-in page, with the error.
pub(super) async fn first_page_with_error(
    auth: &Auth,
    pending: &PendingAuthorization,
    email: &str,
    error: &waypost_core::Error,
) -> Response {
    match View::new(pending, email, "email").with_error(error) {
        Ok(view) => super::first_page(auth, pending, view).await,
        Err(page) => page,
    }
}
