//! What a user and their agent will get of a draft: played by the same functions as published versions, and written nowhere.

use std::sync::Arc;

use serde_json::{Value, json};
use waypost_core::access::{Operation, authorize};
use waypost_core::caller::Ctx;
use waypost_core::clean::{self, FieldChange};
use waypost_core::guidance::{ToolFlow, UserIdentity};
use waypost_core::id::{OrganizationId, StepId, VersionId, WalkthroughId};
use waypost_core::progress::operations::{ProgressContext, SelectOptions};
use waypost_core::progress::{Outcome, VersionOffer};
use waypost_core::step::{Step, StepContent};
use waypost_core::tool_result::{self, ResultContext, ToolResult};
use waypost_core::version::{Version, VersionStep};
use waypost_core::walkthrough::Walkthrough;
use waypost_core::{Code, Error, Result};
use waypost_store::{version, walkthrough};

use super::{load_draft, missing, validate};
use crate::Ops;

/// Which moment to show.
#[derive(Debug, Clone)]
pub enum PreviewPoint {
    /// When the user comes to this step, in order. With a content, the step is as if that were saved.
    Step(StepId, Option<Box<StepContent>>),
    /// When so many steps are completed, in order; all of them when there are fewer.
    After(usize),
}

/// A moment of a walkthrough that is played from its draft.
#[derive(Debug, Clone, PartialEq)]
pub struct Preview {
    /// The tool that the agent calls.
    pub tool: &'static str,
    /// Its arguments.
    pub arguments: Value,
    /// What comes back.
    pub answer: ToolResult,
    /// The step that the user comes to, as it is served; none at the end.
    pub step: Option<Step>,
    /// What of that step is served otherwise than it was typed.
    pub changes: Vec<FieldChange>,
    /// How many steps are completed by then.
    pub completed: usize,
    /// How many there are.
    pub total: usize,
}

/// Plays the draft from its start to `moment`.
///
/// # Errors
/// `not_found`; `step_not_found`; `walkthrough_empty` without steps; `invalid_arguments` naming the field of a content that
/// could not be saved.
pub async fn render(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &WalkthroughId,
    moment: PreviewPoint,
) -> Result<Preview> {
    authorize(&cx.caller, Operation::WalkthroughRead, organization)?;
    let mut tx = ops.db.snapshot().await?;
    let head = walkthrough::find(&mut tx, organization, id).await?.ok_or_else(missing)?;
    let number = version::max_number(&mut tx, organization, id).await? + 1;
    let draft = load_draft(&mut tx, head).await?;
    drop(tx);
    let (head, mut steps) = (draft.walkthrough, draft.steps);
    if steps.is_empty() {
        return Err(Error::new(Code::WalkthroughEmpty, "The walkthrough has no steps yet. Add one."));
    }
    let completed = match moment {
        PreviewPoint::After(completed) => completed.min(steps.len()),
        PreviewPoint::Step(step_id, content) => {
            let at = steps.iter().position(|step| step.id == step_id);
            let at = at.ok_or_else(|| {
                Error::new(Code::StepNotFound, format!("The walkthrough has no step {step_id}."))
                    .with("step_id", step_id.as_str())
            })?;
            if let Some(content) = content {
                steps[at].content = validate::step(*content, &validate::argument_error)?;
            }
            at
        }
    };
    let version = frozen(&head, &steps, number);
    let outcome = advance(cx, &version, completed)?;
    Ok(shown(&head, &steps, &outcome, completed))
}

/// Every moment of the draft at which the user comes to a step, in order; none without steps.
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
    let mut tx = ops.db.snapshot().await?;
    let head = walkthrough::find(&mut tx, organization, id).await?.ok_or_else(missing)?;
    let number = version::max_number(&mut tx, organization, id).await? + 1;
    let draft = load_draft(&mut tx, head).await?;
    drop(tx);
    let (head, steps) = (draft.walkthrough, draft.steps);
    let version = frozen(&head, &steps, number);
    let offered = VersionOffer { latest: Arc::clone(&version), withdrawal: None };
    let mut outcome = advance(cx, &version, 0)?;
    let mut moments = Vec::with_capacity(steps.len());
    for completed in 0..steps.len() {
        if completed > 0 {
            let attempt = outcome.progress.attempt.as_ref().map(|attempt| (attempt, &version));
            outcome =
                ProgressContext { attempt, offered: &offered, now: cx.now(), random: &*cx.random }.advance(None)?;
        }
        moments.push(shown(&head, &steps, &outcome, completed));
    }
    Ok(moments)
}

/// The version that the draft would make.
fn frozen(head: &Walkthrough, steps: &[Step], number: u32) -> Arc<Version> {
    let frozen = steps.iter().map(|step| VersionStep {
        id: step.id.clone(),
        ordinal: step.ordinal,
        content: step.content.clone(),
    });
    let version_id = VersionId::from_store("draft".to_owned());
    Arc::new(Version::new(version_id, head.id.clone(), number, head.title.clone(), frozen.collect()))
}

/// The moment after a call by which so many steps are completed.
fn shown(head: &Walkthrough, steps: &[Step], outcome: &Outcome, completed: usize) -> Preview {
    let played = ResultContext {
        walkthrough_id: &head.id,
        slug: &head.slug,
        progress: &outcome.progress,
        completed_step_id: outcome.completed_step_id.as_ref(),
        notices: &outcome.notices,
        user: &UserIdentity::Known,
        flow: ToolFlow::Guided,
    };
    let (tool, arguments) = match completed.checked_sub(1) {
        None => ("select_walkthrough", json!({ "walkthrough_id": head.id })),
        Some(before) => {
            ("next_walkthrough_step", json!({ "walkthrough_id": head.id, "current_step_id": steps[before].id }))
        }
    };
    let step = steps.get(completed).map(|step| Step { content: clean::step(&step.content), ..step.clone() });
    let typed = steps.get(completed).map(|step| &step.content);
    let changes =
        typed.zip(step.as_ref()).map(|(typed, step)| clean::changes(typed, &step.content)).unwrap_or_default();
    Preview { tool, arguments, answer: tool_result::step_result(&played), step, changes, completed, total: steps.len() }
}

/// Begins an attempt and completes so many steps; gives what the last call made.
fn advance(cx: &Ctx, version: &Arc<Version>, completed: usize) -> Result<Outcome> {
    let offered = VersionOffer { latest: Arc::clone(version), withdrawal: None };
    let mut outcome = ProgressContext { attempt: None, offered: &offered, now: cx.now(), random: &*cx.random }
        .select(SelectOptions::default())?;
    for _ in 0..completed {
        let attempt = outcome.progress.attempt.as_ref().map(|attempt| (attempt, version));
        outcome = ProgressContext { attempt, offered: &offered, now: cx.now(), random: &*cx.random }.advance(None)?;
    }
    Ok(outcome)
}
