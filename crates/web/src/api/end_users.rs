//! `/end-users`.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use waypost_core::Timestamp;
use waypost_core::progress::Status;
use waypost_ops::end_users::{self, EndUserSearch};

use super::extract::{Json, Path, Query, Scope, id};
use super::page::{Page, Paging};
use crate::Web;
use crate::problem::{ApiResult, Problems};

/// The operations on end users.
pub(super) fn routes() -> OpenApiRouter<Web> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get, delete)).routes(routes!(export))
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
struct Params {
    /// A part of the name, of an e-mail address or of the tracking id, or the id.
    #[param(max_length = 254)]
    q: Option<String>,
    /// With an attempt on this server.
    server_id: Option<String>,
    /// With an attempt at this walkthrough.
    walkthrough_id: Option<String>,
    /// With such an attempt in progress, or completed.
    #[param(inline)]
    status: Option<AttemptStatus>,
    /// Whether test users, of the console's "Try it", are listed, too.
    include_test: Option<bool>,
    /// End users at most.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// A person who uses a server from their MCP client.
#[derive(Debug, Serialize, ToSchema)]
struct EndUser {
    id: String,
    /// The organisation's own name of them, from their personal URL.
    tracking_id: Option<String>,
    /// As a provider says.
    name: Option<String>,
    /// Verified.
    email: Option<String>,
    /// What they typed; it proves nothing.
    claimed_email: Option<String>,
    /// Whether this is a console user who tries a server: excluded from all counts.
    is_test: bool,
    #[schema(format = DateTime)]
    created_at: String,
    /// Attempts that are in progress.
    in_progress: u32,
    /// Attempts that were completed.
    completed: u32,
    #[schema(format = DateTime)]
    last_activity_at: Option<String>,
}

impl From<end_users::EndUser> for EndUser {
    fn from(it: end_users::EndUser) -> Self {
        Self {
            id: it.id.to_string(),
            tracking_id: it.tracking_id,
            name: it.name,
            email: it.email,
            claimed_email: it.claimed_email,
            is_test: it.is_test,
            created_at: it.created_at.rfc3339(),
            in_progress: it.in_progress,
            completed: it.completed,
            last_activity_at: it.last_activity_at.map(Timestamp::rfc3339),
        }
    }
}

/// An attempt of an end user.
#[derive(Debug, Serialize, ToSchema)]
struct Attempt {
    server_id: String,
    walkthrough_id: String,
    walkthrough_title: String,
    /// Whether the walkthrough is in the trash.
    walkthrough_deleted: bool,
    /// The version's number.
    version: u32,
    /// `in_progress` or `completed`.
    status: String,
    completed_steps: u32,
    step_count: u32,
    #[schema(format = DateTime)]
    started_at: String,
    #[schema(format = DateTime)]
    completed_at: Option<String>,
    #[schema(format = DateTime)]
    last_activity_at: String,
    /// Whether it was given up for another one, or reset.
    closed: bool,
}

/// An end user with their attempts.
#[derive(Debug, Serialize, ToSchema)]
struct WithAttempts {
    #[serde(flatten)]
    end_user: EndUser,
    /// Those that changed last first.
    attempts: Vec<Attempt>,
}

/// End users, those who came last first.
#[utoipa::path(get, path = "/end-users", tag = "end-users", operation_id = "list_end_users", params(Params),
    responses((status = 200, body = Page<EndUser>), Problems))]
async fn list(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Query(params): Query<Params>,
) -> ApiResult<Json<Page<EndUser>>> {
    let paging = Paging { limit: params.limit, cursor: params.cursor };
    let limit = paging.limit()?;
    let search = EndUserSearch {
        text: params.q,
        server_id: params.server_id.as_deref().map(|text| id(text, "server")).transpose()?,
        walkthrough_id: params.walkthrough_id.as_deref().map(|text| id(text, "walkthrough")).transpose()?,
        status: params.status.map(|status| match status {
            AttemptStatus::InProgress => Status::InProgress,
            AttemptStatus::Completed => Status::Completed,
        }),
        include_test: params.include_test.unwrap_or(false),
        after: paging.after()?,
        limit: limit + 1,
    };
    let found = end_users::list(&cx, web.ops(), &organization_id, &search).await?;
    Ok(Json(Page::cut(found.into_iter().map(EndUser::from).collect(), limit, |it| it.id.clone())))
}

/// An end user with their attempts.
#[utoipa::path(get, path = "/end-users/{end_user_id}", tag = "end-users", operation_id = "get_end_user",
    params(("end_user_id" = String, Path)), responses((status = 200, body = WithAttempts), Problems))]
async fn get(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<Json<WithAttempts>> {
    let id = id(&text, "end user")?;
    let end_user = end_users::get(&cx, web.ops(), &organization_id, &id).await?.into();
    let attempts = end_users::list_progress(&cx, web.ops(), &organization_id, &id).await?;
    let attempt = |it: end_users::Standing| Attempt {
        server_id: it.server_id.to_string(),
        walkthrough_id: it.walkthrough_id.to_string(),
        walkthrough_title: it.walkthrough_title,
        walkthrough_deleted: it.is_walkthrough_deleted,
        version: it.version,
        status: it.status,
        completed_steps: it.completed_steps,
        step_count: it.step_count,
        started_at: it.started_at.rfc3339(),
        completed_at: it.completed_at.map(Timestamp::rfc3339),
        last_activity_at: it.last_activity_at.rfc3339(),
        closed: it.is_closed,
    };
    Ok(Json(WithAttempts { end_user, attempts: attempts.into_iter().map(attempt).collect() }))
}

/// Erases an end user with all that is known of them: progress, events, calls, sessions, identities, grants. It cannot be
/// taken back. The audit log keeps the id and nothing else. Needs the role `admin`.
#[utoipa::path(delete, path = "/end-users/{end_user_id}", tag = "end-users", operation_id = "delete_end_user",
    params(("end_user_id" = String, Path)), responses((status = 204), Problems))]
async fn delete(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<StatusCode> {
    end_users::delete(&cx, web.ops(), &organization_id, &id(&text, "end user")?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Everything that is known of an end user, as one JSON document: profile, identities, sessions, progress, completions,
/// events, tool calls, grants, consents, joins. Needs the role `admin`.
#[utoipa::path(get, path = "/end-users/{end_user_id}/export", tag = "end-users", operation_id = "export_end_user",
    params(("end_user_id" = String, Path)), responses((status = 200, body = Object), Problems))]
async fn export(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<Response> {
    let id = id(&text, "end user")?;
    let whole = end_users::export(&cx, web.ops(), &organization_id, &id).await?;
    Ok(json_download(&whole, id.as_str()))
}

/// A JSON document as a file of its own.
pub(crate) fn json_download(whole: &Value, name: &str) -> Response {
    let body = serde_json::to_string_pretty(whole).unwrap_or_default();
    let mut response = ([(header::CONTENT_TYPE, "application/json")], body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(value) = HeaderValue::from_str(&format!("attachment; filename=\"{name}.json\"")) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    response
}
