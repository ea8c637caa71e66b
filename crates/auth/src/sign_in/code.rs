//! `/oauth/sign-in/code`: an address gets a code, and the code is typed.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use http::HeaderMap;
use serde::Deserialize;
use waypost_core::account::CodePurpose;
use waypost_ops::accounts::{CodeEntry, CodeRequest};

use crate::Auth;
use crate::page::{self, Layout};
use crate::pending::Pending;

use super::form::{Fields, Platform};
use super::mail::{self, Unsent};
use super::view::{self, View};

#[derive(Template)]
#[template(path = "code.html")]
struct CodePage<'a> {
    layout: Layout,
    view: View<'a>,
    sent: &'a str,
    /// Where a new code is asked for.
    again: &'static str,
}

/// Which code a page is about.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
pub(super) struct Sent {
    pub(super) sent: String,
    /// The code itself: only in the mail's link.
    pub(super) code: String,
}

/// Asks for the code that was sent.
pub(super) async fn show(State(auth): State<Auth>, Platform(pending): Platform, Query(query): Query<Sent>) -> Response {
    match auth.accounts().get_code(&pending.cx, &pending.request, &query.sent).await {
        Ok(open) if open.purpose == CodePurpose::Reset => {
            page::redirect(&format!("{}&sent={}", pending.path("sign-in/reset"), query.sent))
        }
        Ok(open) => {
            let again = if open.purpose == CodePurpose::SignUp { "sign-up" } else { "sign-in" };
            let view = View::new(&pending, &open.email, "code");
            view::answer(&auth, &pending, view, |layout, view| CodePage { layout, view, sent: &query.sent, again })
                .await
        }
        Err(error) => begin_again(&auth, &pending, "", &error).await,
    }
}

/// Sends a code to an address, or takes the one that was typed.
pub(super) async fn post(
    State(auth): State<Auth>,
    Platform(pending): Platform,
    headers: HeaderMap,
    fields: Fields,
) -> Response {
    if let Err(page) = fields.check(&auth, &pending, &headers) {
        return page;
    }
    if fields.code.is_some() {
        return enter(&auth, &pending, &headers, &fields).await;
    }
    let asked = CodeRequest { email: &fields.email, purpose: CodePurpose::SignIn, password: None };
    match mail::send(&auth, &pending, &headers, asked).await {
        Ok(response) | Err(Unsent::Page(response)) => response,
        Err(Unsent::Problem(error)) => begin_again(&auth, &pending, &fields.email, &error).await,
    }
}

/// Signs in with the code of a form.
pub(super) async fn enter(auth: &Auth, pending: &Pending, headers: &HeaderMap, fields: &Fields) -> Response {
    let code = fields.code.as_deref().unwrap_or_default();
    let entered = CodeEntry { id: &fields.sent, code, new_password: None };
    let error = match auth
        .accounts()
        .sign_in_with_code(&pending.cx, &pending.request, entered, pending.incoming.client)
        .await
    {
        Ok(session) => return super::signed_in(auth, pending, headers, &session).await,
        Err(error) => error,
    };
    // Whether the code can be tried once more decides which page comes.
    let open = auth.accounts().get_code(&pending.cx, &pending.request, &fields.sent).await;
    let Ok(open) = open else { return begin_again(auth, pending, &fields.email, &error).await };
    let again = if open.purpose == CodePurpose::SignUp { "sign-up" } else { "sign-in" };
    match View::new(pending, &open.email, "code").with(&error) {
        Ok(view) => {
            let sent = fields.sent.as_str();
            view::answer(auth, pending, view, |layout, view| CodePage { layout, view, sent, again }).await
        }
        Err(page) => page,
    }
}

/// The first page, with what went wrong.
pub(super) async fn begin_again(auth: &Auth, pending: &Pending, email: &str, error: &waypost_core::Error) -> Response {
    match View::new(pending, email, "email").with(error) {
        Ok(view) => super::page_to_choose(auth, pending, view).await,
        Err(page) => page,
    }
}
