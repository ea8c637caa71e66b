//! Versions of a walkthrough: their contents, comparison, the impact of publishing, and restoring one to the draft.

use std::collections::HashMap;

use serde_json::json;
use waypost_content::compare::{Comparison, compare as differences};
use waypost_content::transfer::lint::Finding;
use waypost_core::access::{Operation, authorize};
use waypost_core::caller::Ctx;
use waypost_core::chain::LinkUpdate;
use waypost_core::id::{OrganizationId, StepId, VersionId, WalkthroughId};
use waypost_core::impact::{MoveImpact, VersionMove};
use waypost_core::revision::StepRevisionOperation;
use waypost_core::step::Step;
use waypost_core::version::VersionInfo;
use waypost_core::walkthrough::{Walkthrough, WalkthroughFields};
use waypost_core::{Error, Result};
use waypost_store::{Conn, Tx, attempt_counts, step, version, walkthrough};

use super::publish::findings;
use super::{
    Draft, EditTarget, check_title_is_free, load_draft, lock_walkthrough, not_found, record_operation, revisions,
    save_edit,
};
use crate::Ops;

/// A version in the history.
#[derive(Debug, Clone, PartialEq)]
pub struct ListedVersion {
    /// The version without its steps.
    pub info: VersionInfo,
    /// The number of end users in progress on it.
    pub in_progress: u64,
    /// Whether it is the version that is served.
    pub is_current: bool,
}

/// The changes that publishing the draft would make, and their impact on end users.
#[derive(Debug, Clone)]
pub struct PublishImpact {
    /// The revision of the draft.
    pub revision: u32,
    /// The newest version that is not withdrawn. `None` if there is none.
    pub from_version: Option<u32>,
    /// The number that the new version would have.
    pub to_version: u32,
    /// The changes. In a first version every step is new.
    pub comparison: Comparison,
    /// The number of end users in progress on each version, newest version first.
    pub by_version: Vec<(u32, u64)>,
    /// The impact of moving these end users to the new version.
    pub consequences: MoveImpact,
    /// Problems that prevent publishing, and warnings about probable mistakes.
    pub findings: Vec<Finding>,
}

/// Returns the versions, newest first, including withdrawn ones, with the number of end users on each.
///
/// # Errors
/// `not_found`.
pub async fn list(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &WalkthroughId,
) -> Result<Vec<ListedVersion>> {
    authorize(&cx.caller, Operation::WalkthroughRead, organization)?;
    let mut tx = ops.store.snapshot().await?;
    let walkthrough = walkthrough::find(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    let counts: HashMap<_, _> =
        attempt_counts::count_by_version(&mut tx, organization, id).await?.into_iter().collect();
    let versions = version::list(&mut tx, organization, id).await?;
    let listed = versions.into_iter().map(|version| ListedVersion {
        in_progress: counts.get(&version.id).copied().unwrap_or(0),
        is_current: walkthrough.current_version_id.as_ref() == Some(&version.id),
        info: version,
    });
    Ok(listed.collect())
}

/// Returns a version with its steps.
///
/// # Errors
/// `not_found`.
pub async fn get(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &WalkthroughId,
    number: u32,
) -> Result<(VersionInfo, Vec<Step>)> {
    authorize(&cx.caller, Operation::WalkthroughRead, organization)?;
    let mut tx = ops.store.snapshot().await?;
    walkthrough::find(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    load_version(&mut tx, organization, id, number).await
}

/// Compares a version with another version, or with the draft if `to` is `None`.
///
/// # Errors
/// `not_found` if the walkthrough or one of the versions does not exist.
pub async fn compare(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &WalkthroughId,
    from: u32,
    to: Option<u32>,
) -> Result<Comparison> {
    authorize(&cx.caller, Operation::WalkthroughRead, organization)?;
    let mut tx = ops.store.snapshot().await?;
    let walkthrough = walkthrough::find(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    let (before, before_steps) = load_version(&mut tx, organization, id, from).await?;
    let (after, after_steps) = match to {
        Some(number) => {
            let (after, steps) = load_version(&mut tx, organization, id, number).await?;
            (after.fields, steps)
        }
        None => {
            let draft = load_draft(&mut tx, walkthrough).await?;
            (draft.walkthrough.fields(), draft.steps)
        }
    };
    Ok(differences((&before.fields, &before_steps), (&after, &after_steps)))
}

async fn load_version(
    conn: &mut Conn,
    organization: &OrganizationId,
    id: &WalkthroughId,
    number: u32,
) -> Result<(VersionInfo, Vec<Step>)> {
    let version = version::find_by_number(conn, organization, id, number).await?;
    let version = version.ok_or_else(|| Error::not_found("version"))?;
    let steps = version::list_steps(conn, organization, &version.id).await?;
    Ok((version, steps))
}

/// Returns the changes that publishing the draft would make, and their impact on end users.
///
/// # Errors
/// `not_found`; `conflict` if the chain of steps is broken.
pub async fn get_impact(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &WalkthroughId,
) -> Result<PublishImpact> {
    authorize(&cx.caller, Operation::WalkthroughRead, organization)?;
    let mut tx = ops.store.snapshot().await?;
    let walkthrough = walkthrough::find(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    let Draft { walkthrough, steps } = load_draft(&mut tx, walkthrough).await?;
    let newest = version::find_newest(&mut tx, organization, id).await?;
    let comparison = match &newest {
        Some(newest) => {
            let before = version::list_steps(&mut tx, organization, &newest.id).await?;
            differences((&newest.fields, &before), (&walkthrough.fields(), &steps))
        }
        None => differences((&walkthrough.fields(), &[]), (&walkthrough.fields(), &steps)),
    };
    let to: Vec<u32> = steps.iter().map(|step| step.ordinal).collect();
    let (by_version, consequences) = count_affected(&mut tx, organization, id, &to).await?;
    Ok(PublishImpact {
        revision: walkthrough.revision,
        from_version: newest.map(|newest| newest.number),
        to_version: version::max_number(&mut tx, organization, id).await? + 1,
        comparison,
        by_version,
        consequences,
        findings: findings(&walkthrough, &steps),
    })
}

/// Returns the number of end users on each version, and the impact on them of moving to a version with the step
/// ordinals `to`.
async fn count_affected(
    conn: &mut Conn,
    organization: &OrganizationId,
    id: &WalkthroughId,
    to: &[u32],
) -> Result<(Vec<(u32, u64)>, MoveImpact)> {
    let counts = attempt_counts::count_by_version(conn, organization, id).await?;
    let mut by_version = Vec::with_capacity(counts.len());
    let mut moves: HashMap<VersionId, VersionMove> = HashMap::with_capacity(counts.len());
    for (version_id, count) in counts {
        let Some(version) = version::find(conn, organization, &version_id).await? else { continue };
        let from = version::list_ordinals(conn, organization, &version_id).await?;
        moves.insert(version_id, VersionMove::new(from, to.to_vec()));
        by_version.push((version.number, count));
    }
    by_version.sort_unstable_by(|a, b| b.cmp(a));
    let mut consequences = MoveImpact::default();
    let add_group = |version_id, completed: &_, count| {
        if let Some(version_move) = moves.get(&version_id) {
            consequences.add(version_move.impact_on(completed), count);
        }
    };
    attempt_counts::for_each_group(conn, organization, id, add_group).await?;
    Ok((by_version, consequences))
}

/// Restores a version to the draft. Steps keep their IDs. Steps that the version does not have are deleted from the
/// draft.
///
/// # Errors
/// `not_found` if the version does not exist; `conflict` if another walkthrough now has its title;
/// `precondition_failed` if the draft has changed since `target.revision`.
pub async fn restore(cx: &Ctx, ops: &Ops, target: EditTarget<'_>, number: u32) -> Result<Walkthrough> {
    authorize(&cx.caller, Operation::WalkthroughWrite, target.organization_id)?;
    let mut tx = ops.store.begin().await?;
    super::lock_names(&mut tx, target.organization_id).await?;
    let walkthrough = lock_walkthrough(&mut tx, target).await?;
    let Draft { mut walkthrough, steps: before } = load_draft(&mut tx, walkthrough).await?;
    let (version, after) = load_version(&mut tx, target.organization_id, target.walkthrough_id, number).await?;
    if is_same_draft(&walkthrough.fields(), &before, &version.fields, &after) {
        return Ok(walkthrough);
    }
    walkthrough.set_fields(version.fields);
    check_title_is_free(&mut tx, &walkthrough).await?;
    replace_steps(cx, &mut tx, &walkthrough, &before, &after).await?;
    walkthrough.first_step_id = after.first().map(|step| step.id.clone());
    save_edit(cx, &mut tx, &mut walkthrough).await?;
    let detail = json!({ "version": number, "revision": walkthrough.revision });
    record_operation(cx, &mut tx, &walkthrough, "walkthrough.restore_version", detail).await?;
    tx.commit().await?;
    Ok(walkthrough)
}

fn is_same_draft(fields: &WalkthroughFields, steps: &[Step], other: &WalkthroughFields, other_steps: &[Step]) -> bool {
    fields == other && steps == other_steps
}

/// Replaces the steps `before` of a draft with `after`. Unchanged rows are not written.
async fn replace_steps(
    cx: &Ctx,
    tx: &mut Tx,
    walkthrough: &Walkthrough,
    before: &[Step],
    after: &[Step],
) -> Result<()> {
    let (organization, id) = (&walkthrough.organization_id, &walkthrough.id);
    let old_steps: HashMap<&StepId, &Step> = before.iter().map(|step| (&step.id, step)).collect();
    let new_steps: HashMap<&StepId, &Step> = after.iter().map(|step| (&step.id, step)).collect();
    let removed = revisions::select(before, |step| !new_steps.contains_key(&step.id));
    if !removed.is_empty() {
        revisions::delete(cx, tx, walkthrough, &removed).await?;
    }
    let changed: Vec<_> = after
        .iter()
        .filter(|step| old_steps.get(&step.id).is_some_and(|old| old.content != step.content || old.key != step.key))
        .collect();
    if !changed.is_empty() {
        revisions::update(cx, tx, walkthrough, StepRevisionOperation::Restore, &changed).await?;
    }
    let restored: Vec<_> = after.iter().filter(|step| !old_steps.contains_key(&step.id)).collect();
    for step in &restored {
        step::consume_removed(tx, organization, id, &step.id).await?;
    }
    if !restored.is_empty() {
        revisions::insert(cx, tx, walkthrough, StepRevisionOperation::Restore, &restored).await?;
    }
    let links =
        after.iter().filter(|step| old_steps.get(&step.id).is_some_and(|old| old.next_step_id != step.next_step_id));
    let links: Vec<_> =
        links.map(|step| LinkUpdate { from: Some(step.id.clone()), to: step.next_step_id.clone() }).collect();
    step::relink(tx, organization, id, &links).await?;
    Ok(())
}
