//! The console's pages: one file per noun, and its templates in a folder of that name. A handler reads, calls an act, and
//! renders.

mod api_keys;
mod audit;
mod entry;
mod form;
pub mod frame;
mod home;
mod login;
mod members;
mod organizations;
mod overview;
mod reference;
pub mod routes;
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
        api_keys::routes,
        audit::routes,
        home::routes,
        login::routes,
        members::routes,
        organizations::routes,
        overview::routes,
        reference::routes,
        set_up::routes,
    ];
    all.into_iter().fold(Routes::new(), |routes, noun| routes.merge(noun()))
}
