//! Calls by unidentified callers: the first calls per server and minute get a row each; further calls are only counted.
//!
//! Anyone can make any number of such calls. None of them changes anything, because every change creates an end user.
//!
//! Invariants (tests/it/counted_calls.rs):
//! 1. A recorded call is either a row of `tool_calls` or part of a count, so rows and counts add up to all recorded
//!    calls.
//! 2. Per minute, a server gets at most [`ROWS_PER_MINUTE`] rows for unidentified callers, regardless of the number of
//!    processes and their restarts. A call is counted without a row only if this limit is reached.
//! 3. Calls by end users and test calls always get a row.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;
use waypost_core::Timestamp;
use waypost_core::analytics::{CallCount, TimeRange};
use waypost_core::id::{OrganizationId, ServerId};

use crate::batch::{self, Column, Kind};
use crate::db::{Conn, Raw};
use crate::error::Result;
use crate::on;
use crate::tool_call::{self, MINUTE_MS, ToolCall};

/// The maximum number of rows for unidentified callers per server and minute: enough to debug a new integration.
pub const ROWS_PER_MINUTE: i64 = 60;

/// A server and a minute since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
struct Minute {
    server_id: ServerId,
    minute: i64,
}

impl Minute {
    /// Returns the server and minute of a call by an unidentified caller; `None` for calls that always get a row.
    fn of_unidentified(call: &ToolCall) -> Option<Self> {
        let is_unidentified = call.end_user_id.is_none() && !call.is_test;
        let minute = call.created_at.0.div_euclid(MINUTE_MS);
        is_unidentified.then(|| Self { server_id: call.server_id.clone(), minute })
    }
}

/// The number of calls without a row to a server, in one minute, with one tool and outcome.
#[derive(Debug, Serialize)]
struct Count {
    server_id: ServerId,
    minute: i64,
    tool: String,
    outcome: String,
    count: i64,
}

/// Records calls that changed nothing, each as a row or in a count. Calls of servers or end users that were deleted in
/// the meantime are skipped. `conn` must be a transaction.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn record(conn: &mut Conn, calls: Vec<ToolCall>) -> Result<()> {
    let minutes: BTreeSet<Minute> = calls.iter().filter_map(Minute::of_unidentified).collect();
    let mut rows_of = if minutes.is_empty() { HashMap::new() } else { count_rows(conn, &minutes).await? };
    let mut counts: BTreeMap<(Minute, String, String), i64> = BTreeMap::new();
    let mut rows = Vec::with_capacity(calls.len());
    for call in calls {
        let Some(minute) = Minute::of_unidentified(&call) else {
            rows.push(call);
            continue;
        };
        let count = rows_of.entry(minute.clone()).or_default();
        if *count < ROWS_PER_MINUTE {
            *count += 1;
            rows.push(call);
        } else {
            *counts.entry((minute, call.tool, call.outcome)).or_default() += 1;
        }
    }
    if !rows.is_empty() {
        tool_call::insert(conn, &rows).await?;
    }
    if !counts.is_empty() {
        add(conn, counts).await?;
    }
    Ok(())
}

/// Returns the number of rows for unidentified callers in each of `minutes`. On PostgreSQL, locks the servers until the
/// end of the transaction, so that no other process adds rows in the meantime.
async fn count_rows(conn: &mut Conn, minutes: &BTreeSet<Minute>) -> Result<HashMap<Minute, i64>> {
    const COLUMNS: &[Column] = &[("server_id", Kind::Text), ("minute", Kind::Integer)];
    // Every process locks in the same order. Foreign key checks of new rows do not wait for this lock.
    const LOCK: &str = "SELECT id FROM servers WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE";
    if let Raw::Postgres(c) = conn.raw() {
        let servers: Vec<&str> = minutes.iter().map(|minute| minute.server_id.as_str()).collect();
        sqlx::query(LOCK).bind(servers).execute(c).await?;
    }
    let batch = serde_json::json!({ "minutes": minutes }).to_string();
    let source = format!("(SELECT * FROM {}) AS source", batch::rows(conn.dialect(), "minutes", COLUMNS));
    let sql = sqlx::AssertSqlSafe(format!(
        "SELECT server_id, minute, (SELECT count(*) FROM tool_calls WHERE tool_calls.server_id = source.server_id
            AND tool_calls.created_at >= source.minute * {MINUTE_MS}
            AND tool_calls.created_at < (source.minute + 1) * {MINUTE_MS}
            AND tool_calls.end_user_id IS NULL AND NOT tool_calls.is_test) FROM {source}"
    ));
    let rows: Vec<(String, i64, i64)> = on!(conn, c => sqlx::query_as(sql).bind(batch).fetch_all(c).await?);
    let row = |(server, minute, count)| (Minute { server_id: ServerId::from_store(server), minute }, count);
    Ok(rows.into_iter().map(row).collect())
}

/// Adds to the counts. Because of `OFFSET`, PostgreSQL looks up each server by index instead of reading all servers.
async fn add(conn: &mut Conn, counts: BTreeMap<(Minute, String, String), i64>) -> Result<()> {
    const COLUMNS: &[Column] = &[
        ("server_id", Kind::Text),
        ("minute", Kind::Integer),
        ("tool", Kind::Text),
        ("outcome", Kind::Text),
        ("count", Kind::Integer),
    ];
    let count =
        |((Minute { server_id, minute }, tool, outcome), count)| Count { server_id, minute, tool, outcome, count };
    let counts: Vec<Count> = counts.into_iter().map(count).collect();
    let batch = serde_json::json!({ "counts": counts }).to_string();
    let sql = sqlx::AssertSqlSafe(format!(
        "{} AND EXISTS (SELECT 1 FROM servers WHERE servers.id = server_id LIMIT 1 OFFSET 0)
         ON CONFLICT (server_id, minute, tool, outcome) DO UPDATE SET count = counted_calls.count + excluded.count",
        batch::insert(conn.dialect(), "counted_calls", "counts", COLUMNS)
    ));
    on!(conn, c => sqlx::query(sql).bind(batch).execute(c).await?.rows_affected());
    Ok(())
}

/// Returns the number of calls without a row by tool and outcome. A call counts at the beginning of its minute, so
/// adjacent ranges add up.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn sum(
    conn: &mut Conn,
    organization: &OrganizationId,
    server: Option<&ServerId>,
    range: TimeRange,
) -> Result<Vec<CallCount>> {
    const SQL: &str = "SELECT counted_calls.tool, counted_calls.outcome, CAST(sum(counted_calls.count) AS BIGINT)
        FROM servers JOIN counted_calls ON counted_calls.server_id = servers.id
        WHERE servers.organization_id = $1 AND (CAST($2 AS TEXT) IS NULL OR servers.id = $2)
          AND counted_calls.minute >= $3 AND counted_calls.minute < $4
        GROUP BY counted_calls.tool, counted_calls.outcome ORDER BY counted_calls.tool, counted_calls.outcome";
    let rows: Vec<(String, String, i64)> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(server.map(ServerId::as_str))
        .bind(first_minute(range.from)).bind(first_minute(range.to)).fetch_all(c).await?);
    let row = |(tool, outcome, count): (_, _, i64)| CallCount { tool, outcome, count: count.unsigned_abs() };
    Ok(rows.into_iter().map(row).collect())
}

/// Returns the first minute that begins at or after `at`.
pub(crate) fn first_minute(at: Timestamp) -> i64 {
    -(-at.0).div_euclid(MINUTE_MS)
}
