//! Writes to the audit log.

use serde_json::{Map, Value};
use waypost_core::Result;
use waypost_core::audit::AuditEvent;
use waypost_core::caller::Ctx;
use waypost_core::id::{AuditEventId, OrganizationId, WalkthroughId};
use waypost_store::editing_session::{self, EditingSession};
use waypost_store::{Tx, audit};

/// An entry of the audit log.
pub(crate) struct Entry<'a> {
    /// The action, such as `server.update`.
    pub action: &'static str,
    /// The ID of the target.
    pub target: &'a str,
    /// The details: a JSON object.
    pub detail: Value,
}

/// Writes an entry in the transaction of the operation.
///
/// # Errors
/// Any error of the store.
pub(crate) async fn record(cx: &Ctx, tx: &mut Tx, organization: &OrganizationId, entry: Entry<'_>) -> Result<()> {
    write(cx, tx, organization, entry).await.map(|_| ())
}

async fn write(cx: &Ctx, tx: &mut Tx, organization: &OrganizationId, entry: Entry<'_>) -> Result<AuditEventId> {
    let event = event(cx, organization, entry);
    audit::insert(tx, &event).await?;
    Ok(event.id)
}

/// Creates an entry that is written together with others.
pub(crate) fn event(cx: &Ctx, organization: &OrganizationId, entry: Entry<'_>) -> AuditEvent {
    let now = cx.now();
    let detail = match entry.detail {
        Value::Object(detail) => detail,
        _ => Map::new(),
    };
    AuditEvent {
        id: AuditEventId::new(now, &*cx.random),
        organization_id: organization.clone(),
        actor: cx.caller.actor().to_owned(),
        act: entry.action.to_owned(),
        target: entry.target.to_owned(),
        detail,
        created_at: now,
    }
}

/// The time after the last edit at which an editing session ends.
pub(crate) const SESSION_MS: i64 = 30 * 60 * 1_000;

/// Writes the entry of an edit. Edits of the same target (`edited`: a step, or a walkthrough's own fields) by the same
/// actor share an entry as long as the next edit follows within 30 minutes: its detail is that of the last edit, with
/// `edits` (their number) and `last_edit_at`.
///
/// # Errors
/// Any error of the store.
pub(crate) async fn record_edit(
    cx: &Ctx,
    tx: &mut Tx,
    organization: &OrganizationId,
    walkthrough: &WalkthroughId,
    edited: &str,
    mut entry: Entry<'_>,
) -> Result<()> {
    let now = cx.now();
    let id = format!("{edited} {}", cx.caller.actor());
    let expires_at = now.plus(SESSION_MS);
    if let Some(session) = editing_session::find_open(tx, organization, &id, now).await? {
        let edits = session.edits.saturating_add(1);
        entry.detail["edits"] = edits.into();
        entry.detail["last_edit_at"] = now.rfc3339().into();
        if audit::update_detail(tx, organization, &session.audit_event_id, entry.detail.clone()).await? {
            return Ok(editing_session::upsert(tx, &EditingSession { edits, expires_at, ..session }).await?);
        }
    }
    entry.detail["edits"] = 1.into();
    entry.detail["last_edit_at"] = now.rfc3339().into();
    let session = EditingSession {
        id,
        organization_id: organization.clone(),
        walkthrough_id: walkthrough.clone(),
        audit_event_id: write(cx, tx, organization, entry).await?,
        edits: 1,
        expires_at,
    };
    Ok(editing_session::upsert(tx, &session).await?)
}
