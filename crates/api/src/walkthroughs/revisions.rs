//! `/walkthroughs/{id}/steps/{step_id}/revisions`: the revision history of a step.

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use waypost_core::revision::{self, StepRevisionOperation};
use waypost_core::{Error, Result};
use waypost_ops::walkthroughs::revisions::{self, DeletedStep, ListedRevision};

use super::dto::StepEditResult;
use super::steps::{edit_response, step_id};
use super::{target, walkthrough_id};
use crate::Web;
use crate::extract::{IfMatch, Json, Path, Query, Scope};
use crate::page::{Page, Paging};
use crate::problem::{ApiResult, Problems};
use crate::routes::{Routes, routes};

/// The operations on revisions.
pub(super) fn routes() -> Routes {
    Routes::new().routes(routes!(list)).routes(routes!(get)).routes(routes!(restore)).routes(routes!(list_deleted))
}

/// A revision of a step, without its content.
#[derive(Debug, Serialize, ToSchema)]
struct StepRevisionSummary {
    /// The number of the revision within the step, starting at 1.
    number: u32,
    act: StepRevisionOperation,
    /// The ID of the user or API key, or `operator` for the command line. Empty if unknown.
    actor: String,
    /// The user's email or the API key's name. Null if unknown.
    actor_name: Option<String>,
    /// The number of the revision whose content was restored. Null if the revision is not a restoration.
    restored_from: Option<u32>,
    /// The title of the step.
    title: String,
    /// The time of the first edit.
    #[schema(format = DateTime)]
    created_at: String,
    /// The time of the last edit.
    #[schema(format = DateTime)]
    updated_at: String,
    /// Whether this is the current revision in the draft.
    is_current: bool,
}

impl From<ListedRevision> for StepRevisionSummary {
    fn from(ListedRevision { info, actor_name }: ListedRevision) -> Self {
        Self {
            number: info.number,
            act: info.operation,
            actor: info.actor,
            actor_name,
            restored_from: info.restored_from,
            title: info.title,
            created_at: info.created_at.rfc3339(),
            updated_at: info.updated_at.rfc3339(),
            is_current: info.is_current,
        }
    }
}

/// A revision of a step with its content.
#[derive(Debug, Serialize, ToSchema)]
struct StepRevision {
    #[serde(flatten)]
    summary: StepRevisionSummary,
    key: Option<String>,
    section_title: Option<String>,
    content: String,
    introduction_for_agent: Option<String>,
    context_for_agent: Option<String>,
    operations_for_agent: Option<String>,
    #[schema(value_type = Object)]
    metadata: Map<String, Value>,
}

impl StepRevision {
    fn new(listed: ListedRevision, revision: revision::StepRevision) -> Self {
        let content = revision.content;
        Self {
            summary: listed.into(),
            key: revision.key,
            section_title: content.section_title,
            content: content.content,
            introduction_for_agent: content.introduction_for_agent,
            context_for_agent: content.context_for_agent,
            operations_for_agent: content.operations_for_agent,
            metadata: content.metadata,
        }
    }
}

/// A step that was deleted from the draft and can be restored.
#[derive(Debug, Serialize, ToSchema)]
struct DeletedStepSummary {
    #[schema(example = "ws_0123456789abcdef")]
    id: String,
    /// The revision created by the deletion. Restore this revision to restore the step.
    revision: StepRevisionSummary,
}

impl From<DeletedStep> for DeletedStepSummary {
    fn from(deleted: DeletedStep) -> Self {
        Self { id: deleted.id.to_string(), revision: deleted.revision.into() }
    }
}

/// Parses the number of a revision. A malformed number results in `not_found`.
fn number(text: &str) -> Result<u32> {
    text.parse().map_err(|_| Error::not_found("revision"))
}

/// Lists the revisions of a step, newest first, without their content.
///
/// A deleted step keeps its history. Edits by one user within 10 minutes share a revision; every other operation
/// creates a new one. A revision is kept for 90 days after it is superseded. A step keeps at most 1,000 revisions and 8
/// MiB.
#[utoipa::path(get, path = "/walkthroughs/{id}/steps/{step_id}/revisions", tag = "steps",
    operation_id = "list_step_revisions",
    params(("id" = String, Path, description = "The ID of the walkthrough (`wt_…`)."),
        ("step_id" = String, Path, description = "The ID of the step (`ws_…`)."), Paging),
    responses((status = 200, body = Page<StepRevisionSummary>), Problems))]
async fn list(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path((id, step)): Path<(String, String)>,
    Query(paging): Query<Paging>,
) -> ApiResult<Json<Page<StepRevisionSummary>>> {
    let (id, step) = (walkthrough_id(&id)?, step_id(&step)?);
    let (before, limit) = (paging.parse_cursor::<u32>()?, Some(paging.limit()?));
    let page = revisions::list(&cx, web.ops(), &organization_id, &id, &step, before, limit).await?;
    let next_cursor = page.next_before.map(|number| number.to_string());
    Ok(Json(Page { items: page.items.into_iter().map(Into::into).collect(), next_cursor }))
}

/// Returns a revision of a step with its content.
#[utoipa::path(get, path = "/walkthroughs/{id}/steps/{step_id}/revisions/{number}", tag = "steps",
    operation_id = "get_step_revision",
    params(("id" = String, Path, description = "The ID of the walkthrough (`wt_…`)."),
        ("step_id" = String, Path, description = "The ID of the step (`ws_…`)."),
        ("number" = u32, Path, description = "The number of the revision.")),
    responses((status = 200, body = StepRevision), Problems))]
async fn get(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path((id, step, revision)): Path<(String, String, String)>,
) -> ApiResult<Json<StepRevision>> {
    let (id, step, number) = (walkthrough_id(&id)?, step_id(&step)?, number(&revision)?);
    let (listed, revision) = revisions::get(&cx, web.ops(), &organization_id, &id, &step, number).await?;
    Ok(Json(StepRevision::new(listed, revision)))
}

/// Restores a step to a revision.
///
/// The restored content becomes a new revision. A deleted step is restored with the same ID, so it remains
/// completed for end users who had completed it.
#[utoipa::path(post, path = "/walkthroughs/{id}/steps/{step_id}/revisions/{number}/restore", tag = "steps",
    operation_id = "restore_step_revision",
    params(("id" = String, Path, description = "The ID of the walkthrough (`wt_…`)."),
        ("step_id" = String, Path, description = "The ID of the step (`ws_…`)."),
        ("number" = u32, Path, description = "The number of the revision."),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of the walkthrough.")),
    responses((status = 200, body = StepEditResult), Problems))]
async fn restore(
    State(web): State<Web>,
    scope: Scope,
    Path((id, step, revision)): Path<(String, String, String)>,
    if_match: IfMatch,
) -> ApiResult<Response> {
    let (id, step, number) = (walkthrough_id(&id)?, step_id(&step)?, number(&revision)?);
    let edited = revisions::restore(&scope.cx, web.ops(), target(&scope, &id, if_match), &step, number).await;
    edit_response(&scope, &web, &id, &step, edited).await
}

/// Lists the steps that were deleted from the draft in the last 90 days, most recently deleted first.
///
/// The list has at most 500 steps: `next_cursor` is always null.
#[utoipa::path(get, path = "/walkthroughs/{id}/deleted-steps", tag = "steps", operation_id = "list_deleted_steps",
    params(("id" = String, Path, description = "The ID of the walkthrough (`wt_…`).")),
    responses((status = 200, body = Page<DeletedStepSummary>), Problems))]
async fn list_deleted(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(id): Path<String>,
) -> ApiResult<Json<Page<DeletedStepSummary>>> {
    let id = walkthrough_id(&id)?;
    let deleted = revisions::list_deleted(&cx, web.ops(), &organization_id, &id).await?;
    Ok(Json(Page::complete(deleted.into_iter().map(Into::into).collect())))
}
