//! `/oauth/sign-in/password`: sign-in with a password.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use waypost_ops::accounts::{PasswordSignIn, SignInClient};

use crate::Auth;
use crate::page::Layout;
use crate::pending::PendingAuthorization;

use super::form::{Fields, PlatformSignIn};
use super::view::{self, View};

#[derive(Template)]
#[template(path = "password.html")]
struct PasswordPage<'a> {
    layout: Layout,
    view: View<'a>,
    can_mail: bool,
}

/// Shows the page on which the user enters email and password.
pub(super) async fn show(State(auth): State<Auth>, PlatformSignIn(pending): PlatformSignIn) -> Response {
    let hint = pending.request.login_hint.clone().unwrap_or_default();
    page(&auth, &pending, initial_view(&pending, &hint)).await
}

/// Signs in. If the form has no password, shows the page with the email from the previous page.
pub(super) async fn post(
    State(auth): State<Auth>,
    PlatformSignIn(pending): PlatformSignIn,
    headers: HeaderMap,
    fields: Fields,
) -> Response {
    if let Err(page) = fields.check(&auth, &pending, &headers) {
        return page;
    }
    let view = initial_view(&pending, &fields.email);
    let Some(password) = &fields.password else { return page(&auth, &pending, view).await };
    let org = &pending.incoming.server().organization_id;
    let device = super::device_cookie(&pending, &headers);
    let client = SignInClient { address: pending.incoming.client, device: &device };
    let credentials = PasswordSignIn { email: &fields.email, password };
    match auth.accounts().sign_in_with_password(&pending.cx, org, credentials, client).await {
        Ok(session) => super::signed_in(&auth, &pending, &headers, &session).await,
        Err(error) => match view.with_error(&error) {
            Ok(view) => page(&auth, &pending, view).await,
            Err(page) => page,
        },
    }
}

fn initial_view<'a>(pending: &'a PendingAuthorization, email: &str) -> View<'a> {
    View::new(pending, email, if email.is_empty() { "email" } else { "password" })
}

async fn page(auth: &Auth, pending: &PendingAuthorization, view: View<'_>) -> Response {
    let can_mail = auth.mail.is_some();
    view::render(auth, pending, view, |layout, view| PasswordPage { layout, view, can_mail }).await
}
