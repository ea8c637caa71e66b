//! Previews of a draft: what a user and their agent will receive. The draft is played with the same functions as
//! published versions, but nothing is stored.

use std::sync::Arc;

use serde_json::{Value, json};
use waypost_content::clean::{self, FieldChange};
use waypost_content::guidance::{ToolFlow, UserIdentity};
use waypost_content::tool_result::{self, ResultContext, ToolResult};
use waypost_core::access::{Operation, authorize};
use waypost_core::caller::Ctx;
use waypost_core::id::{OrganizationId, StepId, VersionId, WalkthroughId};
use waypost_core::progress::operations::{ProgressContext, SelectOptions};
use waypost_core::progress::{Outcome, VersionOffer};
use waypost_core::step::{Step, StepContent};
use waypost_core::version::{StoredVersion, Version, VersionStep};
use waypost_core::walkthrough::Walkthrough;
use waypost_core::{Code, Error, Result, chain};
use waypost_store::{step, version, walkthrough};

use super::draft::step_not_found;
use super::{load_draft, not_found, validate};
use crate::Ops;

/// The point of the walkthrough to preview.
#[derive(Debug, Clone)]
pub enum PreviewPoint {
    /// The point at which the user reaches this step, with all previous steps completed. If content is given, it
    /// replaces the step's saved content.
    Step(StepId, Option<Box<StepContent>>),
    /// The point at which this number of steps is completed, in order. Limited to the number of steps.
    After(usize),
}

/// The preview of a draft at one point.
#[derive(Debug, Clone, PartialEq)]
pub struct Preview {
    /// The tool that the agent calls.
    pub tool: &'static str,
    /// Its arguments.
    pub arguments: Value,
    /// The tool's result.
    pub result: ToolResult,
    /// The step that the user reaches, as it is served. `None` at the end.
    pub step: Option<Step>,
    /// The differences between that step as it is served and as the author entered it.
    pub changes: Vec<FieldChange>,
    /// The number of completed steps.
    pub completed: usize,
    /// The number of steps.
    pub total: usize,
}

/// Plays the draft from its start to `point`.
///
/// # Errors
/// `not_found`; `step_not_found`; `walkthrough_empty` if there are no steps; `invalid_arguments`, naming the field, if
/// the content is invalid.
pub async fn render(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &WalkthroughId,
    point: PreviewPoint,
) -> Result<Preview> {
    authorize(&cx.caller, Operation::WalkthroughRead, organization)?;
    let mut tx = ops.store.snapshot().await?;
    let walkthrough = walkthrough::find(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    let number = version::max_number(&mut tx, organization, id).await? + 1;
    // The editor renders a preview every second while the user types, and a result contains one step's content only.
    let steps = step::list_outline(&mut tx, organization, id).await?;
    let mut steps = chain::order(walkthrough.first_step_id.as_ref(), steps)?;
    if steps.is_empty() {
        return Err(Error::new(Code::WalkthroughEmpty, "The walkthrough has no steps yet. Add one."));
    }
    let (completed, unsaved) = match point {
        PreviewPoint::After(completed) => (completed.min(steps.len()), None),
        PreviewPoint::Step(step_id, content) => {
            let index = steps.iter().position(|step| step.id == step_id);
            (index.ok_or_else(|| step_not_found(&step_id))?, content)
        }
    };
    if let Some(shown) = steps.get_mut(completed) {
        shown.content = match unsaved {
            Some(content) => validate::check_step(*content, &validate::argument_error)?,
            None => {
                let found = step::find(&mut tx, organization, id, &shown.id).await?;
                found.ok_or_else(|| step_not_found(&shown.id))?.content
            }
        };
    }
    drop(tx);
    let version = build_version(&walkthrough, &steps, number);
    let outcome = play(cx, &version, completed)?;
    Ok(build_preview(&walkthrough, &steps, &outcome, completed))
}

/// Returns a preview of each step of the draft, in order.
///
/// # Errors
/// `not_found`.
pub async fn render_all(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &WalkthroughId,
) -> Result<Vec<Preview>> {
    authorize(&cx.caller, Operation::WalkthroughRead, organization)?;
    let mut tx = ops.store.snapshot().await?;
    let walkthrough = walkthrough::find(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    let number = version::max_number(&mut tx, organization, id).await? + 1;
    let draft = load_draft(&mut tx, walkthrough).await?;
    drop(tx);
    let (walkthrough, steps) = (draft.walkthrough, draft.steps);
    let version = build_version(&walkthrough, &steps, number);
    let offered = VersionOffer { latest: Arc::clone(&version), withdrawal: None };
    let mut outcome = play(cx, &version, 0)?;
    let mut previews = Vec::with_capacity(steps.len());
    for completed in 0..steps.len() {
        if completed > 0 {
            let attempt = outcome.progress.attempt.as_ref().map(|attempt| (attempt, &version));
            outcome =
                ProgressContext { attempt, offered: &offered, now: cx.now(), random: &*cx.random }.advance(None)?;
        }
        previews.push(build_preview(&walkthrough, &steps, &outcome, completed));
    }
    Ok(previews)
}

/// Returns the version that publishing the draft would create.
fn build_version(walkthrough: &Walkthrough, steps: &[Step], number: u32) -> Arc<Version> {
    let version_steps = steps.iter().map(|step| VersionStep {
        id: step.id.clone(),
        ordinal: step.ordinal,
        content: step.content.clone(),
    });
    Arc::new(clean::version(StoredVersion {
        id: VersionId::from_store("draft".to_owned()),
        walkthrough_id: walkthrough.id.clone(),
        number,
        title: walkthrough.title.clone(),
        steps: version_steps.collect(),
    }))
}

/// Returns the preview after the call whose outcome is given, with `completed` steps completed.
fn build_preview(walkthrough: &Walkthrough, steps: &[Step], outcome: &Outcome, completed: usize) -> Preview {
    let context = ResultContext {
        walkthrough_id: &walkthrough.id,
        slug: &walkthrough.slug,
        progress: &outcome.progress,
        completed_step_id: outcome.completed_step_id.as_ref(),
        notices: &outcome.notices,
        user: &UserIdentity::Known,
        flow: ToolFlow::Guided,
    };
    let (tool, arguments) = match completed.checked_sub(1) {
        None => ("select_walkthrough", json!({ "walkthrough_id": walkthrough.id })),
        Some(previous) => (
            "next_walkthrough_step",
            json!({ "walkthrough_id": walkthrough.id, "current_step_id": steps[previous].id }),
        ),
    };
    let step = steps.get(completed).map(|step| Step { content: clean::step(&step.content), ..step.clone() });
    let draft_content = steps.get(completed).map(|step| &step.content);
    let changes = draft_content
        .zip(step.as_ref())
        .map(|(content, step)| clean::changes(content, &step.content))
        .unwrap_or_default();
    Preview {
        tool,
        arguments,
        result: tool_result::step_result(&context),
        step,
        changes,
        completed,
        total: steps.len(),
    }
}

/// Starts an attempt and completes `completed` steps. Returns the outcome of the last call.
fn play(cx: &Ctx, version: &Arc<Version>, completed: usize) -> Result<Outcome> {
    let offered = VersionOffer { latest: Arc::clone(version), withdrawal: None };
    let mut outcome = ProgressContext { attempt: None, offered: &offered, now: cx.now(), random: &*cx.random }
        .select(SelectOptions::default())?;
    for _ in 0..completed {
        let attempt = outcome.progress.attempt.as_ref().map(|attempt| (attempt, version));
        outcome = ProgressContext { attempt, offered: &offered, now: cx.now(), random: &*cx.random }.advance(None)?;
    }
    Ok(outcome)
}
