//! The console and the REST API (docs/console.md). Both only translate HTTP to and from the operations in
//! `waypost_ops`.
//!
//! Each resource has a file of the same name in [`api`] and in [`pages`].

pub mod api;
pub mod asset;
pub mod audit_export;
pub mod cookies;
pub mod diff;
pub mod impact;
pub mod install;
pub mod invite;
pub mod limits;
pub mod markdown;
pub mod origin;
pub mod pages;
pub mod problem;
pub mod providers;
pub mod public_page;
pub mod request_info;
pub mod spreadsheet;

use std::sync::Arc;

use axum::Router;
use axum::middleware;
use waypost_core::Random;
use waypost_core::caller::{Caller, Ctx};
use waypost_core::organization::SignUpPolicy;
use waypost_mail::Outbox;
use waypost_ops::Ops;
use waypost_ops::hosting::Hosting;
use waypost_ops::identity_provider::IdentityProviderContext;
use waypost_ops::public_url::PublicUrl;
use waypost_ops::user_accounts::UserAccounts;

use crate::limits::Limits;
use crate::providers::Provider;
use crate::request_info::RequestInfo;

/// The shared state of the console and the API.
#[derive(Clone)]
pub struct Web {
    state: Arc<State>,
    accounts: UserAccounts,
}

/// The parts of a [`Web`].
pub struct State {
    /// The hosted servers of this process.
    pub hosting: Hosting,
    /// The public origin of this installation.
    pub public_url: PublicUrl,
    /// Rate limits per client address.
    pub limits: Limits,
    /// The outbox for emails. `None` if this installation sends no email.
    pub mail: Option<Outbox>,
    /// The source of random bytes.
    pub random: Arc<dyn Random>,
    /// Everything that requests to identity providers need.
    pub provider_context: IdentityProviderContext,
    /// Who may sign up.
    pub sign_up: SignUpPolicy,
    /// Providers that users can sign in with.
    pub providers: Vec<Provider>,
}

impl Web {
    /// Creates the console and the API of this installation.
    #[must_use]
    pub fn new(state: State) -> Self {
        let (ops, secret) = (state.hosting.ops().clone(), state.hosting.secret().clone());
        let accounts = UserAccounts::new(ops, secret, state.sign_up);
        Self { state: Arc::new(state), accounts }
    }

    /// Returns the operations on user accounts and sign-in.
    #[must_use]
    pub fn accounts(&self) -> &UserAccounts {
        &self.accounts
    }

    /// Returns what operations run on.
    #[must_use]
    pub fn ops(&self) -> &Ops {
        self.hosting.ops()
    }

    /// Creates the context of an operation for `caller`.
    #[must_use]
    pub fn context(&self, caller: Caller, info: &RequestInfo) -> Ctx {
        self.hosting.context(caller, Arc::clone(&self.random), info.request_id.clone())
    }
}

impl std::ops::Deref for Web {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

/// Returns the router for everything on HOST except the hosted servers. It requires a [`RequestInfo`] in each request's
/// extensions.
pub fn router(web: Web) -> Router {
    Router::new()
        .merge(pages::routes().into_router())
        .layer(middleware::from_fn(pages::view::clear_flash))
        .layer(middleware::from_fn(origin::check))
        .nest("/api/v1", api::router(&web))
        .merge(asset::router())
        .with_state(web)
}
