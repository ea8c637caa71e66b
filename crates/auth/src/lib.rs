//! Waypost as an OAuth authorization server (docs/sign-in.md): metadata, clients, authorization, tokens, and the pages
//! on which end users sign in. One file per endpoint; all stored data is read and written by the operations of
//! `waypost_ops`.

mod asset;
mod authorize;
pub mod bearer;
pub mod client;
mod consent;
pub mod gateway;
pub mod identity_provider;
pub mod issuer_request;
mod metadata;
pub mod page;
mod params;
pub mod pending;
mod register;
mod response;
pub mod server_request;
mod server_sign_in;
mod sign_in;
mod token;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use waypost_core::Random;
use waypost_core::caller::Ctx;
use waypost_mail::Outbox;
use waypost_ops::accounts::Accounts;
use waypost_ops::hosting::Hosting;
use waypost_ops::public_url::PublicUrl;

use crate::client::document::ClientDocuments;
use crate::gateway::GatewayRequest;
use crate::issuer_request::IssuerRequest;
use crate::server_request::ServerRequest;
use waypost_http_kit::limits::Limits;

/// The authorization server. Cheap to clone.
#[derive(Clone)]
pub struct Auth {
    state: Arc<State>,
    accounts: Accounts,
}

/// The parts of an [`Auth`].
pub struct State {
    /// The hosted servers of this process.
    pub hosting: Hosting,
    /// The public origin of this installation.
    pub public_url: PublicUrl,
    /// The metadata documents of clients.
    pub documents: ClientDocuments,
    /// The rate limits per client address.
    pub limits: Limits,
    /// The queue of outgoing email. `None` if this installation cannot send email.
    pub mail: Option<Outbox>,
    /// The source of random bytes.
    pub random: Arc<dyn Random>,
    /// The state of sign-in with organisations' identity providers.
    pub providers: identity_provider::IdentityProviders,
}

impl Auth {
    /// Creates the authorization server for every issuer.
    #[must_use]
    pub fn new(state: State) -> Self {
        let accounts = Accounts::new(state.hosting.ops().clone(), state.hosting.secret().clone());
        Self { state: Arc::new(state), accounts }
    }

    /// Returns the accounts of end users.
    pub(crate) fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// Returns the network of the client, in the form in which it is stored.
    pub(crate) fn network(&self, incoming: &impl IssuerRequest) -> String {
        waypost_ops::limits::stored_network(self.hosting.secret(), incoming.address())
    }

    /// Returns a context for operations on behalf of the browser or client that sent `incoming`.
    #[must_use]
    pub fn context(&self, incoming: &impl IssuerRequest) -> Ctx {
        self.hosting.context(incoming.caller(), Arc::clone(&self.random), incoming.request_id().to_owned())
    }
}

impl std::ops::Deref for Auth {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

/// Returns the routes of the pages below `/oauth` of a server, for browsers. The caller must insert a [`ServerRequest`]
/// into the extensions of each request that reaches a router for servers.
pub fn page_routes() -> Router<Auth> {
    Router::new()
        .route("/authorize", get(authorize::authorize::<ServerRequest>))
        .route("/authorize/continue", get(authorize::resume::<ServerRequest>))
        .route("/consent", get(consent::show).post(consent::decide))
        .merge(identity_provider::routes())
        .merge(sign_in::routes())
        .route("/sign-in.css", get(asset::style::<ServerRequest>))
        .route("/logo.png", get(asset::logo))
}

/// Returns the routes of the pages below `/gateway/oauth`, for browsers. The caller must insert a [`GatewayRequest`]
/// into the extensions of each request that reaches a router for the gateway.
pub fn gateway_page_routes() -> Router<Auth> {
    Router::new()
        .route("/authorize", get(authorize::authorize::<GatewayRequest>))
        .route("/authorize/continue", get(authorize::resume::<GatewayRequest>))
        .merge(gateway::routes())
        .route("/sign-in.css", get(asset::style::<GatewayRequest>))
}

/// Returns the routes of the endpoints below `/oauth` of a server, for clients of any origin.
pub fn endpoint_routes() -> Router<Auth> {
    endpoints_of::<ServerRequest>()
}

/// Returns the routes of the endpoints below `/gateway/oauth`, for clients of any origin.
pub fn gateway_endpoint_routes() -> Router<Auth> {
    endpoints_of::<GatewayRequest>()
}

fn endpoints_of<R: IssuerRequest>() -> Router<Auth> {
    Router::new()
        .route("/register", post(register::register::<R>))
        .route("/token", post(token::token::<R>))
        .route("/revoke", post(token::revoke::<R>))
}

/// Returns the routes of the metadata of every server, in both forms of its URL, for clients of any origin.
pub fn well_known_routes() -> Router<Auth> {
    let (server, resource) = (get(metadata::authorization_server::<ServerRequest>), get(metadata::protected_resource));
    let mut router = Router::new();
    for name in ["oauth-authorization-server", "openid-configuration"] {
        // RFC 8414, section 3.1, inserts the well-known path before the issuer's path; OpenID Connect Discovery appends
        // it.
        router = router
            .route(&format!("/.well-known/{name}"), server.clone())
            .route(&format!("/.well-known/{name}/s/{{slug}}"), server.clone())
            .route(&format!("/s/{{slug}}/.well-known/{name}"), server.clone());
    }
    for path in ["", "/mcp", "/t/{tracking_id}/mcp", "/s/{slug}/mcp", "/s/{slug}/t/{tracking_id}/mcp"] {
        router = router.route(&format!("/.well-known/oauth-protected-resource{path}"), resource.clone());
    }
    router
}

/// Returns the routes of the metadata of the gateway and its resources, for clients of any origin.
pub fn gateway_well_known_routes() -> Router<Auth> {
    let mut router = Router::new();
    for name in ["oauth-authorization-server", "openid-configuration"] {
        router = router
            .route(&format!("/.well-known/{name}/gateway"), get(metadata::authorization_server::<GatewayRequest>))
            .route(&format!("/gateway/.well-known/{name}"), get(metadata::authorization_server::<GatewayRequest>));
    }
    for path in ["/gateway/{organization}/mcp", "/gateway/{organization}/{tool_set}/mcp"] {
        router = router.route(&format!("/.well-known/oauth-protected-resource{path}"), get(metadata::gateway_resource));
    }
    router
}
