//! `/events`, `/tool-calls` and `/sessions`: the log of an organisation.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use waypost_core::analytics::Range;
use waypost_core::event::EventKind;
use waypost_core::{Error, Result, Timestamp};
use waypost_ops::activity::{self, ActivityFilter};

use super::analytics::time;
use super::extract::{Json, Query, Scope, id};
use super::page::{Page, Paging};
use crate::Web;
use crate::problem::{ApiResult, Problems};

/// The operations on the log.
pub(super) fn routes() -> OpenApiRouter<Web> {
    OpenApiRouter::new().routes(routes!(events)).routes(routes!(tool_calls)).routes(routes!(sessions))
}

/// What a list of the log is asked for.
pub(super) struct Listing {
    pub(super) from: Option<String>,
    pub(super) to: Option<String>,
    pub(super) server_id: Option<String>,
    pub(super) walkthrough_id: Option<String>,
    pub(super) end_user_id: Option<String>,
    pub(super) limit: Option<u32>,
    pub(super) cursor: Option<String>,
}

/// The cursor behind a row.
pub(crate) fn cursor(at: Timestamp, id: &str) -> String {
    format!("{}.{id}", at.0)
}

/// The time and id in a cursor.
///
/// # Errors
/// `invalid_arguments` when it is none of ours.
pub(crate) fn behind(cursor: &str) -> Result<(Timestamp, String)> {
    let wrong = || Error::invalid("cursor", "`cursor` is not the `next_cursor` of a page of this list.");
    let (at, id) = cursor.split_once('.').ok_or_else(wrong)?;
    let fine = id.len() <= 64 && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !fine {
        return Err(wrong());
    }
    Ok((Timestamp(at.parse().map_err(|_| wrong())?), id.to_owned()))
}

impl Listing {
    /// Rows on the page.
    pub(super) fn limit(&self) -> Result<u32> {
        Paging { limit: self.limit, cursor: None }.limit()
    }

    /// What to look for: one row more than the page has.
    pub(super) fn filter(&self, oldest_first: bool) -> Result<ActivityFilter> {
        let edge = |field, text: &Option<String>, open| text.as_deref().map_or(Ok(open), |text| time(field, text));
        Ok(ActivityFilter {
            server_id: self.server_id.as_deref().map(|text| id(text, "server")).transpose()?,
            end_user_id: self.end_user_id.as_deref().map(|text| id(text, "end user")).transpose()?,
            walkthrough_id: self.walkthrough_id.as_deref().map(|text| id(text, "walkthrough")).transpose()?,
            range: Range {
                from: edge("from", &self.from, Timestamp(i64::MIN))?,
                to: edge("to", &self.to, Timestamp(i64::MAX))?,
            },
            after: self.cursor.as_deref().map(behind).transpose()?,
            oldest_first,
            limit: self.limit()? + 1,
        })
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct EventParams {
    /// From this time on, RFC 3339.
    #[param(format = DateTime)]
    from: Option<String>,
    /// Before this time, RFC 3339.
    #[param(format = DateTime)]
    to: Option<String>,
    /// On this server only.
    server_id: Option<String>,
    /// Of this walkthrough only.
    walkthrough_id: Option<String>,
    /// Of this end user only.
    end_user_id: Option<String>,
    /// Rows at most.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct CallParams {
    /// From this time on, RFC 3339.
    #[param(format = DateTime)]
    from: Option<String>,
    /// Before this time, RFC 3339.
    #[param(format = DateTime)]
    to: Option<String>,
    /// On this server only.
    server_id: Option<String>,
    /// Of this end user only.
    end_user_id: Option<String>,
    /// Rows at most.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

impl From<EventParams> for Listing {
    fn from(it: EventParams) -> Self {
        let EventParams { from, to, server_id, walkthrough_id, end_user_id, limit, cursor } = it;
        Self { from, to, server_id, walkthrough_id, end_user_id, limit, cursor }
    }
}

impl From<CallParams> for Listing {
    fn from(it: CallParams) -> Self {
        let CallParams { from, to, server_id, end_user_id, limit, cursor } = it;
        Self { from, to, server_id, walkthrough_id: None, end_user_id, limit, cursor }
    }
}

/// Something that happened to an attempt.
#[derive(Debug, Serialize, ToSchema)]
struct Event {
    id: String,
    #[schema(format = DateTime)]
    created_at: String,
    /// What happened.
    #[schema(schema_with = kinds)]
    kind: &'static str,
    server_id: String,
    walkthrough_id: String,
    end_user_id: String,
    /// The attempt.
    progress_id: String,
    version_id: String,
    step_id: Option<String>,
    /// The walkthrough's title in that version.
    walkthrough_title: Option<String>,
    /// The step's title in that version.
    step_title: Option<String>,
    /// What the client calls itself.
    client_name: Option<String>,
    /// Milliseconds since the attempt was worked on before; null for its first event.
    elapsed_ms: Option<i64>,
}

fn kinds() -> utoipa::openapi::Schema {
    let names = EventKind::ALL.iter().map(|kind| kind.as_str());
    utoipa::openapi::ObjectBuilder::new()
        .schema_type(utoipa::openapi::Type::String)
        .enum_values(Some(names))
        .build()
        .into()
}

impl From<activity::Event> for Event {
    fn from(it: activity::Event) -> Self {
        Self {
            id: it.id.to_string(),
            created_at: it.created_at.rfc3339(),
            kind: it.kind.as_str(),
            server_id: it.server_id.to_string(),
            walkthrough_id: it.walkthrough_id.to_string(),
            end_user_id: it.end_user_id.to_string(),
            progress_id: it.progress_id.to_string(),
            version_id: it.version_id.to_string(),
            step_id: it.step_id.map(|id| id.to_string()),
            walkthrough_title: it.walkthrough_title,
            step_title: it.step_title,
            client_name: it.client_name,
            elapsed_ms: it.elapsed_ms,
        }
    }
}

/// What happened to attempts, newest first.
#[utoipa::path(get, path = "/events", tag = "events", operation_id = "list_events", params(EventParams),
    responses((status = 200, body = Page<Event>), Problems))]
async fn events(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Query(params): Query<EventParams>,
) -> ApiResult<Json<Page<Event>>> {
    let listing = Listing::from(params);
    let found = activity::list_events(&cx, web.ops(), &organization_id, &listing.filter(false)?).await?;
    let behind = |it: &activity::Event| cursor(it.created_at, it.id.as_str());
    Ok(Json(cut(found, listing.limit()?, behind)))
}

/// A recorded tool call.
#[derive(Debug, Serialize, ToSchema)]
struct ToolCall {
    id: String,
    #[schema(format = DateTime)]
    created_at: String,
    server_id: String,
    /// Who called; null when that is not known.
    end_user_id: Option<String>,
    /// The session that the call belongs to; null if the client has none.
    session_id: Option<String>,
    /// Whether the console's "Try it" made the call. Such calls are listed only with `end_user_id`.
    is_test: bool,
    tool: String,
    /// The arguments that the tool's schema names; handles and addresses are masked.
    #[schema(value_type = Object, additional_properties)]
    arguments: Value,
    /// `ok`, or the code of the error.
    outcome: String,
    duration_us: i64,
    client_name: Option<String>,
    protocol_version: Option<String>,
    /// The id of the request, as in the log of the server.
    request_id: String,
}

impl From<activity::ToolCall> for ToolCall {
    fn from(it: activity::ToolCall) -> Self {
        let arguments = serde_json::from_str(&it.arguments).unwrap_or_else(|_| Value::Object(serde_json::Map::new()));
        Self {
            id: it.id.to_string(),
            created_at: it.created_at.rfc3339(),
            server_id: it.server_id.to_string(),
            end_user_id: it.end_user_id.map(|id| id.to_string()),
            session_id: it.session_id.map(|id| id.to_string()),
            is_test: it.is_test,
            tool: it.tool,
            arguments,
            outcome: it.outcome,
            duration_us: it.duration_us,
            client_name: it.client_name,
            protocol_version: it.protocol_version,
            request_id: it.request_id,
        }
    }
}

/// Recorded tool calls, newest first. Of calls whose user is not known, only the first 60 of a server and minute are
/// recorded one by one; analytics counts the others as well.
#[utoipa::path(get, path = "/tool-calls", tag = "tool-calls", operation_id = "list_tool_calls", params(CallParams),
    responses((status = 200, body = Page<ToolCall>), Problems))]
async fn tool_calls(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Query(params): Query<CallParams>,
) -> ApiResult<Json<Page<ToolCall>>> {
    let listing = Listing::from(params);
    let found = activity::list_calls(&cx, web.ops(), &organization_id, &listing.filter(false)?).await?;
    let behind = |it: &activity::ToolCall| cursor(it.created_at, it.id.as_str());
    Ok(Json(cut(found, listing.limit()?, behind)))
}

/// A client session: one client's use of one server by one end user. For an anonymous user it is their handle; for a user
/// with a personal URL or a token it is the `Mcp-Session-Id`, or the client's name and version if it has none.
#[derive(Debug, Serialize, ToSchema)]
struct Session {
    id: String,
    #[schema(format = DateTime)]
    created_at: String,
    /// The time of the last call, to the minute or so.
    #[schema(format = DateTime)]
    last_used_at: String,
    server_id: String,
    end_user_id: String,
    client_name: Option<String>,
    client_version: Option<String>,
    protocol_version: Option<String>,
    /// When its user was joined to a signed-in one: then the handle opens nothing.
    #[schema(format = DateTime)]
    joined_at: Option<String>,
}

impl From<activity::SessionRow> for Session {
    fn from(it: activity::SessionRow) -> Self {
        Self {
            id: it.id.to_string(),
            created_at: it.created_at.rfc3339(),
            last_used_at: it.last_used_at.rfc3339(),
            server_id: it.server_id.to_string(),
            end_user_id: it.end_user_id.to_string(),
            client_name: it.client_name,
            client_version: it.client_version,
            protocol_version: it.protocol_version,
            joined_at: it.joined_at.map(Timestamp::rfc3339),
        }
    }
}

/// Client sessions by when they began, newest first. `from` and `to` are of that.
#[utoipa::path(get, path = "/sessions", tag = "sessions", operation_id = "list_sessions", params(CallParams),
    responses((status = 200, body = Page<Session>), Problems))]
async fn sessions(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Query(params): Query<CallParams>,
) -> ApiResult<Json<Page<Session>>> {
    let listing = Listing::from(params);
    let found = activity::list_sessions(&cx, web.ops(), &organization_id, &listing.filter(false)?).await?;
    let behind = |it: &activity::SessionRow| cursor(it.created_at, it.id.as_str());
    Ok(Json(cut(found, listing.limit()?, behind)))
}

fn cut<T, B: From<T>>(items: Vec<T>, limit: u32, cursor: impl Fn(&T) -> String) -> Page<B> {
    let Page { items, next_cursor } = Page::cut(items, limit, cursor);
    Page { items: items.into_iter().map(B::from).collect(), next_cursor }
}
