//! Signing in at the organisation's identity provider (docs/sign-in.md, `custom_oauth`).
//!
//! `GET …/oauth/upstream?request=ID` sends the browser away, after consent; `GET …/oauth/callback` is where the provider
//! sends it back. The redirect URI to register there is `ISSUER/oauth/callback` of every address under which the server
//! is asked. No token of the provider reaches a client, and none of a client reaches the provider.

mod begin_login;
mod callback;
mod claims;
mod exchange;
mod failure;
mod id_token;
mod keys;
mod userinfo;

use axum::Router;
use axum::routing::get;
use waypost_core::authorization::AuthorizationRequest;
use waypost_ops::identity_provider::IdentityProviderContext;

use crate::Auth;
use keys::KeyCache;

/// What it takes to ask providers.
#[derive(Debug, Clone)]
pub struct IdentityProviders {
    provider_context: IdentityProviderContext,
    keys: KeyCache,
}

impl IdentityProviders {
    /// Asks providers with `upstream`, and remembers their keys.
    #[must_use]
    pub fn new(provider_context: IdentityProviderContext) -> Self {
        Self { provider_context, keys: KeyCache::default() }
    }
}

/// The two addresses.
pub(crate) fn routes() -> Router<Auth> {
    Router::new().route("/upstream", get(begin_login::begin_login)).route("/callback", get(callback::callback))
}

/// Where the provider sends the browser back to.
fn redirect_uri(request: &AuthorizationRequest) -> String {
    format!("{}/oauth/callback", request.issuer)
}
