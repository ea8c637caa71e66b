//! `/walkthroughs/{id}/steps`: the draft, step by step.

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use waypost_core::chain::StepPosition;
use waypost_core::id::{StepId, WalkthroughId};
use waypost_core::step::StepContent;
use waypost_core::{Code, Error, Result};
use waypost_ops::walkthroughs::{self, draft};

use super::dto::{self, Step, StepDeleteResult, StepEditResult, StepUpdate};
use super::{created, id, target, walkthrough_id};
use crate::Web;
use crate::api::extract::{IfMatch, Json, Path, Scope, nullable, with_etag};
use crate::api::page::Page;
use crate::problem::{ApiError, ApiResult, Problems};

/// The operations on steps.
pub(super) fn routes() -> OpenApiRouter<Web> {
    OpenApiRouter::new()
        .routes(routes!(list, add))
        .routes(routes!(show, update, remove))
        .routes(routes!(move_to))
        .routes(routes!(duplicate))
        .routes(routes!(restore))
}

pub(super) fn step_id(text: &str) -> Result<StepId> {
    id(text, "step")
}

/// A step to add.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct StepCreate {
    /// Unique in the walkthrough.
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
    /// The step to stand behind; null for the first place, absent for the last.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    after: Option<Option<String>>,
}

/// Where a step is to stand: after which one, or first.
fn place(after: Option<Option<String>>) -> Result<StepPosition> {
    match after {
        None => Ok(StepPosition::Last),
        Some(None) => Ok(StepPosition::First),
        Some(Some(text)) => text.parse().map(StepPosition::After).map_err(|_| {
            Error::invalid("after", "`after` is the id of a step of this walkthrough, or null for the first place.")
        }),
    }
}

impl StepCreate {
    fn into_new_step(self) -> Result<draft::NewStep> {
        Ok(draft::NewStep {
            place: place(self.after)?,
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

/// A step with its place, which only the chain as a whole tells.
async fn placed(scope: &Scope, web: &Web, id: &WalkthroughId, edited: draft::StepEdit) -> Result<StepEditResult> {
    let draft = walkthroughs::get_draft(&scope.cx, web.ops(), &scope.organization_id, id).await?;
    let at = draft.steps.iter().position(|step| step.id == edited.step.id).unwrap_or(0);
    let step = Step::new(draft.walkthrough.kind, at + 1, &edited.step);
    Ok(StepEditResult { revision: edited.revision, step })
}

/// With the step as it is now, when the edit was made from an older revision: both can be shown then. `current` is null
/// when the step was deleted.
async fn conflict(
    scope: &Scope,
    web: &Web,
    (walkthrough, step): (&WalkthroughId, Option<&StepId>),
    error: Error,
) -> ApiError {
    if error.code != Code::PreconditionFailed {
        return error.into();
    }
    let Ok(draft) = walkthroughs::get_draft(&scope.cx, web.ops(), &scope.organization_id, walkthrough).await else {
        return error.into();
    };
    let found = step.and_then(|id| draft.steps.iter().position(|step| step.id == *id));
    let current = found.map(|at| Step::new(draft.walkthrough.kind, at + 1, &draft.steps[at]));
    let current = serde_json::to_value(current).unwrap_or(Value::Null);
    error.with("revision", draft.walkthrough.revision).with("current", current).into()
}

/// The steps of the draft, in order: 500 at most, on one page.
#[utoipa::path(get, path = "/walkthroughs/{id}/steps", tag = "steps", operation_id = "list_steps",
    params(("id" = String, Path)), responses((status = 200, body = Page<Step>), Problems))]
async fn list(State(web): State<Web>, scope: Scope, Path(id): Path<String>) -> ApiResult<Response> {
    let id = walkthrough_id(&id)?;
    let draft = walkthroughs::get_draft(&scope.cx, web.ops(), &scope.organization_id, &id).await?;
    let steps = dto::steps(&draft.walkthrough, &draft.steps);
    Ok(with_etag(draft.walkthrough.revision, Json(Page::complete(steps))))
}

/// Adds a step to the draft.
#[utoipa::path(post, path = "/walkthroughs/{id}/steps", tag = "steps", operation_id = "create_step",
    params(("id" = String, Path), ("If-Match" = Option<String>, Header)),
    request_body = StepCreate, responses((status = 201, body = StepEditResult), Problems))]
async fn add(
    State(web): State<Web>,
    scope: Scope,
    Path(id): Path<String>,
    seen: IfMatch,
    Json(new): Json<StepCreate>,
) -> ApiResult<Response> {
    let id = walkthrough_id(&id)?;
    match draft::add_step(&scope.cx, web.ops(), target(&scope, &id, seen), new.into_new_step()?).await {
        Ok(edited) => answer_created(&scope, &web, &id, edited).await,
        Err(error) => Err(conflict(&scope, &web, (&id, None), error).await),
    }
}

async fn answer_created(scope: &Scope, web: &Web, id: &WalkthroughId, edited: draft::StepEdit) -> ApiResult<Response> {
    let location = format!("/api/v1/walkthroughs/{id}/steps/{}", edited.step.id);
    let body = placed(scope, web, id, edited).await?;
    Ok(created(&location, body.revision, Json(body)))
}

pub(super) async fn answer(
    scope: &Scope,
    web: &Web,
    (id, step): (&WalkthroughId, &StepId),
    edited: Result<draft::StepEdit>,
) -> ApiResult<Response> {
    match edited {
        Ok(edited) => {
            let body = placed(scope, web, id, edited).await?;
            Ok(with_etag(body.revision, Json(body)))
        }
        Err(error) => Err(conflict(scope, web, (id, Some(step)), error).await),
    }
}

/// A step of the draft.
#[utoipa::path(get, path = "/walkthroughs/{id}/steps/{step_id}", tag = "steps", operation_id = "get_step",
    params(("id" = String, Path), ("step_id" = String, Path)), responses((status = 200, body = Step), Problems))]
async fn show(State(web): State<Web>, scope: Scope, Path((id, step)): Path<(String, String)>) -> ApiResult<Response> {
    let (id, step) = (walkthrough_id(&id)?, step_id(&step)?);
    let found = draft::get_step(&scope.cx, web.ops(), &scope.organization_id, &id, &step).await?;
    let body = placed(&scope, &web, &id, found).await?;
    Ok(with_etag(body.revision, Json(body.step)))
}

/// Changes fields of a step. A 412 holds what is there now: `revision` and `current`.
#[utoipa::path(patch, path = "/walkthroughs/{id}/steps/{step_id}", tag = "steps", operation_id = "update_step",
    params(("id" = String, Path), ("step_id" = String, Path), ("If-Match" = Option<String>, Header)),
    request_body = StepUpdate, responses((status = 200, body = StepEditResult), Problems))]
async fn update(
    State(web): State<Web>,
    scope: Scope,
    Path((id, step)): Path<(String, String)>,
    seen: IfMatch,
    Json(change): Json<StepUpdate>,
) -> ApiResult<Response> {
    let (id, step) = (walkthrough_id(&id)?, step_id(&step)?);
    let edited = draft::patch_step(&scope.cx, web.ops(), target(&scope, &id, seen), &step, change.into()).await;
    answer(&scope, &web, (&id, &step), edited).await
}

/// Deletes a step from the draft. Versions keep it, and so does who completed it; `/restore` brings it back.
#[utoipa::path(delete, path = "/walkthroughs/{id}/steps/{step_id}", tag = "steps", operation_id = "delete_step",
    params(("id" = String, Path), ("step_id" = String, Path), ("If-Match" = Option<String>, Header)),
    responses((status = 200, body = StepDeleteResult), Problems))]
async fn remove(
    State(web): State<Web>,
    scope: Scope,
    Path((id, step)): Path<(String, String)>,
    seen: IfMatch,
) -> ApiResult<Response> {
    let (id, step) = (walkthrough_id(&id)?, step_id(&step)?);
    let before = walkthroughs::get_draft(&scope.cx, web.ops(), &scope.organization_id, &id).await?;
    match draft::delete_step(&scope.cx, web.ops(), target(&scope, &id, seen), &step).await {
        Ok(removed) => {
            let at = before.steps.iter().position(|other| other.id == step).unwrap_or(0);
            let body = StepDeleteResult::new(before.walkthrough.kind, at + 1, &removed);
            Ok(with_etag(body.revision, Json(body)))
        }
        Err(error) => Err(conflict(&scope, &web, (&id, Some(&step)), error).await),
    }
}

/// Where to move a step.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct StepMove {
    /// The step to stand behind; null for the first place.
    #[schema(required)]
    after: Option<String>,
}

/// Moves a step to another place.
#[utoipa::path(post, path = "/walkthroughs/{id}/steps/{step_id}/move", tag = "steps", operation_id = "move_step",
    params(("id" = String, Path), ("step_id" = String, Path), ("If-Match" = Option<String>, Header)),
    request_body = StepMove, responses((status = 200, body = StepEditResult), Problems))]
async fn move_to(
    State(web): State<Web>,
    scope: Scope,
    Path((id, step)): Path<(String, String)>,
    seen: IfMatch,
    Json(to): Json<StepMove>,
) -> ApiResult<Response> {
    let (id, step, to) = (walkthrough_id(&id)?, step_id(&step)?, place(Some(to.after))?);
    let edited = draft::move_step(&scope.cx, web.ops(), target(&scope, &id, seen), &step, &to).await;
    answer(&scope, &web, (&id, &step), edited).await
}

/// Puts another step with the same content behind this one.
#[utoipa::path(post, path = "/walkthroughs/{id}/steps/{step_id}/duplicate", tag = "steps",
    operation_id = "duplicate_step",
    params(("id" = String, Path), ("step_id" = String, Path), ("If-Match" = Option<String>, Header)),
    responses((status = 201, body = StepEditResult), Problems))]
async fn duplicate(
    State(web): State<Web>,
    scope: Scope,
    Path((id, step)): Path<(String, String)>,
    seen: IfMatch,
) -> ApiResult<Response> {
    let (id, step) = (walkthrough_id(&id)?, step_id(&step)?);
    match draft::duplicate_step(&scope.cx, web.ops(), target(&scope, &id, seen), &step).await {
        Ok(edited) => answer_created(&scope, &web, &id, edited).await,
        Err(error) => Err(conflict(&scope, &web, (&id, Some(&step)), error).await),
    }
}

/// A step to bring back.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct StepRestore {
    step: StepSnapshot,
    /// The step to stand behind; null for the first place, absent for the last.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    after: Option<Option<String>>,
}

/// A step as its deletion answered it. `id`, `position` and `missing` are taken and not looked at: the path names the step.
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

/// Brings a deleted step back under its id: who had completed it has completed it.
#[utoipa::path(post, path = "/walkthroughs/{id}/steps/{step_id}/restore", tag = "steps", operation_id = "restore_step",
    params(("id" = String, Path), ("step_id" = String, Path), ("If-Match" = Option<String>, Header)),
    request_body = StepRestore, responses((status = 201, body = StepEditResult), Problems))]
async fn restore(
    State(web): State<Web>,
    scope: Scope,
    Path((id, step)): Path<(String, String)>,
    seen: IfMatch,
    Json(StepRestore { step: was, after }): Json<StepRestore>,
) -> ApiResult<Response> {
    let (id, step) = (walkthrough_id(&id)?, step_id(&step)?);
    let new = StepCreate {
        key: was.key,
        title: was.title,
        section_title: was.section_title,
        content: was.content,
        introduction_for_agent: was.introduction_for_agent,
        context_for_agent: was.context_for_agent,
        operations_for_agent: was.operations_for_agent,
        metadata: was.metadata,
        after,
    };
    match draft::restore_step(&scope.cx, web.ops(), target(&scope, &id, seen), &step, new.into_new_step()?).await {
        Ok(edited) => answer_created(&scope, &web, &id, edited).await,
        Err(error) => Err(conflict(&scope, &web, (&id, Some(&step)), error).await),
    }
}
