//! End users, as the company sees them.

use serde_json::json;
use waypost_core::access::{Act, authorize};
use waypost_core::caller::Ctx;
use waypost_core::id::{EndUserId, OrganizationId};
use waypost_core::{Error, Result};
use waypost_store::end_user as store;

use crate::Ops;
use crate::audit::{Entry, record};

/// The end user that `text` names, by id or by tracking id.
///
/// # Errors
/// `not_found` when there is none, or in an organisation that the caller may not know of; `forbidden` for members
/// below admin.
pub async fn find(cx: &Ctx, ops: &Ops, organization: &OrganizationId, text: &str) -> Result<EndUserId> {
    authorize(&cx.caller, Act::EndUserDelete, organization)?;
    let mut conn = ops.db.read().await?;
    if let Ok(id) = text.parse::<EndUserId>()
        && store::exists(&mut conn, organization, &id).await?
    {
        return Ok(id);
    }
    store::find_by_tracking_id(&mut conn, organization, text).await?.ok_or_else(not_found)
}

/// Deletes an end user with all that is known of them: progress, sessions, events, recorded calls.
///
/// # Errors
/// As [`find`].
pub async fn delete(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &EndUserId) -> Result<()> {
    authorize(&cx.caller, Act::EndUserDelete, organization)?;
    let mut tx = ops.db.begin().await?;
    if !store::delete(&mut tx, organization, id).await? {
        return Err(not_found());
    }
    record(cx, &mut tx, organization, Entry { act: "end_user.delete", target: id.as_str(), detail: json!({}) }).await?;
    tx.commit().await?;
    Ok(())
}

fn not_found() -> Error {
    Error::not_found("end user")
}
