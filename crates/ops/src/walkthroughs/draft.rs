//! Edits of the steps of a draft. An edit reads the content of its own step only. Of the other steps, it reads only the
//! links (and, for a copy, the titles), in one statement that is answered from an index, and it writes only its
//! neighbours. The number of statements therefore does not depend on the number of steps, and the cost does not depend
//! on the size of the other steps.

use serde_json::{Map, Value, json};
use waypost_core::access::{Operation, authorize};
use waypost_core::caller::Ctx;
use waypost_core::chain::{self, LinkUpdate, StepPosition};
use waypost_core::id::{OrganizationId, StepId, WalkthroughId};
use waypost_core::revision::StepRevisionOperation;
use waypost_core::step::{MAX_STEPS, MAX_TITLE_CHARS, Step, StepContent};
use waypost_core::walkthrough::{Walkthrough, WalkthroughType};
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

/// Changes to single fields of a step. Fields that are `None` stay unchanged; `Some(None)` clears a field.
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
    /// The step as it was before the deletion, with the revision after it.
    pub deleted: StepEdit,
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
    /// The position of the step, starting at 1.
    pub position: usize,
    /// The type of the walkthrough, which determines the step's required fields.
    pub kind: WalkthroughType,
}

/// A locked walkthrough and the IDs of its steps in order.
pub(super) struct LockedChain {
    /// The walkthrough.
    pub walkthrough: Walkthrough,
    /// The steps.
    pub steps: Vec<StepId>,
}

impl LockedChain {
    /// Reserves the ordinal of a new step.
    fn take_ordinal(&mut self) -> u32 {
        let ordinal = self.walkthrough.next_ordinal;
        self.walkthrough.next_ordinal += 1;
        ordinal
    }
}

/// A step to insert into a locked chain.
pub(super) struct Insertion {
    /// The ID of the step: a new one, or that of a deleted step.
    pub id: StepId,
    /// Its ordinal.
    pub ordinal: u32,
    /// Its key, content and position.
    pub new: NewStep,
    /// The action for the audit log.
    pub action: &'static str,
    /// The operation for the history.
    pub origin: Origin,
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
    let mut chain = lock_chain(&mut tx, target).await?;
    let (id, ordinal) = (StepId::new(&*cx.random), chain.take_ordinal());
    let origin = StepRevisionOperation::Add.into();
    insert_step(cx, tx, chain, Insertion { id, ordinal, new, action: "step.add", origin }).await
}

/// Restores a step that was deleted from this draft. The step keeps its ID, so that end users who completed it keep
/// their progress.
///
/// # Errors
/// The same as for [`add_step`]; `step_not_found` if no such step was deleted from this walkthrough.
pub async fn restore_step(cx: &Ctx, ops: &Ops, target: EditTarget<'_>, id: &StepId, new: NewStep) -> Result<StepEdit> {
    authorize(&cx.caller, Operation::WalkthroughWrite, target.organization_id)?;
    let mut tx = ops.store.begin().await?;
    let chain = lock_chain(&mut tx, target).await?;
    let ordinal = step::consume_removed(&mut tx, target.organization_id, target.walkthrough_id, id).await?;
    let ordinal = ordinal.ok_or_else(|| {
        let message = format!("No step {id} was deleted from this walkthrough. Add a new one instead.");
        Error::new(Code::StepNotFound, message).with("step_id", id.as_str())
    })?;
    let origin = StepRevisionOperation::Restore.into();
    insert_step(cx, tx, chain, Insertion { id: id.clone(), ordinal, new, action: "step.restore", origin }).await
}

/// Inserts a copy of a step after it. The copy has no key, because keys are unique.
///
/// # Errors
/// The same as for [`add_step`].
pub async fn duplicate_step(cx: &Ctx, ops: &Ops, target: EditTarget<'_>, id: &StepId) -> Result<StepEdit> {
    authorize(&cx.caller, Operation::WalkthroughWrite, target.organization_id)?;
    let mut tx = ops.store.begin().await?;
    let mut chain = lock_chain(&mut tx, target).await?;
    let found = step::find(&mut tx, target.organization_id, target.walkthrough_id, id).await?;
    let content = found.ok_or_else(|| step_not_found(id))?.content;
    let outline = step::list_outline(&mut tx, target.organization_id, target.walkthrough_id).await?;
    let title = make_copy_title(&content.title, &outline);
    let new =
        NewStep { key: None, content: StepContent { title, ..content }, position: StepPosition::After(id.clone()) };
    let (copy_id, ordinal) = (StepId::new(&*cx.random), chain.take_ordinal());
    let origin = StepRevisionOperation::Add.into();
    insert_step(cx, tx, chain, Insertion { id: copy_id, ordinal, new, action: "step.duplicate", origin }).await
}

/// Returns a title for a copy that differs from the titles of all `steps`, because an import identifies steps without
/// keys by their titles.
fn make_copy_title(title: &str, steps: &[Step]) -> String {
    let short: String = title.chars().take(MAX_TITLE_CHARS - 12).collect();
    let numbers = 1..=MAX_STEPS + 1;
    let candidates = numbers.map(|n| if n == 1 { format!("{short} (copy)") } else { format!("{short} (copy {n})") });
    let free = candidates.into_iter().find(|title| steps.iter().all(|step| step.content.title != *title));
    free.unwrap_or_else(|| title.to_owned())
}

/// Inserts a step into the chain and commits.
pub(super) async fn insert_step(cx: &Ctx, mut tx: Tx, chain: LockedChain, insertion: Insertion) -> Result<StepEdit> {
    let LockedChain { mut walkthrough, steps } = chain;
    let Insertion { id, ordinal, new, action, origin } = insertion;
    let content = validate::check_step(new.content, &validate::argument_error)?;
    let key = validate::check_key(new.key, &validate::argument_error)?;
    if steps.len() >= MAX_STEPS {
        let message =
            format!("A walkthrough can have at most {MAX_STEPS} steps. Delete a step, or split the walkthrough.");
        return Err(Error::new(Code::Conflict, message));
    }
    check_key_is_free(&mut tx, &walkthrough, key.as_deref()).await?;
    let position = chain::index_of_position(&steps, &new.position)? + 1;
    let (own, others): (Vec<_>, Vec<_>) =
        chain::insert(&steps, &id, &new.position)?.into_iter().partition(|link| link.from.as_ref() == Some(&id));
    let next_step_id = own.into_iter().find_map(|link| link.to);
    let step = Step { id, ordinal, key, next_step_id, content };
    revisions::insert(cx, &mut tx, &walkthrough, origin, &[&step]).await?;
    relink(&mut tx, &mut walkthrough, &others).await?;
    finish(cx, tx, walkthrough, action, PositionedStep { step, position }).await
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
    let position = find_position(&mut tx, &walkthrough, id).await?;
    Ok(PositionedStep { step, position }.of(&walkthrough))
}

/// Changes single fields of a step. The other fields keep their current values.
///
/// # Errors
/// The same as for [`add_step`].
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
    let position = find_position(&mut tx, &walkthrough, id).await?;
    let after = Step { key: key.unwrap_or_else(|| before.key.clone()), content, ..before.clone() };
    if after == before {
        return Ok(PositionedStep { step: after, position }.of(&walkthrough));
    }
    if after.key != before.key {
        check_key_is_free(&mut tx, &walkthrough, after.key.as_deref()).await?;
    }
    revisions::update(cx, &mut tx, &walkthrough, StepRevisionOperation::Edit, &[&after]).await?;
    finish_session_edit(cx, tx, walkthrough, PositionedStep { step: after, position }).await
}

/// Moves a step to another position.
///
/// # Errors
/// The same as for [`add_step`]; `conflict` if the step would follow itself.
pub async fn move_step(
    cx: &Ctx,
    ops: &Ops,
    target: EditTarget<'_>,
    id: &StepId,
    position: &StepPosition,
) -> Result<StepEdit> {
    authorize(&cx.caller, Operation::WalkthroughWrite, target.organization_id)?;
    let mut tx = ops.store.begin().await?;
    let LockedChain { mut walkthrough, steps } = lock_chain(&mut tx, target).await?;
    let (links, index) = chain::relocate(&steps, id, position)?;
    relink(&mut tx, &mut walkthrough, &links).await?;
    let step = step::find(&mut tx, target.organization_id, target.walkthrough_id, id).await?;
    let moved = PositionedStep { step: step.ok_or_else(|| step_not_found(id))?, position: index + 1 };
    if links.is_empty() { Ok(moved.of(&walkthrough)) } else { finish(cx, tx, walkthrough, "step.move", moved).await }
}

/// Deletes a step from the draft. Published versions keep it, and so does the progress of end users who completed it.
///
/// # Errors
/// The same as for [`add_step`].
pub async fn delete_step(cx: &Ctx, ops: &Ops, target: EditTarget<'_>, id: &StepId) -> Result<StepDeletion> {
    authorize(&cx.caller, Operation::WalkthroughWrite, target.organization_id)?;
    let mut tx = ops.store.begin().await?;
    let LockedChain { mut walkthrough, steps } = lock_chain(&mut tx, target).await?;
    let found = step::find(&mut tx, target.organization_id, target.walkthrough_id, id).await?;
    let step = found.ok_or_else(|| step_not_found(id))?;
    let index = chain::index_of(&steps, id)?;
    let after = index.checked_sub(1).map(|before| steps[before].clone());
    relink(&mut tx, &mut walkthrough, &chain::remove(&steps, id)?).await?;
    revisions::delete(cx, &mut tx, &walkthrough, &[(&step, after.as_ref())]).await?;
    let deleted = finish(cx, tx, walkthrough, "step.delete", PositionedStep { step, position: index + 1 }).await?;
    Ok(StepDeletion { deleted, after })
}

pub(super) fn step_not_found(id: &StepId) -> Error {
    Error::new(Code::StepNotFound, format!("The walkthrough has no step {id}.")).with("step_id", id.as_str())
}

/// Locks the walkthrough and reads the order of the steps.
pub(super) async fn lock_chain(tx: &mut Tx, target: EditTarget<'_>) -> Result<LockedChain> {
    let walkthrough = lock_walkthrough(tx, target).await?;
    let steps = list_ids(tx, &walkthrough).await?;
    Ok(LockedChain { walkthrough, steps })
}

/// Returns the IDs of the draft's steps in order.
async fn list_ids(tx: &mut Tx, walkthrough: &Walkthrough) -> Result<Vec<StepId>> {
    let links = step::list_links(tx, &walkthrough.organization_id, &walkthrough.id).await?;
    let links = chain::order(walkthrough.first_step_id.as_ref(), links)?;
    Ok(links.into_iter().map(|link| link.id).collect())
}

/// Returns the position of a step of the draft, starting at 1.
pub(super) async fn find_position(tx: &mut Tx, walkthrough: &Walkthrough, id: &StepId) -> Result<usize> {
    Ok(chain::index_of(&list_ids(tx, walkthrough).await?, id)? + 1)
}

/// Writes the links between steps. The link to the first step is set in `walkthrough`, which the caller writes at the
/// end.
async fn relink(tx: &mut Tx, walkthrough: &mut Walkthrough, links: &[LinkUpdate]) -> Result<()> {
    step::relink(tx, &walkthrough.organization_id, &walkthrough.id, links).await?;
    if let Some(first) = links.iter().rev().find(|link| link.from.is_none()) {
        walkthrough.first_step_id.clone_from(&first.to);
    }
    Ok(())
}

async fn check_key_is_free(tx: &mut Tx, walkthrough: &Walkthrough, key: Option<&str>) -> Result<()> {
    let Some(key) = key else { return Ok(()) };
    match step::find_by_key(tx, &walkthrough.organization_id, &walkthrough.id, key).await? {
        Some((id, title)) => {
            let message = format!("The step {id} (\"{title}\") already has the key `{key}`.");
            Err(Error::new(Code::Conflict, message).with("field", "key").with("step_id", id.as_str()))
        }
        None => Ok(()),
    }
}

/// A step and its position, starting at 1.
pub(super) struct PositionedStep {
    /// The step.
    pub step: Step,
    /// The position.
    pub position: usize,
}

impl PositionedStep {
    /// Returns the result of an edit. `walkthrough` is the stored state after the edit.
    pub(super) fn of(self, walkthrough: &Walkthrough) -> StepEdit {
        StepEdit { revision: walkthrough.revision, step: self.step, position: self.position, kind: walkthrough.kind }
    }
}

/// Saves an edit, records it in the audit log and commits.
async fn finish(
    cx: &Ctx,
    tx: Tx,
    walkthrough: Walkthrough,
    action: &'static str,
    edited: PositionedStep,
) -> Result<StepEdit> {
    finish_with(cx, tx, walkthrough, action, json!({}), edited).await
}

/// Does the same as [`finish`], with additional details for the audit log.
pub(super) async fn finish_with(
    cx: &Ctx,
    mut tx: Tx,
    mut walkthrough: Walkthrough,
    action: &'static str,
    mut detail: Value,
    edited: PositionedStep,
) -> Result<StepEdit> {
    save_edit(cx, &mut tx, &mut walkthrough).await?;
    detail["revision"] = json!(walkthrough.revision);
    detail["step_id"] = json!(edited.step.id);
    detail["title"] = json!(edited.step.content.title);
    record_operation(cx, &mut tx, &walkthrough, action, detail).await?;
    tx.commit().await?;
    Ok(edited.of(&walkthrough))
}

/// Does the same as [`finish`] for the frequent edits of the editor: the edits of a session share an audit log entry.
async fn finish_session_edit(
    cx: &Ctx,
    mut tx: Tx,
    mut walkthrough: Walkthrough,
    edited: PositionedStep,
) -> Result<StepEdit> {
    save_edit(cx, &mut tx, &mut walkthrough).await?;
    let step = &edited.step;
    let detail = json!({ "revision": walkthrough.revision, "step_id": step.id, "title": step.content.title });
    record_edit_session(cx, &mut tx, &walkthrough, "step.update", step.id.as_str(), detail).await?;
    tx.commit().await?;
    Ok(edited.of(&walkthrough))
}
