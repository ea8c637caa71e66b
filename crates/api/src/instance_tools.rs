//! `/instances/{id}/tools`, `call`, `logs` and `stats`: requests that the toolbox of an instance answers.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use waypost_core::Result;
use waypost_core::caller::Ctx;
use waypost_core::id::{InstanceId, OrganizationId};
use waypost_ops::instances::logs::{self, LogFollow};
use waypost_ops::instances::{call, stats};
use waypost_toolbox_proto::http::{LogLine, StatsSample};

use crate::Web;
use crate::authenticate::Credentials;
use crate::extract::{Json, Path, Query, Scope, parse_id};
use crate::follow::{self, Source};
use crate::page::Page;
use crate::problem::{ApiResult, Problem, Problems};
use crate::routes::{Routes, routes};

/// The operations that the toolbox of an instance answers.
pub(super) fn routes() -> Routes {
    Routes::new()
        .routes(routes!(list_tools))
        .routes(routes!(call_tool))
        .routes(routes!(get_logs))
        .routes(routes!(list_stats))
}

/// The tools of an instance.
#[derive(Debug, Serialize, ToSchema)]
struct InstanceTools {
    /// The tools as the server describes them (MCP, `Tool`).
    #[schema(value_type = Vec<Object>)]
    items: Vec<Box<RawValue>>,
    /// Always null: the list is complete.
    next_cursor: Option<String>,
}

/// A call of a tool.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ToolCall {
    /// The name of the tool.
    #[schema(min_length = 1, max_length = 256, example = "search")]
    tool: String,
    /// The arguments.
    #[serde(default)]
    arguments: Map<String, Value>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct LogQuery {
    /// The number of lines to return.
    #[param(minimum = 0, maximum = 2000, default = 200)]
    tail: Option<u32>,
    /// Whether to send further lines as they are written, as `text/event-stream`.
    #[serde(default)]
    #[param(default = false)]
    follow: bool,
}

/// Lists the tools of an instance, as its server describes them.
///
/// A server that is stopped until its next call is started. If the toolbox is not connected, the error has the `reason`
/// `toolbox_offline`. A list that is too large, or does not arrive within 30 seconds, is an error.
#[utoipa::path(get, path = "/instances/{id}/tools", tag = "instances", operation_id = "list_instance_tools",
    params(("id" = String, Path, description = "The ID of the instance (`ins_…`).")),
    responses((status = 200, body = InstanceTools),
        (status = 502, body = Problem, content_type = "application/problem+json",
            description = "The server returned an error, or no valid MCP response in time. See `reason`."),
        Problems))]
async fn list_tools(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<Json<InstanceTools>> {
    let id: InstanceId = parse_id(&text, "instance")?;
    let items = call::list_tools(&cx, web.ops(), &organization_id, &id).await?;
    Ok(Json(InstanceTools { items, next_cursor: None }))
}

/// Calls a tool of an instance.
///
/// Returns the result of the server (MCP, `CallToolResult`), which may describe an error of the tool. An error of the server
/// is a problem with the `reason` `server_error`. The call ends after 30 seconds. If the instance has one container per
/// agent, the caller's own is used; if it has one per session, a new one. Calls are recorded in the audit log without
/// their arguments. Requires the role `admin`.
#[utoipa::path(post, path = "/instances/{id}/call", tag = "instances", operation_id = "call_instance_tool",
    params(("id" = String, Path, description = "The ID of the instance (`ins_…`).")), request_body = ToolCall,
    responses((status = 200, body = Object),
        (status = 502, body = Problem, content_type = "application/problem+json",
            description = "The server returned an error, or no valid MCP response in time. See `reason`."),
        Problems))]
async fn call_tool(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
    Json(body): Json<ToolCall>,
) -> ApiResult<Json<Box<RawValue>>> {
    let id: InstanceId = parse_id(&text, "instance")?;
    let call = (body.tool.as_str(), &body.arguments);
    Ok(Json(call::call_tool(&cx, web.ops(), &organization_id, &id, call).await?))
}

/// Returns the end of the log of an instance, oldest line first.
///
/// Secrets are masked. With `follow`, the response is a `text/event-stream` with one line per event, which ends when the
/// instance is removed or the caller loses access; an error that ends it is an event `error` with `code` and `detail`.
/// Requires the role `admin`.
#[utoipa::path(get, path = "/instances/{id}/logs", tag = "instances", operation_id = "get_instance_logs",
    params(("id" = String, Path, description = "The ID of the instance (`ins_…`)."), LogQuery),
    responses((status = 200, content((Page<LogLine> = "application/json"), (String = "text/event-stream"))), Problems))]
async fn get_logs(
    State(web): State<Web>,
    scope: Scope,
    credentials: Credentials,
    Path(text): Path<String>,
    Query(query): Query<LogQuery>,
) -> ApiResult<Response> {
    let id: InstanceId = parse_id(&text, "instance")?;
    let tail = query.tail.unwrap_or(logs::DEFAULT_TAIL);
    let Scope { cx, organization_id } = &scope;
    if !query.follow {
        let lines = logs::list(cx, web.ops(), organization_id, &id, tail).await?;
        return Ok(Json(Page::complete(lines)).into_response());
    }
    // Before a response is counted, so that a caller without access learns nothing else.
    logs::check(cx, web.ops(), organization_id, &id).await?;
    let open = async {
        let log = logs::follow(cx, web.ops(), organization_id, &id, tail).await?;
        Ok(LogSource { web: web.clone(), organization_id: organization_id.clone(), id: id.clone(), log })
    };
    Ok(follow::respond(&web, &scope, credentials, open).await?)
}

struct LogSource {
    web: Web,
    organization_id: OrganizationId,
    id: InstanceId,
    log: LogFollow,
}

impl Source for LogSource {
    type Item = LogLine;

    async fn next(&mut self) -> Result<Option<LogLine>> {
        self.log.next().await
    }

    async fn check(&mut self, cx: Ctx) -> Result<()> {
        logs::check(&cx, self.web.ops(), &self.organization_id, &self.id).await
    }
}

/// Returns the use of resources by an instance in the last seven days, oldest first.
#[utoipa::path(get, path = "/instances/{id}/stats", tag = "instances", operation_id = "list_instance_stats",
    params(("id" = String, Path, description = "The ID of the instance (`ins_…`).")),
    responses((status = 200, body = Page<StatsSample>), Problems))]
async fn list_stats(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<Json<Page<StatsSample>>> {
    let id: InstanceId = parse_id(&text, "instance")?;
    Ok(Json(Page::complete(stats::list(&cx, web.ops(), &organization_id, &id).await?)))
}
