//! Deleting what is older than its retention period, some rows at a time, so that the writer is taken for a moment only.
//!
//! Invariants (tests/it/retention.rs, tests/it/analytics.rs):
//! 1. A row of the log is deleted only after it was packed for analytics: what analytics reads is the same before and after.
//! 2. `analytics_rollups.calls_from` and `events_from` are never before a row that was deleted. Segments that begin before
//!    them are searched when an end user is erased, because no row of the log tells any more whether they are in it.
//! 3. [`delete_audit`] is the only statement that deletes from the audit log.

use waypost_core::Timestamp;
use waypost_core::id::{AuditEventId, ServerId};

use crate::db::{Conn, Dialect};
use crate::error::Result;
use crate::on;

/// A log with rows of servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerLog {
    /// `tool_calls`.
    Calls,
    /// `walkthrough_events`.
    Events,
}

impl ServerLog {
    /// The table, and the columns of `analytics_rollups` that say where its rows begin and up to where they are packed.
    fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Calls => ("tool_calls", "calls_from", "calls_until"),
            Self::Events => ("walkthrough_events", "events_from", "events_until"),
        }
    }
}

/// Returns the servers, of all organisations, for which [`delete_log`] would delete something.
///
/// Reads one row of `analytics_rollups` per server and looks the server up in the log by index. With `OFFSET`, PostgreSQL does
/// not turn the condition into a join that reads the whole log.
///
/// # Errors
/// When the database fails.
pub async fn servers_with_old_rows(conn: &mut Conn, log: ServerLog, before: Timestamp) -> Result<Vec<ServerId>> {
    let (table, _, until) = log.names();
    let sql = sqlx::AssertSqlSafe(format!(
        "SELECT server_id FROM analytics_rollups WHERE EXISTS (SELECT 1 FROM {table}
            WHERE {table}.server_id = analytics_rollups.server_id AND {table}.created_at < $1
                AND {table}.created_at < analytics_rollups.{until} LIMIT 1 OFFSET 0) ORDER BY server_id"
    ));
    let ids: Vec<String> = on!(conn, c => sqlx::query_scalar(sql).bind(before.0).fetch_all(c).await?);
    Ok(ids.into_iter().map(ServerId::from_store).collect())
}

/// Calls that are counted by the minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counts {
    /// `refused_calls`.
    Rejected,
    /// `counted_calls`.
    Unknown,
}

impl Counts {
    /// The table, and what identifies a row beside the server and the minute.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Rejected => ("refused_calls", "reason"),
            Self::Unknown => ("counted_calls", "tool, outcome"),
        }
    }
}

/// Returns the servers, of all organisations, for which [`delete_counts`] would delete something. A server can have counts
/// without any call in the log.
///
/// # Errors
/// When the database fails.
pub async fn servers_with_old_counts(conn: &mut Conn, counts: Counts, before: Timestamp) -> Result<Vec<ServerId>> {
    let (table, _) = counts.names();
    let sql = sqlx::AssertSqlSafe(format!(
        "SELECT id FROM servers WHERE EXISTS (SELECT 1 FROM {table}
            WHERE {table}.server_id = servers.id AND {table}.minute < $1 LIMIT 1 OFFSET 0) ORDER BY id"
    ));
    let ids: Vec<String> = on!(conn, c => sqlx::query_scalar(sql).bind(minute(before)).fetch_all(c).await?);
    Ok(ids.into_iter().map(ServerId::from_store).collect())
}

/// Deletes at most `limit` rows of a server that are older than `before` and packed, oldest first. Returns how many.
///
/// # Errors
/// When the database fails.
pub async fn delete_log(
    conn: &mut Conn,
    log: ServerLog,
    server: &ServerId,
    (before, limit): (Timestamp, i64),
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

/// The minute in which `at` falls.
fn minute(at: Timestamp) -> i64 {
    at.0.div_euclid(crate::tool_call::MINUTE_MS)
}

/// Deletes at most `limit` counts of a server that are older than `before`, oldest first. Returns how many.
///
/// # Errors
/// When the database fails.
pub async fn delete_counts(
    conn: &mut Conn,
    counts: Counts,
    server: &ServerId,
    (before, limit): (Timestamp, i64),
) -> Result<u64> {
    let (table, key) = counts.names();
    let sql = sqlx::AssertSqlSafe(format!(
        "DELETE FROM {table} WHERE server_id = $1 AND (minute, {key}) IN
            (SELECT minute, {key} FROM {table} WHERE server_id = $1 AND minute < $2 ORDER BY minute LIMIT $3)"
    ));
    Ok(on!(conn, c => sqlx::query(sql)
        .bind(server.as_str()).bind(minute(before)).bind(limit).execute(c).await?.rows_affected()))
}

/// Deletes at most `limit` entries of the audit logs of all organisations that are older than `before`, oldest first.
/// Returns how many.
///
/// # Errors
/// When the database fails.
pub async fn delete_audit(conn: &mut Conn, before: Timestamp, limit: i64) -> Result<u64> {
    // An id begins with its time, so the primary key leads to the oldest entries.
    const SQL: &str = "DELETE FROM audit_events WHERE id IN
        (SELECT id FROM audit_events WHERE id < $1 ORDER BY id LIMIT $2)";
    let floor = AuditEventId::floor(before);
    Ok(on!(conn, c => sqlx::query(SQL).bind(floor.as_str()).bind(limit).execute(c).await?.rows_affected()))
}
