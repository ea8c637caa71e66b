//! What analytics reads: segments, and the log itself from where they end.
//!
//! Invariants (tests/it/analytics.rs):
//! - A row of the log is read once: the segments of a server hold everything before `events_until` and `calls_until` of
//!   its row in `analytics_rollups`, and nothing from there on.
//! - What deletes rows of the log corrects the segments in the same transaction: servers and walkthroughs by their foreign
//!   keys, end users by [`forget`].

mod roll;
mod rows;

pub(crate) use roll::forget;
pub use roll::{Due, due, roll};

use waypost_core::analytics::{Log, TimeRange, segment};
use waypost_core::id::{OrganizationId, ServerId, WalkthroughId};

use self::rows::{CallRow, EventRow};
use crate::db::Conn;
use crate::error::{Error, Result};
use crate::on;

/// What is to be read.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Whose.
    pub organization: &'a OrganizationId,
    /// Of this server only.
    pub server: Option<&'a ServerId>,
    /// Of this walkthrough only; calls are of none, and come anyway.
    pub walkthrough: Option<&'a WalkthroughId>,
    /// In this range only.
    pub range: TimeRange,
}

/// What was read, still packed: unpacking takes time, and is best done where nobody waits for the thread.
#[derive(Debug, Default)]
pub struct Packed {
    event_segments: Vec<String>,
    call_segments: Vec<String>,
    events: Vec<EventRow>,
    calls: Vec<CallRow>,
}

impl Packed {
    /// The rows of the range.
    ///
    /// # Errors
    /// When a segment cannot be read.
    pub fn unpack(self, range: TimeRange) -> Result<Log> {
        let mut log = Log::default();
        for text in self.event_segments {
            segment::unpack_events(&text, &mut log, |at| range.contains(at)).map_err(damaged)?;
        }
        for text in self.call_segments {
            segment::unpack_calls(&text, &mut log, |at| range.contains(at)).map_err(damaged)?;
        }
        rows::add_events(&mut log, self.events)?;
        rows::add_calls(&mut log, self.calls);
        Ok(log)
    }
}

fn damaged(error: segment::SegmentError) -> Error {
    Error::Corrupt { table: "analytics_segments", id: String::new(), why: error.to_string() }
}

/// Where the segments of a server end.
struct Place {
    server: String,
    events_until: i64,
    calls_until: i64,
}

async fn places(conn: &mut Conn, wanted: Wanted<'_>) -> Result<Vec<Place>> {
    const SQL: &str = "SELECT servers.id, COALESCE(analytics_rollups.events_until, 0),
            COALESCE(analytics_rollups.calls_until, 0)
        FROM servers LEFT JOIN analytics_rollups ON analytics_rollups.server_id = servers.id
        WHERE servers.organization_id = $1 ORDER BY servers.id";
    let rows: Vec<(String, i64, i64)> =
        on!(conn, c => sqlx::query_as(SQL).bind(wanted.organization.as_str()).fetch_all(c).await?);
    let is_wanted = |server: &str| wanted.server.is_none_or(|wanted| wanted.as_str() == server);
    let place = |(server, events_until, calls_until)| Place { server, events_until, calls_until };
    Ok(rows.into_iter().filter(|(server, ..)| is_wanted(server)).map(place).collect())
}

/// Reads the events of a range. `conn` is a [`crate::Db::snapshot`]: else an event could be read twice or not at all.
///
/// # Errors
/// When the database fails.
pub async fn events(conn: &mut Conn, wanted: Wanted<'_>, packed: &mut Packed) -> Result<()> {
    const SQL: &str = "SELECT data FROM analytics_segments
        WHERE server_id = $1 AND kind = 'events' AND from_at < $2 AND to_at >= $3
          AND (CAST($4 AS TEXT) IS NULL OR walkthrough_id = $4) ORDER BY from_at, first_id";
    let (from, to) = (wanted.range.from.0, wanted.range.to.0);
    for place in places(conn, wanted).await? {
        let segments: Vec<String> = on!(conn, c => sqlx::query_scalar(SQL)
            .bind(&place.server).bind(to).bind(from).bind(wanted.walkthrough.map(WalkthroughId::as_str))
            .fetch_all(c).await?);
        packed.event_segments.extend(segments);
        let rows = rows::events(conn, &place.server, (from.max(place.events_until), to)).await?;
        let is_wanted = |row: &EventRow| wanted.walkthrough.is_none_or(|wanted| wanted.as_str() == row.walkthrough_id);
        packed.events.extend(rows.into_iter().filter(is_wanted));
    }
    Ok(())
}

/// Reads the calls of a range; as [`events`].
///
/// # Errors
/// When the database fails.
pub async fn calls(conn: &mut Conn, wanted: Wanted<'_>, packed: &mut Packed) -> Result<()> {
    const SQL: &str = "SELECT data FROM analytics_segments
        WHERE server_id = $1 AND kind = 'calls' AND from_at < $2 AND to_at >= $3 ORDER BY from_at, first_id";
    let (from, to) = (wanted.range.from.0, wanted.range.to.0);
    for place in places(conn, wanted).await? {
        let segments: Vec<String> = on!(conn, c => sqlx::query_scalar(SQL)
            .bind(&place.server).bind(to).bind(from).fetch_all(c).await?);
        packed.call_segments.extend(segments);
        packed.calls.extend(rows::calls(conn, &place.server, (from.max(place.calls_until), to)).await?);
    }
    Ok(())
}
