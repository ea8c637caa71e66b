//! `/walkthroughs/bulk` and `/walkthroughs/{id}/preview`.

use std::collections::HashMap;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use waypost_content::clean::FieldChange;
use waypost_core::id::{ServerId, StepId};
use waypost_core::{Code, Error, Result};
use waypost_http_kit::status;
use waypost_ops::walkthroughs::bulk::{self, BulkAction, BulkResult, WalkthroughBulkAction};
use waypost_ops::walkthroughs::draft::{self, StepPatch};
use waypost_ops::walkthroughs::impact;
use waypost_ops::walkthroughs::preview::{self, PreviewPoint};

use super::dto::StepUpdate;
use super::{parse_id, walkthrough_id};
use crate::Web;
use crate::extract::{Json, Path, Scope};
use crate::page::Page;
use crate::problem::{ApiResult, Problems};
use crate::routes::{Routes, routes};
use waypost_content::html;

/// The bulk operation and the preview operation.
pub(super) fn routes() -> Routes {
    Routes::new().routes(routes!(run_bulk_action)).routes(routes!(show_preview))
}

/// A bulk action on several walkthroughs.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WalkthroughBulkRequest {
    action: WalkthroughBulkAction,
    /// The IDs of the walkthroughs. At most 100.
    #[schema(min_items = 1, max_items = 100)]
    ids: Vec<String>,
    /// The server for `assign` (`srv_…`).
    server_id: Option<String>,
    /// Required for `publish`. If it is false, the response is 409 `confirmation_required`, with the impact of
    /// publishing in `impact`.
    #[serde(default)]
    confirm: bool,
    /// The expected revision of each draft by walkthrough ID, for example from `impact`. A walkthrough whose draft has
    /// another revision fails with 412. `assign` ignores them, because it does not change drafts.
    #[serde(default)]
    revisions: HashMap<String, u32>,
}

/// The result of a bulk action for one walkthrough.
#[derive(Debug, Serialize, ToSchema)]
struct WalkthroughBulkResult {
    /// The ID from the request.
    id: String,
    /// Whether the action succeeded.
    ok: bool,
    /// The HTTP status that a request for this walkthrough alone would return.
    status: u16,
    /// The error code. Null if the action succeeded.
    code: Option<&'static str>,
    /// The error message. Null if the action succeeded.
    detail: Option<String>,
}

impl From<BulkResult> for WalkthroughBulkResult {
    fn from(BulkResult { id, result }: BulkResult) -> Self {
        match result {
            Ok(()) => Self { id, ok: true, status: 200, code: None, detail: None },
            Err(error) => {
                status::log(&error);
                let status = status::of(error.code).as_u16();
                Self { id, ok: false, status, code: Some(error.code.as_str()), detail: Some(error.message) }
            }
        }
    }
}

/// Applies an action to several walkthroughs.
///
/// The action is applied to each walkthrough independently; the response contains a result for each of them. `publish`
/// must be confirmed.
#[utoipa::path(post, path = "/walkthroughs/bulk", tag = "walkthroughs", operation_id = "bulk_walkthroughs",
    request_body = WalkthroughBulkRequest, responses((status = 200, body = Page<WalkthroughBulkResult>), Problems))]
async fn run_bulk_action(
    State(web): State<Web>,
    scope: Scope,
    Json(request): Json<WalkthroughBulkRequest>,
) -> ApiResult<Json<Page<WalkthroughBulkResult>>> {
    let server = request.server_id.map(|text| parse_id::<ServerId>(&text, "server")).transpose()?;
    bulk::check_count(&request.ids)?;
    if matches!(request.action, WalkthroughBulkAction::Publish) && !request.confirm {
        return Err(confirmation_required(&web, &scope, &request.ids).await?.into());
    }
    let targets = request.ids.into_iter().map(|id| {
        let revision = request.revisions.get(&id).copied();
        (id, revision)
    });
    let action = BulkAction::new(request.action, server)?;
    let results = bulk::run(&scope.cx, web.ops(), &scope.organization_id, &action, targets.collect()).await?;
    Ok(Json(Page::complete(results.into_iter().map(WalkthroughBulkResult::from).collect())))
}

/// Returns the `confirmation_required` error with the impact of publishing.
async fn confirmation_required(web: &Web, scope: &Scope, ids: &[String]) -> Result<Error> {
    let impact = impact::summarize(&scope.cx, web.ops(), &scope.organization_id, ids).await?;
    let message = "Nothing was published. Review `impact`, then send `confirm: true` to publish.";
    let impact = serde_json::to_value(impact).map_err(Error::internal)?;
    Ok(Error::new(Code::ConfirmationRequired, message).with("field", "confirm").with("impact", impact))
}

/// The format of a preview. `markdown`: as written by the author. `agent`: the text block and structured content that
/// the agent receives. `html`: safe HTML.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum PreviewFormat {
    /// As written by the author.
    Markdown,
    /// The text block and structured content that the agent receives.
    Agent,
    /// Safe HTML.
    Html,
}

/// The options of a preview.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PreviewRequest {
    format: PreviewFormat,
    /// The step to preview. Defaults to all steps.
    step_id: Option<String>,
    /// Unsaved changes to the step `step_id`.
    step: Option<StepUpdate>,
}

/// The preview of a step.
#[derive(Debug, Serialize, ToSchema)]
struct StepPreview {
    step_id: String,
    /// The position, starting at 1.
    position: usize,
    title: String,
    section_title: Option<String>,
    /// For `markdown`, the content. For `agent`, the text block of the tool result.
    text: Option<String>,
    /// For `agent`, the structured content of the tool result.
    #[schema(value_type = Option<Object>)]
    structured: Option<Value>,
    /// For `html`, the content.
    html: Option<String>,
    /// The fields whose served text differs from the text that the author entered.
    changes: Vec<ServedChange>,
}

/// A field whose served text differs from the text that the author entered.
#[derive(Debug, Serialize, ToSchema)]
struct ServedChange {
    /// The name of the field.
    field: &'static str,
    /// The first differences. Invisible characters are written as escapes such as `\u{200b}`.
    excerpts: Vec<ServedExcerpt>,
    /// The number of further differences.
    more: usize,
}

/// A difference between the text as entered and as served.
#[derive(Debug, Serialize, ToSchema)]
struct ServedExcerpt {
    /// The text that the author entered.
    typed: String,
    /// The text that is served.
    served: String,
}

impl From<FieldChange> for ServedChange {
    fn from(FieldChange { field, excerpts, more }: FieldChange) -> Self {
        let excerpts = excerpts.into_iter().map(|(typed, served)| ServedExcerpt { typed, served }).collect();
        Self { field, excerpts, more }
    }
}

/// Previews steps of the draft.
///
/// Each step is shown as it would be to an end user who has completed all previous steps. Nothing is saved.
#[utoipa::path(post, path = "/walkthroughs/{id}/preview", tag = "walkthroughs", operation_id = "preview_walkthrough",
    params(("id" = String, Path, description = "The ID of the walkthrough (`wt_…`).")),
    request_body = PreviewRequest,
    responses((status = 200, body = Page<StepPreview>), Problems))]
async fn show_preview(
    State(web): State<Web>,
    scope: Scope,
    Path(walkthrough): Path<String>,
    Json(request): Json<PreviewRequest>,
) -> ApiResult<Json<Page<StepPreview>>> {
    let walkthrough = walkthrough_id(&walkthrough)?;
    if request.step.is_some() && request.step_id.is_none() {
        return Err(Error::invalid("step_id", "`step_id` is required with `step`. Specify the step to preview.").into());
    }
    let (cx, ops, org) = (&scope.cx, web.ops(), &scope.organization_id);
    let previews = match request.step_id {
        None => preview::render_all(cx, ops, org, &walkthrough).await?,
        Some(text) => {
            let step_id: StepId = parse_id(&text, "step")?;
            let saved = draft::get_step(cx, ops, org, &walkthrough, &step_id).await?.step.content;
            let unsaved = request.step.map(|step| Box::new(StepPatch::from(step).apply(&saved)));
            vec![preview::render(cx, ops, org, &walkthrough, PreviewPoint::Step(step_id, unsaved)).await?]
        }
    };
    let shown = previews.into_iter().filter_map(|preview| {
        let step = preview.step?;
        let content = step.content;
        let (text, structured, html) = match request.format {
            PreviewFormat::Markdown => (Some(content.content), None, None),
            PreviewFormat::Agent => (Some(preview.result.text), Some(preview.result.structured), None),
            PreviewFormat::Html => (None, None, Some(html::render(&content.content))),
        };
        Some(StepPreview {
            step_id: step.id.to_string(),
            position: preview.completed + 1,
            changes: preview.changes.into_iter().map(ServedChange::from).collect(),
            title: content.title,
            section_title: content.section_title,
            text,
            structured,
            html,
        })
    });
    Ok(Json(Page::complete(shown.collect())))
}
