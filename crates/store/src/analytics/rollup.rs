//! Packs rows of the log into segments, and erases end users from them.

use std::collections::{BTreeMap, BTreeSet};

use waypost_core::Timestamp;
use waypost_core::analytics::{Log, segment};
use waypost_core::id::{EndUserId, OrganizationId, ServerId};

use super::corrupt_segment;
use super::rows::{self, CallRow, EventRow};
use crate::db::{Conn, Dialect};
use crate::error::Result;
use crate::on;

/// The number of events, and of calls, that are packed in one transaction, which blocks other writers on SQLite.
const BATCH: i64 = 4_000;
/// If there are more rows than this, they are packed before they are an hour old.
const PACK_THRESHOLD: i64 = 2_000;
/// Rows that are older than this are packed regardless of their number.
const MAX_UNPACKED_MS: i64 = 3_600_000;
/// One day.
const DAY_MS: i64 = 24 * 3_600_000;
/// Rows that are newer than this are not packed, because an earlier row may not have been written yet.
const SETTLED_MS: i64 = 120_000;

/// A server that has rows to pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueServer {
    /// The organisation.
    pub organization_id: OrganizationId,
    /// The server.
    pub server_id: ServerId,
}

/// Returns the servers of all organisations that have rows to pack.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list_due(conn: &mut Conn, now: Timestamp) -> Result<Vec<DueServer>> {
    const SQL: &str = "SELECT servers.organization_id, servers.id FROM servers
        LEFT JOIN analytics_rollups ON analytics_rollups.server_id = servers.id
        WHERE EXISTS (SELECT 1 FROM walkthrough_events WHERE walkthrough_events.server_id = servers.id
                AND walkthrough_events.created_at >= COALESCE(analytics_rollups.events_until, 0)
                AND walkthrough_events.created_at < $1)
           OR EXISTS (SELECT 1 FROM tool_calls WHERE tool_calls.server_id = servers.id
                AND tool_calls.created_at >= COALESCE(analytics_rollups.calls_until, 0)
                AND tool_calls.created_at < $1)
           OR EXISTS (SELECT 1 FROM walkthrough_events WHERE walkthrough_events.server_id = servers.id
                AND walkthrough_events.created_at >= COALESCE(analytics_rollups.events_until, 0)
                AND walkthrough_events.created_at < $2 LIMIT 1 OFFSET $3)
           OR EXISTS (SELECT 1 FROM tool_calls WHERE tool_calls.server_id = servers.id
                AND tool_calls.created_at >= COALESCE(analytics_rollups.calls_until, 0)
                AND tool_calls.created_at < $2 LIMIT 1 OFFSET $3)";
    let rows: Vec<(String, String)> = on!(conn, c => sqlx::query_as(SQL)
        .bind(now.plus(-MAX_UNPACKED_MS).0).bind(now.plus(-SETTLED_MS).0).bind(PACK_THRESHOLD).fetch_all(c).await?);
    Ok(rows
        .into_iter()
        .map(|(organization, server)| DueServer {
            organization_id: OrganizationId::from_store(organization),
            server_id: ServerId::from_store(server),
        })
        .collect())
}

/// Packs one batch of a server's rows. Returns whether more rows are left. `conn` must be a transaction.
///
/// # Errors
/// Returns a foreign key violation if the server is deleted in the meantime, or another error if the database fails.
pub async fn roll_up(conn: &mut Conn, due: &DueServer, now: Timestamp) -> Result<bool> {
    const INSERT: &str = "INSERT INTO analytics_rollups (server_id, organization_id, events_until, calls_until)
        VALUES ($1, $2, 0, 0) ON CONFLICT (server_id) DO NOTHING";
    const UPDATE: &str = "UPDATE analytics_rollups SET events_until = $3, calls_until = $4
        WHERE server_id = $1 AND organization_id = $2";
    let (organization, server) = (due.organization_id.as_str(), due.server_id.as_str());
    on!(conn, c => sqlx::query(INSERT).bind(server).bind(organization).execute(c).await?.rows_affected());
    let Some((events_until, calls_until)) = lock(conn, due).await? else { return Ok(false) };
    let settled = now.plus(-SETTLED_MS).0;
    let (events_to, more_events) = end_of_batch(conn, "walkthrough_events", server, events_until, settled).await?;
    let (calls_to, more_calls) = end_of_batch(conn, "tool_calls", server, calls_until, settled).await?;
    let events = rows::read_events(conn, server, events_until, events_to).await?;
    let mut parts: BTreeMap<String, Vec<EventRow>> = BTreeMap::new();
    for row in events {
        parts.entry(row.walkthrough_id.clone()).or_default().push(row);
    }
    for (walkthrough, part) in parts {
        insert_events(conn, due, &walkthrough, part).await?;
    }
    let calls = rows::read_calls(conn, server, calls_until, calls_to).await?;
    insert_calls(conn, due, calls).await?;
    on!(conn, c => sqlx::query(UPDATE)
        .bind(server).bind(organization).bind(events_to).bind(calls_to).execute(c).await?.rows_affected());
    Ok(more_events || more_calls)
}

/// Returns the end of a server's segments for events and calls, or `None` if the server has no row. Locks the row until
/// the end of the transaction.
async fn lock(conn: &mut Conn, due: &DueServer) -> Result<Option<(i64, i64)>> {
    const SQLITE: &str = "SELECT events_until, calls_until FROM analytics_rollups
        WHERE server_id = $1 AND organization_id = $2";
    const POSTGRES: &str = "SELECT events_until, calls_until FROM analytics_rollups
        WHERE server_id = $1 AND organization_id = $2 FOR UPDATE";
    let sql = if conn.dialect() == Dialect::Sqlite { SQLITE } else { POSTGRES };
    Ok(on!(conn, c => sqlx::query_as(sql)
        .bind(due.server_id.as_str()).bind(due.organization_id.as_str()).fetch_optional(c).await?))
}

/// Returns the time up to which rows are packed in this batch, and whether more rows follow.
async fn end_of_batch(conn: &mut Conn, table: &str, server: &str, from: i64, settled: i64) -> Result<(i64, bool)> {
    if from >= settled {
        return Ok((from, false));
    }
    let sql = format!(
        "SELECT created_at FROM {table} WHERE server_id = $1 AND created_at >= $2 AND created_at < $3
         ORDER BY created_at LIMIT 1 OFFSET $4"
    );
    let sql = sqlx::AssertSqlSafe(sql);
    let next: Option<i64> = on!(conn, c => sqlx::query_scalar(sql)
        .bind(server).bind(from).bind(settled).bind(BATCH).fetch_optional(c).await?);
    // Rows of the same millisecond stay in one batch, regardless of their number.
    Ok(next.map_or((settled, false), |next| (next.max(from + 1), true)))
}

struct Segment<'a> {
    first_id: &'a str,
    walkthrough: Option<&'a str>,
    kind: &'static str,
    range: (i64, i64),
    count: usize,
    data: String,
}

async fn insert(conn: &mut Conn, due: &DueServer, segment: Segment<'_>) -> Result<()> {
    const SQL: &str =
        "INSERT INTO analytics_segments (first_id, organization_id, server_id, walkthrough_id, kind, from_at,
            to_at, count, data) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    let count = i64::try_from(segment.count).unwrap_or(i64::MAX);
    on!(conn, c => sqlx::query(SQL)
        .bind(segment.first_id).bind(due.organization_id.as_str()).bind(due.server_id.as_str())
        .bind(segment.walkthrough).bind(segment.kind).bind(segment.range.0).bind(segment.range.1).bind(count)
        .bind(segment.data).execute(c).await?.rows_affected());
    Ok(())
}

async fn insert_events(conn: &mut Conn, due: &DueServer, walkthrough: &str, rows: Vec<EventRow>) -> Result<()> {
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(()) };
    let (first_id, range) = (first.id.clone(), (first.created_at, last.created_at));
    let mut log = Log::default();
    rows::add_events(&mut log, rows)?;
    let data = segment::pack_events(&log.names, &log.events);
    let count = log.events.len();
    let walkthrough = Some(walkthrough);
    insert(conn, due, Segment { first_id: &first_id, walkthrough, kind: "events", range, count, data }).await
}

async fn insert_calls(conn: &mut Conn, due: &DueServer, rows: Vec<CallRow>) -> Result<()> {
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(()) };
    let (first_id, range) = (first.id.clone(), (first.created_at, last.created_at));
    let mut log = Log::default();
    rows::add_calls(&mut log, rows);
    let data = segment::pack_calls(&log.names, &log.calls);
    let count = log.calls.len();
    insert(conn, due, Segment { first_id: &first_id, walkthrough: None, kind: "calls", range, count, data }).await
}

/// Erases an end user from the segments. Must be called before the end user's log rows are deleted, in the same
/// transaction.
///
/// # Errors
/// Returns an error if the database fails or a segment cannot be read.
pub(crate) async fn erase_end_user(conn: &mut Conn, organization: &OrganizationId, end_user: &EndUserId) -> Result<()> {
    const LOCK: &str =
        "SELECT server_id FROM analytics_rollups WHERE organization_id = $1 ORDER BY server_id FOR UPDATE";
    const EVENTS: &str = "SELECT DISTINCT analytics_segments.first_id FROM walkthrough_events
        JOIN analytics_segments ON analytics_segments.server_id = walkthrough_events.server_id
            AND analytics_segments.kind = 'events'
            AND analytics_segments.walkthrough_id = walkthrough_events.walkthrough_id
            AND analytics_segments.from_at <= walkthrough_events.created_at
            AND analytics_segments.to_at >= walkthrough_events.created_at
        WHERE walkthrough_events.end_user_id = $1 AND walkthrough_events.organization_id = $2";
    const CALLS: &str = "SELECT DISTINCT analytics_segments.first_id FROM tool_calls
        JOIN analytics_segments ON analytics_segments.server_id = tool_calls.server_id
            AND analytics_segments.kind = 'calls'
            AND analytics_segments.from_at <= tool_calls.created_at
            AND analytics_segments.to_at >= tool_calls.created_at
        WHERE tool_calls.end_user_id = $1 AND tool_calls.organization_id = $2";
    // For rows that retention has deleted, no record remains of their end user, so the segments are searched. Segments
    // that ended before the end user was created are skipped, with a margin of one day for clock differences.
    const OLD_EVENTS: &str = "SELECT analytics_segments.first_id FROM end_users
        JOIN analytics_rollups ON analytics_rollups.organization_id = end_users.organization_id
        JOIN analytics_segments ON analytics_segments.server_id = analytics_rollups.server_id
            AND analytics_segments.kind = 'events' AND analytics_segments.from_at < analytics_rollups.events_from
        WHERE end_users.id = $1 AND end_users.organization_id = $2
            AND analytics_segments.to_at >= end_users.created_at - $3";
    const OLD_CALLS: &str = "SELECT analytics_segments.first_id FROM end_users
        JOIN analytics_rollups ON analytics_rollups.organization_id = end_users.organization_id
        JOIN analytics_segments ON analytics_segments.server_id = analytics_rollups.server_id
            AND analytics_segments.kind = 'calls' AND analytics_segments.from_at < analytics_rollups.calls_from
        WHERE end_users.id = $1 AND end_users.organization_id = $2
            AND analytics_segments.to_at >= end_users.created_at - $3";
    if conn.dialect() == Dialect::Postgres {
        // Prevents concurrent packing and retention. SQLite needs no lock, because it has a single writer.
        let _: Vec<String> = on!(conn, c => sqlx::query_scalar(LOCK).bind(organization.as_str()).fetch_all(c).await?);
    }
    for (sql, old, is_events) in [(EVENTS, OLD_EVENTS, true), (CALLS, OLD_CALLS, false)] {
        let ids: Vec<String> = on!(conn, c => sqlx::query_scalar(sql)
            .bind(end_user.as_str()).bind(organization.as_str()).fetch_all(c).await?);
        let old: Vec<String> = on!(conn, c => sqlx::query_scalar(old)
            .bind(end_user.as_str()).bind(organization.as_str()).bind(DAY_MS).fetch_all(c).await?);
        let ids: BTreeSet<String> = ids.into_iter().chain(old).collect();
        for id in ids {
            erase_from_segment(conn, &id, end_user, is_events).await?;
        }
    }
    Ok(())
}

async fn erase_from_segment(conn: &mut Conn, id: &str, end_user: &EndUserId, is_events: bool) -> Result<()> {
    const READ: &str = "SELECT data FROM analytics_segments WHERE first_id = $1";
    const WRITE: &str = "UPDATE analytics_segments SET data = $2, count = $3 WHERE first_id = $1";
    const DELETE: &str = "DELETE FROM analytics_segments WHERE first_id = $1";
    let data: String = on!(conn, c => sqlx::query_scalar(READ).bind(id).fetch_one(c).await?);
    let mut log = Log::default();
    let (data, before, count) = if is_events {
        segment::unpack_events(&data, &mut log, |_| true).map_err(corrupt_segment)?;
        let before = log.events.len();
        let user = log.names.lookup(end_user.as_str());
        log.events.retain(|event| event.user != user);
        (segment::pack_events(&log.names, &log.events), before, log.events.len())
    } else {
        segment::unpack_calls(&data, &mut log, |_| true).map_err(corrupt_segment)?;
        let before = log.calls.len();
        let user = log.names.lookup(end_user.as_str());
        log.calls.retain(|call| call.user != user);
        (segment::pack_calls(&log.names, &log.calls), before, log.calls.len())
    };
    if count == before {
        return Ok(());
    }
    if count == 0 {
        on!(conn, c => sqlx::query(DELETE).bind(id).execute(c).await?.rows_affected());
    } else {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        on!(conn, c => sqlx::query(WRITE).bind(id).bind(data).bind(count).execute(c).await?.rows_affected());
    }
    Ok(())
}
