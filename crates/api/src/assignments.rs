//! `/assignments`: walkthroughs on servers.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use waypost_core::assignment::AssignmentView;
use waypost_core::{Code, Error};
use waypost_ops::assignments::{self, AssignmentPatch};

use crate::Web;
use crate::extract::{Json, Path, Query, Scope, parse_id};
use crate::page::Page;
use crate::problem::{ApiResult, Problems};
use crate::routes::{Routes, routes};

/// The operations on assignments.
pub(super) fn routes() -> Routes {
    Routes::new().routes(routes!(list, create)).routes(routes!(get, update, delete)).routes(routes!(reorder))
}

/// A walkthrough assigned to a server.
#[derive(Debug, Serialize, ToSchema)]
struct Assignment {
    #[schema(example = "msw_0123456789abcdef")]
    id: String,
    server_id: String,
    walkthrough_id: String,
    /// The position among the server's assignments. Smaller numbers come first.
    display_order: i64,
    /// Whether the assignment is enabled. The walkthrough is offered only if it is also published.
    enabled: bool,
    #[schema(format = DateTime)]
    created_at: String,
    server: AssignedServer,
    walkthrough: AssignedWalkthrough,
}

/// The server of an assignment.
#[derive(Debug, Serialize, ToSchema)]
struct AssignedServer {
    slug: String,
    name: String,
}

/// The walkthrough of an assignment.
#[derive(Debug, Serialize, ToSchema)]
struct AssignedWalkthrough {
    slug: String,
    title: String,
    /// `draft`, `published` or `archived`. Only a published walkthrough is offered.
    state: String,
}

impl From<AssignmentView> for Assignment {
    fn from(view: AssignmentView) -> Self {
        Self {
            id: view.assignment.id.to_string(),
            server_id: view.assignment.server_id.to_string(),
            walkthrough_id: view.assignment.walkthrough_id.to_string(),
            display_order: view.assignment.display_order,
            enabled: view.assignment.enabled,
            created_at: view.assignment.created_at.rfc3339(),
            server: AssignedServer { slug: view.server_slug, name: view.server_name },
            walkthrough: AssignedWalkthrough { slug: view.slug, title: view.title, state: view.state.to_string() },
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct AssignmentQuery {
    /// Only assignments to this server (`srv_…`), in display order.
    server_id: Option<String>,
    /// Only assignments of this walkthrough (`wt_…`), ordered by the slug of the server.
    walkthrough_id: Option<String>,
}

/// Lists the assignments of a server or of a walkthrough.
///
/// At least one of the two parameters is required. The list is complete: `next_cursor` is always null.
#[utoipa::path(get, path = "/assignments", tag = "assignments", operation_id = "list_assignments",
    params(AssignmentQuery),
    responses((status = 200, body = Page<Assignment>), Problems))]
async fn list(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Query(query): Query<AssignmentQuery>,
) -> ApiResult<Json<Page<Assignment>>> {
    let server_id = query.server_id.as_deref().map(|text| parse_id(text, "server")).transpose()?;
    let walkthrough_id = query.walkthrough_id.as_deref().map(|text| parse_id(text, "walkthrough")).transpose()?;
    let assignments = match (&server_id, &walkthrough_id) {
        (Some(server_id), _) => assignments::list(&cx, web.ops(), &organization_id, server_id).await?,
        (None, Some(walkthrough_id)) => {
            assignments::list_for_walkthrough(&cx, web.ops(), &organization_id, walkthrough_id).await?
        }
        (None, None) => {
            let message = "Specify a server (`server_id`) or a walkthrough (`walkthrough_id`).";
            return Err(Error::invalid("server_id", message).into());
        }
    };
    let matches =
        |view: &AssignmentView| walkthrough_id.as_ref().is_none_or(|id| *id == view.assignment.walkthrough_id);
    Ok(Json(Page::complete(assignments.into_iter().filter(matches).map(Assignment::from).collect())))
}

/// An assignment to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AssignmentCreate {
    /// The ID of the server (`srv_…`).
    #[schema(max_length = 50)]
    server_id: String,
    /// The ID of the walkthrough (`wt_…`).
    #[schema(max_length = 50)]
    walkthrough_id: String,
    /// The position among the server's assignments. Smaller numbers come first. Defaults to the last position.
    #[schema(minimum = -1_000_000_000, maximum = 1_000_000_000)]
    display_order: Option<i64>,
    /// Whether the assignment is enabled. Defaults to true.
    enabled: Option<bool>,
}

/// Assigns a walkthrough to a server.
///
/// If it is already assigned to the server, the given members are updated and the others are not changed.
#[utoipa::path(post, path = "/assignments", tag = "assignments", operation_id = "create_assignment",
    request_body = AssignmentCreate,
    responses((status = 201, body = Assignment,
        headers(("Location" = String, description = "The URL of the assignment"))), Problems))]
async fn create(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Json(body): Json<AssignmentCreate>,
) -> ApiResult<Response> {
    let patch = AssignmentPatch { display_order: body.display_order, enabled: body.enabled };
    let server_id = parse_id(&body.server_id, "server")?;
    let walkthrough_id = parse_id(&body.walkthrough_id, "walkthrough")?;
    let assignment = assignments::assign(&cx, web.ops(), &organization_id, &server_id, &walkthrough_id, patch).await?;
    let view = assignments::get(&cx, web.ops(), &organization_id, &assignment.id).await?;
    let location = format!("/api/v1/assignments/{}", assignment.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(Assignment::from(view))).into_response())
}

/// Returns an assignment.
#[utoipa::path(get, path = "/assignments/{assignment_id}", tag = "assignments", operation_id = "get_assignment",
    params(("assignment_id" = String, Path, description = "The ID of the assignment (`msw_…`).")),
    responses((status = 200, body = Assignment), Problems))]
async fn get(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(assignment_id): Path<String>,
) -> ApiResult<Json<Assignment>> {
    let view = assignments::get(&cx, web.ops(), &organization_id, &parse_id(&assignment_id, "assignment")?).await?;
    Ok(Json(view.into()))
}

/// Changes to an assignment. Absent members are not changed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AssignmentUpdate {
    /// The position among the server's assignments. Smaller numbers come first.
    #[schema(minimum = -1_000_000_000, maximum = 1_000_000_000, nullable = false)]
    display_order: Option<i64>,
    /// Whether the assignment is enabled.
    #[schema(nullable = false)]
    enabled: Option<bool>,
}

/// Moves, enables or disables an assignment.
///
/// No other assignment changes.
#[utoipa::path(patch, path = "/assignments/{assignment_id}", tag = "assignments", operation_id = "update_assignment",
    params(("assignment_id" = String, Path, description = "The ID of the assignment (`msw_…`).")),
    request_body = AssignmentUpdate,
    responses((status = 200, body = Assignment), Problems))]
async fn update(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(assignment_id): Path<String>,
    Json(change): Json<AssignmentUpdate>,
) -> ApiResult<Json<Assignment>> {
    let patch = AssignmentPatch { display_order: change.display_order, enabled: change.enabled };
    let view =
        assignments::update(&cx, web.ops(), &organization_id, &parse_id(&assignment_id, "assignment")?, patch).await?;
    Ok(Json(view.into()))
}

/// Removes a walkthrough from a server.
///
/// The progress of end users is kept, and is available again if the walkthrough is reassigned.
#[utoipa::path(delete, path = "/assignments/{assignment_id}", tag = "assignments", operation_id = "delete_assignment",
    params(("assignment_id" = String, Path, description = "The ID of the assignment (`msw_…`).")),
    responses((status = 204), Problems))]
async fn delete(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(assignment_id): Path<String>,
) -> ApiResult<StatusCode> {
    assignments::delete(&cx, web.ops(), &organization_id, &parse_id(&assignment_id, "assignment")?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Reorders the assignments of a server.
///
/// Assignments that are not in the list, such as ones added in the meantime, keep their order and come last. Only
/// positions change. Returns the reordered list.
#[utoipa::path(put, path = "/servers/{server_id}/assignments/order", tag = "assignments",
    operation_id = "reorder_assignments",
    params(("server_id" = String, Path, description = "The ID of the server (`srv_…`).")),
    request_body(content = Vec<String>,
        description = "The IDs of the assignments (`msw_…`) in the new order. At most 1,000."),
    responses((status = 200, body = Page<Assignment>), Problems))]
async fn reorder(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(server_id): Path<String>,
    Json(order): Json<Vec<String>>,
) -> ApiResult<Json<Page<Assignment>>> {
    if order.len() > 1000 {
        return Err(Error::new(Code::InvalidArguments, "The list has too many assignments. The limit is 1,000.").into());
    }
    let order = order.iter().map(|text| parse_id(text, "assignment")).collect::<Result<Vec<_>, _>>()?;
    let sorted =
        assignments::reorder(&cx, web.ops(), &organization_id, &parse_id(&server_id, "server")?, &order).await?;
    Ok(Json(Page::complete(sorted.into_iter().map(Assignment::from).collect())))
}
