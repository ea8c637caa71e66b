//! The data for analytics: packed segments, and the rows of the log after the end of the segments.
//!
//! Invariants (tests/it/analytics.rs):
//! - Each row of the log is read once: the segments of a server contain everything before `events_until` and
//!   `calls_until` of its row in `analytics_rollups`, and nothing after.
//! - Deleting rows of the log also updates the segments in the same transaction: for servers and walkthroughs through
//!   foreign keys, for end users through [`erase_end_user`].

mod rollup;
mod rows;

pub(crate) use rollup::erase_end_user;
pub use rollup::{DueServer, list_due, roll_up};

use waypost_core::analytics::{Log, TimeRange, segment};
use waypost_core::id::{OrganizationId, ServerId, WalkthroughId};

use self::rows::{CallRow, EventRow};
use crate::db::Conn;
use crate::error::{Error, Result};
use crate::on;

/// A query for rows of the log.
#[derive(Debug, Clone, Copy)]
pub struct LogQuery<'a> {
    /// The organisation.
    pub organization: &'a OrganizationId,
    /// Only rows of this server.
    pub server: Option<&'a ServerId>,
    /// Only events of this walkthrough. Does not filter calls, which are not linked to a walkthrough.
    pub walkthrough: Option<&'a WalkthroughId>,
    /// Only rows in this range.
    pub range: TimeRange,
}

/// The result of a query, still packed. Unpacking is CPU-bound, so it should not run on an async worker thread.
#[derive(Debug, Default)]
pub struct PackedLog {
    event_segments: Vec<String>,
    call_segments: Vec<String>,
    events: Vec<EventRow>,
    calls: Vec<CallRow>,
}

impl PackedLog {
    /// Unpacks the rows in `range`.
    ///
    /// # Errors
    /// Returns an error if a segment cannot be read.
    pub fn unpack(self, range: TimeRange) -> Result<Log> {
        let mut log = Log::default();
        for text in self.event_segments {
            segment::unpack_events(&text, &mut log, |at| range.contains(at)).map_err(corrupt_segment)?;
        }
        for text in self.call_segments {
            segment::unpack_calls(&text, &mut log, |at| range.contains(at)).map_err(corrupt_segment)?;
        }
        rows::add_events(&mut log, self.events)?;
        rows::add_calls(&mut log, self.calls);
        Ok(log)
    }
}

fn corrupt_segment(error: segment::SegmentError) -> Error {
    Error::Corrupt { table: "analytics_segments", id: String::new(), reason: error.to_string() }
}

/// The end of a server's segments.
struct SegmentEnd {
    server_id: String,
    events_until: i64,
    calls_until: i64,
}

async fn list_segment_ends(conn: &mut Conn, query: LogQuery<'_>) -> Result<Vec<SegmentEnd>> {
    const SQL: &str = "SELECT servers.id, COALESCE(analytics_rollups.events_until, 0),
            COALESCE(analytics_rollups.calls_until, 0)
        FROM servers LEFT JOIN analytics_rollups ON analytics_rollups.server_id = servers.id
        WHERE servers.organization_id = $1 ORDER BY servers.id";
    let rows: Vec<(String, i64, i64)> =
        on!(conn, c => sqlx::query_as(SQL).bind(query.organization.as_str()).fetch_all(c).await?);
    let matches = |server: &str| query.server.is_none_or(|id| id.as_str() == server);
    let end = |(server_id, events_until, calls_until)| SegmentEnd { server_id, events_until, calls_until };
    Ok(rows.into_iter().filter(|(server, ..)| matches(server)).map(end).collect())
}

/// Reads the events of a range into `packed`. `conn` must be a [`crate::Db::snapshot`]; otherwise an event could be
/// read twice or not at all.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn read_events(conn: &mut Conn, query: LogQuery<'_>, packed: &mut PackedLog) -> Result<()> {
    const SQL: &str = "SELECT data FROM analytics_segments
        WHERE server_id = $1 AND kind = 'events' AND from_at < $2 AND to_at >= $3
          AND (CAST($4 AS TEXT) IS NULL OR walkthrough_id = $4) ORDER BY from_at, first_id";
    let (from, to) = (query.range.from.0, query.range.to.0);
    for end in list_segment_ends(conn, query).await? {
        let segments: Vec<String> = on!(conn, c => sqlx::query_scalar(SQL)
            .bind(&end.server_id).bind(to).bind(from).bind(query.walkthrough.map(WalkthroughId::as_str))
            .fetch_all(c).await?);
        packed.event_segments.extend(segments);
        let rows = rows::read_events(conn, &end.server_id, from.max(end.events_until), to).await?;
        let matches = |row: &EventRow| query.walkthrough.is_none_or(|id| id.as_str() == row.walkthrough_id);
        packed.events.extend(rows.into_iter().filter(matches));
    }
    Ok(())
}

/// Reads the calls of a range into `packed`. `conn` must be a [`crate::Db::snapshot`].
///
/// # Errors
/// Returns an error if the database fails.
pub async fn read_calls(conn: &mut Conn, query: LogQuery<'_>, packed: &mut PackedLog) -> Result<()> {
    const SQL: &str = "SELECT data FROM analytics_segments
        WHERE server_id = $1 AND kind = 'calls' AND from_at < $2 AND to_at >= $3 ORDER BY from_at, first_id";
    let (from, to) = (query.range.from.0, query.range.to.0);
    for end in list_segment_ends(conn, query).await? {
        let segments: Vec<String> = on!(conn, c => sqlx::query_scalar(SQL)
            .bind(&end.server_id).bind(to).bind(from).fetch_all(c).await?);
        packed.call_segments.extend(segments);
        packed.calls.extend(rows::read_calls(conn, &end.server_id, from.max(end.calls_until), to).await?);
    }
    Ok(())
}
