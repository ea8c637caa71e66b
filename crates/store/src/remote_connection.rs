//! Connections to remote servers that require OAuth. There is one per instance.
//!
//! Invariants:
//! 1. A refresh token is sent only by the process that holds the lease of its revision, and a lease excludes every other
//!    one until it ends. It is longer than a refresh can take, by 30 seconds: the clocks of
//!    the processes must not differ by more.
//! 2. A result is stored only if the connection still has the revision that was leased, so a refresh never overwrites the
//!    tokens of another refresh or of a new connection. Every change of the tokens increases the revision, and that of the
//!    first connection is the time in milliseconds, so no revision of an instance is used twice.

use waypost_core::Timestamp;
use waypost_core::id::{InstanceId, OrganizationId};

use crate::db::Conn;
use crate::error::Result;
use crate::on;

/// The connection of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteConnection {
    /// The instance.
    pub instance_id: InstanceId,
    /// The organisation.
    pub organization_id: OrganizationId,
    /// The issuer of the authorization server.
    pub issuer: String,
    /// The tokens and what is needed to refresh them, sealed to the row.
    pub credentials: String,
    /// The number of the tokens, which increases with every change.
    pub revision: i64,
    /// The expiry of the access token; `None` if it is unknown.
    pub expires_at: Option<Timestamp>,
    /// The time at which the tokens are refreshed; `None` if they cannot be, or their expiry is unknown.
    pub refresh_at: Option<Timestamp>,
    /// The ID of the user who connected the instance.
    pub connected_by: String,
    /// When the instance was connected.
    pub connected_at: Timestamp,
    /// When the tokens were stored.
    pub updated_at: Timestamp,
}

#[derive(sqlx_macros::FromRow)]
struct Row {
    instance_id: String,
    organization_id: String,
    issuer: String,
    credentials: String,
    revision: i64,
    expires_at: Option<i64>,
    refresh_at: Option<i64>,
    connected_by: String,
    connected_at: i64,
    updated_at: i64,
}

impl From<Row> for RemoteConnection {
    fn from(row: Row) -> Self {
        Self {
            instance_id: InstanceId::from_store(row.instance_id),
            organization_id: OrganizationId::from_store(row.organization_id),
            issuer: row.issuer,
            credentials: row.credentials,
            revision: row.revision,
            expires_at: row.expires_at.map(Timestamp),
            refresh_at: row.refresh_at.map(Timestamp),
            connected_by: row.connected_by,
            connected_at: Timestamp(row.connected_at),
            updated_at: Timestamp(row.updated_at),
        }
    }
}

/// Inserts the connection of an instance, or replaces the existing one. The new revision is the given one, or higher than
/// that of the replaced connection. A refresh in progress then writes nothing.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn upsert(conn: &mut Conn, connection: &RemoteConnection) -> Result<()> {
    const SQL: &str = "INSERT INTO remote_connections (instance_id, organization_id, issuer, credentials, revision,
            expires_at, refresh_at, connected_by, connected_at, updated_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        ON CONFLICT (instance_id) DO UPDATE SET issuer = excluded.issuer, credentials = excluded.credentials,
            revision = CASE WHEN excluded.revision > remote_connections.revision THEN excluded.revision
                ELSE remote_connections.revision + 1 END,
            expires_at = excluded.expires_at, refresh_at = excluded.refresh_at, leased_until = NULL,
            connected_by = excluded.connected_by, connected_at = excluded.connected_at,
            updated_at = excluded.updated_at";
    on!(conn, c => sqlx::query(SQL)
        .bind(connection.instance_id.as_str()).bind(connection.organization_id.as_str()).bind(&connection.issuer)
        .bind(&connection.credentials).bind(connection.revision).bind(connection.expires_at.map(|at| at.0))
        .bind(connection.refresh_at.map(|at| at.0)).bind(&connection.connected_by).bind(connection.connected_at.0)
        .bind(connection.updated_at.0).execute(c).await?.rows_affected());
    Ok(())
}

/// Returns the connection of an instance.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find(
    conn: &mut Conn,
    organization: &OrganizationId,
    instance: &InstanceId,
) -> Result<Option<RemoteConnection>> {
    const SQL: &str = "SELECT instance_id, organization_id, issuer, credentials, revision, expires_at, refresh_at,
            connected_by, connected_at, updated_at
        FROM remote_connections WHERE instance_id = $1 AND organization_id = $2";
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(instance.as_str()).bind(organization.as_str()).fetch_optional(c).await?);
    Ok(row.map(RemoteConnection::from))
}

/// Leases at most `limit` connections of any organisation that are to be refreshed at or before `now`, the longest
/// waiting first. No other process leases them before `until`.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn lease_due(conn: &mut Conn, now: Timestamp, until: Timestamp, limit: i64) -> Result<Vec<RemoteConnection>> {
    // The conditions are repeated because PostgreSQL re-evaluates only the outer ones after waiting for another process
    // that locked the row. That process may have leased the connection, or already refreshed it.
    const SQL: &str = "UPDATE remote_connections SET leased_until = $2
        WHERE refresh_at <= $1 AND (leased_until IS NULL OR leased_until <= $1) AND instance_id IN
            (SELECT instance_id FROM remote_connections WHERE refresh_at <= $1
                 AND (leased_until IS NULL OR leased_until <= $1) ORDER BY refresh_at LIMIT $3)
        RETURNING instance_id, organization_id, issuer, credentials, revision, expires_at, refresh_at, connected_by,
            connected_at, updated_at";
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(SQL).bind(now.0).bind(until.0).bind(limit).fetch_all(c).await?);
    Ok(rows.into_iter().map(RemoteConnection::from).collect())
}

/// Leases the connection of an instance if it has this revision, and no other process has leased it. No other process
/// leases it before `until`.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn lease(
    conn: &mut Conn,
    (organization, instance): (&OrganizationId, &InstanceId),
    revision: i64,
    (now, until): (Timestamp, Timestamp),
) -> Result<Option<RemoteConnection>> {
    const SQL: &str = "UPDATE remote_connections SET leased_until = $5
        WHERE instance_id = $1 AND organization_id = $2 AND revision = $3
            AND (leased_until IS NULL OR leased_until <= $4)
        RETURNING instance_id, organization_id, issuer, credentials, revision, expires_at, refresh_at, connected_by,
            connected_at, updated_at";
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(instance.as_str()).bind(organization.as_str()).bind(revision).bind(now.0).bind(until.0)
        .fetch_optional(c).await?);
    Ok(row.map(RemoteConnection::from))
}

/// Stores the tokens of a refresh with the next revision, and ends the lease. Returns `false` if the connection no longer
/// has the revision of `new`, which is the one that was leased.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn complete_refresh(conn: &mut Conn, new: &RemoteConnection) -> Result<bool> {
    const SQL: &str = "UPDATE remote_connections SET credentials = $4, revision = revision + 1, expires_at = $5,
            refresh_at = $6, updated_at = $7, leased_until = NULL
        WHERE instance_id = $1 AND organization_id = $2 AND revision = $3";
    let changed = on!(conn, c => sqlx::query(SQL)
        .bind(new.instance_id.as_str()).bind(new.organization_id.as_str()).bind(new.revision).bind(&new.credentials)
        .bind(new.expires_at.map(|at| at.0)).bind(new.refresh_at.map(|at| at.0)).bind(new.updated_at.0)
        .execute(c).await?.rows_affected());
    Ok(changed > 0)
}

/// Deletes the connection of an instance, whatever its revision.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn delete(conn: &mut Conn, organization: &OrganizationId, instance: &InstanceId) -> Result<()> {
    const SQL: &str = "DELETE FROM remote_connections WHERE instance_id = $1 AND organization_id = $2";
    on!(conn, c => sqlx::query(SQL)
        .bind(instance.as_str()).bind(organization.as_str()).execute(c).await?.rows_affected());
    Ok(())
}

/// Deletes a connection whose refresh was rejected. Returns `false` if it no longer has the revision that was leased.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn delete_rejected(conn: &mut Conn, rejected: &RemoteConnection) -> Result<bool> {
    const SQL: &str =
        "DELETE FROM remote_connections WHERE instance_id = $1 AND organization_id = $2 AND revision = $3";
    let deleted = on!(conn, c => sqlx::query(SQL)
        .bind(rejected.instance_id.as_str()).bind(rejected.organization_id.as_str()).bind(rejected.revision)
        .execute(c).await?.rows_affected());
    Ok(deleted > 0)
}
