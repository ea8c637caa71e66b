//! `/assignments`: walkthroughs on servers.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use waypost_core::assignment::ListedAssignment;
use waypost_core::id::{AssignmentId, WalkthroughId};
use waypost_core::{Code, Error};
use waypost_ops::assignments::{self, AssignmentPatch};

use super::extract::{Json, Path, Query, Scope};
use super::page::Page;
use super::servers;
use crate::Web;
use crate::problem::{ApiResult, Problems};

/// The operations on assignments.
pub(super) fn routes() -> OpenApiRouter<Web> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, update, delete)).routes(routes!(reorder))
}

/// A walkthrough on a server.
#[derive(Debug, Serialize, ToSchema)]
struct Assignment {
    #[schema(example = "msw_0123456789abcdef")]
    id: String,
    server_id: String,
    walkthrough_id: String,
    /// Smaller numbers stand first.
    display_order: i64,
    /// Whether it is offered; a walkthrough that is not published is not offered either.
    enabled: bool,
    /// RFC 3339.
    #[schema(format = DateTime)]
    created_at: String,
    server: AssignedServer,
    walkthrough: AssignedWalkthrough,
}

/// Where it is placed.
#[derive(Debug, Serialize, ToSchema)]
struct AssignedServer {
    slug: String,
    name: String,
}

/// What is placed.
#[derive(Debug, Serialize, ToSchema)]
struct AssignedWalkthrough {
    slug: String,
    title: String,
    /// `draft`, `published` or `archived`: only a published one is offered.
    state: String,
}

impl From<ListedAssignment> for Assignment {
    fn from(it: ListedAssignment) -> Self {
        Self {
            id: it.assignment.id.to_string(),
            server_id: it.assignment.server_id.to_string(),
            walkthrough_id: it.assignment.walkthrough_id.to_string(),
            display_order: it.assignment.display_order,
            enabled: it.assignment.enabled,
            created_at: it.assignment.created_at.rfc3339(),
            server: AssignedServer { slug: it.server_slug, name: it.server_name },
            walkthrough: AssignedWalkthrough { slug: it.slug, title: it.title, state: it.state.to_string() },
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Of {
    /// What is placed on this server, `srv_…`, in display order.
    server_id: Option<String>,
    /// Where this walkthrough is placed, `wt_…`, by the servers' slugs.
    walkthrough_id: Option<String>,
}

fn id(text: &str) -> Result<AssignmentId, Error> {
    text.parse().map_err(|_| Error::not_found("assignment"))
}

fn walkthrough(text: &str) -> Result<WalkthroughId, Error> {
    text.parse().map_err(|_| Error::not_found("walkthrough"))
}

/// The assignments of a server, or those of a walkthrough; with both, the one of the walkthrough on the server. The list
/// is whole: `next_cursor` is null.
#[utoipa::path(get, path = "/assignments", tag = "assignments", operation_id = "list_assignments", params(Of),
    responses((status = 200, body = Page<Assignment>), Problems))]
async fn list(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Query(of): Query<Of>,
) -> ApiResult<Json<Page<Assignment>>> {
    let server_id = of.server_id.as_deref().map(servers::id).transpose()?;
    let walkthrough_id = of.walkthrough_id.as_deref().map(walkthrough).transpose()?;
    let found = match (&server_id, &walkthrough_id) {
        (Some(server_id), _) => assignments::list(&cx, web.ops(), &organization_id, server_id).await?,
        (None, Some(walkthrough_id)) => {
            assignments::list_for_walkthrough(&cx, web.ops(), &organization_id, walkthrough_id).await?
        }
        (None, None) => {
            let message = "Name a server (`server_id`) or a walkthrough (`walkthrough_id`).";
            return Err(Error::invalid("server_id", message).into());
        }
    };
    let wanted = |it: &ListedAssignment| walkthrough_id.as_ref().is_none_or(|id| *id == it.assignment.walkthrough_id);
    Ok(Json(Page::whole(found.into_iter().filter(wanted).map(Assignment::from).collect())))
}

/// A walkthrough to place on a server.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewAssignment {
    /// `srv_…`
    #[schema(max_length = 50)]
    server_id: String,
    /// `wt_…`
    #[schema(max_length = 50)]
    walkthrough_id: String,
    /// Smaller numbers stand first; after the last one by default.
    #[schema(minimum = -1_000_000_000, maximum = 1_000_000_000)]
    display_order: Option<i64>,
    /// Whether it is offered; it is by default.
    enabled: Option<bool>,
}

/// Places a walkthrough on a server. When it is placed there, what is given changes, and the rest stays.
#[utoipa::path(post, path = "/assignments", tag = "assignments", operation_id = "create_assignment",
    request_body = NewAssignment,
    responses((status = 201, body = Assignment, headers(("Location" = String, description = "Its address"))), Problems))]
async fn create(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Json(body): Json<NewAssignment>,
) -> ApiResult<Response> {
    let placement = AssignmentPatch { display_order: body.display_order, enabled: body.enabled };
    let (server_id, walkthrough_id) = (servers::id(&body.server_id)?, walkthrough(&body.walkthrough_id)?);
    let made = assignments::assign(&cx, web.ops(), &organization_id, (&server_id, &walkthrough_id), placement).await?;
    let listed = assignments::get(&cx, web.ops(), &organization_id, &made.id).await?;
    let location = format!("/api/v1/assignments/{}", made.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(Assignment::from(listed))).into_response())
}

/// One assignment.
#[utoipa::path(get, path = "/assignments/{assignment_id}", tag = "assignments", operation_id = "get_assignment",
    params(("assignment_id" = String, Path, description = "`msw_…`")),
    responses((status = 200, body = Assignment), Problems))]
async fn show(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(assignment_id): Path<String>,
) -> ApiResult<Json<Assignment>> {
    let listed = assignments::get(&cx, web.ops(), &organization_id, &id(&assignment_id)?).await?;
    Ok(Json(listed.into()))
}

/// What changes of an assignment; what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AssignmentChange {
    /// Smaller numbers stand first.
    #[schema(minimum = -1_000_000_000, maximum = 1_000_000_000, nullable = false)]
    display_order: Option<i64>,
    /// Whether it is offered.
    #[schema(nullable = false)]
    enabled: Option<bool>,
}

/// Moves an assignment, or switches it on or off. No other assignment changes.
#[utoipa::path(patch, path = "/assignments/{assignment_id}", tag = "assignments", operation_id = "update_assignment",
    params(("assignment_id" = String, Path, description = "`msw_…`")), request_body = AssignmentChange,
    responses((status = 200, body = Assignment), Problems))]
async fn update(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(assignment_id): Path<String>,
    Json(change): Json<AssignmentChange>,
) -> ApiResult<Json<Assignment>> {
    let placement = AssignmentPatch { display_order: change.display_order, enabled: change.enabled };
    let listed = assignments::update(&cx, web.ops(), &organization_id, &id(&assignment_id)?, placement).await?;
    Ok(Json(listed.into()))
}

/// Takes a walkthrough off a server. What end users did stays, and is there again when it is placed again.
#[utoipa::path(delete, path = "/assignments/{assignment_id}", tag = "assignments", operation_id = "delete_assignment",
    params(("assignment_id" = String, Path, description = "`msw_…`")), responses((status = 204), Problems))]
async fn delete(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(assignment_id): Path<String>,
) -> ApiResult<StatusCode> {
    assignments::delete(&cx, web.ops(), &organization_id, &id(&assignment_id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Puts the assignments of a server in order. Those that are not named, because somebody has just added them, come behind
/// in the order that they had; nothing but places changes. Answers with the new list.
#[utoipa::path(put, path = "/servers/{server_id}/assignments/order", tag = "assignments",
    operation_id = "reorder_assignments", params(("server_id" = String, Path, description = "`srv_…`")),
    request_body(content = Vec<String>, description = "The ids of assignments, `msw_…`: 1,000 at most"),
    responses((status = 200, body = Page<Assignment>), Problems))]
async fn reorder(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(server_id): Path<String>,
    Json(order): Json<Vec<String>>,
) -> ApiResult<Json<Page<Assignment>>> {
    if order.len() > 1000 {
        return Err(Error::new(Code::InvalidArguments, "An order names 1,000 assignments at most.").into());
    }
    let order = order.iter().map(|text| id(text)).collect::<Result<Vec<_>, _>>()?;
    let sorted = assignments::reorder(&cx, web.ops(), &organization_id, &servers::id(&server_id)?, &order).await?;
    Ok(Json(Page::whole(sorted.into_iter().map(Assignment::from).collect())))
}
