//! The console's pages: one file per noun, and its templates in a folder of that name. A handler reads, calls an act, and
//! renders.

pub mod frame;
mod home;
mod reference;
pub mod routes;
pub mod session;
pub mod view;

use routes::Routes;

/// Every page, with who may see it.
#[must_use]
pub fn routes() -> Routes {
    Routes::new().merge(home::routes()).merge(reference::routes())
}
