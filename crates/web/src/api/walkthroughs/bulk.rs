//! `/walkthroughs/bulk` and `/walkthroughs/{id}/preview`.

use std::collections::HashMap;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use waypost_core::clean::FieldChange;
use waypost_core::id::{ServerId, StepId, WalkthroughId};
use waypost_core::{Code, Error, Result};
use waypost_ops::assignments::{self, AssignmentPatch};
use waypost_ops::walkthroughs::draft::{self, StepPatch};
use waypost_ops::walkthroughs::preview::{self, PreviewPoint};
use waypost_ops::walkthroughs::{self, EditTarget, publish};

use super::dto::StepUpdate;
use super::publish_impact::PublishImpactSummary;
use super::{id, walkthrough_id};
use crate::api::extract::{Json, Path, Scope};
use crate::api::page::Page;
use crate::problem::{self, ApiResult, Problems};
use crate::{Web, markdown};

/// Walkthroughs in one request at most.
const MAX_IDS: usize = 100;

/// The operations on several walkthroughs, and the preview.
pub(super) fn routes() -> OpenApiRouter<Web> {
    OpenApiRouter::new().routes(routes!(bulk)).routes(routes!(show_preview))
}

/// What to do with several walkthroughs.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum WalkthroughBulkAction {
    /// Publish their drafts.
    Publish,
    /// Take them out of use.
    Archive,
    /// Take them out of the archive.
    Unarchive,
    /// Place them on `server_id`.
    Assign,
    /// Move them to the trash.
    Delete,
}

/// Several walkthroughs, and what to do with them.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WalkthroughBulkRequest {
    action: WalkthroughBulkAction,
    #[schema(min_items = 1, max_items = 100)]
    ids: Vec<String>,
    /// Where to, for `assign`.
    server_id: Option<String>,
    /// `publish` does nothing without it: the answer is 409 `confirmation_required` and says in `impact` what publishing
    /// would do.
    #[serde(default)]
    confirm: bool,
    /// Revisions of drafts by the id of their walkthrough, such as those in `impact`. A walkthrough whose draft has another
    /// revision by now is refused with 412.
    #[serde(default)]
    revisions: HashMap<String, u32>,
}

/// What became of one of them.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WalkthroughBulkResult {
    /// The id as it was sent.
    pub id: String,
    pub ok: bool,
    /// The status that the request would have had for this one alone.
    pub status: u16,
    /// Why it was refused; null when it was not.
    pub code: Option<&'static str>,
    /// In words.
    pub detail: Option<String>,
}

/// Does the same to several walkthroughs. Each is an act of its own: what is refused for one is done for the others, and the
/// answer says which. `publish` has to be confirmed after its impact was shown.
#[utoipa::path(post, path = "/walkthroughs/bulk", tag = "walkthroughs", operation_id = "bulk_walkthroughs",
    request_body = WalkthroughBulkRequest, responses((status = 200, body = Page<WalkthroughBulkResult>), Problems))]
async fn bulk(
    State(web): State<Web>,
    scope: Scope,
    Json(asked): Json<WalkthroughBulkRequest>,
) -> ApiResult<Json<Page<WalkthroughBulkResult>>> {
    let server = asked.server_id.map(|text| id::<ServerId>(&text, "server")).transpose()?;
    check_count(&asked.ids)?;
    if matches!(asked.action, WalkthroughBulkAction::Publish) && !asked.confirm {
        return Err(unconfirmed(&web, &scope, &asked.ids).await?.into());
    }
    let asked_for = asked.ids.into_iter().map(|id| {
        let revision = asked.revisions.get(&id).copied();
        (id, revision)
    });
    let asked_for = asked_for.collect();
    Ok(Json(Page::complete(run(&web, &scope, (asked.action, server), asked_for).await?)))
}

fn check_count<T>(ids: &[T]) -> Result<()> {
    if ids.is_empty() || ids.len() > MAX_IDS {
        return Err(Error::invalid("ids", format!("`ids` are 1 to {MAX_IDS} walkthroughs.")));
    }
    Ok(())
}

/// The refusal of a publication that was not confirmed, with its impact.
async fn unconfirmed(web: &Web, scope: &Scope, ids: &[String]) -> Result<Error> {
    let mut impact = Vec::with_capacity(ids.len());
    for text in ids {
        impact.push(PublishImpactSummary::find(web, (&scope.cx, &scope.organization_id), text).await?);
    }
    let message = "Nothing was published. Send `confirm` true to publish them; `impact` says what that means.";
    let impact = serde_json::to_value(impact).map_err(Error::internal)?;
    Ok(Error::new(Code::ConfirmationRequired, message).with("field", "confirm").with("impact", impact))
}

/// Does `action` to each of `ids`; one that comes with a revision only if its draft is still at this revision.
///
/// # Errors
/// `invalid_arguments` when there are none or too many, or `assign` does not say where to.
pub(crate) async fn run(
    web: &Web,
    scope: &Scope,
    (action, server): (WalkthroughBulkAction, Option<ServerId>),
    ids: Vec<(String, Option<u32>)>,
) -> Result<Vec<WalkthroughBulkResult>> {
    check_count(&ids)?;
    if matches!(action, WalkthroughBulkAction::Assign) && server.is_none() {
        return Err(Error::invalid("server_id", "`server_id` says on which server to place them."));
    }
    let mut outcomes = Vec::with_capacity(ids.len());
    for (text, revision) in ids {
        let done = match walkthrough_id(&text) {
            Ok(id) => one(web, scope, (action, server.as_ref()), (&id, revision)).await,
            Err(error) => Err(error),
        };
        outcomes.push(match done {
            Ok(()) => WalkthroughBulkResult { id: text, ok: true, status: 200, code: None, detail: None },
            Err(error) => {
                problem::log(&error);
                let status = problem::status(error.code).as_u16();
                WalkthroughBulkResult {
                    id: text,
                    ok: false,
                    status,
                    code: Some(error.code.as_str()),
                    detail: Some(error.message),
                }
            }
        });
    }
    Ok(outcomes)
}

async fn one(
    web: &Web,
    scope: &Scope,
    (action, server): (WalkthroughBulkAction, Option<&ServerId>),
    (id, revision): (&WalkthroughId, Option<u32>),
) -> Result<()> {
    let (cx, ops, org) = (&scope.cx, web.ops(), &scope.organization_id);
    let target = EditTarget { organization_id: org, walkthrough_id: id, revision };
    match action {
        WalkthroughBulkAction::Publish => publish::publish(cx, ops, target, false).await.map(drop),
        WalkthroughBulkAction::Archive => publish::archive(cx, ops, target).await.map(drop),
        WalkthroughBulkAction::Unarchive => publish::unarchive(cx, ops, target).await.map(drop),
        WalkthroughBulkAction::Delete => walkthroughs::delete(cx, ops, target).await,
        WalkthroughBulkAction::Assign => match server {
            Some(server) => assignments::assign(cx, ops, org, (server, id), AssignmentPatch::default()).await.map(drop),
            None => Err(Error::not_found("server")),
        },
    }
}

/// How to show the draft.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum PreviewFormat {
    /// As the author wrote it.
    Markdown,
    /// As the agent receives it: text block and structured content.
    Agent,
    /// As HTML that is safe to show.
    Html,
}

/// What to show.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PreviewRequest {
    format: PreviewFormat,
    /// Only this step; the whole walkthrough when absent.
    step_id: Option<String>,
    /// What this step holds otherwise than the draft: what is typed and not saved yet.
    step: Option<StepUpdate>,
}

/// A step as it will be shown.
#[derive(Debug, Serialize, ToSchema)]
struct StepPreview {
    step_id: String,
    /// From 1.
    position: usize,
    title: String,
    section_title: Option<String>,
    /// With `markdown`: the content. With `agent`: the text block, exactly as the tool gives it.
    text: Option<String>,
    /// With `agent`: the structured content of the tool's answer.
    #[schema(value_type = Option<Object>)]
    structured: Option<Value>,
    /// With `html`: the content.
    html: Option<String>,
    /// What of the step is served otherwise than it was typed.
    changes: Vec<ServedChange>,
}

/// A field of a step that is served otherwise than it was typed.
#[derive(Debug, Serialize, ToSchema)]
struct ServedChange {
    field: &'static str,
    /// The first places; characters that cannot be seen are written as `\u{200b}`.
    excerpts: Vec<ServedExcerpt>,
    /// How many further places change.
    more: usize,
}

/// A place where a text changes.
#[derive(Debug, Serialize, ToSchema)]
struct ServedExcerpt {
    typed: String,
    served: String,
}

impl From<FieldChange> for ServedChange {
    fn from(FieldChange { field, excerpts, more }: FieldChange) -> Self {
        let excerpts = excerpts.into_iter().map(|(typed, served)| ServedExcerpt { typed, served }).collect();
        Self { field, excerpts, more }
    }
}

/// Shows steps of the draft as they will be shown to a user who has done all steps before them. Nothing is saved.
#[utoipa::path(post, path = "/walkthroughs/{id}/preview", tag = "walkthroughs", operation_id = "preview_walkthrough",
    params(("id" = String, Path)), request_body = PreviewRequest, responses((status = 200, body = Page<StepPreview>), Problems))]
async fn show_preview(
    State(web): State<Web>,
    scope: Scope,
    Path(walkthrough): Path<String>,
    Json(wanted): Json<PreviewRequest>,
) -> ApiResult<Json<Page<StepPreview>>> {
    let walkthrough = walkthrough_id(&walkthrough)?;
    if wanted.step.is_some() && wanted.step_id.is_none() {
        return Err(Error::invalid("step_id", "`step_id` says which step `step` is about.").into());
    }
    let (cx, ops, org) = (&scope.cx, web.ops(), &scope.organization_id);
    let found = match wanted.step_id {
        None => preview::render_all(cx, ops, org, &walkthrough).await?,
        Some(text) => {
            let step_id: StepId = id(&text, "step")?;
            let saved = draft::get_step(cx, ops, org, &walkthrough, &step_id).await?.step.content;
            let unsaved = wanted.step.map(|step| Box::new(StepPatch::from(step).apply(&saved)));
            vec![preview::render(cx, ops, org, &walkthrough, PreviewPoint::Step(step_id, unsaved)).await?]
        }
    };
    let shown = found.into_iter().filter_map(|it| {
        let step = it.step?;
        let content = step.content;
        let (text, structured, html) = match wanted.format {
            PreviewFormat::Markdown => (Some(content.content), None, None),
            PreviewFormat::Agent => (Some(it.answer.text), Some(it.answer.structured), None),
            PreviewFormat::Html => (None, None, Some(markdown::render(&content.content))),
        };
        Some(StepPreview {
            step_id: step.id.to_string(),
            position: it.completed + 1,
            changes: it.changes.into_iter().map(ServedChange::from).collect(),
            title: content.title,
            section_title: content.section_title,
            text,
            structured,
            html,
        })
    });
    Ok(Json(Page::complete(shown.collect())))
}
