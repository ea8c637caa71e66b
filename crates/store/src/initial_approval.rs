//! Approvals that were given when an instance was created ([`waypost_core::initial_approval`]).

use waypost_core::Timestamp;
use waypost_core::id::{InstanceId, OrganizationId};
use waypost_core::initial_approval::InitialApproval;

use crate::db::Conn;
use crate::error::Result;
use crate::on;
use crate::row::RowRef;

/// Inserts an initial approval, which is due immediately.
///
/// # Errors
/// Returns a unique violation if the instance already has one, or another error if the database fails.
pub async fn insert(conn: &mut Conn, new: &InitialApproval) -> Result<()> {
    const SQL: &str = "INSERT INTO initial_approvals (instance_id, organization_id, class, requested_by, attempts,
            check_at, created_at, expires_at)
        VALUES ($1, $2, $3, $4, 0, 0, $5, $6)";
    on!(conn, c => sqlx::query(SQL)
        .bind(new.instance_id.as_str()).bind(new.organization_id.as_str()).bind(new.class.as_str())
        .bind(&new.requested_by).bind(new.created_at.0).bind(new.expires_at.0).execute(c).await?.rows_affected());
    Ok(())
}

/// Whether an instance has an initial approval, which may have expired.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn exists(conn: &mut Conn, organization: &OrganizationId, instance: &InstanceId) -> Result<bool> {
    const SQL: &str = "SELECT count(*) FROM initial_approvals WHERE instance_id = $1 AND organization_id = $2";
    let count: i64 = on!(conn, c => sqlx::query_scalar(SQL)
        .bind(instance.as_str()).bind(organization.as_str()).fetch_one(c).await?);
    Ok(count > 0)
}

/// Deletes and returns the initial approval of an instance, so that it can be used only once. It may have expired.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn consume(
    conn: &mut Conn,
    organization: &OrganizationId,
    instance: &InstanceId,
) -> Result<Option<InitialApproval>> {
    const SQL: &str = "DELETE FROM initial_approvals WHERE instance_id = $1 AND organization_id = $2
        RETURNING class, requested_by, created_at, expires_at";
    let row: Option<(String, String, i64, i64)> = on!(conn, c => sqlx::query_as(SQL)
        .bind(instance.as_str()).bind(organization.as_str()).fetch_optional(c).await?);
    let Some((class, requested_by, created_at, expires_at)) = row else { return Ok(None) };
    let at = RowRef { table: "initial_approvals", id: instance.as_str() };
    Ok(Some(InitialApproval {
        instance_id: instance.clone(),
        organization_id: organization.clone(),
        class: at.parse("class", &class)?,
        requested_by,
        created_at: Timestamp(created_at),
        expires_at: Timestamp(expires_at),
    }))
}

/// Deletes the initial approval of an instance, if there is one.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn delete(conn: &mut Conn, organization: &OrganizationId, instance: &InstanceId) -> Result<()> {
    const SQL: &str = "DELETE FROM initial_approvals WHERE instance_id = $1 AND organization_id = $2";
    on!(conn, c => sqlx::query(SQL)
        .bind(instance.as_str()).bind(organization.as_str()).execute(c).await?.rows_affected());
    Ok(())
}

/// A server in containers whose first check is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueCheck {
    /// The organisation that owns the instance.
    pub organization_id: OrganizationId,
    /// The instance.
    pub instance_id: InstanceId,
    /// The number of attempts so far.
    pub attempts: u32,
}

/// Returns at most `limit` servers in containers that serve calls, have an initial approval, and are due at `now`,
/// longest waiting first.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list_due(conn: &mut Conn, now: Timestamp, limit: i64) -> Result<Vec<DueCheck>> {
    const SQL: &str = "SELECT a.organization_id, a.instance_id, a.attempts FROM initial_approvals a
        JOIN instances i ON i.id = a.instance_id
        WHERE a.check_at <= $1 AND a.expires_at > $1 AND i.toolbox_id IS NOT NULL AND i.is_removing = $2
            AND i.state IN ('running', 'idle', 'unhealthy')
        ORDER BY a.check_at, a.instance_id LIMIT $3";
    let rows: Vec<(String, String, i64)> = on!(conn, c => sqlx::query_as(SQL)
        .bind(now.0).bind(false).bind(limit).fetch_all(c).await?);
    let due = |(organization, instance, attempts): (String, String, i64)| DueCheck {
        organization_id: OrganizationId::from_store(organization),
        instance_id: InstanceId::from_store(instance),
        attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
    };
    Ok(rows.into_iter().map(due).collect())
}

/// Counts a failed attempt to check a server, and sets the time of the next one.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn postpone(
    conn: &mut Conn,
    organization: &OrganizationId,
    instance: &InstanceId,
    next: Timestamp,
) -> Result<()> {
    const SQL: &str = "UPDATE initial_approvals SET attempts = attempts + 1, check_at = $3
        WHERE instance_id = $1 AND organization_id = $2";
    on!(conn, c => sqlx::query(SQL)
        .bind(instance.as_str()).bind(organization.as_str()).bind(next.0).execute(c).await?.rows_affected());
    Ok(())
}
