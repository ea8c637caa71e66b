//! The console's pages: one file per noun, and its templates in a folder of that name. A handler reads, calls an act, and
//! renders.

mod entry;
mod form;
pub mod frame;
mod home;
mod login;
pub mod routes;
pub mod session;
mod set_up;
pub mod view;

use routes::Routes;

/// Every page, with who may see it.
#[must_use]
pub fn routes() -> Routes {
    Routes::new().merge(home::routes()).merge(login::routes()).merge(set_up::routes())
}
