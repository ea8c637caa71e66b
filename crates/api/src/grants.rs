//! `/grants`.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use waypost_core::argument_rule::{self, Comparison};
use waypost_core::grant::{self, AccessLevel, GrantedNames};
use waypost_core::id::{AgentId, GrantId, InstanceId};
use waypost_core::{Error, Timestamp};
use waypost_ops::grants::{self, GrantFilter, GrantPatch, NewGrant};

use crate::Web;
use crate::extract::{
    Json, Path, Query, Scope, created, nullable, parse_field, parse_id, parse_nullable_time, parse_time,
};
use crate::page::{Page, Paging};
use crate::problem::{ApiResult, Problems};
use crate::routes::{Routes, routes};

/// The operations on grants.
pub(super) fn routes() -> Routes {
    Routes::new().routes(routes!(list, create)).routes(routes!(get, update, delete))
}

/// A grant: what an agent may use of an instance. Several grants of an agent for an instance add up.
#[derive(Debug, Serialize, ToSchema)]
struct Grant {
    #[schema(example = "grt_0123456789abcdef01234567")]
    id: String,
    agent_id: String,
    instance_id: String,
    access: AccessLevel,
    /// The original names of the tools that `custom` covers. Empty for other access levels.
    tools: Vec<String>,
    /// The original names of the prompts that `custom` covers.
    prompts: Vec<String>,
    /// The URIs and URI templates of the resources that `custom` covers.
    resources: Vec<String>,
    /// The rules on arguments.
    rules: Vec<ArgumentRule>,
    /// The time at which the grant expires. Null if it does not expire.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    #[schema(format = DateTime)]
    created_at: String,
    /// The ID of the user or API key that created the grant, or `operator`.
    created_by: String,
}

/// A rule on an argument of a tool. All rules of a grant that name the called tool must match. A missing field, and a field
/// of another type than the value, do not match. Nothing is normalised: `starts_with` does not confine a path that
/// contains `..`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ArgumentRule {
    /// The original name of the tool.
    #[schema(min_length = 1, max_length = 256, example = "search")]
    tool: String,
    /// The path of the field: names of object members, separated by dots.
    #[schema(min_length = 1, max_length = 200, example = "options.limit")]
    field: String,
    comparison: Comparison,
    /// The value: a list for `one_of`, a number for `less_than`, `at_most`, `greater_than` and `at_least`, a text for
    /// `starts_with` and `contains`, and a text, a number, a boolean or null for `equals` and `not_equals`.
    #[schema(value_type = Value, example = json!(10))]
    value: Value,
}

impl From<argument_rule::ArgumentRule> for ArgumentRule {
    fn from(rule: argument_rule::ArgumentRule) -> Self {
        Self { tool: rule.tool, field: rule.field, comparison: rule.comparison, value: rule.value }
    }
}

impl From<ArgumentRule> for argument_rule::ArgumentRule {
    fn from(rule: ArgumentRule) -> Self {
        Self { tool: rule.tool, field: rule.field, comparison: rule.comparison, value: rule.value }
    }
}

impl From<grant::Grant> for Grant {
    fn from(grant: grant::Grant) -> Self {
        Self {
            id: grant.id.to_string(),
            agent_id: grant.agent_id.to_string(),
            instance_id: grant.instance_id.to_string(),
            access: grant.access,
            tools: grant.names.tools,
            prompts: grant.names.prompts,
            resources: grant.names.resources,
            rules: grant.rules.into_iter().map(ArgumentRule::from).collect(),
            expires_at: grant.expires_at.map(Timestamp::rfc3339),
            created_at: grant.created_at.rfc3339(),
            created_by: grant.created_by,
        }
    }
}

/// A grant to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct GrantCreate {
    /// The agent (`agt_…`).
    agent_id: String,
    /// The instance (`ins_…`).
    instance_id: String,
    /// `read_only`: everything that was approved with the class `read`. `custom`: the listed names. `full_access`:
    /// everything.
    access: AccessLevel,
    /// The original names of tools, only for `custom`.
    #[serde(default)]
    #[schema(max_items = 500)]
    tools: Vec<String>,
    /// The original names of prompts, only for `custom`.
    #[serde(default)]
    #[schema(max_items = 500)]
    prompts: Vec<String>,
    /// URIs and URI templates (RFC 6570) of resources, only for `custom`. A template covers every URI that it matches.
    #[serde(default)]
    #[schema(max_items = 500)]
    resources: Vec<String>,
    /// The rules on arguments.
    #[serde(default)]
    #[schema(max_items = 50)]
    rules: Vec<ArgumentRule>,
    /// The time at which the grant expires, at most ten years from now. By default it does not expire.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
}

/// Changes to a grant. Absent members are not changed. Lists are replaced.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct GrantUpdate {
    /// The access level. A change from `custom` to another level empties `tools`, `prompts` and `resources`.
    access: Option<AccessLevel>,
    #[schema(max_items = 500)]
    tools: Option<Vec<String>>,
    #[schema(max_items = 500)]
    prompts: Option<Vec<String>>,
    #[schema(max_items = 500)]
    resources: Option<Vec<String>>,
    #[schema(max_items = 50)]
    rules: Option<Vec<ArgumentRule>>,
    /// The time at which the grant expires, at most ten years from now. Null removes the expiry.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Option<String>>,
}

impl TryFrom<GrantCreate> for NewGrant {
    type Error = Error;

    fn try_from(new: GrantCreate) -> Result<Self, Error> {
        Ok(Self {
            agent_id: parse_field("agent_id", &new.agent_id)?,
            instance_id: parse_field("instance_id", &new.instance_id)?,
            access: new.access,
            names: GrantedNames { tools: new.tools, prompts: new.prompts, resources: new.resources },
            rules: new.rules.into_iter().map(Into::into).collect(),
            expires_at: new.expires_at.as_deref().map(|text| parse_time("expires_at", text)).transpose()?,
        })
    }
}

impl TryFrom<GrantUpdate> for GrantPatch {
    type Error = Error;

    fn try_from(change: GrantUpdate) -> Result<Self, Error> {
        Ok(Self {
            access: change.access,
            tools: change.tools,
            prompts: change.prompts,
            resources: change.resources,
            rules: change.rules.map(|rules| rules.into_iter().map(Into::into).collect()),
            expires_at: parse_nullable_time("expires_at", change.expires_at.as_ref())?,
        })
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct GrantQuery {
    /// Only grants of this agent.
    agent_id: Option<String>,
    /// Only grants for this instance.
    instance_id: Option<String>,
    /// The maximum number of items to return.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// The `next_cursor` of the previous page.
    cursor: Option<String>,
}

/// Lists the grants of the organisation, newest first.
///
/// Expired grants are listed until they are deleted. Requires the role `admin`.
#[utoipa::path(get, path = "/grants", tag = "grants", operation_id = "list_grants", params(GrantQuery),
    responses((status = 200, body = Page<Grant>), Problems))]
async fn list(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Query(query): Query<GrantQuery>,
) -> ApiResult<Json<Page<Grant>>> {
    let paging = Paging { limit: query.limit, cursor: query.cursor };
    let (limit, before) = (paging.limit()?, paging.parse_cursor::<GrantId>()?);
    let agent = query.agent_id.as_deref().map(|text| parse_field::<AgentId>("agent_id", text)).transpose()?;
    let instance =
        query.instance_id.as_deref().map(|text| parse_field::<InstanceId>("instance_id", text)).transpose()?;
    let filter = GrantFilter { agent: agent.as_ref(), instance: instance.as_ref() };
    let found = grants::list(&cx, web.ops(), &organization_id, filter, (before.as_ref(), limit + 1)).await?;
    let found = found.into_iter().map(Grant::from).collect();
    Ok(Json(Page::paginate(found, limit, |grant: &Grant| grant.id.clone())))
}

/// Grants an agent access to an instance.
///
/// The gateway applies the grant within one second. An agent can have at most 200 grants. Requires the role `admin`.
#[utoipa::path(post, path = "/grants", tag = "grants", operation_id = "create_grant", request_body = GrantCreate,
    responses((status = 201, body = Grant, headers(("Location" = String, description = "The URL of the grant"))),
        Problems))]
async fn create(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Json(new): Json<GrantCreate>,
) -> ApiResult<Response> {
    let body = Grant::from(grants::create(&cx, web.ops(), &organization_id, &new.try_into()?).await?);
    Ok(created(&format!("grants/{}", body.id), &body))
}

/// Returns a grant.
///
/// Requires the role `admin`.
#[utoipa::path(get, path = "/grants/{id}", tag = "grants", operation_id = "get_grant",
    params(("id" = String, Path, description = "The ID of the grant (`grt_…`).")),
    responses((status = 200, body = Grant), Problems))]
async fn get(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<Json<Grant>> {
    Ok(Json(grants::get(&cx, web.ops(), &organization_id, &parse_id(&text, "grant")?).await?.into()))
}

/// Updates a grant.
///
/// The gateway applies the change within one second. Agent and instance cannot be changed. Requires the role `admin`.
#[utoipa::path(patch, path = "/grants/{id}", tag = "grants", operation_id = "update_grant",
    params(("id" = String, Path, description = "The ID of the grant (`grt_…`).")), request_body = GrantUpdate,
    responses((status = 200, body = Grant), Problems))]
async fn update(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
    Json(change): Json<GrantUpdate>,
) -> ApiResult<Json<Grant>> {
    let id: GrantId = parse_id(&text, "grant")?;
    Ok(Json(grants::update(&cx, web.ops(), &organization_id, &id, &change.try_into()?).await?.into()))
}

/// Deletes a grant.
///
/// The gateway applies the change within one second. Requires the role `admin`.
#[utoipa::path(delete, path = "/grants/{id}", tag = "grants", operation_id = "delete_grant",
    params(("id" = String, Path, description = "The ID of the grant (`grt_…`).")),
    responses((status = 204), Problems))]
async fn delete(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<StatusCode> {
    grants::delete(&cx, web.ops(), &organization_id, &parse_id(&text, "grant")?).await?;
    Ok(StatusCode::NO_CONTENT)
}
