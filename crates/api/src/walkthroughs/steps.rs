//! `/walkthroughs/{id}/steps`: the steps of the draft.

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use waypost_core::chain::StepPosition;
use waypost_core::id::{StepId, WalkthroughId};
use waypost_core::step::StepContent;
use waypost_core::{Code, Error, Result};
use waypost_ops::walkthroughs::{self, draft};

use super::dto::{self, Step, StepDeleteResult, StepEditResult, StepUpdate};
use super::{created, parse_id, target, walkthrough_id};
use crate::Web;
use crate::extract::{IfMatch, Json, Path, Scope, nullable, with_etag};
use crate::page::Page;
use crate::problem::{ApiError, ApiResult, Problems};
use crate::routes::{Routes, routes};

/// The operations on steps.
pub(super) fn routes() -> Routes {
    Routes::new()
        .routes(routes!(list, create))
        .routes(routes!(get, update, delete))
        .routes(routes!(move_to))
        .routes(routes!(duplicate))
        .routes(routes!(restore))
}

pub(super) fn step_id(text: &str) -> Result<StepId> {
    parse_id(text, "step")
}

/// A step to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct StepCreate {
    /// The author's key for the step. Unique in the walkthrough.
    #[schema(max_length = 256)]
    key: Option<String>,
    #[schema(min_length = 1, max_length = 200)]
    title: String,
    /// The title of the section that the step belongs to.
    #[schema(max_length = 200)]
    section_title: Option<String>,
    /// The Markdown content shown to the end user.
    #[schema(max_length = 65536)]
    content: Option<String>,
    /// Text for the agent: how to introduce the step.
    #[schema(max_length = 65536)]
    introduction_for_agent: Option<String>,
    /// Text for the agent: background information.
    #[schema(max_length = 65536)]
    context_for_agent: Option<String>,
    /// Text for the agent: operations to carry out.
    #[schema(max_length = 65536)]
    operations_for_agent: Option<String>,
    /// Custom metadata.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Map<String, Value>>,
    /// The ID of the step after which to insert the new one. Null inserts it first, absent inserts it last.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    after: Option<Option<String>>,
}

/// Parses the position of a step: after another step, first or last.
fn position(after: Option<Option<String>>) -> Result<StepPosition> {
    match after {
        None => Ok(StepPosition::Last),
        Some(None) => Ok(StepPosition::First),
        Some(Some(text)) => text.parse().map(StepPosition::After).map_err(|_| {
            Error::invalid(
                "after",
                "`after` must be the ID of a step of this walkthrough, or null for the first position.",
            )
        }),
    }
}

impl StepCreate {
    fn into_new_step(self) -> Result<draft::NewStep> {
        Ok(draft::NewStep {
            position: position(self.after)?,
            key: self.key,
            content: StepContent {
                title: self.title,
                section_title: self.section_title,
                content: self.content.unwrap_or_default(),
                introduction_for_agent: self.introduction_for_agent,
                context_for_agent: self.context_for_agent,
                operations_for_agent: self.operations_for_agent,
                metadata: self.metadata.unwrap_or_default(),
            },
        })
    }
}

/// Adds the current step to a `precondition_failed` error, so that a client can show both versions. `current` is null
/// if the step was deleted, or if `step` is `None`.
async fn conflict(
    scope: &Scope,
    web: &Web,
    walkthrough: &WalkthroughId,
    step: Option<&StepId>,
    error: Error,
) -> ApiError {
    if error.code != Code::PreconditionFailed {
        return error.into();
    }
    let Some(step) = step else { return error.with("current", Value::Null).into() };
    match draft::get_step(&scope.cx, web.ops(), &scope.organization_id, walkthrough, step).await {
        Ok(current) => {
            let StepEditResult { revision, step } = current.into();
            let current = serde_json::to_value(step).unwrap_or(Value::Null);
            error.with("revision", revision).with("current", current).into()
        }
        Err(missing) if missing.code == Code::StepNotFound => error.with("current", Value::Null).into(),
        Err(_) => error.into(),
    }
}

/// Lists the steps of the draft in order.
///
/// The list is complete, with at most 500 steps: `next_cursor` is always null.
#[utoipa::path(get, path = "/walkthroughs/{id}/steps", tag = "steps", operation_id = "list_steps",
    params(("id" = String, Path, description = "The ID of the walkthrough (`wt_…`).")),
    responses((status = 200, body = Page<Step>), Problems))]
async fn list(State(web): State<Web>, scope: Scope, Path(id): Path<String>) -> ApiResult<Response> {
    let id = walkthrough_id(&id)?;
    let draft = walkthroughs::get_draft(&scope.cx, web.ops(), &scope.organization_id, &id).await?;
    let steps = dto::steps(&draft.walkthrough, &draft.steps);
    Ok(with_etag(draft.walkthrough.revision, Json(Page::complete(steps))))
}

/// Adds a step to the draft.
#[utoipa::path(post, path = "/walkthroughs/{id}/steps", tag = "steps", operation_id = "create_step",
    params(("id" = String, Path, description = "The ID of the walkthrough (`wt_…`)."),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of the walkthrough.")),
    request_body = StepCreate, responses((status = 201, body = StepEditResult), Problems))]
async fn create(
    State(web): State<Web>,
    scope: Scope,
    Path(id): Path<String>,
    if_match: IfMatch,
    Json(new): Json<StepCreate>,
) -> ApiResult<Response> {
    let id = walkthrough_id(&id)?;
    match draft::add_step(&scope.cx, web.ops(), target(&scope, &id, if_match), new.into_new_step()?).await {
        Ok(edited) => Ok(created_response(&id, edited)),
        Err(error) => Err(conflict(&scope, &web, &id, None, error).await),
    }
}

fn created_response(id: &WalkthroughId, edited: draft::StepEdit) -> Response {
    let location = format!("/api/v1/walkthroughs/{id}/steps/{}", edited.step.id);
    let body = StepEditResult::from(edited);
    created(&location, body.revision, Json(body))
}

pub(super) async fn edit_response(
    scope: &Scope,
    web: &Web,
    id: &WalkthroughId,
    step: &StepId,
    edited: Result<draft::StepEdit>,
) -> ApiResult<Response> {
    match edited {
        Ok(edited) => {
            let body = StepEditResult::from(edited);
            Ok(with_etag(body.revision, Json(body)))
        }
        Err(error) => Err(conflict(scope, web, id, Some(step), error).await),
    }
}

/// Returns a step of the draft.
#[utoipa::path(get, path = "/walkthroughs/{id}/steps/{step_id}", tag = "steps", operation_id = "get_step",
    params(("id" = String, Path, description = "The ID of the walkthrough (`wt_…`)."),
        ("step_id" = String, Path, description = "The ID of the step (`ws_…`).")),
    responses((status = 200, body = Step), Problems))]
async fn get(State(web): State<Web>, scope: Scope, Path((id, step)): Path<(String, String)>) -> ApiResult<Response> {
    let (id, step) = (walkthrough_id(&id)?, step_id(&step)?);
    let current = draft::get_step(&scope.cx, web.ops(), &scope.organization_id, &id, &step).await?;
    let StepEditResult { revision, step } = current.into();
    Ok(with_etag(revision, Json(step)))
}

/// Updates a step.
///
/// A 412 response contains the current step in `revision` and `current`.
#[utoipa::path(patch, path = "/walkthroughs/{id}/steps/{step_id}", tag = "steps", operation_id = "update_step",
    params(("id" = String, Path, description = "The ID of the walkthrough (`wt_…`)."),
        ("step_id" = String, Path, description = "The ID of the step (`ws_…`)."),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of the walkthrough.")),
    request_body = StepUpdate, responses((status = 200, body = StepEditResult), Problems))]
async fn update(
    State(web): State<Web>,
    scope: Scope,
    Path((id, step)): Path<(String, String)>,
    if_match: IfMatch,
    Json(change): Json<StepUpdate>,
) -> ApiResult<Response> {
    let (id, step) = (walkthrough_id(&id)?, step_id(&step)?);
    let edited = draft::patch_step(&scope.cx, web.ops(), target(&scope, &id, if_match), &step, change.into()).await;
    edit_response(&scope, &web, &id, &step, edited).await
}

/// Deletes a step from the draft.
///
/// Published versions and the progress of end users keep the step. It can be restored with `/restore`.
#[utoipa::path(delete, path = "/walkthroughs/{id}/steps/{step_id}", tag = "steps", operation_id = "delete_step",
    params(("id" = String, Path, description = "The ID of the walkthrough (`wt_…`)."),
        ("step_id" = String, Path, description = "The ID of the step (`ws_…`)."),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of the walkthrough.")),
    responses((status = 200, body = StepDeleteResult), Problems))]
async fn delete(
    State(web): State<Web>,
    scope: Scope,
    Path((id, step)): Path<(String, String)>,
    if_match: IfMatch,
) -> ApiResult<Response> {
    let (id, step) = (walkthrough_id(&id)?, step_id(&step)?);
    match draft::delete_step(&scope.cx, web.ops(), target(&scope, &id, if_match), &step).await {
        Ok(deletion) => {
            let body = StepDeleteResult::from(deletion);
            Ok(with_etag(body.revision, Json(body)))
        }
        Err(error) => Err(conflict(&scope, &web, &id, Some(&step), error).await),
    }
}

/// The new position of a step.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct StepMove {
    /// The ID of the step after which to move this one. Null moves it to the first position.
    #[schema(required)]
    after: Option<String>,
}

/// Moves a step.
#[utoipa::path(post, path = "/walkthroughs/{id}/steps/{step_id}/move", tag = "steps", operation_id = "move_step",
    params(("id" = String, Path, description = "The ID of the walkthrough (`wt_…`)."),
        ("step_id" = String, Path, description = "The ID of the step (`ws_…`)."),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of the walkthrough.")),
    request_body = StepMove, responses((status = 200, body = StepEditResult), Problems))]
async fn move_to(
    State(web): State<Web>,
    scope: Scope,
    Path((id, step)): Path<(String, String)>,
    if_match: IfMatch,
    Json(to): Json<StepMove>,
) -> ApiResult<Response> {
    let (id, step, to) = (walkthrough_id(&id)?, step_id(&step)?, position(Some(to.after))?);
    let edited = draft::move_step(&scope.cx, web.ops(), target(&scope, &id, if_match), &step, &to).await;
    edit_response(&scope, &web, &id, &step, edited).await
}

/// Duplicates a step. The copy is inserted after the original.
#[utoipa::path(post, path = "/walkthroughs/{id}/steps/{step_id}/duplicate", tag = "steps",
    operation_id = "duplicate_step",
    params(("id" = String, Path, description = "The ID of the walkthrough (`wt_…`)."),
        ("step_id" = String, Path, description = "The ID of the step (`ws_…`)."),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of the walkthrough.")),
    responses((status = 201, body = StepEditResult), Problems))]
async fn duplicate(
    State(web): State<Web>,
    scope: Scope,
    Path((id, step)): Path<(String, String)>,
    if_match: IfMatch,
) -> ApiResult<Response> {
    let (id, step) = (walkthrough_id(&id)?, step_id(&step)?);
    match draft::duplicate_step(&scope.cx, web.ops(), target(&scope, &id, if_match), &step).await {
        Ok(edited) => Ok(created_response(&id, edited)),
        Err(error) => Err(conflict(&scope, &web, &id, Some(&step), error).await),
    }
}

/// A deleted step to restore.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct StepRestore {
    step: StepSnapshot,
    /// The ID of the step after which to insert the restored one. Null inserts it first, absent inserts it last.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    after: Option<Option<String>>,
}

/// A step as returned by its deletion. `id`, `position` and `missing` are ignored, because the path identifies the
/// step.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct StepSnapshot {
    id: Option<String>,
    position: Option<u64>,
    missing: Option<Vec<String>>,
    #[schema(max_length = 256)]
    key: Option<String>,
    #[schema(min_length = 1, max_length = 200)]
    title: String,
    #[schema(max_length = 200)]
    section_title: Option<String>,
    #[schema(max_length = 65536)]
    content: Option<String>,
    #[schema(max_length = 65536)]
    introduction_for_agent: Option<String>,
    #[schema(max_length = 65536)]
    context_for_agent: Option<String>,
    #[schema(max_length = 65536)]
    operations_for_agent: Option<String>,
    #[schema(value_type = Option<Object>)]
    metadata: Option<Map<String, Value>>,
}

/// Restores a deleted step with the same ID.
///
/// The step remains completed for end users who had completed it.
#[utoipa::path(post, path = "/walkthroughs/{id}/steps/{step_id}/restore", tag = "steps",
    operation_id = "restore_step",
    params(("id" = String, Path, description = "The ID of the walkthrough (`wt_…`)."),
        ("step_id" = String, Path, description = "The ID of the step (`ws_…`)."),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of the walkthrough.")),
    request_body = StepRestore, responses((status = 201, body = StepEditResult), Problems))]
async fn restore(
    State(web): State<Web>,
    scope: Scope,
    Path((id, step)): Path<(String, String)>,
    if_match: IfMatch,
    Json(StepRestore { step: snapshot, after }): Json<StepRestore>,
) -> ApiResult<Response> {
    let (id, step) = (walkthrough_id(&id)?, step_id(&step)?);
    let new = StepCreate {
        key: snapshot.key,
        title: snapshot.title,
        section_title: snapshot.section_title,
        content: snapshot.content,
        introduction_for_agent: snapshot.introduction_for_agent,
        context_for_agent: snapshot.context_for_agent,
        operations_for_agent: snapshot.operations_for_agent,
        metadata: snapshot.metadata,
        after,
    };
    match draft::restore_step(&scope.cx, web.ops(), target(&scope, &id, if_match), &step, new.into_new_step()?).await {
        Ok(edited) => Ok(created_response(&id, edited)),
        Err(error) => Err(conflict(&scope, &web, &id, Some(&step), error).await),
    }
}
