//! The console and the REST API (docs/console.md): what the people of an organisation do, on pages and in scripts. Both
//! translate and nothing more; every act is one of `waypost_ops`.
//!
//! A noun has a file of its name in [`api`] and one in [`pages`].

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
use waypost_core::organization::SignUp;
use waypost_mail::Outbox;
use waypost_ops::Ops;
use waypost_ops::hosting::Hosting;
use waypost_ops::identity_provider::IdentityProviderContext;
use waypost_ops::public_url::PublicUrl;
use waypost_ops::user_accounts::UserAccounts;

use crate::limits::Limits;
use crate::providers::Provider;
use crate::request_info::RequestInfo;

/// What the console and the API work with.
#[derive(Clone)]
pub struct Web {
    state: Arc<State>,
    accounts: UserAccounts,
}

/// The parts of a [`Web`].
pub struct State {
    /// Hosted servers at work in this process.
    pub hosting: Hosting,
    /// The origin under which others reach this installation.
    pub public_url: PublicUrl,
    /// How often one address may ask.
    pub limits: Limits,
    /// Where mails go; none when this installation cannot send any.
    pub mail: Option<Outbox>,
    /// Where random bytes come from.
    pub random: Arc<dyn Random>,
    /// What it takes to ask identity providers.
    pub provider_context: IdentityProviderContext,
    /// Who may make an account for themselves.
    pub sign_up: SignUp,
    /// Providers that users can sign in with.
    pub providers: Vec<Provider>,
}

impl Web {
    /// Console and API of this installation.
    #[must_use]
    pub fn new(state: State) -> Self {
        let (ops, secret) = (state.hosting.ops().clone(), state.hosting.secret().clone());
        let accounts = UserAccounts::new(ops, secret, state.sign_up);
        Self { state: Arc::new(state), accounts }
    }

    /// How users sign in.
    #[must_use]
    pub fn accounts(&self) -> &UserAccounts {
        &self.accounts
    }

    /// What acts are done on.
    #[must_use]
    pub fn ops(&self) -> &Ops {
        self.hosting.ops()
    }

    /// A context for what `caller` asks for.
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

/// Everything on HOST but the hosted servers. Whoever mounts it puts a [`RequestInfo`] into each request's extensions.
pub fn router(web: Web) -> Router {
    Router::new()
        .merge(pages::routes().into_router())
        .layer(middleware::from_fn(pages::view::clear_flash))
        .layer(middleware::from_fn(origin::check))
        .nest("/api/v1", api::router(&web))
        .merge(asset::router())
        .with_state(web)
}
