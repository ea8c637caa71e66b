//! Rows of events and tool calls, as read for analytics.

use std::cmp::Reverse;

use waypost_core::Timestamp;
use waypost_core::analytics::{CallRecord, EventRecord, Log};
use waypost_core::event::EventKind;

use crate::db::Conn;
use crate::error::{Error, Result};
use crate::on;

#[derive(Debug, sqlx_macros::FromRow)]
pub(super) struct EventRow {
    pub(super) id: String,
    pub(super) walkthrough_id: String,
    end_user_id: String,
    progress_id: String,
    version_id: String,
    step_id: Option<String>,
    kind: String,
    pub(super) created_at: i64,
    client_name: Option<String>,
    elapsed_ms: Option<i64>,
    took_ms: Option<i64>,
}

#[derive(Debug, sqlx_macros::FromRow)]
pub(super) struct CallRow {
    pub(super) id: String,
    end_user_id: Option<String>,
    tool: String,
    outcome: String,
    duration_us: i64,
    client_name: Option<String>,
    pub(super) created_at: i64,
}

/// Returns the events of a server in a time range (`to` is exclusive). Events of test users are omitted. A user
/// is marked as a test user at their first call, so packed segments and unpacked rows agree.
pub(super) async fn read_events(conn: &mut Conn, server: &str, from: i64, to: i64) -> Result<Vec<EventRow>> {
    const SQL: &str = "SELECT id, walkthrough_id, end_user_id, progress_id, version_id, step_id, kind, created_at,
            client_name, elapsed_ms, took_ms
        FROM walkthrough_events WHERE server_id = $1 AND created_at >= $2 AND created_at < $3
          AND NOT (SELECT end_users.is_test FROM end_users WHERE end_users.id = walkthrough_events.end_user_id)
        ORDER BY created_at, id";
    if from >= to {
        return Ok(Vec::new());
    }
    Ok(on!(conn, c => sqlx::query_as(SQL).bind(server).bind(from).bind(to).fetch_all(c).await?))
}

/// Returns the calls of a server in a time range (`to` is exclusive).
pub(super) async fn read_calls(conn: &mut Conn, server: &str, from: i64, to: i64) -> Result<Vec<CallRow>> {
    const SQL: &str = "SELECT id, end_user_id, tool, outcome, duration_us, client_name, created_at
        FROM tool_calls WHERE server_id = $1 AND created_at >= $2 AND created_at < $3 AND NOT is_test
        ORDER BY created_at, id";
    if from >= to {
        return Ok(Vec::new());
    }
    Ok(on!(conn, c => sqlx::query_as(SQL).bind(server).bind(from).bind(to).fetch_all(c).await?))
}

/// Adds events to `log`. Events of one attempt are added in the order in which they happened.
pub(super) fn add_events(log: &mut Log, rows: Vec<EventRow>) -> Result<()> {
    let start = log.events.len();
    for row in rows {
        let kind: EventKind = row.kind.parse().map_err(|reason| Error::Corrupt {
            table: "walkthrough_events",
            id: row.id.clone(),
            reason,
        })?;
        let names = &mut log.names;
        let event = EventRecord {
            at: Timestamp(row.created_at),
            kind,
            attempt: names.intern(&row.progress_id),
            user: names.intern(&row.end_user_id),
            walkthrough: names.intern(&row.walkthrough_id),
            version: names.intern(&row.version_id),
            step: names.intern_optional(row.step_id.as_deref()),
            client: names.intern_optional(row.client_name.as_deref()),
            elapsed_ms: row.elapsed_ms.unwrap_or(-1),
            took_ms: row.took_ms.unwrap_or(-1),
        };
        log.events.push(event);
    }
    // If two steps were completed in the same millisecond, the one with the longer elapsed time was completed first.
    log.events[start..].sort_by_key(|event| (event.at, event.kind.rank(), Reverse(event.elapsed_ms)));
    Ok(())
}

/// Adds calls to `log`.
pub(super) fn add_calls(log: &mut Log, rows: Vec<CallRow>) {
    for row in rows {
        let names = &mut log.names;
        let call = CallRecord {
            at: Timestamp(row.created_at),
            tool: names.intern(&row.tool),
            outcome: names.intern(&row.outcome),
            client: names.intern_optional(row.client_name.as_deref()),
            user: names.intern_optional(row.end_user_id.as_deref()),
            duration_us: row.duration_us,
        };
        log.calls.push(call);
    }
}
