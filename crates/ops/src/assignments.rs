//! Assignments of walkthroughs to servers.

use serde_json::{Value, json};
use waypost_content::name;
use waypost_core::access::{Operation, authorize};
use waypost_core::assignment::{Assignment, AssignmentCandidate, AssignmentView};
use waypost_core::caller::Ctx;
use waypost_core::id::{AssignmentId, OrganizationId, ServerId, WalkthroughId};
use waypost_core::{Code, Error, Result};
use waypost_store::{Tx, assignment as store, server, walkthrough};

use crate::Ops;
use crate::audit::{Entry, record};

/// The largest absolute value of `display_order`.
pub const MAX_DISPLAY_ORDER: i64 = 1_000_000_000;

/// The settings of an assignment. A field that is `None` stays unchanged, or gets its default in a new assignment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AssignmentPatch {
    /// The sort key on the server, in ascending order. By default, the assignment is added at the end.
    pub display_order: Option<i64>,
    /// Whether the walkthrough is offered; `true` by default.
    pub enabled: Option<bool>,
}

/// Assigns a walkthrough to a server, or updates the existing assignment. Idempotent.
///
/// # Errors
/// `not_found` if the server does not exist or the caller cannot access it; `walkthrough_not_found` if the organisation
/// has no such walkthrough; `invalid_arguments` for a `display_order` out of range.
pub async fn assign(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    server_id: &ServerId,
    walkthrough_id: &WalkthroughId,
    settings: AssignmentPatch,
) -> Result<Assignment> {
    authorize(&cx.caller, Operation::AssignmentWrite, organization)?;
    let mut tx = ops.store.begin().await?;
    let (assignment, changed) = upsert(cx, &mut tx, organization, server_id, walkthrough_id, settings).await?;
    if changed {
        tx.commit().await?;
    }
    Ok(assignment)
}

/// Does the same as [`assign`] in a transaction of the caller, without authorization. Also returns whether anything
/// changed.
pub(crate) async fn upsert(
    cx: &Ctx,
    tx: &mut Tx,
    organization: &OrganizationId,
    server_id: &ServerId,
    walkthrough_id: &WalkthroughId,
    settings: AssignmentPatch,
) -> Result<(Assignment, bool)> {
    check_display_order(settings)?;
    // Must come first: this locks one row, so that changes to assignments are serialised and concurrent assignments get
    // different positions.
    tx.bump_config_version(organization).await?;
    let old = store::find_by_walkthrough(tx, organization, server_id, walkthrough_id).await?;
    let new = match &old {
        Some(old) => Assignment {
            display_order: settings.display_order.unwrap_or(old.display_order),
            enabled: settings.enabled.unwrap_or(old.enabled),
            ..old.clone()
        },
        None => Assignment {
            id: AssignmentId::new(&*cx.random),
            organization_id: organization.clone(),
            server_id: server_id.clone(),
            walkthrough_id: walkthrough_id.clone(),
            display_order: match settings.display_order {
                Some(order) => order,
                None => store::next_display_order(tx, organization, server_id).await?,
            },
            enabled: settings.enabled.unwrap_or(true),
            created_at: cx.now(),
        },
    };
    let action = match &old {
        Some(old) if *old == new => return Ok((new, false)),
        Some(old) => {
            store::update(tx, organization, &old.id, settings.display_order, settings.enabled).await?;
            "assignment.update"
        }
        None => {
            insert(tx, &new).await?;
            "assignment.add"
        }
    };
    record(cx, tx, organization, Entry { action, target: new.id.as_str(), detail: audit_detail(&new) }).await?;
    Ok((new, true))
}

fn audit_detail(assignment: &Assignment) -> Value {
    json!({
        "server_id": assignment.server_id.as_str(),
        "walkthrough_id": assignment.walkthrough_id.as_str(),
        "display_order": assignment.display_order,
        "enabled": assignment.enabled,
    })
}

fn check_display_order(settings: AssignmentPatch) -> Result<()> {
    match settings.display_order {
        Some(order) if !(-MAX_DISPLAY_ORDER..=MAX_DISPLAY_ORDER).contains(&order) => {
            let message = format!("`display_order` must be a number from -{MAX_DISPLAY_ORDER} to {MAX_DISPLAY_ORDER}.");
            Err(Error::invalid("display_order", message))
        }
        _ => Ok(()),
    }
}

/// Returns an assignment.
///
/// # Errors
/// `not_found` if the assignment does not exist or the caller cannot access it.
pub async fn get(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &AssignmentId) -> Result<AssignmentView> {
    authorize(&cx.caller, Operation::ServerRead, organization)?;
    store::find(&mut ops.store.read().await?, organization, id).await?.ok_or_else(not_found)
}

/// Updates the given settings of an assignment. A concurrent change of another setting is not overwritten.
///
/// # Errors
/// The same as for [`get`]; `invalid_arguments` for a `display_order` out of range.
pub async fn update(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &AssignmentId,
    settings: AssignmentPatch,
) -> Result<AssignmentView> {
    authorize(&cx.caller, Operation::AssignmentWrite, organization)?;
    check_display_order(settings)?;
    let mut tx = ops.store.begin().await?;
    tx.bump_config_version(organization).await?;
    let old = store::find(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    let new = Assignment {
        display_order: settings.display_order.unwrap_or(old.assignment.display_order),
        enabled: settings.enabled.unwrap_or(old.assignment.enabled),
        ..old.assignment.clone()
    };
    if new == old.assignment {
        return Ok(old);
    }
    store::update(&mut tx, organization, id, settings.display_order, settings.enabled).await?;
    let entry = Entry { action: "assignment.update", target: id.as_str(), detail: audit_detail(&new) };
    record(cx, &mut tx, organization, entry).await?;
    tx.commit().await?;
    Ok(AssignmentView { assignment: new, ..old })
}

/// Moves the assignments `order` of a server to the front, in this order. Other assignments, for example those that
/// were added concurrently, follow in their previous order. Changes only `display_order`. Returns the new list.
///
/// # Errors
/// `not_found` if the server or one of the assignments does not exist; `invalid_arguments` if an assignment is listed
/// twice.
pub async fn reorder(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    server: &ServerId,
    order: &[AssignmentId],
) -> Result<Vec<AssignmentView>> {
    authorize(&cx.caller, Operation::AssignmentWrite, organization)?;
    let mut tx = ops.store.begin().await?;
    tx.bump_config_version(organization).await?;
    if server::find(&mut tx, organization, server).await?.is_none() {
        return Err(Error::not_found("server"));
    }
    let mut remaining = store::list(&mut tx, organization, server).await?;
    let mut sorted = Vec::with_capacity(remaining.len());
    for (index, id) in order.iter().enumerate() {
        if order[..index].contains(id) {
            return Err(Error::invalid("order", format!("`order` names {id} twice.")));
        }
        let index = remaining.iter().position(|view| view.assignment.id == *id);
        let index = index.ok_or_else(|| {
            let message = format!("{id} is not assigned to this server. Reload the list and try again.");
            Error::new(Code::NotFound, message)
        })?;
        sorted.push(remaining.remove(index));
    }
    sorted.append(&mut remaining);
    let mut changed = Vec::new();
    for (display_order, view) in (1..).zip(&mut sorted) {
        if view.assignment.display_order != display_order {
            view.assignment.display_order = display_order;
            changed.push((view.assignment.id.clone(), display_order));
        }
    }
    if changed.is_empty() {
        return Ok(sorted);
    }
    store::set_display_orders(&mut tx, organization, &changed).await?;
    let ids: Vec<_> = sorted.iter().map(|view| view.assignment.id.as_str()).collect();
    let entry = Entry { action: "assignment.reorder", target: server.as_str(), detail: json!({ "order": ids }) };
    record(cx, &mut tx, organization, entry).await?;
    tx.commit().await?;
    Ok(sorted)
}

/// Deletes an assignment by its ID; see [`unassign`].
///
/// # Errors
/// The same as for [`get`].
pub async fn delete(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &AssignmentId) -> Result<()> {
    authorize(&cx.caller, Operation::AssignmentWrite, organization)?;
    let mut tx = ops.store.begin().await?;
    let view = store::find(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    delete_row(cx, &mut tx, &view.assignment).await?;
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
    let server = server::find(tx, &assignment.organization_id, &assignment.server_id).await?;
    Err(match server {
        None => Error::not_found("server"),
        Some(_) => {
            Error::new(Code::WalkthroughNotFound, "This walkthrough does not exist in the server's organisation.")
        }
    })
}

/// Removes a walkthrough from a server. The end users' progress on the server is kept and continues after [`assign`].
///
/// # Errors
/// `not_found` if the walkthrough is not assigned to the server or the caller cannot access it.
pub async fn unassign(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    server: &ServerId,
    walkthrough: &WalkthroughId,
) -> Result<()> {
    authorize(&cx.caller, Operation::AssignmentWrite, organization)?;
    let mut tx = ops.store.begin().await?;
    let found = store::find_by_walkthrough(&mut tx, organization, server, walkthrough).await?;
    let assignment = found.ok_or_else(not_found)?;
    delete_row(cx, &mut tx, &assignment).await?;
    tx.commit().await?;
    Ok(())
}

/// Returns the assignments of a server in display order, including those of disabled and unpublished walkthroughs.
///
/// # Errors
/// `not_found` if the server does not exist or the caller cannot access it.
pub async fn list(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    server: &ServerId,
) -> Result<Vec<AssignmentView>> {
    authorize(&cx.caller, Operation::ServerRead, organization)?;
    let mut conn = ops.store.read().await?;
    if server::find(&mut conn, organization, server).await?.is_none() {
        return Err(Error::not_found("server"));
    }
    Ok(store::list(&mut conn, organization, server).await?)
}

/// Returns the assignments of a walkthrough, sorted by the servers' slugs.
///
/// # Errors
/// `not_found` if the walkthrough does not exist or the caller cannot access it.
pub async fn list_for_walkthrough(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &WalkthroughId,
) -> Result<Vec<AssignmentView>> {
    authorize(&cx.caller, Operation::ServerRead, organization)?;
    let mut conn = ops.store.read().await?;
    if walkthrough::find(&mut conn, organization, id).await?.is_none() {
        return Err(Error::not_found("walkthrough"));
    }
    Ok(store::list_for_walkthrough(&mut conn, organization, id).await?)
}

/// Returns at most `limit` walkthroughs that can be assigned to a server: neither assigned to it nor archived, with
/// `text` in the title.
///
/// # Errors
/// The same as for [`list`].
pub async fn list_candidates(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    server: &ServerId,
    text: &str,
    limit: u32,
) -> Result<Vec<AssignmentCandidate>> {
    authorize(&cx.caller, Operation::WalkthroughRead, organization)?;
    let mut conn = ops.store.read().await?;
    if server::find(&mut conn, organization, server).await?.is_none() {
        return Err(Error::not_found("server"));
    }
    Ok(store::list_candidates(&mut conn, organization, server, &name::clean(text), limit).await?)
}
