//! Writing the audit log.

use serde_json::{Map, Value};
use waypost_core::Result;
use waypost_core::audit::AuditEvent;
use waypost_core::caller::Ctx;
use waypost_core::id::{AuditEventId, OrganizationId};
use waypost_store::Tx;

/// What happened to what.
pub(crate) struct Entry<'a> {
    /// Such as `server.update`.
    pub act: &'static str,
    /// The id of what it happened to.
    pub target: &'a str,
    /// What changed: a JSON object.
    pub detail: Value,
}

/// Writes an entry in the transaction of what it tells of.
///
/// # Errors
/// When the store fails.
pub(crate) async fn record(cx: &Ctx, tx: &mut Tx, organization: &OrganizationId, entry: Entry<'_>) -> Result<()> {
    let now = cx.now();
    let detail = match entry.detail {
        Value::Object(detail) => detail,
        _ => Map::new(),
    };
    let event = AuditEvent {
        id: AuditEventId::new(now, &*cx.random),
        organization_id: organization.clone(),
        actor: cx.caller.actor().to_owned(),
        act: entry.act.to_owned(),
        target: entry.target.to_owned(),
        detail,
        created_at: now,
    };
    waypost_store::audit::insert(tx, &event).await?;
    Ok(())
}
