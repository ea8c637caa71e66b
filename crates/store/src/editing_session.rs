//! Editing sessions: edits of one object by one user that share an event of the audit log.

use waypost_core::Timestamp;
use waypost_core::id::{AuditEventId, OrganizationId, WalkthroughId};

use crate::db::Conn;
use crate::error::Result;
use crate::on;
use crate::row::RowRef;

/// An editing session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EditingSession {
    /// The ID of the edited object and the actor, combined.
    pub id: String,
    /// The organisation.
    pub organization_id: OrganizationId,
    /// The walkthrough.
    pub walkthrough_id: WalkthroughId,
    /// The audit event that represents the edits.
    pub audit_event_id: AuditEventId,
    /// The number of edits.
    pub edits: u32,
    /// The time at which the session ends unless there is another edit.
    pub expires_at: Timestamp,
}

/// Returns the session with this ID if it has not ended at `now`.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn find_open(
    conn: &mut Conn,
    organization: &OrganizationId,
    id: &str,
    now: Timestamp,
) -> Result<Option<EditingSession>> {
    const SQL: &str = "SELECT walkthrough_id, audit_event_id, edits, expires_at FROM editing_sessions
        WHERE organization_id = $1 AND id = $2 AND expires_at > $3";
    let row: Option<(String, String, i64, i64)> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(id).bind(now.0).fetch_optional(c).await?);
    let Some((walkthrough, event, edits, expires_at)) = row else { return Ok(None) };
    Ok(Some(EditingSession {
        edits: RowRef { table: "editing_sessions", id }.to_u32("edits", edits)?,
        id: id.to_owned(),
        organization_id: organization.clone(),
        walkthrough_id: WalkthroughId::from_store(walkthrough),
        audit_event_id: AuditEventId::from_store(event),
        expires_at: Timestamp(expires_at),
    }))
}

/// Inserts a session, or replaces the one with the same ID.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn upsert(conn: &mut Conn, session: &EditingSession) -> Result<()> {
    const SQL: &str = "INSERT INTO editing_sessions
            (id, organization_id, walkthrough_id, audit_event_id, edits, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6)
        ON CONFLICT (id) DO UPDATE SET audit_event_id = excluded.audit_event_id, edits = excluded.edits,
            expires_at = excluded.expires_at";
    on!(conn, c => sqlx::query(SQL)
        .bind(&session.id).bind(session.organization_id.as_str()).bind(session.walkthrough_id.as_str())
        .bind(session.audit_event_id.as_str()).bind(i64::from(session.edits)).bind(session.expires_at.0)
        .execute(c).await?.rows_affected());
    Ok(())
}
