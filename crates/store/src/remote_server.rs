//! The checks of remote servers ([`waypost_core::instance::RemoteServer`]).

use waypost_core::Timestamp;
use waypost_core::id::{InstanceId, OrganizationId};
use waypost_core::instance::Instance;
use waypost_toolbox_proto::instance::InstanceState;

use crate::db::Conn;
use crate::error::{Error, Result};
use crate::on;

/// Returns at most `limit` remote servers that should run and whose next check is due at `now`, longest waiting first.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list_due(conn: &mut Conn, now: Timestamp, limit: i64) -> Result<Vec<(OrganizationId, InstanceId)>> {
    const SQL: &str = "SELECT organization_id, id FROM instances
        WHERE remote_url IS NOT NULL AND remote_check_at <= $1 AND desired = 'running'
        ORDER BY remote_check_at, id LIMIT $2";
    let rows: Vec<(String, String)> = on!(conn, c => sqlx::query_as(SQL).bind(now.0).bind(limit).fetch_all(c).await?);
    let ids = |(organization, id)| (OrganizationId::from_store(organization), InstanceId::from_store(id));
    Ok(rows.into_iter().map(ids).collect())
}

/// Makes a remote server due for a check immediately, because it has changed.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn reset_checks(conn: &mut Conn, organization: &OrganizationId, id: &InstanceId) -> Result<()> {
    const SQL: &str = "UPDATE instances SET remote_check_at = 0, remote_streak = 0
        WHERE id = $1 AND organization_id = $2";
    on!(conn, c => sqlx::query(SQL).bind(id.as_str()).bind(organization.as_str()).execute(c).await?.rows_affected());
    Ok(())
}

/// Suspends the checks of a remote server until [`reset_checks`] is called, because it is not connected.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn suspend_checks(conn: &mut Conn, organization: &OrganizationId, id: &InstanceId) -> Result<()> {
    const SQL: &str = "UPDATE instances SET remote_check_at = $3, remote_streak = 0
        WHERE id = $1 AND organization_id = $2";
    on!(conn, c => sqlx::query(SQL)
        .bind(id.as_str()).bind(organization.as_str()).bind(i64::MAX).execute(c).await?.rows_affected());
    Ok(())
}

/// Counts the outcome of a check. Returns the number of consecutive checks with this outcome; `None` if the instance
/// has been changed since it was read, so that the outcome is obsolete.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn count_check(conn: &mut Conn, instance: &Instance, succeeded: bool) -> Result<Option<u32>> {
    const SUCCEEDED: &str = "UPDATE instances
        SET remote_streak = CASE WHEN remote_streak > 0 THEN remote_streak + 1 ELSE 1 END
        WHERE id = $1 AND organization_id = $2 AND generation = $3 AND restarts = $4 AND desired = 'running'
        RETURNING remote_streak";
    const FAILED: &str = "UPDATE instances
        SET remote_streak = CASE WHEN remote_streak < 0 THEN remote_streak - 1 ELSE -1 END
        WHERE id = $1 AND organization_id = $2 AND generation = $3 AND restarts = $4 AND desired = 'running'
        RETURNING remote_streak";
    let sql = if succeeded { SUCCEEDED } else { FAILED };
    let streak: Option<i64> = on!(conn, c => sqlx::query_scalar(sql)
        .bind(instance.id.as_str()).bind(instance.organization_id.as_str())
        .bind(instance.generation.cast_signed()).bind(instance.restarts.cast_signed()).fetch_optional(c).await?);
    Ok(streak.map(|streak| u32::try_from(streak.unsigned_abs()).unwrap_or(u32::MAX)))
}

/// Writes the state and the health of a remote server after a check, and the time of the next one.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn update_health(conn: &mut Conn, instance: &Instance, next: Timestamp) -> Result<()> {
    const SQL: &str = "UPDATE instances SET state = $3, health = $4, observed_generation = $5, remote_check_at = $6
        WHERE id = $1 AND organization_id = $2";
    let health = instance.health.as_ref().map(serde_json::to_string).transpose();
    let health = health.map_err(|error| Error::Database(sqlx::Error::Encode(error.into())))?;
    on!(conn, c => sqlx::query(SQL)
        .bind(instance.id.as_str()).bind(instance.organization_id.as_str()).bind(InstanceState::as_str(instance.state))
        .bind(health).bind(instance.observed_generation.cast_signed()).bind(next.0).execute(c).await?.rows_affected());
    Ok(())
}
