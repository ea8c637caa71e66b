//! Edits of the steps of a draft. The chain is read without contents; an edit writes only the step and its neighbours.

use serde_json::{Map, Value, json};
use waypost_core::access::{Operation, authorize};
use waypost_core::caller::Ctx;
use waypost_core::chain::{self, LinkUpdate, StepPosition};
use waypost_core::id::{OrganizationId, StepId, WalkthroughId};
use waypost_core::revision::StepRevisionOperation;
use waypost_core::step::{MAX_STEPS, MAX_TITLE_CHARS, Step, StepContent};
use waypost_core::walkthrough::Walkthrough;
use waypost_core::{Code, Error, Result};
use waypost_store::{Tx, step, walkthrough};

use super::{
    EditTarget, lock_walkthrough, not_found, record_edit_session, record_operation, revisions, save_edit, validate,
};
use crate::Ops;

/// A step to add.
#[derive(Debug, Clone)]
pub struct NewStep {
    /// The key that the author chose, unique in the walkthrough.
    pub key: Option<String>,
    /// The content.
    pub content: StepContent,
    /// The position.
    pub position: StepPosition,
}

/// Changes to single fields of a step. Absent fields stay unchanged; `Some(None)` clears a field.
#[derive(Debug, Clone, Default)]
pub struct StepPatch {
    /// The key.
    pub key: Option<Option<String>>,
    /// The title.
    pub title: Option<String>,
    /// The section's heading.
    pub section_title: Option<Option<String>>,
    /// The text for the user.
    pub content: Option<String>,
    /// Tells the agent how to introduce the step.
    pub introduction_for_agent: Option<Option<String>>,
    /// Background for the agent.
    pub context_for_agent: Option<Option<String>>,
    /// Operations that the agent should carry out.
    pub operations_for_agent: Option<Option<String>>,
    /// Free-form metadata.
    pub metadata: Option<Map<String, Value>>,
}

impl StepPatch {
    /// Returns the content with these changes.
    #[must_use]
    pub fn apply(&self, before: &StepContent) -> StepContent {
        let before = before.clone();
        let patched = |new: &Option<Option<String>>, old| new.clone().unwrap_or(old);
        StepContent {
            title: self.title.clone().unwrap_or(before.title),
            section_title: patched(&self.section_title, before.section_title),
            content: self.content.clone().unwrap_or(before.content),
            introduction_for_agent: patched(&self.introduction_for_agent, before.introduction_for_agent),
            context_for_agent: patched(&self.context_for_agent, before.context_for_agent),
            operations_for_agent: patched(&self.operations_for_agent, before.operations_for_agent),
            metadata: self.metadata.clone().unwrap_or(before.metadata),
        }
    }
}

/// The operation that creates a revision of a step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    /// The operation.
    pub operation: StepRevisionOperation,
    /// The revision whose content is restored, if any.
    pub restored_from: Option<u32>,
}

impl From<StepRevisionOperation> for Origin {
    fn from(operation: StepRevisionOperation) -> Self {
        Self { operation, restored_from: None }
    }
}

/// A deleted step, with the data needed to restore it.
#[derive(Debug, Clone, PartialEq)]
pub struct StepDeletion {
    /// The revision of the walkthrough, for the next edit.
    pub revision: u32,
    /// The step before the deletion.
    pub step: Step,
    /// The step before it. `None` if it was the first.
    pub after: Option<StepId>,
}

/// A step after an edit.
#[derive(Debug, Clone, PartialEq)]
pub struct StepEdit {
    /// The revision of the walkthrough, for the next edit.
    pub revision: u32,
    /// The step.
    pub step: Step,
}

/// Adds a step.
///
/// # Errors
/// `invalid_arguments`, naming the field; `step_not_found` if the position names a step that does not exist; `conflict`
/// if the key is taken or the draft has 500 steps; `precondition_failed` if the draft has changed since
/// `target.revision`.
pub async fn add_step(cx: &Ctx, ops: &Ops, target: EditTarget<'_>, new: NewStep) -> Result<StepEdit> {
    authorize(&cx.caller, Operation::WalkthroughWrite, target.organization_id)?;
    let mut tx = ops.store.begin().await?;
    let (walkthrough, chain) = lock_chain(&mut tx, target).await?;
    let (id, ordinal) = (StepId::new(&*cx.random), walkthrough.next_ordinal);
    let walkthrough = Walkthrough { next_ordinal: ordinal + 1, ..walkthrough };
    insert_step(cx, tx, (walkthrough, chain), (id, ordinal), (new, "step.add", StepRevisionOperation::Add.into())).await
}

/// Restores a step that was deleted from this draft. The step keeps its ID, so that end users who completed it keep
/// their progress.
///
/// # Errors
/// Those of [`add_step`]; `step_not_found` if no such step was deleted from this walkthrough.
pub async fn restore_step(cx: &Ctx, ops: &Ops, target: EditTarget<'_>, id: &StepId, new: NewStep) -> Result<StepEdit> {
    authorize(&cx.caller, Operation::WalkthroughWrite, target.organization_id)?;
    let mut tx = ops.store.begin().await?;
    let (walkthrough, chain) = lock_chain(&mut tx, target).await?;
    let ordinal = step::consume_removed(&mut tx, target.organization_id, target.walkthrough_id, id).await?;
    let ordinal = ordinal.ok_or_else(|| {
        let message = format!("No step {id} was deleted from this walkthrough. Add a new one instead.");
        Error::new(Code::StepNotFound, message).with("step_id", id.as_str())
    })?;
    insert_step(
        cx,
        tx,
        (walkthrough, chain),
        (id.clone(), ordinal),
        (new, "step.restore", StepRevisionOperation::Restore.into()),
    )
    .await
}

/// Inserts a copy of a step after it. The copy has no key, because keys are unique.
///
/// # Errors
/// Those of [`add_step`].
pub async fn duplicate_step(cx: &Ctx, ops: &Ops, target: EditTarget<'_>, id: &StepId) -> Result<StepEdit> {
    authorize(&cx.caller, Operation::WalkthroughWrite, target.organization_id)?;
    let mut tx = ops.store.begin().await?;
    let (walkthrough, chain) = lock_chain(&mut tx, target).await?;
    let step = step::find(&mut tx, target.organization_id, target.walkthrough_id, id).await?;
    let content = step.ok_or_else(|| step_not_found(id))?.content;
    let title = make_copy_title(&content.title, &chain);
    let new =
        NewStep { key: None, content: StepContent { title, ..content }, position: StepPosition::After(id.clone()) };
    let (copy_id, ordinal) = (StepId::new(&*cx.random), walkthrough.next_ordinal);
    let walkthrough = Walkthrough { next_ordinal: ordinal + 1, ..walkthrough };
    insert_step(
        cx,
        tx,
        (walkthrough, chain),
        (copy_id, ordinal),
        (new, "step.duplicate", StepRevisionOperation::Add.into()),
    )
    .await
}

/// Returns a title for a copy that no step of the chain has: an import identifies steps without keys by their titles.
fn make_copy_title(title: &str, chain: &[Step]) -> String {
    let short: String = title.chars().take(MAX_TITLE_CHARS - 12).collect();
    let numbers = 1..=MAX_STEPS + 1;
    let candidates = numbers.map(|n| if n == 1 { format!("{short} (copy)") } else { format!("{short} (copy {n})") });
    let free = candidates.into_iter().find(|title| chain.iter().all(|step| step.content.title != *title));
    free.unwrap_or_else(|| title.to_owned())
}

/// Inserts a step with this ID and ordinal into the chain and commits.
pub(super) async fn insert_step(
    cx: &Ctx,
    mut tx: Tx,
    (mut walkthrough, chain): (Walkthrough, Vec<Step>),
    (id, ordinal): (StepId, u32),
    (new, action, origin): (NewStep, &'static str, Origin),
) -> Result<StepEdit> {
    let content = validate::check_step(new.content, &validate::argument_error)?;
    let key = validate::check_key(new.key, &validate::argument_error)?;
    if chain.len() >= MAX_STEPS {
        let message =
            format!("A walkthrough can have at most {MAX_STEPS} steps. Delete a step, or split the walkthrough.");
        return Err(Error::new(Code::Conflict, message));
    }
    check_key_is_free(&chain, key.as_deref(), None)?;
    let links = chain::insert(&chain, &id, &new.position)?;
    let mut steps = [Step { id, ordinal, key, next_step_id: None, content }];
    chain::apply(&mut steps, &links);
    revisions::insert(cx, &mut tx, &walkthrough, origin, &[&steps[0]]).await?;
    // The new step's own link was inserted with it.
    let links: Vec<_> = links.into_iter().filter(|link| link.from.as_ref() != Some(&steps[0].id)).collect();
    relink(&mut tx, &mut walkthrough, &links).await?;
    let [step] = steps;
    finish(cx, tx, walkthrough, action, step).await
}

/// Returns a step of the draft, with the walkthrough's revision.
///
/// # Errors
/// `not_found`; `step_not_found`.
pub async fn get_step(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    walkthrough: &WalkthroughId,
    id: &StepId,
) -> Result<StepEdit> {
    authorize(&cx.caller, Operation::WalkthroughRead, organization)?;
    let mut tx = ops.store.snapshot().await?;
    let walkthrough = walkthrough::find(&mut tx, organization, walkthrough).await?.ok_or_else(not_found)?;
    let step = step::find(&mut tx, organization, &walkthrough.id, id).await?.ok_or_else(|| step_not_found(id))?;
    Ok(StepEdit { revision: walkthrough.revision, step })
}

/// Changes single fields of a step. The other fields keep their current values.
///
/// # Errors
/// Those of [`add_step`].
pub async fn patch_step(
    cx: &Ctx,
    ops: &Ops,
    target: EditTarget<'_>,
    id: &StepId,
    patch: StepPatch,
) -> Result<StepEdit> {
    authorize(&cx.caller, Operation::WalkthroughWrite, target.organization_id)?;
    let key = patch.key.clone().map(|key| validate::check_key(key, &validate::argument_error)).transpose()?;
    let mut tx = ops.store.begin().await?;
    let walkthrough = lock_walkthrough(&mut tx, target).await?;
    let step = step::find(&mut tx, target.organization_id, target.walkthrough_id, id).await?;
    let before = step.ok_or_else(|| step_not_found(id))?;
    let content = validate::check_step(patch.apply(&before.content), &validate::argument_error)?;
    let after = Step { key: key.unwrap_or_else(|| before.key.clone()), content, ..before.clone() };
    if after == before {
        return Ok(StepEdit { revision: walkthrough.revision, step: after });
    }
    if after.key != before.key {
        let others = step::list_outline(&mut tx, target.organization_id, target.walkthrough_id).await?;
        check_key_is_free(&others, after.key.as_deref(), Some(id))?;
    }
    revisions::update(cx, &mut tx, &walkthrough, StepRevisionOperation::Edit, &[&after]).await?;
    finish_session_edit(cx, tx, walkthrough, after).await
}

/// Moves a step to another position.
///
/// # Errors
/// Those of [`add_step`]; `conflict` if the step would follow itself.
pub async fn move_step(
    cx: &Ctx,
    ops: &Ops,
    target: EditTarget<'_>,
    id: &StepId,
    position: &StepPosition,
) -> Result<StepEdit> {
    authorize(&cx.caller, Operation::WalkthroughWrite, target.organization_id)?;
    let mut tx = ops.store.begin().await?;
    let (mut walkthrough, chain) = lock_chain(&mut tx, target).await?;
    let links = chain::relocate(&chain, id, position)?;
    let mut after = chain.clone();
    let first = chain::apply(&mut after, &links).unwrap_or_else(|| walkthrough.first_step_id.clone());
    let moved = after != chain || first != walkthrough.first_step_id;
    if moved {
        relink(&mut tx, &mut walkthrough, &links).await?;
    }
    let step = step::find(&mut tx, target.organization_id, target.walkthrough_id, id).await?;
    let step = step.ok_or_else(|| step_not_found(id))?;
    if moved {
        finish(cx, tx, walkthrough, "step.move", step).await
    } else {
        Ok(StepEdit { revision: walkthrough.revision, step })
    }
}

/// Deletes a step from the draft. Published versions keep it, and so does the progress of end users who completed it.
///
/// # Errors
/// Those of [`add_step`].
pub async fn delete_step(cx: &Ctx, ops: &Ops, target: EditTarget<'_>, id: &StepId) -> Result<StepDeletion> {
    authorize(&cx.caller, Operation::WalkthroughWrite, target.organization_id)?;
    let mut tx = ops.store.begin().await?;
    let (mut walkthrough, chain) = lock_chain(&mut tx, target).await?;
    let found = step::find(&mut tx, target.organization_id, target.walkthrough_id, id).await?;
    let step = found.ok_or_else(|| step_not_found(id))?;
    let links = chain::remove(&chain, id)?;
    relink(&mut tx, &mut walkthrough, &links).await?;
    revisions::delete(cx, &mut tx, &walkthrough, &chain, &[&step]).await?;
    let predecessor = chain.iter().find(|other| other.next_step_id.as_ref() == Some(id));
    let after = predecessor.map(|other| other.id.clone());
    let StepEdit { revision, step } = finish(cx, tx, walkthrough, "step.delete", step).await?;
    Ok(StepDeletion { revision, step, after })
}

pub(super) fn step_not_found(id: &StepId) -> Error {
    Error::new(Code::StepNotFound, format!("The walkthrough has no step {id}.")).with("step_id", id.as_str())
}

/// Locks the walkthrough and reads the chain without contents.
pub(super) async fn lock_chain(tx: &mut Tx, target: EditTarget<'_>) -> Result<(Walkthrough, Vec<Step>)> {
    let walkthrough = lock_walkthrough(tx, target).await?;
    let steps = step::list_outline(tx, target.organization_id, target.walkthrough_id).await?;
    let steps = chain::order(walkthrough.first_step_id.as_ref(), steps)?;
    Ok((walkthrough, steps))
}

/// Writes the links between steps. The link to the first step is set in `walkthrough`, which the caller writes at the end.
async fn relink(tx: &mut Tx, walkthrough: &mut Walkthrough, links: &[LinkUpdate]) -> Result<()> {
    step::relink(tx, &walkthrough.organization_id, &walkthrough.id, links).await?;
    if let Some(first) = links.iter().rev().find(|link| link.from.is_none()) {
        walkthrough.first_step_id.clone_from(&first.to);
    }
    Ok(())
}

fn check_key_is_free(steps: &[Step], key: Option<&str>, own_id: Option<&StepId>) -> Result<()> {
    let Some(key) = key else { return Ok(()) };
    match steps.iter().find(|step| step.key.as_deref() == Some(key) && Some(&step.id) != own_id) {
        Some(other) => {
            let message = format!("The step {} (\"{}\") already has the key `{key}`.", other.id, other.content.title);
            Err(Error::new(Code::Conflict, message).with("field", "key").with("step_id", other.id.as_str()))
        }
        None => Ok(()),
    }
}

/// Saves an edit, records it in the audit log and commits.
async fn finish(cx: &Ctx, tx: Tx, walkthrough: Walkthrough, action: &'static str, step: Step) -> Result<StepEdit> {
    finish_with(cx, tx, walkthrough, (action, json!({})), step).await
}

/// Does the same as [`finish`], with additional details for the audit log.
pub(super) async fn finish_with(
    cx: &Ctx,
    mut tx: Tx,
    mut walkthrough: Walkthrough,
    (action, mut detail): (&'static str, Value),
    step: Step,
) -> Result<StepEdit> {
    save_edit(cx, &mut tx, &mut walkthrough).await?;
    detail["revision"] = json!(walkthrough.revision);
    detail["step_id"] = json!(step.id);
    detail["title"] = json!(step.content.title);
    record_operation(cx, &mut tx, &walkthrough, action, detail).await?;
    tx.commit().await?;
    Ok(StepEdit { revision: walkthrough.revision, step })
}

/// Does the same as [`finish`] for the frequent edits of the editor: the edits of a session share an audit log entry.
async fn finish_session_edit(cx: &Ctx, mut tx: Tx, mut walkthrough: Walkthrough, step: Step) -> Result<StepEdit> {
    save_edit(cx, &mut tx, &mut walkthrough).await?;
    let detail = json!({ "revision": walkthrough.revision, "step_id": step.id, "title": step.content.title });
    record_edit_session(cx, &mut tx, &walkthrough, ("step.update", step.id.as_str()), detail).await?;
    tx.commit().await?;
    Ok(StepEdit { revision: walkthrough.revision, step })
}
