//! The log as it is listed: events, calls and sessions, newest first or oldest first, a page at a time.

use waypost_core::Timestamp;
use waypost_core::analytics::TimeRange;
use waypost_core::event::EventKind;
use waypost_core::id::{
    EndUserId, EventId, OrganizationId, ProgressId, ServerId, SessionId, StepId, VersionId, WalkthroughId,
};

use crate::db::Conn;
use crate::error::{Error, Result};
use crate::on;
use crate::tool_call::{self, ToolCall};

/// Which rows of the log, and from where on.
#[derive(Debug, Clone)]
pub struct Query<'a> {
    /// Whose.
    pub organization: &'a OrganizationId,
    /// On this server only.
    pub server: Option<&'a ServerId>,
    /// Of this end user only.
    pub end_user: Option<&'a EndUserId>,
    /// Of this walkthrough only: events.
    pub walkthrough: Option<&'a WalkthroughId>,
    /// In this range only.
    pub range: TimeRange,
    /// Behind this one, by time and id.
    pub after: Option<(Timestamp, String)>,
    /// Whether the oldest come first.
    pub oldest_first: bool,
    /// At most so many.
    pub limit: i64,
}

/// An event of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The event.
    pub id: EventId,
    /// Where.
    pub server_id: ServerId,
    /// At what.
    pub walkthrough_id: WalkthroughId,
    /// Whose.
    pub end_user_id: EndUserId,
    /// The attempt.
    pub progress_id: ProgressId,
    /// In which version.
    pub version_id: VersionId,
    /// To which step.
    pub step_id: Option<StepId>,
    /// The walkthrough's title in that version.
    pub walkthrough_title: Option<String>,
    /// The step's title in that version.
    pub step_title: Option<String>,
    /// What happened.
    pub kind: EventKind,
    /// When.
    pub created_at: Timestamp,
    /// What the client calls itself.
    pub client_name: Option<String>,
    /// Since the attempt was worked on before; none for its first event.
    pub elapsed_ms: Option<i64>,
}

#[derive(sqlx::FromRow)]
struct EventRow {
    id: String,
    server_id: String,
    walkthrough_id: String,
    end_user_id: String,
    progress_id: String,
    version_id: String,
    step_id: Option<String>,
    walkthrough_title: Option<String>,
    step_title: Option<String>,
    kind: String,
    created_at: i64,
    client_name: Option<String>,
    elapsed_ms: Option<i64>,
}

impl TryFrom<EventRow> for Event {
    type Error = Error;

    fn try_from(row: EventRow) -> Result<Self> {
        let corrupt = |why| Error::Corrupt { table: "walkthrough_events", id: row.id.clone(), why };
        let kind = row.kind.parse().map_err(corrupt)?;
        Ok(Self {
            id: EventId::from_store(row.id),
            server_id: ServerId::from_store(row.server_id),
            walkthrough_id: WalkthroughId::from_store(row.walkthrough_id),
            end_user_id: EndUserId::from_store(row.end_user_id),
            progress_id: ProgressId::from_store(row.progress_id),
            version_id: VersionId::from_store(row.version_id),
            step_id: row.step_id.map(StepId::from_store),
            walkthrough_title: row.walkthrough_title,
            step_title: row.step_title,
            kind,
            created_at: Timestamp(row.created_at),
            client_name: row.client_name,
            elapsed_ms: row.elapsed_ms,
        })
    }
}

/// A client session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRow {
    /// The session.
    pub id: SessionId,
    /// Where its handle means something.
    pub server_id: ServerId,
    /// Whom it names.
    pub end_user_id: EndUserId,
    /// What the client calls itself.
    pub client_name: Option<String>,
    /// The client's version.
    pub client_version: Option<String>,
    /// The protocol revision.
    pub protocol_version: Option<String>,
    /// When it began.
    pub created_at: Timestamp,
    /// When its handle was last used, as far as it was written down.
    pub last_used_at: Timestamp,
    /// When its user was joined to a signed-in one.
    pub joined_at: Option<Timestamp>,
}

/// The column that leads to the rows through an index; none when only the organisation is given.
fn driver(query: &Query<'_>) -> Option<(&'static str, String)> {
    if let Some(end_user) = query.end_user {
        return Some(("end_user_id", end_user.to_string()));
    }
    if let Some(walkthrough) = query.walkthrough {
        return Some(("walkthrough_id", walkthrough.to_string()));
    }
    query.server.map(|server| ("server_id", server.to_string()))
}

/// The ways into the log: one column with its value, or each server of the organisation.
async fn drivers(conn: &mut Conn, query: &Query<'_>) -> Result<Vec<(&'static str, String)>> {
    const SERVERS: &str = "SELECT id FROM servers WHERE organization_id = $1 ORDER BY id";
    if let Some(driver) = driver(query) {
        return Ok(vec![driver]);
    }
    let servers: Vec<String> =
        on!(conn, c => sqlx::query_scalar(SERVERS).bind(query.organization.as_str()).fetch_all(c).await?);
    Ok(servers.into_iter().map(|server| ("server_id", server)).collect())
}

/// Rows of tests, by a column of their own.
const IS_TEST: &str = "is_test";
/// Rows of tests, by their end user.
const USER_IS_TEST: &str = "(SELECT end_users.is_test FROM end_users WHERE end_users.id = end_user_id)";

/// What every list of the log has behind its FROM; `$1` is the driver's value. Rows of tests, which `is_test` finds, are
/// listed only of a given end user.
fn conditions(column: &str, query: &Query<'_>, is_test: &str) -> String {
    let (beyond, direction) = if query.oldest_first { (">", "ASC") } else { ("<", "DESC") };
    let tests = if query.end_user.is_some() { String::new() } else { format!("AND NOT {is_test}") };
    format!(
        "WHERE {column} = $1 AND organization_id = $2 AND (CAST($3 AS TEXT) IS NULL OR server_id = $3)
           AND (CAST($4 AS TEXT) IS NULL OR end_user_id = $4) AND created_at >= $5 AND created_at < $6
           AND (created_at, id) {beyond} ($7, $8) {tests} ORDER BY created_at {direction}, id {direction} LIMIT $9"
    )
}

/// Where the page begins: behind the last one, or before everything.
fn beginning(query: &Query<'_>) -> (i64, String) {
    match &query.after {
        Some((at, id)) => (at.0, id.clone()),
        None if query.oldest_first => (i64::MIN, String::new()),
        None => (i64::MAX, String::new()),
    }
}

/// Sorts what came from several servers, and keeps a page of it.
fn merge<T>(rows: &mut Vec<T>, query: &Query<'_>, key: impl Fn(&T) -> (Timestamp, String)) {
    rows.sort_by_cached_key(&key);
    if !query.oldest_first {
        rows.reverse();
    }
    rows.truncate(usize::try_from(query.limit).unwrap_or(0));
}

/// A page of events.
///
/// # Errors
/// When the database fails, or a row cannot be read.
pub async fn events(conn: &mut Conn, query: &Query<'_>) -> Result<Vec<Event>> {
    let mut found = Vec::new();
    for (column, value) in drivers(conn, query).await? {
        let sql = sqlx::AssertSqlSafe(format!(
            "SELECT id, server_id, walkthrough_id, end_user_id, progress_id, version_id, step_id, kind, created_at,
                client_name, elapsed_ms,
                (SELECT versions.title FROM versions WHERE versions.id = walkthrough_events.version_id)
                    AS walkthrough_title,
                (SELECT version_steps.title FROM version_steps
                    WHERE version_steps.version_id = walkthrough_events.version_id
                      AND version_steps.step_id = walkthrough_events.step_id) AS step_title
             FROM walkthrough_events {}",
            conditions(column, query, USER_IS_TEST)
                .replace(" ORDER BY", " AND (CAST($10 AS TEXT) IS NULL OR walkthrough_id = $10) ORDER BY")
        ));
        let (at, id) = beginning(query);
        let rows: Vec<EventRow> = on!(conn, c => sqlx::query_as(sql)
            .bind(value).bind(query.organization.as_str()).bind(query.server.map(ServerId::as_str))
            .bind(query.end_user.map(EndUserId::as_str)).bind(query.range.from.0).bind(query.range.to.0)
            .bind(at).bind(id).bind(query.limit).bind(query.walkthrough.map(WalkthroughId::as_str))
            .fetch_all(c).await?);
        found.extend(rows.into_iter().map(Event::try_from).collect::<Result<Vec<_>>>()?);
    }
    merge(&mut found, query, |event| (event.created_at, event.id.to_string()));
    Ok(found)
}

/// A page of calls. A walkthrough in `query` counts for nothing: calls are of none.
///
/// # Errors
/// When the database fails.
pub async fn calls(conn: &mut Conn, query: &Query<'_>) -> Result<Vec<ToolCall>> {
    let query = &Query { walkthrough: None, ..query.clone() };
    let mut found = Vec::new();
    for (column, value) in drivers(conn, query).await? {
        let sql = sqlx::AssertSqlSafe(format!(
            "SELECT id, organization_id, server_id, end_user_id, tool, arguments, outcome, duration_us, client_name,
                protocol_version, request_id, created_at, session_id, is_test FROM tool_calls {}",
            conditions(column, query, IS_TEST)
        ));
        let (at, id) = beginning(query);
        let rows: Vec<tool_call::Row> = on!(conn, c => sqlx::query_as(sql)
            .bind(value).bind(query.organization.as_str()).bind(query.server.map(ServerId::as_str))
            .bind(query.end_user.map(EndUserId::as_str)).bind(query.range.from.0).bind(query.range.to.0)
            .bind(at).bind(id).bind(query.limit).fetch_all(c).await?);
        found.extend(rows.into_iter().map(ToolCall::from));
    }
    merge(&mut found, query, |call| (call.created_at, call.id.to_string()));
    Ok(found)
}

#[derive(sqlx::FromRow)]
struct StoredSession {
    id: String,
    server_id: String,
    end_user_id: String,
    client_name: Option<String>,
    client_version: Option<String>,
    protocol_version: Option<String>,
    created_at: i64,
    last_used_at: i64,
    joined_at: Option<i64>,
}

/// A page of sessions, by when they began. A walkthrough in `query` counts for nothing.
///
/// # Errors
/// When the database fails.
pub async fn sessions(conn: &mut Conn, query: &Query<'_>) -> Result<Vec<SessionRow>> {
    let query = &Query { walkthrough: None, ..query.clone() };
    let mut found = Vec::new();
    for (column, value) in drivers(conn, query).await? {
        let sql = sqlx::AssertSqlSafe(format!(
            "SELECT id, server_id, end_user_id, client_name, client_version, protocol_version, created_at, last_used_at,
                joined_at FROM client_sessions {}",
            conditions(column, query, USER_IS_TEST)
        ));
        let (at, id) = beginning(query);
        let rows: Vec<StoredSession> = on!(conn, c => sqlx::query_as(sql)
            .bind(value).bind(query.organization.as_str()).bind(query.server.map(ServerId::as_str))
            .bind(query.end_user.map(EndUserId::as_str)).bind(query.range.from.0).bind(query.range.to.0)
            .bind(at).bind(id).bind(query.limit).fetch_all(c).await?);
        found.extend(rows.into_iter().map(|row| SessionRow {
            id: SessionId::from_store(row.id),
            server_id: ServerId::from_store(row.server_id),
            end_user_id: EndUserId::from_store(row.end_user_id),
            client_name: row.client_name,
            client_version: row.client_version,
            protocol_version: row.protocol_version,
            created_at: Timestamp(row.created_at),
            last_used_at: Timestamp(row.last_used_at),
            joined_at: row.joined_at.map(Timestamp),
        }));
    }
    merge(&mut found, query, |session| (session.created_at, session.id.to_string()));
    Ok(found)
}
