//! The console's pages: one file per noun, and its templates in a folder of that name. A handler reads, calls an act, and
//! renders.

mod account;
mod api_keys;
mod audit;
mod code;
mod editor;
mod entry;
mod form;
pub mod frame;
mod home;
mod invitation;
mod link;
mod login;
mod members;
mod organizations;
mod overview;
mod provider;
mod reference;
mod reset;
pub mod routes;
pub mod session;
mod set_up;
mod sign_in_mail;
mod sign_up;
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
        account::routes,
        code::routes,
        editor::routes,
        home::routes,
        invitation::routes,
        link::routes,
        login::routes,
        members::routes,
        organizations::routes,
        overview::routes,
        provider::routes,
        reference::routes,
        reset::routes,
        set_up::routes,
        sign_up::routes,
    ];
    all.into_iter().fold(Routes::new(), |routes, noun| routes.merge(noun()))
}
