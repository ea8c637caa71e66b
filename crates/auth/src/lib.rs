//! Waypost as OAuth authorization server (docs/sign-in.md): metadata, clients, authorization, tokens, and the pages on
//! which end users sign in. One file per endpoint; everything that lasts is done by the acts of `waypost_ops`.

mod answer;
mod asset;
mod authorize;
pub mod bearer;
pub mod browser;
pub mod client;
mod consent;
pub mod limits;
mod metadata;
pub mod page;
mod params;
pub mod pending;
mod register;
mod sign_in;
pub mod site;
mod token;
pub mod upstream;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use waypost_core::Random;
use waypost_core::caller::{Caller, Ctx};
use waypost_mail::Outbox;
use waypost_ops::accounts::Accounts;
use waypost_ops::hosting::Hosting;
use waypost_ops::public_url::PublicUrl;

use crate::client::document::Documents;
use crate::limits::Limits;
use crate::site::Site;

/// What the authorization server works with.
#[derive(Clone)]
pub struct Auth {
    state: Arc<State>,
    accounts: Accounts,
}

/// The parts of an [`Auth`].
pub struct State {
    /// Hosted servers at work in this process.
    pub hosting: Hosting,
    /// The origin under which others reach this installation.
    pub public_url: PublicUrl,
    /// Metadata documents of clients.
    pub documents: Documents,
    /// How often one address may ask.
    pub limits: Limits,
    /// Where mails go; none when this installation cannot send any.
    pub mail: Option<Outbox>,
    /// Where random bytes come from.
    pub random: Arc<dyn Random>,
    /// What it takes to ask organisations' identity providers.
    pub providers: upstream::Providers,
}

impl Auth {
    /// An authorization server for every hosted server.
    #[must_use]
    pub fn new(state: State) -> Self {
        let accounts = Accounts::new(state.hosting.ops().clone(), state.hosting.secret().clone());
        Self { state: Arc::new(state), accounts }
    }

    /// The accounts of end users.
    pub(crate) fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// The network that a request came from, as it is stored.
    pub(crate) fn network(&self, site: &Site) -> String {
        waypost_ops::limits::stored_network(self.hosting.secret(), site.client)
    }

    /// A context for what the browser or the client at `site` asks for.
    #[must_use]
    pub fn context(&self, site: &Site) -> Ctx {
        let server = &site.offers.server;
        let caller = Caller::Client { organization_id: server.organization_id.clone(), server_id: server.id.clone() };
        self.hosting.context(caller, Arc::clone(&self.random), site.request_id.clone())
    }
}

impl std::ops::Deref for Auth {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

/// The pages below `/oauth` of a server, for browsers. Whoever mounts any of these routers puts a [`Site`] into each
/// request's extensions.
pub fn pages() -> Router<Auth> {
    Router::new()
        .route("/authorize", get(authorize::authorize))
        .route("/authorize/continue", get(authorize::resume))
        .route("/consent", get(consent::show).post(consent::decide))
        .merge(upstream::routes())
        .merge(sign_in::routes())
        .route("/sign-in.css", get(asset::style))
        .route("/logo.png", get(asset::logo))
}

/// The endpoints below `/oauth` of a server, for clients of any origin.
pub fn endpoints() -> Router<Auth> {
    Router::new()
        .route("/register", post(register::register))
        .route("/token", post(token::token))
        .route("/revoke", post(token::revoke))
}

/// The metadata of every server, in both forms of its address, for clients of any origin.
pub fn well_known() -> Router<Auth> {
    let (server, resource) = (get(metadata::authorization_server), get(metadata::protected_resource));
    let mut router = Router::new();
    for name in ["oauth-authorization-server", "openid-configuration"] {
        // RFC 8414, section 3.1, puts the issuer's path behind the well-known one, OpenID Connect Discovery before it.
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
