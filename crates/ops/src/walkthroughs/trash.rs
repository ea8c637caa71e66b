//! The trash. A deleted walkthrough is hidden everywhere. For 30 days it can be restored with its assignments, its
//! versions and all end users' progress.

use serde_json::json;
use waypost_content::transfer::identity::title_key;
use waypost_core::access::{Operation, authorize};
use waypost_core::caller::Ctx;
use waypost_core::id::{OrganizationId, WalkthroughId};
use waypost_core::walkthrough::{MAX_WALKTHROUGHS, Walkthrough};
use waypost_core::{Code, Error, Result, Timestamp};
use waypost_store::{audit, trash, walkthrough};

use super::{EditTarget, find_free_slug, find_free_title, lock_names, lock_walkthrough, not_found, record_operation};
use crate::Ops;

/// The time for which a deleted walkthrough is kept.
pub const RETENTION_MS: i64 = 30 * 24 * 60 * 60 * 1_000;

/// A deleted walkthrough.
#[derive(Debug, Clone, PartialEq)]
pub struct TrashedWalkthrough {
    /// The walkthrough before the deletion.
    pub walkthrough: Walkthrough,
    /// The time of the deletion.
    pub deleted_at: Timestamp,
    /// The ID of the user or key that deleted it, or `operator`.
    pub deleted_by: String,
    /// The user's email address or the key's name. `None` if unknown.
    pub deleted_by_name: Option<String>,
    /// The time after which it is deleted permanently.
    pub purged_at: Timestamp,
}

/// Moves a walkthrough to the trash. It is no longer offered, listed or found. Its title and slug can be used again.
///
/// # Errors
/// `not_found` if it does not exist; `precondition_failed` if the draft has changed since `target.revision`.
pub async fn delete(cx: &Ctx, ops: &Ops, target: EditTarget<'_>) -> Result<()> {
    authorize(&cx.caller, Operation::WalkthroughWrite, target.organization_id)?;
    let mut tx = ops.store.begin().await?;
    let walkthrough = lock_walkthrough(&mut tx, target).await?;
    tx.bump_config_version(target.organization_id).await?;
    trash::insert(&mut tx, target.organization_id, target.walkthrough_id, cx.now(), cx.caller.actor()).await?;
    record_operation(cx, &mut tx, &walkthrough, "walkthrough.delete", json!({ "title": walkthrough.title })).await?;
    tx.commit().await?;
    Ok(())
}

/// Returns the deleted walkthroughs of an organisation, most recently deleted first.
///
/// # Errors
/// `not_found` if the caller cannot access the organisation.
pub async fn list_deleted(cx: &Ctx, ops: &Ops, organization: &OrganizationId) -> Result<Vec<TrashedWalkthrough>> {
    authorize(&cx.caller, Operation::WalkthroughRead, organization)?;
    let mut tx = ops.store.snapshot().await?;
    let limit = i64::try_from(MAX_WALKTHROUGHS).unwrap_or(i64::MAX);
    let deleted = trash::list(&mut tx, organization, limit).await?;
    let mut actors: Vec<_> = deleted.iter().map(|row| row.deleted_by.as_str()).collect();
    actors.sort_unstable();
    actors.dedup();
    let names = audit::find_actor_names(&mut tx, organization, &actors).await?;
    let listed = deleted.into_iter().map(|row| TrashedWalkthrough {
        purged_at: row.deleted_at.plus(RETENTION_MS),
        deleted_by_name: names.get(&row.deleted_by).cloned(),
        walkthrough: row.walkthrough,
        deleted_at: row.deleted_at,
        deleted_by: row.deleted_by,
    });
    Ok(listed.collect())
}

/// Restores a walkthrough from the trash with its ID and its state. A published walkthrough is offered again
/// immediately on every server to which it was assigned. If another walkthrough now has its title or slug, the
/// restored one gets a new title or slug.
///
/// # Errors
/// `not_found` if it does not exist; `conflict` if it is not in the trash.
pub async fn restore(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &WalkthroughId) -> Result<Walkthrough> {
    authorize(&cx.caller, Operation::WalkthroughWrite, organization)?;
    let mut tx = ops.store.begin().await?;
    lock_names(&mut tx, organization).await?;
    let Some(trashed) = trash::find_for_update(&mut tx, organization, id).await? else {
        walkthrough::find(&mut tx, organization, id).await?.ok_or_else(not_found)?;
        return Err(Error::new(Code::Conflict, "The walkthrough is not in the trash."));
    };
    let mut walkthrough = trashed.walkthrough;
    if walkthrough::find_by_title(&mut tx, organization, &title_key(&walkthrough.title)).await?.is_some() {
        walkthrough.title = find_free_title(&mut tx, organization, &walkthrough.title, "restored").await?;
    }
    if walkthrough::find_by_slug(&mut tx, organization, &walkthrough.slug).await?.is_some() {
        walkthrough.slug = find_free_slug(&mut tx, organization, &walkthrough.title).await?;
    }
    tx.bump_config_version(organization).await?;
    trash::restore(&mut tx, &walkthrough, &title_key(&walkthrough.title)).await?;
    let detail = json!({ "title": walkthrough.title, "slug": walkthrough.slug, "state": walkthrough.state });
    record_operation(cx, &mut tx, &walkthrough, "walkthrough.restore", detail).await?;
    tx.commit().await?;
    Ok(walkthrough)
}

/// Deletes a walkthrough in the trash permanently, with its versions, its assignments and all progress.
///
/// # Errors
/// `not_found` if it is not in the trash; `forbidden` for members who are not admins.
pub async fn purge(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &WalkthroughId) -> Result<()> {
    authorize(&cx.caller, Operation::WalkthroughPurge, organization)?;
    let mut tx = ops.store.begin().await?;
    let trashed = trash::find_for_update(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    // Must come before the deletion: a concurrent assignment holds this lock while it waits for the row.
    tx.bump_config_version(organization).await?;
    walkthrough::delete(&mut tx, organization, id).await?;
    record_operation(
        cx,
        &mut tx,
        &trashed.walkthrough,
        "walkthrough.purge",
        json!({ "title": trashed.walkthrough.title }),
    )
    .await?;
    tx.commit().await?;
    Ok(())
}

/// Permanently deletes walkthroughs that have been in the trash for 30 days, a limited number per call. Returns the
/// number of deleted walkthroughs.
///
/// # Errors
/// `unavailable` if the database cannot be reached.
pub async fn purge_expired(cx: &Ctx, ops: &Ops) -> Result<u64> {
    const BATCH: i64 = 5;
    let mut conn = ops.store.read().await?;
    let due = trash::list_expired(&mut conn, cx.now().plus(-RETENTION_MS), BATCH).await?;
    drop(conn);
    let mut purged = 0;
    for (organization, id) in due {
        match purge(cx, ops, &organization, &id).await {
            Ok(()) => purged += 1,
            // Restored or purged concurrently.
            Err(error) if error.code == Code::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(purged)
}
