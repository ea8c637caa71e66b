//! `/tool-sets`.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use waypost_core::Error;
use waypost_core::id::ToolSetId;
use waypost_core::tool_set;
use waypost_ops::tool_sets::{self, NewToolSet, ToolSetPatch};

use crate::Web;
use crate::extract::{Json, Path, Query, Scope, created, parse_id};
use crate::page::{Page, Paging};
use crate::problem::{ApiResult, Problems};
use crate::routes::{Routes, routes};

/// The operations on tool sets.
pub(super) fn routes() -> Routes {
    Routes::new().routes(routes!(list, create)).routes(routes!(get, update, delete))
}

/// A tool set: a selection of the tools of instances with its own URL. It never extends what an agent was granted.
#[derive(Debug, Serialize, ToSchema)]
struct ToolSet {
    #[schema(example = "set_0123456789abcdef")]
    id: String,
    /// The slug, unique in the organisation; part of the URL.
    slug: String,
    name: String,
    /// Whether names of tools and prompts begin with the slug of their instance.
    prefix: bool,
    /// The members in their order. Members of deleted instances are removed.
    members: Vec<ToolSetMember>,
}

/// An instance in a tool set.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ToolSetMember {
    /// The instance (`ins_…`).
    instance_id: String,
    /// The original names of the tools that belong to the tool set. Null for all of them.
    #[schema(min_items = 1, max_items = 500)]
    tools: Option<Vec<String>>,
}

impl From<tool_set::ToolSet> for ToolSet {
    fn from(tool_set: tool_set::ToolSet) -> Self {
        let member = |member: tool_set::ToolSetMember| ToolSetMember {
            instance_id: member.instance_id.to_string(),
            tools: member.tools,
        };
        Self {
            id: tool_set.id.to_string(),
            slug: tool_set.slug,
            name: tool_set.name,
            prefix: tool_set.prefix,
            members: tool_set.members.into_iter().map(member).collect(),
        }
    }
}

/// A tool set to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ToolSetCreate {
    /// The slug, which is part of the URL. It must not look like that of another tool set.
    #[schema(min_length = 1, max_length = 24, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", example = "research")]
    slug: String,
    /// The name. Defaults to the slug.
    #[schema(min_length = 1, max_length = 100)]
    name: Option<String>,
    /// Whether names of tools and prompts begin with the slug of their instance. False is possible only with exactly one
    /// instance.
    #[serde(default = "default_prefix")]
    #[schema(default = true)]
    prefix: bool,
    #[schema(min_items = 1, max_items = 50)]
    members: Vec<ToolSetMember>,
}

fn default_prefix() -> bool {
    true
}

/// Changes to a tool set. Absent members are not changed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ToolSetUpdate {
    /// The slug. A change changes the URL.
    #[schema(min_length = 1, max_length = 24, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
    slug: Option<String>,
    #[schema(min_length = 1, max_length = 100)]
    name: Option<String>,
    /// Whether names of tools and prompts begin with the slug of their instance.
    prefix: Option<bool>,
    /// All members. Replaces the current ones.
    #[schema(min_items = 1, max_items = 50)]
    members: Option<Vec<ToolSetMember>>,
}

fn parse_members(members: Vec<ToolSetMember>) -> Result<Vec<tool_set::ToolSetMember>, Error> {
    let parsed = members.into_iter().map(|member| {
        let invalid = |_| Error::invalid("members", "`instance_id` of a member is not a valid ID.");
        Ok(tool_set::ToolSetMember { instance_id: member.instance_id.parse().map_err(invalid)?, tools: member.tools })
    });
    parsed.collect()
}

/// Lists the tool sets of the organisation, sorted by slug.
#[utoipa::path(get, path = "/tool-sets", tag = "tool-sets", operation_id = "list_tool_sets", params(Paging),
    responses((status = 200, body = Page<ToolSet>), Problems))]
async fn list(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Query(paging): Query<Paging>,
) -> ApiResult<Json<Page<ToolSet>>> {
    let (limit, cursor) = (paging.limit()?, paging.text_cursor()?);
    let found = tool_sets::list(&cx, web.ops(), &organization_id, cursor, limit + 1).await?;
    let found = found.into_iter().map(ToolSet::from).collect();
    Ok(Json(Page::paginate(found, limit, |tool_set: &ToolSet| tool_set.slug.clone())))
}

/// Creates a tool set.
///
/// An organisation can have at most 100 tool sets. Requires the role `admin`.
#[utoipa::path(post, path = "/tool-sets", tag = "tool-sets", operation_id = "create_tool_set",
    request_body = ToolSetCreate,
    responses((status = 201, body = ToolSet, headers(("Location" = String, description = "The URL of the tool set"))),
        Problems))]
async fn create(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Json(new): Json<ToolSetCreate>,
) -> ApiResult<Response> {
    let members = parse_members(new.members)?;
    let new = NewToolSet { slug: new.slug, name: new.name, prefix: new.prefix, members };
    let body = ToolSet::from(tool_sets::create(&cx, web.ops(), &organization_id, &new).await?);
    Ok(created(&format!("tool-sets/{}", body.id), &body))
}

/// Returns a tool set.
#[utoipa::path(get, path = "/tool-sets/{id}", tag = "tool-sets", operation_id = "get_tool_set",
    params(("id" = String, Path, description = "The ID of the tool set (`set_…`).")),
    responses((status = 200, body = ToolSet), Problems))]
async fn get(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<Json<ToolSet>> {
    Ok(Json(tool_sets::get(&cx, web.ops(), &organization_id, &parse_id(&text, "tool set")?).await?.into()))
}

/// Updates a tool set.
///
/// The gateway applies the change within one second. Requires the role `admin`.
#[utoipa::path(patch, path = "/tool-sets/{id}", tag = "tool-sets", operation_id = "update_tool_set",
    params(("id" = String, Path, description = "The ID of the tool set (`set_…`).")), request_body = ToolSetUpdate,
    responses((status = 200, body = ToolSet), Problems))]
async fn update(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
    Json(change): Json<ToolSetUpdate>,
) -> ApiResult<Json<ToolSet>> {
    let id: ToolSetId = parse_id(&text, "tool set")?;
    let members = change.members.map(parse_members).transpose()?;
    let change = ToolSetPatch { slug: change.slug, name: change.name, prefix: change.prefix, members };
    Ok(Json(tool_sets::update(&cx, web.ops(), &organization_id, &id, &change).await?.into()))
}

/// Deletes a tool set.
///
/// Its URL stops working within one second. Requires the role `admin`.
#[utoipa::path(delete, path = "/tool-sets/{id}", tag = "tool-sets", operation_id = "delete_tool_set",
    params(("id" = String, Path, description = "The ID of the tool set (`set_…`).")),
    responses((status = 204), Problems))]
async fn delete(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<StatusCode> {
    tool_sets::delete(&cx, web.ops(), &organization_id, &parse_id(&text, "tool set")?).await?;
    Ok(StatusCode::NO_CONTENT)
}
