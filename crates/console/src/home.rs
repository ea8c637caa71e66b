//! `/`: the redirect to the user's current organisation.

use axum::response::Response;

use crate::routes::{Access, Routes};
use crate::session::CurrentUser;
use crate::view;

/// Returns the routes of this page.
pub(super) fn routes() -> Routes {
    Routes::new().get("/", Access::User, home)
}

/// Redirects to the organisation in which the user last worked, or to the page for creating the first one.
async fn home(current_user: CurrentUser) -> Response {
    match current_user.current_membership() {
        Some(membership) => view::redirect(&format!("/o/{}", membership.organization.slug)),
        None => view::redirect("/organizations/new"),
    }
}
