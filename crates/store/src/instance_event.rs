//! Events of instances on their toolboxes.

use waypost_core::Timestamp;
use waypost_core::id::{InstanceEventId, InstanceId, OrganizationId};
use waypost_core::instance::{InstanceEvent, InstanceEventKind};

use crate::db::Conn;
use crate::error::{Error, Result};
use crate::on;
use crate::row::RowRef;

#[derive(sqlx_macros::FromRow)]
struct Row {
    id: String,
    organization_id: String,
    instance_id: String,
    kind: String,
    message: String,
    created_at: i64,
}

impl TryFrom<Row> for InstanceEvent {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let kind = RowRef { table: "instance_events", id: &row.id }.parse::<InstanceEventKind>("kind", &row.kind)?;
        Ok(Self {
            id: InstanceEventId::from_store(row.id),
            organization_id: OrganizationId::from_store(row.organization_id),
            instance_id: InstanceId::from_store(row.instance_id),
            kind,
            message: row.message,
            created_at: Timestamp(row.created_at),
        })
    }
}

/// Inserts an event and deletes all but the newest `keep` events of the instance.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn insert(conn: &mut Conn, event: &InstanceEvent, keep: i64) -> Result<()> {
    const INSERT: &str = "INSERT INTO instance_events (id, organization_id, instance_id, kind, message, created_at)
        VALUES ($1, $2, $3, $4, $5, $6)";
    const PRUNE: &str = "DELETE FROM instance_events WHERE instance_id = $1 AND organization_id = $2 AND id <=
        (SELECT id FROM instance_events WHERE instance_id = $1 ORDER BY id DESC LIMIT 1 OFFSET $3)";
    on!(conn, c => sqlx::query(INSERT)
        .bind(event.id.as_str()).bind(event.organization_id.as_str()).bind(event.instance_id.as_str())
        .bind(event.kind.as_str()).bind(&event.message).bind(event.created_at.0).execute(c).await?.rows_affected());
    on!(conn, c => sqlx::query(PRUNE)
        .bind(event.instance_id.as_str()).bind(event.organization_id.as_str()).bind(keep)
        .execute(c).await?.rows_affected());
    Ok(())
}

/// Returns at most `limit` events of an instance, newest first. With `before`, returns only older ones.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list(
    conn: &mut Conn,
    organization: &OrganizationId,
    instance: &InstanceId,
    before: Option<&InstanceEventId>,
    limit: i64,
) -> Result<Vec<InstanceEvent>> {
    const NEWEST: &str = "SELECT id, organization_id, instance_id, kind, message, created_at FROM instance_events
        WHERE instance_id = $1 AND organization_id = $2 ORDER BY id DESC LIMIT $3";
    const OLDER: &str = "SELECT id, organization_id, instance_id, kind, message, created_at FROM instance_events
        WHERE instance_id = $1 AND organization_id = $2 AND id < $4 ORDER BY id DESC LIMIT $3";
    let rows: Vec<Row> = match before {
        None => on!(conn, c => sqlx::query_as(NEWEST)
            .bind(instance.as_str()).bind(organization.as_str()).bind(limit).fetch_all(c).await?),
        Some(before) => on!(conn, c => sqlx::query_as(OLDER)
            .bind(instance.as_str()).bind(organization.as_str()).bind(limit).bind(before.as_str()).fetch_all(c).await?),
    };
    rows.into_iter().map(InstanceEvent::try_from).collect()
}
