//! `/organizations`.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use waypost_core::organization;
use waypost_ops::organizations;

use super::extract::{Anybody, Json};
use super::page::Page;
use crate::Web;
use crate::problem::{ApiResult, Problems};

/// The operations on organisations.
pub(super) fn routes() -> OpenApiRouter<Web> {
    OpenApiRouter::new().routes(routes!(list))
}

/// An organisation: the tenant.
#[derive(Debug, Serialize, ToSchema)]
struct Organization {
    #[schema(example = "org_0123456789abcdef")]
    id: String,
    /// Short name, unique.
    slug: String,
    name: String,
    /// RFC 3339.
    #[schema(format = DateTime)]
    created_at: String,
}

impl From<organization::Organization> for Organization {
    fn from(it: organization::Organization) -> Self {
        Self { id: it.id.to_string(), slug: it.slug, name: it.name, created_at: it.created_at.rfc3339() }
    }
}

/// The organisations that the caller can see: a user's, or the key's own.
#[utoipa::path(get, path = "/organizations", tag = "organizations", operation_id = "list_organizations",
    responses((status = 200, body = Page<Organization>), Problems))]
async fn list(State(web): State<Web>, Anybody { cx }: Anybody) -> ApiResult<Json<Page<Organization>>> {
    let items = organizations::list(&cx, web.ops()).await?.into_iter().map(Organization::from).collect();
    Ok(Json(Page::whole(items)))
}
