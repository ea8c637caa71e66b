//! Leases of background jobs: which process runs a job, and until when.

use waypost_core::Timestamp;

use crate::db::Conn;
use crate::error::Result;
use crate::on;

/// Acquires the lease of the job `name` for `owner`, or renews it, until `expires_at`. Returns `false` if another owner
/// holds it at `now`.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn acquire(conn: &mut Conn, name: &str, owner: &str, now: Timestamp, expires_at: Timestamp) -> Result<bool> {
    const SQL: &str = "INSERT INTO job_leases (name, owner, expires_at) VALUES ($1, $2, $4)
        ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, expires_at = excluded.expires_at
        WHERE job_leases.owner = excluded.owner OR job_leases.expires_at <= $3";
    let rows = on!(conn, c => sqlx::query(SQL)
        .bind(name).bind(owner).bind(now.0).bind(expires_at.0).execute(c).await?.rows_affected());
    Ok(rows > 0)
}

/// Releases the lease of the job `name` if `owner` holds it.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn release(conn: &mut Conn, name: &str, owner: &str) -> Result<()> {
    const SQL: &str = "DELETE FROM job_leases WHERE name = $1 AND owner = $2";
    on!(conn, c => sqlx::query(SQL).bind(name).bind(owner).execute(c).await?.rows_affected());
    Ok(())
}
