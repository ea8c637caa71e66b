//! `/walkthroughs/trash`: deleted walkthroughs.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use waypost_ops::walkthroughs::trash;

use waypost_core::walkthrough::{WalkthroughState, WalkthroughType};

use super::dto::WalkthroughDetails;
use super::{state_response, walkthrough_id};
use crate::Web;
use crate::extract::{Json, Path, Scope};
use crate::page::Page;
use crate::problem::{ApiResult, Problems};
use crate::routes::{Routes, routes};

/// The operations on the trash.
pub(super) fn routes() -> Routes {
    Routes::new().routes(routes!(list)).routes(routes!(restore)).routes(routes!(purge))
}

/// A deleted walkthrough.
#[derive(Debug, Serialize, ToSchema)]
struct TrashedWalkthrough {
    #[schema(example = "wt_0123456789abcdef")]
    id: String,
    slug: String,
    title: String,
    #[serde(rename = "type")]
    kind: WalkthroughType,
    /// The state to which the walkthrough is restored.
    state: WalkthroughState,
    #[schema(format = DateTime)]
    deleted_at: String,
    /// The ID of the user or API key that deleted the walkthrough, or `operator`.
    deleted_by: String,
    /// The user's email or the API key's name. Null if unknown.
    deleted_by_name: Option<String>,
    /// The time at which the walkthrough is deleted permanently: 30 days after `deleted_at`.
    #[schema(format = DateTime)]
    purged_at: String,
}

impl From<trash::TrashedWalkthrough> for TrashedWalkthrough {
    fn from(trashed: trash::TrashedWalkthrough) -> Self {
        let walkthrough = trashed.walkthrough;
        Self {
            id: walkthrough.id.to_string(),
            slug: walkthrough.slug,
            title: walkthrough.title,
            kind: walkthrough.kind,
            state: walkthrough.state,
            deleted_at: trashed.deleted_at.rfc3339(),
            deleted_by: trashed.deleted_by,
            deleted_by_name: trashed.deleted_by_name,
            purged_at: trashed.purged_at.rfc3339(),
        }
    }
}

/// Lists the walkthroughs in the trash, most recently deleted first.
///
/// The list is complete: `next_cursor` is always null.
#[utoipa::path(get, path = "/walkthroughs/trash", tag = "walkthroughs", operation_id = "list_trashed_walkthroughs",
    responses((status = 200, body = Page<TrashedWalkthrough>), Problems))]
async fn list(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
) -> ApiResult<Json<Page<TrashedWalkthrough>>> {
    let trashed = trash::list_deleted(&cx, web.ops(), &organization_id).await?;
    Ok(Json(Page::complete(trashed.into_iter().map(Into::into).collect())))
}

/// Restores a walkthrough from the trash.
///
/// The walkthrough keeps its ID, state, assignments, versions and progress. If its title or slug has been taken in the
/// meantime, it gets a different one. Returns 409 if it is not in the trash.
#[utoipa::path(post, path = "/walkthroughs/{id}/restore", tag = "walkthroughs", operation_id = "restore_walkthrough",
    params(("id" = String, Path, description = "The ID of the walkthrough (`wt_…`).")),
    responses((status = 200, body = WalkthroughDetails), Problems))]
async fn restore(State(web): State<Web>, scope: Scope, Path(id): Path<String>) -> ApiResult<Response> {
    let id = walkthrough_id(&id)?;
    let restored = trash::restore(&scope.cx, web.ops(), &scope.organization_id, &id).await;
    state_response(&scope, &web, &id, restored).await
}

/// Permanently deletes a walkthrough that is in the trash.
///
/// Deletes its versions, assignments and all progress. This cannot be undone. Requires the role `admin`.
#[utoipa::path(delete, path = "/walkthroughs/trash/{id}", tag = "walkthroughs", operation_id = "purge_walkthrough",
    params(("id" = String, Path, description = "The ID of the walkthrough (`wt_…`).")),
    responses((status = 204), Problems))]
async fn purge(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(id): Path<String>,
) -> ApiResult<StatusCode> {
    trash::purge(&cx, web.ops(), &organization_id, &walkthrough_id(&id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
