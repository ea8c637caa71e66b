//! Sign-in with the organisation's identity provider (docs/sign-in.md, `custom_oauth`).
//!
//! `GET …/oauth/upstream?request=ID` sends the browser to the provider after consent; the provider redirects it to
//! `GET …/oauth/callback`. The redirect URI to register with the provider is `ISSUER/oauth/callback`, for each URL form
//! of the server. No token of the provider reaches a client, and no token of a client reaches the provider.

mod begin_login;
mod callback;

use axum::Router;
use axum::routing::get;
use waypost_core::authorization::AuthorizationRequest;
use waypost_ops::login::KeyCache;

use crate::Auth;

/// The state of sign-in with identity providers: their cached signing keys.
#[derive(Debug, Clone, Default)]
pub struct IdentityProviders {
    keys: KeyCache,
}

/// Returns the routes of the login.
pub(crate) fn routes() -> Router<Auth> {
    Router::new().route("/upstream", get(begin_login::begin_login)).route("/callback", get(callback::callback))
}

/// Returns the URI to which the provider redirects the browser.
fn redirect_uri(request: &AuthorizationRequest) -> String {
    format!("{}/oauth/callback", request.issuer)
}
