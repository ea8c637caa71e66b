//! Walkthroughs on servers.

use serde_json::{Value, json};
use waypost_core::access::{Operation, authorize};
use waypost_core::assignment::{Assignment, AssignmentCandidate, AssignmentView};
use waypost_core::caller::Ctx;
use waypost_core::id::{AssignmentId, OrganizationId, ServerId, WalkthroughId};
use waypost_core::{Code, Error, Result, name};
use waypost_store::{Tx, assignment as store, server, walkthrough};

use crate::Ops;
use crate::audit::{Entry, record};

/// The largest place.
pub const MAX_DISPLAY_ORDER: i64 = 1_000_000_000;

/// Where to place a walkthrough; what is absent stays, or is the default for one that is new there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AssignmentPatch {
    /// Smaller numbers stand first; by default after the last.
    pub display_order: Option<i64>,
    /// Whether it is offered; by default it is.
    pub enabled: Option<bool>,
}

/// Places a walkthrough on a server, or changes how it is placed there. Doing it again changes nothing.
///
/// # Errors
/// `not_found` when one of the two is not there, or the caller may not know of it.
pub async fn assign(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    (server_id, walkthrough_id): (&ServerId, &WalkthroughId),
    placement: AssignmentPatch,
) -> Result<Assignment> {
    authorize(&cx.caller, Operation::AssignmentWrite, organization)?;
    let mut tx = ops.db.begin().await?;
    let (assignment, changed) = upsert(cx, &mut tx, organization, (server_id, walkthrough_id), placement).await?;
    if changed {
        tx.commit().await?;
    }
    Ok(assignment)
}

/// [`assign`] within a transaction, for acts that do more; they have asked whether the caller may. Says whether anything
/// changed.
pub(crate) async fn upsert(
    cx: &Ctx,
    tx: &mut Tx,
    organization: &OrganizationId,
    (server_id, walkthrough_id): (&ServerId, &WalkthroughId),
    placement: AssignmentPatch,
) -> Result<(Assignment, bool)> {
    check_order(placement)?;
    // First of all: this locks the one row, so that changes of assignments come one after the other, and two who add at
    // the same time get different places.
    tx.bump_config_version().await?;
    let old = store::find_by_walkthrough(tx, organization, server_id, walkthrough_id).await?;
    let new = match &old {
        Some(old) => Assignment {
            display_order: placement.display_order.unwrap_or(old.display_order),
            enabled: placement.enabled.unwrap_or(old.enabled),
            ..old.clone()
        },
        None => Assignment {
            id: AssignmentId::new(&*cx.random),
            organization_id: organization.clone(),
            server_id: server_id.clone(),
            walkthrough_id: walkthrough_id.clone(),
            display_order: match placement.display_order {
                Some(order) => order,
                None => store::next_display_order(tx, organization, server_id).await?,
            },
            enabled: placement.enabled.unwrap_or(true),
            created_at: cx.now(),
        },
    };
    let act = match &old {
        Some(old) if *old == new => return Ok((new, false)),
        Some(old) => {
            store::update(tx, organization, &old.id, (placement.display_order, placement.enabled)).await?;
            "assignment.update"
        }
        None => {
            insert(tx, &new).await?;
            "assignment.add"
        }
    };
    record(cx, tx, organization, Entry { action: act, target: new.id.as_str(), detail: described(&new) }).await?;
    Ok((new, true))
}

fn described(assignment: &Assignment) -> Value {
    json!({
        "server_id": assignment.server_id.as_str(),
        "walkthrough_id": assignment.walkthrough_id.as_str(),
        "display_order": assignment.display_order,
        "enabled": assignment.enabled,
    })
}

fn check_order(placement: AssignmentPatch) -> Result<()> {
    match placement.display_order {
        Some(order) if !(-MAX_DISPLAY_ORDER..=MAX_DISPLAY_ORDER).contains(&order) => {
            let message = format!("`display_order` is a number from -{MAX_DISPLAY_ORDER} to {MAX_DISPLAY_ORDER}.");
            Err(Error::invalid("display_order", message))
        }
        _ => Ok(()),
    }
}

/// One assignment.
///
/// # Errors
/// `not_found` when there is none that the caller may know of.
pub async fn get(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &AssignmentId) -> Result<AssignmentView> {
    authorize(&cx.caller, Operation::ServerRead, organization)?;
    store::find(&mut ops.db.read().await?, organization, id).await?.ok_or_else(not_found)
}

/// Changes place or switch, each only when it is given. What others change of the same assignment at the same moment
/// stays theirs.
///
/// # Errors
/// As [`get`]; `invalid_arguments` for a place out of range.
pub async fn update(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &AssignmentId,
    placement: AssignmentPatch,
) -> Result<AssignmentView> {
    authorize(&cx.caller, Operation::AssignmentWrite, organization)?;
    check_order(placement)?;
    let mut tx = ops.db.begin().await?;
    tx.bump_config_version().await?;
    let old = store::find(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    let new = Assignment {
        display_order: placement.display_order.unwrap_or(old.assignment.display_order),
        enabled: placement.enabled.unwrap_or(old.assignment.enabled),
        ..old.assignment.clone()
    };
    if new == old.assignment {
        return Ok(old);
    }
    store::update(&mut tx, organization, id, (placement.display_order, placement.enabled)).await?;
    let entry = Entry { action: "assignment.update", target: id.as_str(), detail: described(&new) };
    record(cx, &mut tx, organization, entry).await?;
    tx.commit().await?;
    Ok(AssignmentView { assignment: new, ..old })
}

/// Puts the assignments `order` of a server first, in this order; those that are not named, because somebody has just
/// added them, come behind in the order that they had. Nothing but places changes. Gives the new list.
///
/// # Errors
/// `not_found` when the server or one of the assignments is not there (any more); `invalid_arguments` when one is named
/// twice.
pub async fn reorder(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    server: &ServerId,
    order: &[AssignmentId],
) -> Result<Vec<AssignmentView>> {
    authorize(&cx.caller, Operation::AssignmentWrite, organization)?;
    let mut tx = ops.db.begin().await?;
    tx.bump_config_version().await?;
    if server::find(&mut tx, organization, server).await?.is_none() {
        return Err(Error::not_found("server"));
    }
    let mut left = store::list(&mut tx, organization, server).await?;
    let mut sorted = Vec::with_capacity(left.len());
    for (at, id) in order.iter().enumerate() {
        if order[..at].contains(id) {
            return Err(Error::invalid("order", format!("`order` names {id} twice.")));
        }
        let at = left.iter().position(|it| it.assignment.id == *id);
        let at = at.ok_or_else(|| {
            let message = format!("{id} is not on this server, or not any more. Load the list again.");
            Error::new(Code::NotFound, message)
        })?;
        sorted.push(left.remove(at));
    }
    sorted.append(&mut left);
    let mut changed = Vec::new();
    for (place, listed) in (1..).zip(&mut sorted) {
        if listed.assignment.display_order != place {
            listed.assignment.display_order = place;
            changed.push((listed.assignment.id.clone(), place));
        }
    }
    if changed.is_empty() {
        return Ok(sorted);
    }
    store::set_display_orders(&mut tx, organization, &changed).await?;
    let ids: Vec<_> = sorted.iter().map(|listed| listed.assignment.id.as_str()).collect();
    let entry = Entry { action: "assignment.reorder", target: server.as_str(), detail: json!({ "order": ids }) };
    record(cx, &mut tx, organization, entry).await?;
    tx.commit().await?;
    Ok(sorted)
}

/// [`unassign`] by the assignment's own id.
///
/// # Errors
/// As [`get`].
pub async fn delete(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &AssignmentId) -> Result<()> {
    authorize(&cx.caller, Operation::AssignmentWrite, organization)?;
    let mut tx = ops.db.begin().await?;
    let found = store::find(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    delete_row(cx, &mut tx, &found.assignment).await?;
    tx.commit().await?;
    Ok(())
}

async fn delete_row(cx: &Ctx, tx: &mut Tx, assignment: &Assignment) -> Result<()> {
    let organization = &assignment.organization_id;
    store::delete(tx, organization, &assignment.id).await?;
    let detail = json!({
        "server_id": assignment.server_id.as_str(),
        "walkthrough_id": assignment.walkthrough_id.as_str(),
    });
    let entry = Entry { action: "assignment.remove", target: assignment.id.as_str(), detail };
    record(cx, tx, organization, entry).await
}

fn not_found() -> Error {
    Error::not_found("assignment")
}

async fn insert(tx: &mut Tx, assignment: &Assignment) -> Result<()> {
    if store::insert(tx, assignment).await? {
        return Ok(());
    }
    let there = server::find(tx, &assignment.organization_id, &assignment.server_id).await?;
    Err(match there {
        None => Error::not_found("server"),
        Some(_) => Error::new(Code::WalkthroughNotFound, "There is no such walkthrough in this server's organisation."),
    })
}

/// Takes a walkthrough from a server. Progress that users made there stays, and is there again after [`assign`].
///
/// # Errors
/// `not_found` when it is not placed there, or the caller may not know of it.
pub async fn unassign(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    server: &ServerId,
    walkthrough: &WalkthroughId,
) -> Result<()> {
    authorize(&cx.caller, Operation::AssignmentWrite, organization)?;
    let mut tx = ops.db.begin().await?;
    let found = store::find_by_walkthrough(&mut tx, organization, server, walkthrough).await?;
    let assignment = found.ok_or_else(not_found)?;
    delete_row(cx, &mut tx, &assignment).await?;
    tx.commit().await?;
    Ok(())
}

/// What is placed on a server, in display order; disabled and unpublished walkthroughs included.
///
/// # Errors
/// `not_found` when the server is not there, or the caller may not know of it.
pub async fn list(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    server: &ServerId,
) -> Result<Vec<AssignmentView>> {
    authorize(&cx.caller, Operation::ServerRead, organization)?;
    let mut conn = ops.db.read().await?;
    if server::find(&mut conn, organization, server).await?.is_none() {
        return Err(Error::not_found("server"));
    }
    Ok(store::list(&mut conn, organization, server).await?)
}

/// Where a walkthrough is placed, by the servers' slugs.
///
/// # Errors
/// `not_found` when the walkthrough is not there, or the caller may not know of it.
pub async fn list_for_walkthrough(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &WalkthroughId,
) -> Result<Vec<AssignmentView>> {
    authorize(&cx.caller, Operation::ServerRead, organization)?;
    let mut conn = ops.db.read().await?;
    if walkthrough::find(&mut conn, organization, id).await?.is_none() {
        return Err(Error::not_found("walkthrough"));
    }
    Ok(store::list_for_walkthrough(&mut conn, organization, id).await?)
}

/// Walkthroughs that could be placed on a server: not placed there, not archived, `text` in the title; `limit` at most.
///
/// # Errors
/// As [`list`].
pub async fn list_candidates(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    server: &ServerId,
    (text, limit): (&str, u32),
) -> Result<Vec<AssignmentCandidate>> {
    authorize(&cx.caller, Operation::WalkthroughRead, organization)?;
    let mut conn = ops.db.read().await?;
    if server::find(&mut conn, organization, server).await?.is_none() {
        return Err(Error::not_found("server"));
    }
    Ok(store::list_candidates(&mut conn, organization, server, (&name::clean(text), limit)).await?)
}
