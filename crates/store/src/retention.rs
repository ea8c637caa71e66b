//! Deletion of rows that are older than their retention period, in small batches that block the writer only briefly.
//!
//! Invariants (tests/it/retention.rs, tests/it/analytics.rs):
//! 1. A row of the log is deleted only after it was packed for analytics, so deletion does not change analytics.
//! 2. `analytics_rollups.calls_from` and `events_from` are later than every deleted row. When an end user is erased,
//!    segments that begin before them are searched, because the log no longer contains their rows.
//! 3. [`delete_audit`] is the only statement that deletes from the audit log.

use waypost_core::Timestamp;
use waypost_core::id::{AuditEventId, ServerId};

use crate::db::{Conn, Dialect};
use crate::error::Result;
use crate::on;

/// A log with rows per server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerLog {
    /// `tool_calls`.
    Calls,
    /// `walkthrough_events`.
    Events,
}

impl ServerLog {
    /// Returns the table, and the columns of `analytics_rollups` with the start of its rows and the end of the packed
    /// rows.
    fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Calls => ("tool_calls", "calls_from", "calls_until"),
            Self::Events => ("walkthrough_events", "events_from", "events_until"),
        }
    }
}

/// Returns the servers of all organisations for which [`delete_log`] would delete rows.
///
/// Reads one row of `analytics_rollups` per server and looks up the server in the log by index. `OFFSET` keeps
/// PostgreSQL from turning the condition into a join that reads the whole log.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list_servers_with_old_rows(conn: &mut Conn, log: ServerLog, before: Timestamp) -> Result<Vec<ServerId>> {
    let (table, _, until) = log.names();
    let sql = sqlx::AssertSqlSafe(format!(
        "SELECT server_id FROM analytics_rollups WHERE EXISTS (SELECT 1 FROM {table}
            WHERE {table}.server_id = analytics_rollups.server_id AND {table}.created_at < $1
                AND {table}.created_at < analytics_rollups.{until} LIMIT 1 OFFSET 0) ORDER BY server_id"
    ));
    let ids: Vec<String> = on!(conn, c => sqlx::query_scalar(sql).bind(before.0).fetch_all(c).await?);
    Ok(ids.into_iter().map(ServerId::from_store).collect())
}

/// Tables that count calls per minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallCounts {
    /// `refused_calls`.
    Rejected,
    /// `counted_calls`.
    Unidentified,
}

impl CallCounts {
    /// Returns the table, and the columns that identify a row in addition to the server and the minute.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Rejected => ("refused_calls", "reason"),
            Self::Unidentified => ("counted_calls", "tool, outcome"),
        }
    }
}

/// Returns the servers of all organisations for which [`delete_counts`] would delete rows. A server can have counts
/// without any call in the log.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list_servers_with_old_counts(
    conn: &mut Conn,
    counts: CallCounts,
    before: Timestamp,
) -> Result<Vec<ServerId>> {
    let (table, _) = counts.names();
    let sql = sqlx::AssertSqlSafe(format!(
        "SELECT id FROM servers WHERE EXISTS (SELECT 1 FROM {table}
            WHERE {table}.server_id = servers.id AND {table}.minute < $1 LIMIT 1 OFFSET 0) ORDER BY id"
    ));
    let ids: Vec<String> = on!(conn, c => sqlx::query_scalar(sql).bind(minute(before)).fetch_all(c).await?);
    Ok(ids.into_iter().map(ServerId::from_store).collect())
}

/// Deletes at most `limit` packed rows of a server that are older than `before`, oldest first. Returns the number of
/// deleted rows.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn delete_log(
    conn: &mut Conn,
    log: ServerLog,
    server: &ServerId,
    before: Timestamp,
    limit: i64,
) -> Result<u64> {
    let (table, from, until) = log.names();
    let lock = if conn.dialect() == Dialect::Sqlite { "" } else { " FOR UPDATE" };
    let packed = sqlx::AssertSqlSafe(format!("SELECT {until} FROM analytics_rollups WHERE server_id = $1{lock}"));
    let packed: Option<i64> = on!(conn, c => sqlx::query_scalar(packed).bind(server.as_str()).fetch_optional(c).await?);
    let Some(packed) = packed else { return Ok(0) };
    let end = before.0.min(packed);
    let sql = sqlx::AssertSqlSafe(format!(
        "DELETE FROM {table} WHERE id IN
            (SELECT id FROM {table} WHERE server_id = $1 AND created_at < $2 ORDER BY created_at LIMIT $3)"
    ));
    let deleted = on!(conn, c => sqlx::query(sql)
        .bind(server.as_str()).bind(end).bind(limit).execute(c).await?.rows_affected());
    if deleted > 0 {
        let sql = sqlx::AssertSqlSafe(format!(
            "UPDATE analytics_rollups SET {from} = $2 WHERE server_id = $1 AND {from} < $2"
        ));
        on!(conn, c => sqlx::query(sql).bind(server.as_str()).bind(end).execute(c).await?.rows_affected());
    }
    Ok(deleted)
}

/// Returns the minute that contains `at`.
fn minute(at: Timestamp) -> i64 {
    at.0.div_euclid(crate::tool_call::MINUTE_MS)
}

/// Deletes at most `limit` counts of a server that are older than `before`, oldest first. Returns the number of
/// deleted rows.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn delete_counts(
    conn: &mut Conn,
    counts: CallCounts,
    server: &ServerId,
    before: Timestamp,
    limit: i64,
) -> Result<u64> {
    let (table, key) = counts.names();
    let sql = sqlx::AssertSqlSafe(format!(
        "DELETE FROM {table} WHERE server_id = $1 AND (minute, {key}) IN
            (SELECT minute, {key} FROM {table} WHERE server_id = $1 AND minute < $2 ORDER BY minute LIMIT $3)"
    ));
    Ok(on!(conn, c => sqlx::query(sql)
        .bind(server.as_str()).bind(minute(before)).bind(limit).execute(c).await?.rows_affected()))
}

/// Deletes at most `limit` audit events of all organisations that are older than `before`, oldest first. Returns their
/// number.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn delete_audit(conn: &mut Conn, before: Timestamp, limit: i64) -> Result<u64> {
    // IDs begin with the time, so the primary key finds the oldest events.
    const SQL: &str = "DELETE FROM audit_events WHERE id IN
        (SELECT id FROM audit_events WHERE id < $1 ORDER BY id LIMIT $2)";
    let floor = AuditEventId::floor(before);
    Ok(on!(conn, c => sqlx::query(SQL).bind(floor.as_str()).bind(limit).execute(c).await?.rows_affected()))
}
