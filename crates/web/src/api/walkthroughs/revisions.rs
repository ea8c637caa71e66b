//! `/walkthroughs/{id}/steps/{step_id}/revisions`: the history of a step.

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use waypost_core::revision::{self, RevisionOperation};
use waypost_core::{Error, Result};
use waypost_ops::walkthroughs::revisions::{self, DeletedStep, ListedRevision};

use super::dto::StepEditResult;
use super::steps::{answer, step_id};
use super::{target, walkthrough_id};
use crate::Web;
use crate::api::extract::{IfMatch, Json, Path, Query, Scope};
use crate::api::page::{Page, Paging};
use crate::problem::{ApiResult, Problems};

/// The operations on revisions.
pub(super) fn routes() -> OpenApiRouter<Web> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(restore))
        .routes(routes!(list_deleted))
}

/// The act that made a revision.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum StepRevisionOperation {
    /// The step as it was before its history was kept.
    Baseline,
    Add,
    /// Edits of one person within 10 minutes share a revision.
    Edit,
    Import,
    Restore,
    /// The revision holds what was deleted.
    Delete,
}

impl From<RevisionOperation> for StepRevisionOperation {
    fn from(act: RevisionOperation) -> Self {
        match act {
            RevisionOperation::Baseline => Self::Baseline,
            RevisionOperation::Add => Self::Add,
            RevisionOperation::Edit => Self::Edit,
            RevisionOperation::Import => Self::Import,
            RevisionOperation::Restore => Self::Restore,
            RevisionOperation::Delete => Self::Delete,
        }
    }
}

/// A revision of a step in its history.
#[derive(Debug, Serialize, ToSchema)]
struct StepRevisionSummary {
    /// Counts from 1 within the step.
    number: u32,
    act: StepRevisionOperation,
    /// The ID of the user or the key, `operator` for the command line, or empty if unknown.
    actor: String,
    /// The user's address or the key's name. `null` if unknown.
    actor_name: Option<String>,
    /// The revision whose content was restored.
    restored_from: Option<u32>,
    /// The step's title.
    title: String,
    /// When its first edit was made.
    #[schema(format = DateTime)]
    created_at: String,
    /// When its last edit was made.
    #[schema(format = DateTime)]
    updated_at: String,
    /// Whether the draft is at this revision.
    is_current: bool,
}

impl From<ListedRevision> for StepRevisionSummary {
    fn from(ListedRevision { head, actor_name }: ListedRevision) -> Self {
        Self {
            number: head.number,
            act: head.operation.into(),
            actor: head.actor,
            actor_name,
            restored_from: head.restored_from,
            title: head.title,
            created_at: head.created_at.rfc3339(),
            updated_at: head.updated_at.rfc3339(),
            is_current: head.is_current,
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
    /// Its deletion. Restore this revision to bring the step back.
    revision: StepRevisionSummary,
}

impl From<DeletedStep> for DeletedStepSummary {
    fn from(deleted: DeletedStep) -> Self {
        Self { id: deleted.id.to_string(), revision: deleted.revision.into() }
    }
}

/// The number of a revision in a path. A malformed one is that of no revision.
fn number(text: &str) -> Result<u32> {
    text.parse().map_err(|_| Error::not_found("revision"))
}

/// The revisions of a step, newest first, without their contents. A deleted step keeps its history.
///
/// The edits of one person within 10 minutes are one revision; every other act makes its own. A revision is kept for 90
/// days after another one took its place; a step has at most 1,000 revisions and 8 MiB of them.
#[utoipa::path(get, path = "/walkthroughs/{id}/steps/{step_id}/revisions", tag = "steps",
    operation_id = "list_step_revisions", params(("id" = String, Path), ("step_id" = String, Path), Paging),
    responses((status = 200, body = Page<StepRevisionSummary>), Problems))]
async fn list(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path((id, step)): Path<(String, String)>,
    Query(paging): Query<Paging>,
) -> ApiResult<Json<Page<StepRevisionSummary>>> {
    let (id, step) = (walkthrough_id(&id)?, step_id(&step)?);
    let which = (paging.after::<u32>()?, Some(paging.limit()?));
    let page = revisions::list(&cx, web.ops(), (&organization_id, &id), &step, which).await?;
    let next_cursor = page.next_before.map(|number| number.to_string());
    Ok(Json(Page { items: page.items.into_iter().map(Into::into).collect(), next_cursor }))
}

/// A revision of a step with its content.
#[utoipa::path(get, path = "/walkthroughs/{id}/steps/{step_id}/revisions/{number}", tag = "steps",
    operation_id = "get_step_revision",
    params(("id" = String, Path), ("step_id" = String, Path), ("number" = u32, Path)),
    responses((status = 200, body = StepRevision), Problems))]
async fn show(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path((id, step, revision)): Path<(String, String, String)>,
) -> ApiResult<Json<StepRevision>> {
    let (id, step, number) = (walkthrough_id(&id)?, step_id(&step)?, number(&revision)?);
    let (listed, revision) = revisions::get(&cx, web.ops(), (&organization_id, &id), &step, number).await?;
    Ok(Json(StepRevision::new(listed, revision)))
}

/// Makes a step what it was at a revision. The restored content becomes a new revision. A deleted step returns under its
/// ID, so that users who completed it have still completed it.
#[utoipa::path(post, path = "/walkthroughs/{id}/steps/{step_id}/revisions/{number}/restore", tag = "steps",
    operation_id = "restore_step_revision",
    params(("id" = String, Path), ("step_id" = String, Path), ("number" = u32, Path),
        ("If-Match" = Option<String>, Header)),
    responses((status = 200, body = StepEditResult), Problems))]
async fn restore(
    State(web): State<Web>,
    scope: Scope,
    Path((id, step, revision)): Path<(String, String, String)>,
    seen: IfMatch,
) -> ApiResult<Response> {
    let (id, step, number) = (walkthrough_id(&id)?, step_id(&step)?, number(&revision)?);
    let edited = revisions::restore(&scope.cx, web.ops(), target(&scope, &id, seen), &step, number).await;
    answer(&scope, &web, (&id, &step), edited).await
}

/// The steps that were deleted from the draft in the last 90 days, the latest deletion first: 500 at most, on one page.
#[utoipa::path(get, path = "/walkthroughs/{id}/deleted-steps", tag = "steps", operation_id = "list_deleted_steps",
    params(("id" = String, Path)), responses((status = 200, body = Page<DeletedStepSummary>), Problems))]
async fn list_deleted(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(id): Path<String>,
) -> ApiResult<Json<Page<DeletedStepSummary>>> {
    let id = walkthrough_id(&id)?;
    let deleted = revisions::list_deleted(&cx, web.ops(), &organization_id, &id).await?;
    Ok(Json(Page::complete(deleted.into_iter().map(Into::into).collect())))
}
