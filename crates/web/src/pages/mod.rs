//! The console's pages: one module per resource, with its templates in a folder of the same name. A handler reads the
//! request, calls an operation and renders a template.

mod account;
mod analytics;
mod api_keys;
mod audit;
mod code;
mod editor;
mod end_users;
mod form;
mod home;
mod invitation;
mod joins;
pub mod layout;
mod link;
mod login;
mod members;
mod oauth_configs;
mod organizations;
mod overview;
mod provider;
mod reference;
mod reset;
pub mod routes;
mod servers;
pub mod session;
mod set_up;
mod sign_in;
mod sign_in_mail;
mod sign_up;
mod tickets;
pub mod view;
mod walkthroughs;
mod webhooks;

use routes::Routes;

/// Returns all pages with their required access.
#[must_use]
pub fn routes() -> Routes {
    // One line each, so that adding a module changes one line.
    #[rustfmt::skip]
    let all = [
        analytics::routes,
        api_keys::routes,
        audit::routes,
        account::routes,
        code::routes,
        editor::routes,
        end_users::routes,
        home::routes,
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
        servers::routes,
        set_up::routes,
        tickets::routes,
        webhooks::routes,
        sign_up::routes,
        walkthroughs::routes,
    ];
    all.into_iter().fold(Routes::new(), |routes, noun| routes.merge(noun()))
}
