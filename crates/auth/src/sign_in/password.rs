//! `/oauth/sign-in/password`: signing in with a password.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use waypost_ops::accounts::{ClientInfo, PasswordSignIn};

use crate::Auth;
use crate::page::Layout;
use crate::pending::Pending;

use super::form::{Fields, Platform};
use super::view::{self, View};

#[derive(Template)]
#[template(path = "password.html")]
struct PasswordPage<'a> {
    layout: Layout,
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
    let client = ClientInfo { address: pending.incoming.client, device: &device };
    let typed = PasswordSignIn { email: &fields.email, password };
    match auth.accounts().sign_in_with_password(&pending.cx, org, typed, client).await {
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
    view::answer(auth, pending, view, |layout, view| PasswordPage { layout, view, can_mail }).await
}
