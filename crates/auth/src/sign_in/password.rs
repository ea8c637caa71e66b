//! `/oauth/sign-in/password`: signing in with a password.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use waypost_ops::accounts::{Client, PasswordSignIn};

use crate::Auth;
use crate::page::Frame;
use crate::pending::Pending;

use super::form::{Fields, Platform};
use super::view::{self, View};

#[derive(Template)]
#[template(path = "password.html")]
struct PasswordPage<'a> {
    frame: Frame,
    view: View<'a>,
    can_mail: bool,
}

/// Asks for address and password.
pub(super) async fn show(State(auth): State<Auth>, Platform(pending): Platform) -> Response {
    let hint = pending.request.login_hint.clone().unwrap_or_default();
    page(&auth, &pending, begin(&pending, &hint)).await
}

/// Signs in; without a password it asks for it, with the address that was typed on the page before.
pub(super) async fn post(
    State(auth): State<Auth>,
    Platform(pending): Platform,
    headers: HeaderMap,
    fields: Fields,
) -> Response {
    if let Err(page) = fields.check(&auth, &pending, &headers) {
        return page;
    }
    let view = begin(&pending, &fields.email);
    let Some(password) = &fields.password else { return page(&auth, &pending, view).await };
    let org = &pending.request.organization_id;
    let device = super::device(&pending, &headers);
    let client = Client { address: pending.site.client, device: &device };
    let typed = PasswordSignIn { email: &fields.email, password };
    match auth.accounts().enter_password(&pending.cx, org, typed, client).await {
        Ok(session) => super::signed_in(&auth, &pending, &headers, &session).await,
        Err(error) => match view.with(&error) {
            Ok(view) => page(&auth, &pending, view).await,
            Err(page) => page,
        },
    }
}

fn begin<'a>(pending: &'a Pending, email: &str) -> View<'a> {
    View::new(pending, email, if email.is_empty() { "email" } else { "password" })
}

async fn page(auth: &Auth, pending: &Pending, view: View<'_>) -> Response {
    let can_mail = auth.mail.is_some();
    view::answer(auth, pending, view, |frame, view| PasswordPage { frame, view, can_mail }).await
}
