//! The history of a draft's steps. Every write of a step goes through [`insert`], [`update`] or [`delete`], which store
//! a revision of the step in the same transaction, so that the draft always matches its newest revisions.

use serde_json::json;
use waypost_core::access::{Operation, authorize};
use waypost_core::caller::Ctx;
use waypost_core::chain::StepPosition;
use waypost_core::id::{OrganizationId, StepId, WalkthroughId};
use waypost_core::revision::{
    MAX_REVISION_BYTES, MAX_REVISIONS, RETENTION_MS, RevisionInfo, StepRevision, StepRevisionOperation, can_collapse,
};
use waypost_core::step::{MAX_STEPS, Step};
use waypost_core::walkthrough::Walkthrough;
use waypost_core::{Clock, Code, Error, Result};
use waypost_store::step_revision::{self, DraftScope, NewRevision};
use waypost_store::{Conn, Db, Tx, audit, step, walkthrough};

use super::draft::{
    Insertion, NewStep, Origin, PositionedStep, StepEdit, find_position, finish_with, insert_step, lock_chain,
    step_not_found,
};
use super::{EditTarget, lock_walkthrough, not_found};
use crate::Ops;

/// The maximum page size.
pub const MAX_PAGE: u32 = 200;

/// A revision with the name of its author.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedRevision {
    /// The revision.
    pub info: RevisionInfo,
    /// The user's email address or the key's name. `None` if unknown.
    pub actor_name: Option<String>,
}

/// A step that was deleted from the draft and can be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeletedStep {
    /// The step.
    pub id: StepId,
    /// Its deletion.
    pub revision: ListedRevision,
}

/// A page of a step's history.
#[derive(Debug, Clone)]
pub struct RevisionPage {
    /// The revisions, newest first.
    pub items: Vec<ListedRevision>,
    /// The value of `before` for the next page. `None` on the last page.
    pub next_before: Option<u32>,
}

fn scope(walkthrough: &Walkthrough) -> DraftScope<'_> {
    DraftScope { organization_id: &walkthrough.organization_id, walkthrough_id: &walkthrough.id }
}

fn new_revision<'a>(cx: &'a Ctx, origin: Origin) -> NewRevision<'a> {
    NewRevision {
        operation: origin.operation,
        actor: cx.caller.actor(),
        restored_from: origin.restored_from,
        at: cx.now(),
    }
}

/// Inserts steps into the draft.
pub(super) async fn insert(
    cx: &Ctx,
    tx: &mut Tx,
    walkthrough: &Walkthrough,
    origin: impl Into<Origin>,
    steps: &[&Step],
) -> Result<()> {
    step::insert(tx, &walkthrough.organization_id, &walkthrough.id, steps.iter().copied()).await?;
    append(
        tx,
        walkthrough,
        new_revision(cx, origin.into()),
        &steps.iter().map(|step| (*step, None)).collect::<Vec<_>>(),
    )
    .await
}

/// Updates the keys and contents of steps of the draft.
pub(super) async fn update(
    cx: &Ctx,
    tx: &mut Tx,
    walkthrough: &Walkthrough,
    origin: impl Into<Origin>,
    steps: &[&Step],
) -> Result<()> {
    step_revision::insert_baseline(tx, scope(walkthrough), walkthrough.updated_at, steps.iter().map(|step| &step.id))
        .await?;
    step::update(tx, &walkthrough.organization_id, &walkthrough.id, steps.iter().copied()).await?;
    let new = new_revision(cx, origin.into());
    if let [step] = steps {
        let last = step_revision::list(tx, scope(walkthrough), &step.id, None, 1).await?;
        if let Some(last) = last.first().filter(|last| can_collapse(last, new.operation, new.actor, new.at)) {
            step_revision::replace(tx, scope(walkthrough), last.number, new, step).await?;
            trim(tx, walkthrough, [&step.id]).await?;
            return Ok(());
        }
    }
    append(tx, walkthrough, new, &steps.iter().map(|step| (*step, None)).collect::<Vec<_>>()).await
}

/// Returns the steps of the ordered chain that meet a condition, each with the ID of the step before it, for
/// [`delete`].
pub(super) fn select(chain: &[Step], condition: impl Fn(&Step) -> bool) -> Vec<(&Step, Option<&StepId>)> {
    let before = std::iter::once(None).chain(chain.iter().map(|step| Some(&step.id)));
    chain.iter().zip(before).filter(|(step, _)| condition(step)).collect()
}

/// Deletes steps from the draft. Each step comes with the ID of the step before it, or `None` if it is the first.
pub(super) async fn delete(
    cx: &Ctx,
    tx: &mut Tx,
    walkthrough: &Walkthrough,
    removed: &[(&Step, Option<&StepId>)],
) -> Result<()> {
    let ids = || removed.iter().map(|(step, _)| &step.id);
    step_revision::insert_baseline(tx, scope(walkthrough), walkthrough.updated_at, ids()).await?;
    append(tx, walkthrough, new_revision(cx, StepRevisionOperation::Delete.into()), removed).await?;
    step::delete(tx, &walkthrough.organization_id, &walkthrough.id, ids()).await?;
    Ok(())
}

async fn append(
    tx: &mut Tx,
    walkthrough: &Walkthrough,
    new: NewRevision<'_>,
    steps: &[(&Step, Option<&StepId>)],
) -> Result<()> {
    step_revision::append(tx, scope(walkthrough), new, steps.iter().copied()).await?;
    // A step that was just added has no other revisions.
    if new.operation != StepRevisionOperation::Add {
        trim(tx, walkthrough, steps.iter().map(|(step, _)| &step.id)).await?;
    }
    Ok(())
}

async fn trim<'a>(tx: &mut Tx, walkthrough: &Walkthrough, steps: impl IntoIterator<Item = &'a StepId>) -> Result<()> {
    step_revision::trim(tx, scope(walkthrough), MAX_REVISIONS, MAX_REVISION_BYTES, steps).await?;
    Ok(())
}

/// Returns the history of a step, newest first. The step may have been deleted from the draft.
///
/// # Errors
/// `not_found`; `step_not_found` if the walkthrough has neither the step nor revisions of it; `invalid_arguments` for a
/// limit out of range.
pub async fn list(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    walkthrough: &WalkthroughId,
    id: &StepId,
    before: Option<u32>,
    limit: Option<u32>,
) -> Result<RevisionPage> {
    authorize(&cx.caller, Operation::WalkthroughRead, organization)?;
    let limit = limit.unwrap_or(50);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(Error::invalid("limit", format!("`limit` must be a number from 1 to {MAX_PAGE}.")));
    }
    let mut tx = ops.store.snapshot().await?;
    let walkthrough = walkthrough::find(&mut tx, organization, walkthrough).await?.ok_or_else(not_found)?;
    let mut revisions = step_revision::list(&mut tx, scope(&walkthrough), id, before, i64::from(limit) + 1).await?;
    if revisions.is_empty()
        && before.is_none()
        && step::find(&mut tx, organization, &walkthrough.id, id).await?.is_none()
    {
        return Err(step_not_found(id));
    }
    let more = revisions.len() > limit as usize;
    revisions.truncate(limit as usize);
    let next_before = revisions.last().filter(|_| more).map(|revision| revision.number);
    Ok(RevisionPage { items: with_actor_names(&mut tx, organization, revisions).await?, next_before })
}

async fn with_actor_names(
    conn: &mut Conn,
    organization: &OrganizationId,
    revisions: Vec<RevisionInfo>,
) -> Result<Vec<ListedRevision>> {
    let mut actors: Vec<_> = revisions.iter().map(|revision| revision.actor.as_str()).collect();
    actors.sort_unstable();
    actors.dedup();
    let names = audit::find_actor_names(conn, organization, &actors).await?;
    let listed = revisions.into_iter().map(|info| ListedRevision { actor_name: names.get(&info.actor).cloned(), info });
    Ok(listed.collect())
}

/// Returns a revision of a step with its content.
///
/// # Errors
/// `not_found` if the walkthrough or the revision does not exist.
pub async fn get(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    walkthrough: &WalkthroughId,
    id: &StepId,
    number: u32,
) -> Result<(ListedRevision, StepRevision)> {
    authorize(&cx.caller, Operation::WalkthroughRead, organization)?;
    let mut tx = ops.store.snapshot().await?;
    let walkthrough = walkthrough::find(&mut tx, organization, walkthrough).await?.ok_or_else(not_found)?;
    let found = step_revision::find(&mut tx, scope(&walkthrough), id, number).await?;
    let revision = found.ok_or_else(|| revision_not_found(number))?;
    let listed = with_actor_names(&mut tx, organization, vec![revision.info.clone()]).await?.pop();
    Ok((listed.ok_or_else(|| revision_not_found(number))?, revision))
}

/// Returns the steps that were deleted from the draft and can be restored, the latest deletion first.
///
/// # Errors
/// `not_found`.
pub async fn list_deleted(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    walkthrough: &WalkthroughId,
) -> Result<Vec<DeletedStep>> {
    authorize(&cx.caller, Operation::WalkthroughRead, organization)?;
    let mut tx = ops.store.snapshot().await?;
    let walkthrough = walkthrough::find(&mut tx, organization, walkthrough).await?.ok_or_else(not_found)?;
    let limit = i64::try_from(MAX_STEPS).unwrap_or(i64::MAX);
    let deleted = step_revision::list_deleted(&mut tx, scope(&walkthrough), limit).await?;
    let (ids, revisions): (Vec<_>, Vec<_>) = deleted.into_iter().unzip();
    let revisions = with_actor_names(&mut tx, organization, revisions).await?;
    Ok(ids.into_iter().zip(revisions).map(|(id, revision)| DeletedStep { id, revision }).collect())
}

/// Restores the content of a step from a revision. The restored content becomes a new revision, so that nothing is
/// lost. A deleted step returns with its ID to its previous position, or to the end if the step before it is no longer
/// in the draft.
///
/// # Errors
/// `not_found` if the revision does not exist; `conflict` if the draft has 500 steps; `precondition_failed` if the
/// draft has changed since `target.revision`.
pub async fn restore(cx: &Ctx, ops: &Ops, target: EditTarget<'_>, id: &StepId, number: u32) -> Result<StepEdit> {
    authorize(&cx.caller, Operation::WalkthroughWrite, target.organization_id)?;
    let mut tx = ops.store.begin().await?;
    let walkthrough = lock_walkthrough(&mut tx, target).await?;
    let revision = step_revision::find(&mut tx, scope(&walkthrough), id, number).await?;
    let revision = revision.ok_or_else(|| revision_not_found(number))?;
    let origin = Origin { operation: StepRevisionOperation::Restore, restored_from: Some(number) };
    let Some(before) = step::find(&mut tx, target.organization_id, target.walkthrough_id, id).await? else {
        return restore_deleted(cx, tx, target, id, origin, revision).await;
    };
    let position = find_position(&mut tx, &walkthrough, id).await?;
    let after = Step { content: revision.content, ..before.clone() };
    if after == before {
        return Ok(PositionedStep { step: after, position }.of(&walkthrough));
    }
    update(cx, &mut tx, &walkthrough, origin, &[&after]).await?;
    let (detail, edited) = (json!({ "number": number }), PositionedStep { step: after, position });
    finish_with(cx, tx, walkthrough, "step.restore_revision", detail, edited).await
}

async fn restore_deleted(
    cx: &Ctx,
    mut tx: Tx,
    target: EditTarget<'_>,
    id: &StepId,
    origin: Origin,
    revision: StepRevision,
) -> Result<StepEdit> {
    let chain = lock_chain(&mut tx, target).await?;
    let walkthrough = &chain.walkthrough;
    let ordinal = step::consume_removed(&mut tx, target.organization_id, target.walkthrough_id, id).await?;
    let ordinal = ordinal.ok_or_else(|| step_not_found(id))?;
    // The revision of the deletion contains the step's position, regardless of which revision is restored.
    let last = step_revision::list(&mut tx, scope(walkthrough), id, None, 1).await?;
    let last = last.first().map_or(revision.info.number, |last| last.number);
    let deletion = step_revision::find(&mut tx, scope(walkthrough), id, last).await?;
    let position = match deletion.map(|deletion| deletion.after_step_id) {
        Some(None) => StepPosition::First,
        Some(Some(after)) if chain.steps.contains(&after) => StepPosition::After(after),
        _ => StepPosition::Last,
    };
    let key = match revision.key {
        Some(key)
            if step::find_by_key(&mut tx, &walkthrough.organization_id, &walkthrough.id, &key).await?.is_none() =>
        {
            Some(key)
        }
        _ => None,
    };
    let new = NewStep { key, content: revision.content, position };
    let insertion = Insertion { id: id.clone(), ordinal, new, action: "step.restore_revision", origin };
    insert_step(cx, tx, chain, insertion).await
}

fn revision_not_found(number: u32) -> Error {
    let message = format!("The step has no revision {number}. Revisions are kept for 90 days.");
    Error::new(Code::NotFound, message).with("number", number)
}

/// Deletes revisions that were superseded more than 90 days ago, a limited number per call. Returns the number of
/// deleted revisions.
///
/// # Errors
/// `unavailable` if the database cannot be reached.
pub async fn delete_expired(db: &Db, clock: &dyn Clock) -> Result<u64> {
    const BATCH: i64 = 500;
    let mut tx = db.begin().await?;
    let rows = step_revision::delete_superseded(&mut tx, clock.now().plus(-RETENTION_MS), BATCH).await?;
    tx.commit().await?;
    Ok(rows)
}
