//! `/end-users`.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use waypost_core::Timestamp;
use waypost_core::progress::Status;
use waypost_http_kit::download;
use waypost_ops::end_users::{self, EndUserSearch};

use crate::Web;
use crate::extract::{Json, Path, Query, Scope, parse_id};
use crate::page::{Page, Paging};
use crate::problem::{ApiResult, Problems};
use crate::routes::{Routes, routes};

/// The operations on end users.
pub(super) fn routes() -> Routes {
    Routes::new().routes(routes!(list)).routes(routes!(get, delete)).routes(routes!(export))
}

#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum AttemptStatus {
    InProgress,
    Completed,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct EndUserQuery {
    /// Only end users whose name, email or tracking ID contains this text, or whose ID is this text.
    #[param(max_length = 254)]
    q: Option<String>,
    /// Only end users with an attempt on this server (`srv_…`).
    server_id: Option<String>,
    /// Only end users with an attempt at this walkthrough (`wt_…`).
    walkthrough_id: Option<String>,
    /// Only end users with an attempt in this status that also matches `server_id` and `walkthrough_id`.
    #[param(inline)]
    status: Option<AttemptStatus>,
    /// Whether to include test users, created by "Try it" in the console. Defaults to false.
    include_test: Option<bool>,
    /// The maximum number of items to return.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// The `next_cursor` of the previous page.
    cursor: Option<String>,
}

/// An end user: a person who uses a server from their MCP client.
#[derive(Debug, Serialize, ToSchema)]
struct EndUser {
    #[schema(example = "eu_0123456789abcdef")]
    id: String,
    /// The tracking ID from the personal URL. Generated IDs are masked.
    tracking_id: Option<String>,
    /// The name, from the identity provider.
    name: Option<String>,
    /// The verified email.
    email: Option<String>,
    /// The email that the end user entered. It is not verified.
    claimed_email: Option<String>,
    /// Whether this is a console user who is trying a server. Test users are excluded from all counts.
    is_test: bool,
    #[schema(format = DateTime)]
    created_at: String,
    /// The number of attempts in progress.
    in_progress: u32,
    /// The number of completed attempts.
    completed: u32,
    #[schema(format = DateTime)]
    last_activity_at: Option<String>,
}

impl From<end_users::EndUser> for EndUser {
    fn from(end_user: end_users::EndUser) -> Self {
        Self {
            id: end_user.id.to_string(),
            tracking_id: end_user.tracking_id,
            name: end_user.name,
            email: end_user.email,
            claimed_email: end_user.claimed_email,
            is_test: end_user.is_test,
            created_at: end_user.created_at.rfc3339(),
            in_progress: end_user.in_progress,
            completed: end_user.completed,
            last_activity_at: end_user.last_activity_at.map(Timestamp::rfc3339),
        }
    }
}

/// An end user's attempt at a walkthrough.
#[derive(Debug, Serialize, ToSchema)]
struct Attempt {
    server_id: String,
    walkthrough_id: String,
    walkthrough_title: String,
    /// Whether the walkthrough is in the trash.
    walkthrough_deleted: bool,
    /// The number of the version that the attempt is pinned to.
    version: u32,
    /// `in_progress` or `completed`.
    status: String,
    /// The number of completed steps.
    completed_steps: u32,
    /// The number of steps in the version.
    step_count: u32,
    #[schema(format = DateTime)]
    started_at: String,
    #[schema(format = DateTime)]
    completed_at: Option<String>,
    #[schema(format = DateTime)]
    last_activity_at: String,
    /// Whether the attempt was closed by a reset or by a new attempt.
    closed: bool,
}

/// An end user with their attempts.
#[derive(Debug, Serialize, ToSchema)]
struct EndUserDetails {
    #[serde(flatten)]
    end_user: EndUser,
    /// The attempts, by last activity, newest first.
    attempts: Vec<Attempt>,
}

/// Lists end users, newest first.
#[utoipa::path(get, path = "/end-users", tag = "end-users", operation_id = "list_end_users", params(EndUserQuery),
    responses((status = 200, body = Page<EndUser>), Problems))]
async fn list(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Query(params): Query<EndUserQuery>,
) -> ApiResult<Json<Page<EndUser>>> {
    let paging = Paging { limit: params.limit, cursor: params.cursor };
    let limit = paging.limit()?;
    let search = EndUserSearch {
        text: params.q,
        server_id: params.server_id.as_deref().map(|text| parse_id(text, "server")).transpose()?,
        walkthrough_id: params.walkthrough_id.as_deref().map(|text| parse_id(text, "walkthrough")).transpose()?,
        status: params.status.map(|status| match status {
            AttemptStatus::InProgress => Status::InProgress,
            AttemptStatus::Completed => Status::Completed,
        }),
        include_test: params.include_test.unwrap_or(false),
        after: paging.parse_cursor()?,
        limit: limit + 1,
    };
    let end_users = end_users::list(&cx, web.ops(), &organization_id, &search).await?;
    Ok(Json(Page::paginate(end_users.into_iter().map(EndUser::from).collect(), limit, |end_user| end_user.id.clone())))
}

/// Returns an end user with their attempts.
#[utoipa::path(get, path = "/end-users/{end_user_id}", tag = "end-users", operation_id = "get_end_user",
    params(("end_user_id" = String, Path, description = "The ID of the end user (`eu_…`).")),
    responses((status = 200, body = EndUserDetails), Problems))]
async fn get(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<Json<EndUserDetails>> {
    let id = parse_id(&text, "end user")?;
    let end_user = end_users::get(&cx, web.ops(), &organization_id, &id).await?.into();
    let attempts = end_users::list_progress(&cx, web.ops(), &organization_id, &id).await?;
    let attempt = |attempt: end_users::EndUserAttempt| Attempt {
        server_id: attempt.server_id.to_string(),
        walkthrough_id: attempt.walkthrough_id.to_string(),
        walkthrough_title: attempt.walkthrough_title,
        walkthrough_deleted: attempt.is_walkthrough_deleted,
        version: attempt.version,
        status: attempt.status,
        completed_steps: attempt.completed_steps,
        step_count: attempt.step_count,
        started_at: attempt.started_at.rfc3339(),
        completed_at: attempt.completed_at.map(Timestamp::rfc3339),
        last_activity_at: attempt.last_activity_at.rfc3339(),
        closed: attempt.is_closed,
    };
    Ok(Json(EndUserDetails { end_user, attempts: attempts.into_iter().map(attempt).collect() }))
}

/// Erases an end user and all their data.
///
/// Deletes progress, events, tool calls, sessions, identities and OAuth grants. This cannot be undone. The audit log
/// keeps only the ID. Requires the role `admin`.
#[utoipa::path(delete, path = "/end-users/{end_user_id}", tag = "end-users", operation_id = "delete_end_user",
    params(("end_user_id" = String, Path, description = "The ID of the end user (`eu_…`).")),
    responses((status = 204), Problems))]
async fn delete(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<StatusCode> {
    end_users::delete(&cx, web.ops(), &organization_id, &parse_id(&text, "end user")?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Exports all data of an end user as one JSON document.
///
/// The document contains the profile, identities, sessions, progress, completions, events, tool calls, OAuth grants,
/// consents and joins. Requires the role `admin`.
#[utoipa::path(get, path = "/end-users/{end_user_id}/export", tag = "end-users", operation_id = "export_end_user",
    params(("end_user_id" = String, Path, description = "The ID of the end user (`eu_…`).")),
    responses((status = 200, body = Object), Problems))]
async fn export(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<Response> {
    let id = parse_id(&text, "end user")?;
    let document = end_users::export(&cx, web.ops(), &organization_id, &id).await?;
    Ok(download::json(id.as_str(), &document))
}
