//! `/calls`: the gateway's call log.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use waypost_core::call::{CallMethod, CallOutcome, ContentText};
use waypost_ops::calls::{self, ListCalls};

use crate::Web;
use crate::extract::{Json, Path, Query, Scope, parse_id, parse_time};
use crate::page::{DEFAULT_LIMIT, Page};
use crate::problem::{ApiResult, Problems};
use crate::routes::{Routes, routes};
use crate::schema::call_method;

/// The operations on the call log.
pub(super) fn routes() -> Routes {
    Routes::new().routes(routes!(list)).routes(routes!(get))
}

/// A call of an agent through the gateway.
#[derive(Debug, Serialize, ToSchema)]
struct Call {
    #[schema(example = "cal_0123456789abcdef01234567")]
    id: String,
    #[schema(example = "agt_0123456789abcdef")]
    agent_id: String,
    /// The ID of the instance. Null if the gateway rejected the call before it found one.
    #[schema(example = "ins_0123456789abcdef")]
    instance_id: Option<String>,
    #[schema(schema_with = call_method)]
    method: CallMethod,
    /// The original name of the tool or prompt, the URI of the resource, or the URI template of a resource that is not
    /// listed. If it is unknown, the name that the agent used. At most 256 characters.
    tool: String,
    outcome: CallOutcome,
    /// The time from the request to the end of the call, in milliseconds.
    duration_ms: i64,
    /// The part of `duration_ms` that was spent on the call of the server. Null if the server was not called.
    upstream_ms: Option<i64>,
    /// The size of the request in bytes.
    request_bytes: i64,
    /// The total size of the relayed messages of the server, in bytes.
    response_bytes: i64,
    /// The names and JSON types of the first 32 top-level arguments.
    #[schema(value_type = Object, additional_properties, example = json!({ "query": "string", "limit": "number" }))]
    argument_shape: Value,
    /// The time at which the call ended.
    #[schema(format = DateTime)]
    at: String,
}

impl From<waypost_core::call::Call> for Call {
    fn from(call: waypost_core::call::Call) -> Self {
        let shape = serde_json::from_str(&call.argument_shape).unwrap_or_else(|_| Value::Object(Default::default()));
        Self {
            id: call.id.to_string(),
            agent_id: call.agent_id.to_string(),
            instance_id: call.instance_id.map(|id| id.to_string()),
            method: call.method,
            tool: call.tool,
            outcome: call.outcome,
            duration_ms: call.duration_ms,
            upstream_ms: call.upstream_ms,
            request_bytes: call.request_bytes,
            response_bytes: call.response_bytes,
            argument_shape: shape,
            at: call.at.rfc3339(),
        }
    }
}

/// A call of an agent through the gateway, with its contents.
#[derive(Debug, Serialize, ToSchema)]
struct CallDetail {
    #[serde(flatten)]
    call: Call,
    /// The contents. Null if `record_contents` of the instance was off during the call, or the contents were deleted.
    contents: Option<CallContents>,
}

/// The recorded contents of a call. Secrets are replaced by `[secret]`.
#[derive(Debug, Serialize, ToSchema)]
struct CallContents {
    /// The arguments, or the parameters of a method without arguments. Null if there were none.
    arguments: Option<CallText>,
    /// The result of the server. Null if there was none.
    result: Option<CallText>,
    /// The error of the server or of the gateway. Null if there was none.
    error: Option<CallText>,
}

/// A part of the contents of a call.
#[derive(Debug, Serialize, ToSchema)]
struct CallText {
    /// The JSON text, of at most 8,192 bytes. It is not valid JSON if its end is missing.
    #[schema(example = "{\"query\":\"docs\"}")]
    text: String,
    /// Whether the end is missing.
    truncated: bool,
}

impl From<ContentText> for CallText {
    fn from(text: ContentText) -> Self {
        Self { text: text.text, truncated: text.is_truncated }
    }
}

impl From<calls::CallDetail> for CallDetail {
    fn from(detail: calls::CallDetail) -> Self {
        let contents = detail.contents.map(|contents| CallContents {
            arguments: contents.arguments.map(CallText::from),
            result: contents.result.map(CallText::from),
            error: contents.error.map(CallText::from),
        });
        Self { call: detail.call.into(), contents }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct GatewayCallQuery {
    /// Only calls of this agent (`agt_…`).
    agent_id: Option<String>,
    /// Only calls of this instance (`ins_…`).
    instance_id: Option<String>,
    /// Only calls of the tool, prompt or resource with this original name.
    #[param(max_length = 256)]
    tool: Option<String>,
    /// Only calls with this outcome.
    outcome: Option<CallOutcome>,
    /// Only calls that ended at or after this time.
    #[param(format = DateTime)]
    since: Option<String>,
    /// Only calls that ended before this time.
    #[param(format = DateTime)]
    until: Option<String>,
    /// The maximum number of items to return.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// The `next_cursor` of the previous page.
    cursor: Option<String>,
}

/// Lists the calls of agents through the gateway, newest first.
///
/// A call appears within a few seconds after it ends and is kept for 30 days by default. Requires the role `admin`.
#[utoipa::path(get, path = "/calls", tag = "calls", operation_id = "list_calls", params(GatewayCallQuery),
    responses((status = 200, body = Page<Call>), Problems))]
async fn list(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Query(query): Query<GatewayCallQuery>,
) -> ApiResult<Json<Page<Call>>> {
    let query = ListCalls {
        agent_id: query.agent_id.as_deref().map(|text| parse_id(text, "agent")).transpose()?,
        instance_id: query.instance_id.as_deref().map(|text| parse_id(text, "instance")).transpose()?,
        tool: query.tool,
        outcome: query.outcome,
        since: query.since.as_deref().map(|text| parse_time("since", text)).transpose()?,
        until: query.until.as_deref().map(|text| parse_time("until", text)).transpose()?,
        limit: query.limit.unwrap_or(DEFAULT_LIMIT),
        cursor: query.cursor,
    };
    let page = calls::list(&cx, web.ops(), &organization_id, &query).await?;
    Ok(Json(Page { items: page.items.into_iter().map(Call::from).collect(), next_cursor: page.next_cursor }))
}

/// Returns a call, with its arguments and its result if they were recorded.
///
/// Reading contents is recorded in the audit log. Requires the role `admin`.
#[utoipa::path(get, path = "/calls/{id}", tag = "calls", operation_id = "get_call",
    params(("id" = String, Path, description = "The ID of the call (`cal_…`).")),
    responses((status = 200, body = CallDetail), Problems))]
async fn get(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<Json<CallDetail>> {
    let detail = calls::get(&cx, web.ops(), &organization_id, &parse_id(&text, "call")?).await?;
    Ok(Json(detail.into()))
}
