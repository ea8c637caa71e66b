//! `/instances/{id}/tool-overrides`: names and descriptions of tools for agents.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use waypost_core::id::InstanceId;
use waypost_core::tool_override;
use waypost_ops::tool_overrides::{self, ToolOverridePatch};

use crate::Web;
use crate::extract::{Json, Path, Scope, nullable, parse_id};
use crate::page::Page;
use crate::problem::{ApiResult, Problems};
use crate::routes::{Routes, routes};

/// The operations on overrides.
pub(super) fn routes() -> Routes {
    Routes::new().routes(routes!(list, update))
}

/// The name and the description of a tool for agents, in place of those that the server lists. Grants, rules, approvals and the
/// call log refer to the original name.
#[derive(Debug, Serialize, ToSchema)]
struct ToolOverride {
    /// The original name of the tool.
    tool: String,
    /// The name, which follows the slug of the instance and `__`. Null for the original one.
    name: Option<String>,
    /// The description. Null for the original one.
    description: Option<String>,
}

impl From<tool_override::ToolOverride> for ToolOverride {
    fn from(found: tool_override::ToolOverride) -> Self {
        Self { tool: found.tool, name: found.name, description: found.description }
    }
}

/// Changes to the name and the description of a tool for agents. Absent members are not changed; null restores the original.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ToolOverrideUpdate {
    /// The original name of the tool.
    tool: String,
    /// The name. The public name, with the slug of the instance and `__`, is cut if it has more than 48 characters.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9_-]+$")]
    name: Option<Option<String>>,
    /// The description.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 4000)]
    description: Option<Option<String>>,
}

/// Lists the tools of an instance that have another name or description for agents, sorted by original name.
///
/// The list has one page.
#[utoipa::path(get, path = "/instances/{id}/tool-overrides", tag = "tool-approvals", operation_id = "list_tool_overrides",
    params(("id" = String, Path, description = "The ID of the instance (`ins_…`).")),
    responses((status = 200, body = Page<ToolOverride>), Problems))]
async fn list(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<Json<Page<ToolOverride>>> {
    let id: InstanceId = parse_id(&text, "instance")?;
    let found = tool_overrides::list(&cx, web.ops(), &organization_id, &id).await?;
    Ok(Json(Page { items: found.into_iter().map(ToolOverride::from).collect(), next_cursor: None }))
}

/// Changes the name or the description of a tool for agents.
///
/// It takes effect within one second. The status is 409 if another tool of the instance has this name, originally or for agents.
/// Requires the role `admin`.
#[utoipa::path(patch, path = "/instances/{id}/tool-overrides", tag = "tool-approvals",
    operation_id = "update_tool_override", request_body = ToolOverrideUpdate,
    params(("id" = String, Path, description = "The ID of the instance (`ins_…`).")),
    responses((status = 200, body = ToolOverride), Problems))]
async fn update(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
    Json(change): Json<ToolOverrideUpdate>,
) -> ApiResult<Json<ToolOverride>> {
    let id: InstanceId = parse_id(&text, "instance")?;
    let change = ToolOverridePatch { tool: change.tool, name: change.name, description: change.description };
    let updated = tool_overrides::update(&cx, web.ops(), &organization_id, &id, &change).await?;
    Ok(Json(updated.into()))
}
