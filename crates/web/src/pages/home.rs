//! `/`: on to where the user works.

use axum::response::Response;

use super::routes::{Access, Routes};
use super::session::CurrentUser;
use super::view;

/// The page.
pub(super) fn routes() -> Routes {
    Routes::new().get("/", Access::User, home)
}

/// On to the organisation where the user worked last, or to the making of their first one.
async fn home(CurrentUser { session, memberships, .. }: CurrentUser) -> Response {
    let last = memberships.iter().find(|it| Some(&it.organization.id) == session.organization_id.as_ref());
    match last.or(memberships.first()) {
        Some(membership) => view::redirect(&format!("/o/{}", membership.organization.slug)),
        None => view::redirect("/organizations/new"),
    }
}
