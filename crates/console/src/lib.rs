//! The console (docs/console.md): one module per resource, with its templates in a folder of the same name. A handler
//! reads the request, calls an operation of `waypost_ops` and renders a template.

mod account;
mod agents;
mod analytics;
mod api_keys;
mod asset;
mod audit;
mod calls;
mod catalog;
mod code;
mod editor;
mod end_users;
mod form;
mod grants;
mod home;
pub mod install;
mod instance_list;
mod instance_state;
mod instances;
mod invitation;
mod joins;
pub mod layout;
mod link;
mod live;
mod login;
mod members;
mod oauth_configs;
mod organizations;
mod overview;
mod personal_secrets;
mod plain_text;
mod provider;
pub mod providers;
pub mod public_page;
mod reference;
mod reset;
pub mod routes;
mod secrets;
mod servers;
pub mod session;
mod set_up;
mod sign_in;
mod sign_in_mail;
mod sign_up;
mod tickets;
mod tool_approvals;
mod tool_sets;
mod toolboxes;
pub mod view;
mod walkthroughs;
mod webhooks;

use std::sync::Arc;

use axum::Router;
use axum::middleware;
use axum::routing::MethodRouter;
use waypost_core::organization::SignUpPolicy;
use waypost_http_kit::compression;
use waypost_http_kit::layered::{layered, record_route};
use waypost_http_kit::web::Web;
use waypost_ops::user_accounts::UserAccounts;

use crate::providers::Provider;
use crate::routes::Routes;

/// The console. Cheap to clone.
#[derive(Clone)]
pub struct Console {
    web: Web,
    accounts: UserAccounts,
    options: Arc<ConsoleOptions>,
}

/// The sign-up policy, the identity providers and the API document of a console.
pub struct ConsoleOptions {
    /// The sign-up policy.
    pub sign_up: SignUpPolicy,
    /// Providers that users can sign in with.
    pub providers: Vec<Provider>,
    /// Returns the OpenAPI document of the REST API.
    pub api_document: fn() -> &'static serde_json::Value,
    /// Whether the gateway is on. Otherwise, its pages do not exist.
    pub has_gateway: bool,
}

impl Console {
    /// Creates the console of this installation.
    #[must_use]
    pub fn new(web: Web, options: ConsoleOptions) -> Self {
        let accounts = UserAccounts::new(web.ops().clone(), web.hosting.secret().clone(), options.sign_up);
        Self { web, accounts, options: Arc::new(options) }
    }

    /// Returns the operations on user accounts and sign-in.
    #[must_use]
    pub fn accounts(&self) -> &UserAccounts {
        &self.accounts
    }

    /// Returns the sign-up policy.
    #[must_use]
    pub fn sign_up(&self) -> SignUpPolicy {
        self.options.sign_up
    }

    fn api_document(&self) -> &'static serde_json::Value {
        (self.options.api_document)()
    }

    /// Whether the gateway is on.
    #[must_use]
    pub fn has_gateway(&self) -> bool {
        self.options.has_gateway
    }

    /// Returns the providers that users can sign in with.
    #[must_use]
    pub fn providers(&self) -> &[Provider] {
        &self.options.providers
    }
}

impl std::ops::Deref for Console {
    type Target = Web;

    fn deref(&self) -> &Web {
        &self.web
    }
}

/// Returns the router of the console. It requires a [`waypost_http_kit::request_info::RequestInfo`] in each request's
/// extensions. `not_found` responds to requests that match no route.
pub fn router(console: Console, not_found: MethodRouter) -> Router {
    let routes = if console.has_gateway() { routes() } else { routes_without_gateway() };
    let pages = routes
        .into_router()
        .merge(asset::router())
        .route_layer(middleware::from_fn(record_route))
        .fallback_service(not_found)
        .with_state(console);
    layered(pages, middleware::from_fn(compression::compress))
}

/// Returns the routes of all pages with their required access.
#[must_use]
pub fn routes() -> Routes {
    let gateway = [
        agents::routes,
        calls::routes,
        grants::routes,
        personal_secrets::routes,
        tool_approvals::routes,
        tool_sets::routes,
    ];
    gateway.into_iter().fold(routes_without_gateway(), |routes, module| routes.merge(module()))
}

fn routes_without_gateway() -> Routes {
    // One line each, so that adding a module changes one line.
    #[rustfmt::skip]
    let all = [
        analytics::routes,
        api_keys::routes,
        audit::routes,
        account::routes,
        catalog::routes,
        code::routes,
        editor::routes,
        end_users::routes,
        home::routes,
        instances::routes,
        invitation::routes,
        joins::routes,
        link::routes,
        login::routes,
        members::routes,
        oauth_configs::routes,
        organizations::routes,
        overview::routes,
        provider::routes,
        reference::routes,
        reset::routes,
        secrets::routes,
        servers::routes,
        set_up::routes,
        tickets::routes,
        toolboxes::routes,
        webhooks::routes,
        sign_up::routes,
        walkthroughs::routes,
    ];
    all.into_iter().fold(Routes::new(), |routes, module| routes.merge(module()))
}
