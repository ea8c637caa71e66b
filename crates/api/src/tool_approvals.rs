//! `/tool-approvals`: tool server definitions that await a decision, and the decisions.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use waypost_content::diff::DiffLine;
use waypost_core::Timestamp;
use waypost_core::id::{InstanceId, ToolApprovalId};
use waypost_core::tool_definition::{ApprovalState, Class, DefinitionKind};
use waypost_ops::tool_approvals::{self, ListToolApprovals};

use crate::Web;
use crate::extract::{Json, Path, Query, Scope, parse_id};
use crate::page::Page;
use crate::problem::{ApiResult, Problem, Problems};
use crate::routes::{Routes, routes};

/// The default page size.
const DEFAULT_LIMIT: u32 = 50;

/// The operations on approvals.
pub(super) fn routes() -> Routes {
    Routes::new()
        .routes(routes!(list))
        .routes(routes!(get))
        .routes(routes!(approve))
        .routes(routes!(reject))
        .routes(routes!(approve_all))
        .routes(routes!(check_definitions))
}

/// A definition of a tool server and its approval. Agents can use a definition only if it is approved and the server
/// currently lists it.
#[derive(Debug, Serialize, ToSchema)]
struct ToolApproval {
    #[schema(example = "apr_0123456789abcdef01234567")]
    id: String,
    #[schema(example = "ins_0123456789abcdef")]
    instance_id: String,
    kind: DefinitionKind,
    /// The name of a tool or prompt, the URI of a resource, or the URI template.
    name: String,
    state: ApprovalState,
    /// The effect, as classified by an admin. Null if the definition is not approved.
    class: Option<Class>,
    /// Whether the server currently lists the definition.
    is_current: bool,
    /// The SHA-256 of the canonical JSON (RFC 8785) in hexadecimal.
    digest: String,
    /// The digest of the previous definition: the most recently approved one or, if none is approved, the one seen before
    /// this definition. Null if there is none.
    previous_digest: Option<String>,
    /// The definition as sent by the server. Null if it is too large.
    #[schema(value_type = Option<Object>)]
    definition: Option<Box<RawValue>>,
    /// The previous definition.
    #[schema(value_type = Option<Object>)]
    previous_definition: Option<Box<RawValue>>,
    /// The lines that differ between the previous definition and this one, both indented.
    diff: Vec<DiffLine>,
    /// The reason why the definition cannot be approved: `not_canonical` or `too_large`.
    problem: Option<String>,
    /// The reason for the rejection.
    reason: Option<String>,
    /// The user or API key that decided. Null if the decision for another instance of the same catalogue version applies.
    decided_by: Option<String>,
    #[schema(format = DateTime)]
    decided_at: Option<String>,
    #[schema(format = DateTime)]
    first_seen_at: String,
}

impl From<tool_approvals::ToolApproval> for ToolApproval {
    fn from(approval: tool_approvals::ToolApproval) -> Self {
        let diff = approval.diff();
        let tool_approvals::ToolApproval { definition, previous } = approval;
        let raw = |text: String| RawValue::from_string(text).ok();
        let (previous_digest, previous_text) = previous.map(|previous| (previous.digest, previous.definition)).unzip();
        Self {
            id: definition.id.to_string(),
            instance_id: definition.instance_id.to_string(),
            kind: definition.kind,
            name: definition.name,
            state: definition.state,
            class: definition.class,
            is_current: definition.is_current,
            digest: definition.digest,
            previous_digest,
            definition: raw(definition.definition),
            previous_definition: previous_text.and_then(raw),
            diff,
            problem: definition.problem,
            reason: definition.reason,
            decided_by: definition.decided_by,
            decided_at: definition.decided_at.map(Timestamp::rfc3339),
            first_seen_at: definition.first_seen_at.rfc3339(),
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ApprovalQuery {
    /// Only approvals in this state.
    state: Option<ApprovalState>,
    /// Only approvals of this instance.
    instance_id: Option<String>,
    /// The maximum number of items.
    #[param(minimum = 1, maximum = 100, default = 50)]
    limit: Option<u32>,
    /// `next_cursor` of the previous page.
    cursor: Option<String>,
}

/// The approval of a definition.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ApproveDefinition {
    /// The digest of the definition that was reviewed.
    #[schema(min_length = 64, max_length = 64)]
    digest: String,
    /// The effect. Grants with the access `read_only` cover only definitions with the class `read`.
    class: Class,
}

/// The approval of several definitions.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ApproveDefinitions {
    /// The digests of the definitions that were reviewed.
    #[schema(min_items = 1, max_items = 1000)]
    digests: Vec<String>,
    /// The effect of all of them.
    #[serde(default = "default_class")]
    #[schema(default = "write")]
    class: Class,
}

/// Returns the class of definitions that are approved without one. `read_only` grants do not cover it.
fn default_class() -> Class {
    Class::Write
}

/// The rejection of a definition.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RejectDefinition {
    /// The reason, for other admins.
    #[serde(default)]
    #[schema(max_length = 500)]
    reason: String,
}

/// The result of a check of a server's definitions.
#[derive(Debug, Serialize, ToSchema)]
struct DefinitionCheck {
    /// The number of new definitions.
    added: usize,
    /// The number of new definitions that await a decision.
    pending: usize,
}

/// Lists the definitions of tool servers with their approvals, oldest first.
#[utoipa::path(get, path = "/tool-approvals", tag = "tool-approvals", operation_id = "list_tool_approvals",
    params(ApprovalQuery), responses((status = 200, body = Page<ToolApproval>), Problems))]
async fn list(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Query(query): Query<ApprovalQuery>,
) -> ApiResult<Json<Page<ToolApproval>>> {
    let instance_id = query.instance_id.as_deref().map(|text| parse_id::<InstanceId>(text, "instance")).transpose()?;
    let query = ListToolApprovals {
        state: query.state,
        instance_id,
        limit: query.limit.unwrap_or(DEFAULT_LIMIT),
        cursor: query.cursor,
    };
    let page = tool_approvals::list(&cx, web.ops(), &organization_id, &query).await?;
    let items = page.items.into_iter().map(ToolApproval::from).collect();
    Ok(Json(Page { items, next_cursor: page.next_cursor }))
}

/// Returns a definition with its approval and the difference from the previous definition.
#[utoipa::path(get, path = "/tool-approvals/{id}", tag = "tool-approvals", operation_id = "get_tool_approval",
    params(("id" = String, Path, description = "The ID of the approval (`apr_…`).")),
    responses((status = 200, body = ToolApproval), Problems))]
async fn get(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<Json<ToolApproval>> {
    let id: ToolApprovalId = parse_id(&text, "definition")?;
    Ok(Json(tool_approvals::get(&cx, web.ops(), &organization_id, &id).await?.into()))
}

/// Approves exactly the definition with this digest.
///
/// The approval applies to all instances of the same catalogue version that list a definition with this digest. Returns 409
/// if the digest does not match or the server no longer lists the definition. Requires the role `admin`.
#[utoipa::path(post, path = "/tool-approvals/{id}/approve", tag = "tool-approvals", operation_id = "approve_definition",
    params(("id" = String, Path, description = "The ID of the approval (`apr_…`).")), request_body = ApproveDefinition,
    responses((status = 200, body = ToolApproval), Problems))]
async fn approve(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
    Json(body): Json<ApproveDefinition>,
) -> ApiResult<Json<ToolApproval>> {
    let id: ToolApprovalId = parse_id(&text, "definition")?;
    tool_approvals::approve(&cx, web.ops(), &organization_id, &id, (&body.digest, body.class)).await?;
    Ok(Json(tool_approvals::get(&cx, web.ops(), &organization_id, &id).await?.into()))
}

/// Rejects a definition, even if it was approved before. Agents can no longer use it.
///
/// All other approved definitions of the instance with the same kind and name are rejected too. Requires the role `admin`.
#[utoipa::path(post, path = "/tool-approvals/{id}/reject", tag = "tool-approvals", operation_id = "reject_definition",
    params(("id" = String, Path, description = "The ID of the approval (`apr_…`).")), request_body = RejectDefinition,
    responses((status = 200, body = ToolApproval), Problems))]
async fn reject(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
    Json(body): Json<RejectDefinition>,
) -> ApiResult<Json<ToolApproval>> {
    let id: ToolApprovalId = parse_id(&text, "definition")?;
    tool_approvals::reject(&cx, web.ops(), &organization_id, &id, &body.reason).await?;
    Ok(Json(tool_approvals::get(&cx, web.ops(), &organization_id, &id).await?.into()))
}

/// Approves several definitions of an instance. If one of them cannot be approved, none is.
///
/// Requires the role `admin`.
#[utoipa::path(post, path = "/instances/{id}/approve-all", tag = "tool-approvals", operation_id = "approve_definitions",
    params(("id" = String, Path, description = "The ID of the instance (`ins_…`).")), request_body = ApproveDefinitions,
    responses((status = 200, body = Page<ToolApproval>), Problems))]
async fn approve_all(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
    Json(body): Json<ApproveDefinitions>,
) -> ApiResult<Json<Page<ToolApproval>>> {
    let id: InstanceId = parse_id(&text, "instance")?;
    let decision = (body.digests.as_slice(), body.class);
    let approved = tool_approvals::approve_all(&cx, web.ops(), &organization_id, &id, decision).await?;
    let items = approved.into_iter().map(|definition| tool_approvals::ToolApproval { definition, previous: None });
    Ok(Json(Page::complete(items.map(ToolApproval::from).collect())))
}

/// Reads the definitions that the server of an instance currently lists, so that new ones can be approved.
///
/// Requires the role `admin`.
#[utoipa::path(post, path = "/instances/{id}/check-definitions", tag = "tool-approvals",
    operation_id = "check_definitions",
    params(("id" = String, Path, description = "The ID of the instance (`ins_…`).")),
    responses((status = 200, body = DefinitionCheck),
        (status = 502, body = Problem, content_type = "application/problem+json",
            description = "The server returned an error, or no valid MCP response in time. See `reason`."),
        Problems))]
async fn check_definitions(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<Json<DefinitionCheck>> {
    let id: InstanceId = parse_id(&text, "instance")?;
    let observation = tool_approvals::refresh(&cx, web.ops(), &organization_id, &id).await?;
    Ok(Json(DefinitionCheck { added: observation.added.len(), pending: observation.pending }))
}
