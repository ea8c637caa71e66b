//! The console's pages: one file per noun, and its templates in a folder of that name. A handler reads, calls an act, and
//! renders.

mod entry;
mod form;
pub mod frame;
mod home;
mod login;
mod oauth_configs;
mod reference;
pub mod routes;
mod servers;
pub mod session;
mod set_up;
pub mod view;

use routes::Routes;

/// Every page, with who may see it.
#[must_use]
pub fn routes() -> Routes {
    // One line each, so that a new one is a new line.
    #[rustfmt::skip]
    let all = [
        home::routes,
        login::routes,
        oauth_configs::routes,
        reference::routes,
        servers::routes,
        set_up::routes,
    ];
    all.into_iter().fold(Routes::new(), |routes, noun| routes.merge(noun()))
}
