//! Client sessions: one client's use of one server by one end user. The session of an anonymous end user has a handle,
//! stored as its hash, that identifies the end user. Sessions of end users with a personal URL or a token have no
//! handle.

use serde::Serialize;
use waypost_core::Timestamp;
use waypost_core::id::{EndUserId, OrganizationId, ServerId, SessionId};

use crate::batch::{self, Column, Kind};
use crate::db::Conn;
use crate::error::Result;
use crate::on;

/// A session and its handle expire this long after the last use.
pub const LIFETIME_MS: i64 = 90 * 24 * 60 * 60 * 1_000;

/// A session to insert: with the first progress of an anonymous end user, or with the first call of an end user who is
/// identified otherwise.
#[derive(Debug, Clone, Serialize)]
pub struct NewSession {
    /// The ID.
    pub id: SessionId,
    /// The organisation.
    pub organization_id: OrganizationId,
    /// The only server on which the session and its handle are valid.
    pub server_id: ServerId,
    /// The end user.
    pub end_user_id: EndUserId,
    /// The hexadecimal SHA-256 of the handle; `None` if the end user is identified otherwise.
    pub handle_hash: Option<String>,
    /// The client's name, as stated by the client.
    pub client_name: Option<String>,
    /// The client's version.
    pub client_version: Option<String>,
    /// The protocol revision.
    pub protocol_version: Option<String>,
    /// The time of the first call.
    pub created_at: Timestamp,
    /// The time of the last call.
    pub last_used_at: Timestamp,
}

/// The columns of an insert.
pub(crate) const COLUMNS: &[Column] = &[
    ("id", Kind::Text),
    ("organization_id", Kind::Text),
    ("server_id", Kind::Text),
    ("end_user_id", Kind::Text),
    ("handle_hash", Kind::Text),
    ("client_name", Kind::Text),
    ("client_version", Kind::Text),
    ("protocol_version", Kind::Text),
    ("created_at", Kind::Integer),
    ("last_used_at", Kind::Integer),
];

/// A session identified by a handle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The ID.
    pub id: SessionId,
    /// The end user.
    pub end_user_id: EndUserId,
    /// The last recorded use of the handle.
    pub last_used_at: Timestamp,
}

/// Returns the session of a handle on a server. Returns `None` if the handle does not exist there, was not used for 90
/// days, or was joined to a signed-in end user.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find(
    conn: &mut Conn,
    organization: &OrganizationId,
    server: &ServerId,
    handle_hash: &str,
    now: Timestamp,
) -> Result<Option<Session>> {
    const SQL: &str = "SELECT id, end_user_id, last_used_at FROM client_sessions
        WHERE handle_hash = $1 AND server_id = $2 AND organization_id = $3 AND last_used_at > $4
          AND joined_at IS NULL";
    let row: Option<(String, String, i64)> = on!(conn, c => sqlx::query_as(SQL)
        .bind(handle_hash).bind(server.as_str()).bind(organization.as_str())
        .bind(now.plus(-LIFETIME_MS).0).fetch_optional(c).await?);
    Ok(row.map(|(id, end_user, last_used_at)| Session {
        id: SessionId::from_store(id),
        end_user_id: EndUserId::from_store(end_user),
        last_used_at: Timestamp(last_used_at),
    }))
}

/// Records the use of a handle. Does nothing if a later use is already recorded.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn record_use(conn: &mut Conn, handle_hash: &str, at: Timestamp) -> Result<()> {
    const SQL: &str = "UPDATE client_sessions SET last_used_at = $2 WHERE handle_hash = $1 AND last_used_at < $2";
    on!(conn, c => sqlx::query(SQL).bind(handle_hash).bind(at.0).execute(c).await?.rows_affected());
    Ok(())
}

/// Inserts sessions without a handle, or updates their last use. IDs must be unique within `sessions`. Sessions of
/// servers or end users that were deleted in the meantime are skipped.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn upsert(conn: &mut Conn, sessions: &[NewSession]) -> Result<()> {
    let batch = serde_json::json!({ "sessions": sessions }).to_string();
    // Scalar subqueries: PostgreSQL would turn EXISTS into a join that reads the whole table.
    let sql = format!(
        "{} AND (SELECT count(*) FROM servers WHERE servers.id = server_id) > 0
            AND (SELECT count(*) FROM end_users WHERE end_users.id = end_user_id) > 0
         ON CONFLICT (id) DO UPDATE SET last_used_at = excluded.last_used_at
            WHERE client_sessions.last_used_at < excluded.last_used_at",
        batch::insert(conn.dialect(), "client_sessions", "sessions", COLUMNS)
    );
    on!(conn, c => sqlx::query(sqlx::AssertSqlSafe(sql)).bind(batch).execute(c).await?.rows_affected());
    Ok(())
}

/// Whether the end user of this handle was joined to a signed-in end user, so that the handle is no longer valid.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn is_joined(conn: &mut Conn, organization: &OrganizationId, handle_hash: &str) -> Result<bool> {
    const SQL: &str = "SELECT count(*) FROM client_sessions
        WHERE handle_hash = $1 AND organization_id = $2 AND joined_at IS NOT NULL";
    let count: i64 = on!(conn, c => sqlx::query_scalar(SQL)
        .bind(handle_hash).bind(organization.as_str()).fetch_one(c).await?);
    Ok(count > 0)
}

/// Invalidates every handle of `end_user` on `server` as joined at `joined_at`. `None` makes them valid again.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn set_joined(
    conn: &mut Conn,
    organization: &OrganizationId,
    server: &ServerId,
    end_user: &EndUserId,
    joined_at: Option<Timestamp>,
) -> Result<()> {
    const SQL: &str = "UPDATE client_sessions SET joined_at = $4
        WHERE end_user_id = $1 AND server_id = $2 AND organization_id = $3";
    on!(conn, c => sqlx::query(SQL)
        .bind(end_user.as_str()).bind(server.as_str()).bind(organization.as_str())
        .bind(joined_at.map(|at| at.0)).execute(c).await?.rows_affected());
    Ok(())
}

/// Deletes at most `limit` expired sessions. Returns the number of deleted rows. The progress of the end users is
/// kept.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn delete_expired(conn: &mut Conn, now: Timestamp, limit: i64) -> Result<u64> {
    const SQL: &str = "DELETE FROM client_sessions
        WHERE last_used_at <= $1
            AND id IN (SELECT id FROM client_sessions WHERE last_used_at <= $1 ORDER BY last_used_at LIMIT $2)";
    Ok(on!(conn, c => sqlx::query(SQL)
        .bind(now.plus(-LIFETIME_MS).0).bind(limit).execute(c).await?.rows_affected()))
}
