//! `/events`, `/tool-calls` and `/sessions`: the activity log of an organisation.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use waypost_core::analytics::TimeRange;
use waypost_core::event::EventKind;
use waypost_core::{Result, Timestamp};
use waypost_ops::activity::{self, ActivityFilter, cursor, parse_cursor};

use crate::Web;
use crate::extract::{Json, Query, Scope, parse_id, parse_time};
use crate::page::{Page, Paging};
use crate::problem::{ApiResult, Problems};
use crate::routes::{Routes, routes};

/// The operations on the activity log.
pub(super) fn routes() -> Routes {
    Routes::new().routes(routes!(events)).routes(routes!(tool_calls)).routes(routes!(sessions))
}

/// The query parameters of the lists in this module and of the xAPI export.
pub(super) struct ActivityQuery {
    pub(super) from: Option<String>,
    pub(super) to: Option<String>,
    pub(super) server_id: Option<String>,
    pub(super) walkthrough_id: Option<String>,
    pub(super) end_user_id: Option<String>,
    pub(super) limit: Option<u32>,
    pub(super) cursor: Option<String>,
}

impl ActivityQuery {
    /// Returns the page size.
    pub(super) fn limit(&self) -> Result<u32> {
        Paging { limit: self.limit, cursor: None }.limit()
    }

    /// Returns the filter for one row more than the page size.
    pub(super) fn filter(&self, oldest_first: bool) -> Result<ActivityFilter> {
        let bound =
            |field, text: &Option<String>, default| text.as_deref().map_or(Ok(default), |text| parse_time(field, text));
        Ok(ActivityFilter {
            server_id: self.server_id.as_deref().map(|text| parse_id(text, "server")).transpose()?,
            end_user_id: self.end_user_id.as_deref().map(|text| parse_id(text, "end user")).transpose()?,
            walkthrough_id: self.walkthrough_id.as_deref().map(|text| parse_id(text, "walkthrough")).transpose()?,
            range: TimeRange {
                from: bound("from", &self.from, Timestamp(i64::MIN))?,
                to: bound("to", &self.to, Timestamp(i64::MAX))?,
            },
            after: self.cursor.as_deref().map(parse_cursor).transpose()?,
            oldest_first,
            limit: self.limit()? + 1,
        })
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct EventQuery {
    /// Only events at or after this time.
    #[param(format = DateTime)]
    from: Option<String>,
    /// Only events before this time.
    #[param(format = DateTime)]
    to: Option<String>,
    /// Only events on this server (`srv_…`).
    server_id: Option<String>,
    /// Only events of this walkthrough (`wt_…`).
    walkthrough_id: Option<String>,
    /// Only events of this end user (`eu_…`).
    end_user_id: Option<String>,
    /// The maximum number of items to return.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// The `next_cursor` of the previous page.
    cursor: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct CallQuery {
    /// Only items created at or after this time.
    #[param(format = DateTime)]
    from: Option<String>,
    /// Only items created before this time.
    #[param(format = DateTime)]
    to: Option<String>,
    /// Only items on this server (`srv_…`).
    server_id: Option<String>,
    /// Only items of this end user (`eu_…`).
    end_user_id: Option<String>,
    /// The maximum number of items to return.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// The `next_cursor` of the previous page.
    cursor: Option<String>,
}

impl From<EventQuery> for ActivityQuery {
    fn from(query: EventQuery) -> Self {
        let EventQuery { from, to, server_id, walkthrough_id, end_user_id, limit, cursor } = query;
        Self { from, to, server_id, walkthrough_id, end_user_id, limit, cursor }
    }
}

impl From<CallQuery> for ActivityQuery {
    fn from(query: CallQuery) -> Self {
        let CallQuery { from, to, server_id, end_user_id, limit, cursor } = query;
        Self { from, to, server_id, walkthrough_id: None, end_user_id, limit, cursor }
    }
}

/// A progress event of an attempt.
#[derive(Debug, Serialize, ToSchema)]
struct Event {
    id: String,
    #[schema(format = DateTime)]
    created_at: String,
    /// The kind of event.
    #[schema(schema_with = kinds)]
    kind: &'static str,
    server_id: String,
    walkthrough_id: String,
    end_user_id: String,
    /// The ID of the attempt.
    progress_id: String,
    /// The ID of the version that the attempt is pinned to.
    version_id: String,
    /// The ID of the step. Null if the event is about the whole walkthrough.
    step_id: Option<String>,
    /// The title of the walkthrough in that version.
    walkthrough_title: Option<String>,
    /// The title of the step in that version.
    step_title: Option<String>,
    /// The name that the client reports.
    client_name: Option<String>,
    /// Milliseconds since the previous activity of the attempt. Null for its first event.
    elapsed_ms: Option<i64>,
}

fn kinds() -> utoipa::openapi::Schema {
    let names = EventKind::ALL.iter().map(|kind| kind.as_str());
    utoipa::openapi::ObjectBuilder::new()
        .schema_type(utoipa::openapi::Type::String)
        .enum_values(Some(names))
        .description(Some("The kind of event."))
        .build()
        .into()
}

impl From<activity::WalkthroughEvent> for Event {
    fn from(event: activity::WalkthroughEvent) -> Self {
        Self {
            id: event.id.to_string(),
            created_at: event.created_at.rfc3339(),
            kind: event.kind.as_str(),
            server_id: event.server_id.to_string(),
            walkthrough_id: event.walkthrough_id.to_string(),
            end_user_id: event.end_user_id.to_string(),
            progress_id: event.progress_id.to_string(),
            version_id: event.version_id.to_string(),
            step_id: event.step_id.map(|id| id.to_string()),
            walkthrough_title: event.walkthrough_title,
            step_title: event.step_title,
            client_name: event.client_name,
            elapsed_ms: event.elapsed_ms,
        }
    }
}

/// Lists the progress events of attempts, newest first.
#[utoipa::path(get, path = "/events", tag = "events", operation_id = "list_events", params(EventQuery),
    responses((status = 200, body = Page<Event>), Problems))]
async fn events(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Query(params): Query<EventQuery>,
) -> ApiResult<Json<Page<Event>>> {
    let query = ActivityQuery::from(params);
    let events = activity::list_events(&cx, web.ops(), &organization_id, &query.filter(false)?).await?;
    let cursor_of = |event: &activity::WalkthroughEvent| cursor(event.created_at, event.id.as_str());
    Ok(Json(paginate(events, query.limit()?, cursor_of)))
}

/// A recorded tool call.
#[derive(Debug, Serialize, ToSchema)]
struct ToolCall {
    id: String,
    #[schema(format = DateTime)]
    created_at: String,
    server_id: String,
    /// The ID of the end user. Null if the end user is unknown.
    end_user_id: Option<String>,
    /// The ID of the session. Null if the client has no session.
    session_id: Option<String>,
    /// Whether the call was made with "Try it" in the console. Such calls are listed only if `end_user_id` is given.
    is_test: bool,
    /// The name of the tool.
    tool: String,
    /// The arguments that are part of the tool's schema. Handles and emails are masked.
    #[schema(value_type = Object, additional_properties)]
    arguments: Value,
    /// `ok`, or the error code.
    outcome: String,
    /// The duration in microseconds.
    duration_us: i64,
    /// The name that the client reports.
    client_name: Option<String>,
    /// The MCP protocol version.
    protocol_version: Option<String>,
    /// The request ID, as logged by the installation.
    request_id: String,
}

impl From<activity::ToolCall> for ToolCall {
    fn from(call: activity::ToolCall) -> Self {
        let arguments = serde_json::from_str(&call.arguments).unwrap_or_else(|_| Value::Object(serde_json::Map::new()));
        Self {
            id: call.id.to_string(),
            created_at: call.created_at.rfc3339(),
            server_id: call.server_id.to_string(),
            end_user_id: call.end_user_id.map(|id| id.to_string()),
            session_id: call.session_id.map(|id| id.to_string()),
            is_test: call.is_test,
            tool: call.tool,
            arguments,
            outcome: call.outcome,
            duration_us: call.duration_us,
            client_name: call.client_name,
            protocol_version: call.protocol_version,
            request_id: call.request_id,
        }
    }
}

/// Lists recorded tool calls, newest first.
///
/// If the end user is unknown, only the first 60 calls per server and minute are recorded individually. Analytics
/// counts all calls.
#[utoipa::path(get, path = "/tool-calls", tag = "tool-calls", operation_id = "list_tool_calls", params(CallQuery),
    responses((status = 200, body = Page<ToolCall>), Problems))]
async fn tool_calls(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Query(params): Query<CallQuery>,
) -> ApiResult<Json<Page<ToolCall>>> {
    let query = ActivityQuery::from(params);
    let calls = activity::list_calls(&cx, web.ops(), &organization_id, &query.filter(false)?).await?;
    let cursor_of = |call: &activity::ToolCall| cursor(call.created_at, call.id.as_str());
    Ok(Json(paginate(calls, query.limit()?, cursor_of)))
}

/// A client session: an end user's use of a server with one client. It is identified by the handle of an anonymous end
/// user; for an end user with a personal URL or a token, by the `Mcp-Session-Id`, or the client's name and version if
/// there is none.
#[derive(Debug, Serialize, ToSchema)]
struct Session {
    id: String,
    #[schema(format = DateTime)]
    created_at: String,
    /// The approximate time of the last call, to the minute.
    #[schema(format = DateTime)]
    last_used_at: String,
    server_id: String,
    end_user_id: String,
    client_name: Option<String>,
    client_version: Option<String>,
    protocol_version: Option<String>,
    /// The time at which a signed-in end user took over the progress. The handle no longer works after that.
    #[schema(format = DateTime)]
    joined_at: Option<String>,
}

impl From<activity::ClientSession> for Session {
    fn from(session: activity::ClientSession) -> Self {
        Self {
            id: session.id.to_string(),
            created_at: session.created_at.rfc3339(),
            last_used_at: session.last_used_at.rfc3339(),
            server_id: session.server_id.to_string(),
            end_user_id: session.end_user_id.to_string(),
            client_name: session.client_name,
            client_version: session.client_version,
            protocol_version: session.protocol_version,
            joined_at: session.joined_at.map(Timestamp::rfc3339),
        }
    }
}

/// Lists client sessions by creation time, newest first.
#[utoipa::path(get, path = "/sessions", tag = "sessions", operation_id = "list_sessions", params(CallQuery),
    responses((status = 200, body = Page<Session>), Problems))]
async fn sessions(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Query(params): Query<CallQuery>,
) -> ApiResult<Json<Page<Session>>> {
    let query = ActivityQuery::from(params);
    let sessions = activity::list_sessions(&cx, web.ops(), &organization_id, &query.filter(false)?).await?;
    let cursor_of = |session: &activity::ClientSession| cursor(session.created_at, session.id.as_str());
    Ok(Json(paginate(sessions, query.limit()?, cursor_of)))
}

fn paginate<T, B: From<T>>(items: Vec<T>, limit: u32, cursor: impl Fn(&T) -> String) -> Page<B> {
    let Page { items, next_cursor } = Page::paginate(items, limit, cursor);
    Page { items: items.into_iter().map(B::from).collect(), next_cursor }
}
