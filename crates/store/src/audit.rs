//! The audit log: written in the transaction of what it tells of.

use serde_json::Value;
use waypost_core::Timestamp;
use waypost_core::audit::AuditEvent;
use waypost_core::id::{AuditEventId, OrganizationId};

use crate::db::Conn;
use crate::error::{Error, Result};
use crate::on;

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    organization_id: String,
    actor: String,
    act: String,
    target: String,
    detail: String,
    created_at: i64,
}

impl TryFrom<Row> for AuditEvent {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let detail = serde_json::from_str(&row.detail).map_err(|error| Error::Corrupt {
            table: "audit_events",
            id: row.id.clone(),
            why: error.to_string(),
        })?;
        Ok(Self {
            id: AuditEventId::from_store(row.id),
            organization_id: OrganizationId::from_store(row.organization_id),
            actor: row.actor,
            act: row.act,
            target: row.target,
            detail,
            created_at: Timestamp(row.created_at),
        })
    }
}

/// Writes an entry.
///
/// # Errors
/// When the database fails.
pub async fn insert(conn: &mut Conn, event: &AuditEvent) -> Result<()> {
    const SQL: &str = "INSERT INTO audit_events (id, organization_id, actor, act, target, detail, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7)";
    on!(conn, c => sqlx::query(SQL)
        .bind(event.id.as_str()).bind(event.organization_id.as_str()).bind(&event.actor).bind(&event.act)
        .bind(&event.target).bind(Value::Object(event.detail.clone()).to_string()).bind(event.created_at.0)
        .execute(c).await?.rows_affected());
    Ok(())
}

/// The newest entries of an organisation, newest first; with `before`, those that are older than it.
///
/// # Errors
/// When the database fails, or a row cannot be read.
pub async fn list(
    conn: &mut Conn,
    organization: &OrganizationId,
    before: Option<&AuditEventId>,
    limit: i64,
) -> Result<Vec<AuditEvent>> {
    const NEWEST: &str = "SELECT id, organization_id, actor, act, target, detail, created_at FROM audit_events
        WHERE organization_id = $1 ORDER BY id DESC LIMIT $2";
    const OLDER: &str = "SELECT id, organization_id, actor, act, target, detail, created_at FROM audit_events
        WHERE organization_id = $1 AND id < $3 ORDER BY id DESC LIMIT $2";
    let rows: Vec<Row> = match before {
        None => on!(conn, c => sqlx::query_as(NEWEST).bind(organization.as_str()).bind(limit).fetch_all(c).await?),
        Some(before) => on!(conn, c => sqlx::query_as(OLDER)
            .bind(organization.as_str()).bind(limit).bind(before.as_str()).fetch_all(c).await?),
    };
    rows.into_iter().map(AuditEvent::try_from).collect()
}
