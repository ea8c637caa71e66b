//! Waypost as OAuth authorization server (docs/sign-in.md): metadata, clients, authorization, tokens, and the pages on
//! which end users sign in. One file per endpoint; everything that lasts is done by the acts of `waypost_ops`.

pub mod browser;
pub mod page;
pub mod pending;
pub mod site;

use std::sync::Arc;

use axum::Router;
use waypost_core::Random;
use waypost_core::caller::{Caller, Ctx};
use waypost_ops::address::PublicUrl;
use waypost_ops::hosting::Hosting;

use crate::site::Site;

/// What the authorization server works with.
#[derive(Clone)]
pub struct Auth(Arc<State>);

/// The parts of an [`Auth`].
pub struct State {
    /// Hosted servers at work in this process.
    pub hosting: Hosting,
    /// The origin under which others reach this installation.
    pub public_url: PublicUrl,
    /// Where random bytes come from.
    pub random: Arc<dyn Random>,
}

impl Auth {
    /// An authorization server for every hosted server.
    #[must_use]
    pub fn new(state: State) -> Self {
        Self(Arc::new(state))
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
        &self.0
    }
}

/// Everything below `/oauth` of a server. Whoever mounts it puts a [`Site`] into each request's extensions.
pub fn routes() -> Router<Auth> {
    Router::new()
}
