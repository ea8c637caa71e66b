//! Walkthroughs on servers.

use serde_json::json;
use waypost_core::access::{Act, authorize};
use waypost_core::assignment::{Assignment, ListedAssignment};
use waypost_core::caller::Ctx;
use waypost_core::id::{AssignmentId, OrganizationId, ServerId, WalkthroughId};
use waypost_core::{Code, Error, Result};
use waypost_store::{Tx, assignment as store, server};

use crate::Ops;
use crate::audit::{Entry, record};

/// Where to place a walkthrough; what is absent stays, or is the default for one that is new there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Placement {
    /// Smaller numbers stand first; by default after the last.
    pub display_order: Option<i64>,
    /// Whether it is offered; by default it is.
    pub enabled: Option<bool>,
}

/// Places a walkthrough on a server, or changes how it is placed there. Doing it again changes nothing.
///
/// # Errors
/// `not_found` when one of the two is not there, or the caller may not know of it.
pub async fn add(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    (server_id, walkthrough_id): (&ServerId, &WalkthroughId),
    placement: Placement,
) -> Result<Assignment> {
    authorize(&cx.caller, Act::AssignmentWrite, organization)?;
    let mut tx = ops.db.begin().await?;
    let assignment = put(cx, &mut tx, organization, (server_id, walkthrough_id), placement).await?;
    tx.commit().await?;
    Ok(assignment)
}

/// [`add`] within a transaction, for acts that do more; they have asked whether the caller may.
pub(crate) async fn put(
    cx: &Ctx,
    tx: &mut Tx,
    organization: &OrganizationId,
    (server_id, walkthrough_id): (&ServerId, &WalkthroughId),
    placement: Placement,
) -> Result<Assignment> {
    let old = store::find(tx, organization, server_id, walkthrough_id).await?;
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
                None => store::next_order(tx, organization, server_id).await?,
            },
            enabled: placement.enabled.unwrap_or(true),
            created_at: cx.now(),
        },
    };
    let act = match &old {
        Some(old) if *old == new => return Ok(new),
        Some(_) => {
            store::update(tx, &new).await?;
            "assignment.update"
        }
        None => {
            insert(tx, &new).await?;
            "assignment.add"
        }
    };
    let detail = json!({
        "server_id": new.server_id.as_str(),
        "walkthrough_id": new.walkthrough_id.as_str(),
        "display_order": new.display_order,
        "enabled": new.enabled,
    });
    record(cx, tx, organization, Entry { act, target: new.id.as_str(), detail }).await?;
    Ok(new)
}

async fn insert(tx: &mut Tx, assignment: &Assignment) -> Result<()> {
    if store::insert(tx, assignment).await? {
        return Ok(());
    }
    let there = server::get(tx, &assignment.organization_id, &assignment.server_id).await?;
    Err(match there {
        None => Error::not_found("server"),
        Some(_) => Error::new(Code::WalkthroughNotFound, "There is no such walkthrough in this server's organisation."),
    })
}

/// Takes a walkthrough from a server. Progress that users made there stays, and is there again after [`add`].
///
/// # Errors
/// `not_found` when it is not placed there, or the caller may not know of it.
pub async fn remove(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    server: &ServerId,
    walkthrough: &WalkthroughId,
) -> Result<()> {
    authorize(&cx.caller, Act::AssignmentWrite, organization)?;
    let mut tx = ops.db.begin().await?;
    let found = store::find(&mut tx, organization, server, walkthrough).await?;
    let assignment = found.ok_or_else(|| Error::not_found("assignment"))?;
    store::delete(&mut tx, organization, &assignment.id).await?;
    let detail = json!({ "server_id": server.as_str(), "walkthrough_id": walkthrough.as_str() });
    let entry = Entry { act: "assignment.remove", target: assignment.id.as_str(), detail };
    record(cx, &mut tx, organization, entry).await?;
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
) -> Result<Vec<ListedAssignment>> {
    authorize(&cx.caller, Act::ServerRead, organization)?;
    let mut conn = ops.db.read().await?;
    if server::get(&mut conn, organization, server).await?.is_none() {
        return Err(Error::not_found("server"));
    }
    Ok(store::list(&mut conn, organization, server).await?)
}
