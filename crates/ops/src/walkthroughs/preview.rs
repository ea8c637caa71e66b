//! What the agent receives of a draft, before it is published.

use std::sync::Arc;

use serde_json::Value;
use waypost_core::access::{Act, authorize};
use waypost_core::caller::Ctx;
use waypost_core::id::{OrganizationId, ProgressId, StepId, VersionId, WalkthroughId};
use waypost_core::progress::{Attempt, AttemptState, Standing, StepSet};
use waypost_core::render::{self, Told};
use waypost_core::step::Step;
use waypost_core::version::{FrozenStep, Version};
use waypost_core::{Code, Error, Result};
use waypost_store::{version, walkthrough};

use super::draft::StepPatch;
use super::{Draft, clean, load_draft, missing};
use crate::Ops;

/// A step as a user's agent receives it who has done all steps before it.
#[derive(Debug, Clone)]
pub struct Previewed {
    /// The step, cleaned as it would be stored.
    pub step: Step,
    /// Where it stands, from 1.
    pub position: usize,
    /// The text block of the answer.
    pub text: String,
    /// The structured content of the answer.
    pub structured: Value,
}

/// Which steps to preview, and what an author has typed and not saved yet.
#[derive(Debug, Clone, Default)]
pub struct Preview {
    /// Only this step; all of them when absent.
    pub step_id: Option<StepId>,
    /// What that step holds otherwise than the draft.
    pub unsaved: Option<StepPatch>,
}

/// The steps of the draft as an agent receives them from `next_walkthrough_step`. Nothing is written.
///
/// # Errors
/// `not_found`; `step_not_found`; `invalid_arguments` when what was typed breaks a limit.
pub async fn preview(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &WalkthroughId,
    wanted: Preview,
) -> Result<Vec<Previewed>> {
    authorize(&cx.caller, Act::WalkthroughRead, organization)?;
    let mut tx = ops.db.snapshot().await?;
    let head = walkthrough::find(&mut tx, organization, id).await?.ok_or_else(missing)?;
    let Draft { walkthrough: head, mut steps } = load_draft(&mut tx, head).await?;
    let number = version::last_number(&mut tx, organization, id).await? + 1;
    let only = match &wanted.step_id {
        None => None,
        Some(id) => {
            let at = steps.iter().position(|step| step.id == *id).ok_or_else(|| {
                Error::new(Code::StepNotFound, format!("The walkthrough has no step {id}."))
                    .with("step_id", id.as_str())
            })?;
            if let Some(unsaved) = &wanted.unsaved {
                steps[at].content = clean::step(unsaved.apply(&steps[at].content), &clean::argument)?;
            }
            Some(at)
        }
    };
    let frozen = |step: &Step| FrozenStep { id: step.id.clone(), ordinal: step.ordinal, content: step.content.clone() };
    let (version_id, title) = (VersionId::from_store("wv_preview".to_owned()), head.title.clone());
    let version =
        Arc::new(Version::new(version_id, head.id.clone(), number, title, steps.iter().map(frozen).collect()));
    let mut done = StepSet::default();
    let mut previewed = Vec::new();
    for (at, step) in steps.into_iter().enumerate() {
        let ordinal = step.ordinal;
        if only.is_none_or(|only| only == at) {
            let standing = Standing {
                attempt: Some(attempt(cx, &version, done.clone())),
                version: Arc::clone(&version),
                latest_number: number,
            };
            previewed.push(Previewed {
                position: at + 1,
                text: render::step(&standing, "", None, true),
                structured: render::step_json(head.id.as_str(), &head.slug, &standing, Told::default()),
                step,
            });
        }
        done.insert(ordinal);
    }
    Ok(previewed)
}

fn attempt(cx: &Ctx, version: &Version, completed: StepSet) -> Attempt {
    Attempt {
        id: ProgressId::from_store("wp_preview".to_owned()),
        version_id: version.id.clone(),
        completed,
        state: AttemptState::InProgress,
        started_at: cx.now(),
        last_activity_at: cx.now(),
        closed_at: None,
        metadata: serde_json::Map::new(),
    }
}
