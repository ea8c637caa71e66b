//! Paginated lists of the activity log: events, calls and sessions, newest or oldest first.

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

/// A query for one page of rows of the log.
#[derive(Debug, Clone)]
pub struct ActivityQuery<'a> {
    /// The organisation.
    pub organization: &'a OrganizationId,
    /// Only rows of this server.
    pub server: Option<&'a ServerId>,
    /// Only rows of this end user.
    pub end_user: Option<&'a EndUserId>,
    /// Only events of this walkthrough. Does not filter calls and sessions.
    pub walkthrough: Option<&'a WalkthroughId>,
    /// Only rows in this range.
    pub range: TimeRange,
    /// The time and ID of the last row of the previous page.
    pub after: Option<(Timestamp, String)>,
    /// Whether the oldest rows come first.
    pub oldest_first: bool,
    /// The maximum number of rows.
    pub limit: i64,
}

/// An event of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalkthroughEvent {
    /// The ID.
    pub id: EventId,
    /// The server.
    pub server_id: ServerId,
    /// The walkthrough.
    pub walkthrough_id: WalkthroughId,
    /// The end user.
    pub end_user_id: EndUserId,
    /// The attempt.
    pub progress_id: ProgressId,
    /// The version.
    pub version_id: VersionId,
    /// The step, if the event is about one.
    pub step_id: Option<StepId>,
    /// The walkthrough's title in that version.
    pub walkthrough_title: Option<String>,
    /// The step's title in that version.
    pub step_title: Option<String>,
    /// The kind of event.
    pub kind: EventKind,
    /// The time of the event.
    pub created_at: Timestamp,
    /// The client's name, as stated by the client.
    pub client_name: Option<String>,
    /// The time since the attempt's previous activity; `None` for its first event.
    pub elapsed_ms: Option<i64>,
}

#[derive(sqlx_macros::FromRow)]
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

impl TryFrom<EventRow> for WalkthroughEvent {
    type Error = Error;

    fn try_from(row: EventRow) -> Result<Self> {
        let corrupt = |reason| Error::Corrupt { table: "walkthrough_events", id: row.id.clone(), reason };
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
pub struct ClientSession {
    /// The ID.
    pub id: SessionId,
    /// The server on which its handle is valid.
    pub server_id: ServerId,
    /// The end user.
    pub end_user_id: EndUserId,
    /// The client's name, as stated by the client.
    pub client_name: Option<String>,
    /// The client's version.
    pub client_version: Option<String>,
    /// The protocol revision.
    pub protocol_version: Option<String>,
    /// The time of the first call.
    pub created_at: Timestamp,
    /// The last recorded use.
    pub last_used_at: Timestamp,
    /// The time at which its end user was joined to a signed-in end user.
    pub joined_at: Option<Timestamp>,
}

/// Returns the indexed column to select rows by, with its value; `None` if only the organisation is given.
fn index_column(query: &ActivityQuery<'_>) -> Option<(&'static str, String)> {
    if let Some(end_user) = query.end_user {
        return Some(("end_user_id", end_user.to_string()));
    }
    if let Some(walkthrough) = query.walkthrough {
        return Some(("walkthrough_id", walkthrough.to_string()));
    }
    query.server.map(|server| ("server_id", server.to_string()))
}

/// Returns the indexed columns to select rows by, with their values: one column, or each server of the organisation.
async fn index_columns(conn: &mut Conn, query: &ActivityQuery<'_>) -> Result<Vec<(&'static str, String)>> {
    const SERVERS: &str = "SELECT id FROM servers WHERE organization_id = $1 ORDER BY id";
    if let Some(column) = index_column(query) {
        return Ok(vec![column]);
    }
    let servers: Vec<String> =
        on!(conn, c => sqlx::query_scalar(SERVERS).bind(query.organization.as_str()).fetch_all(c).await?);
    Ok(servers.into_iter().map(|server| ("server_id", server)).collect())
}

/// The condition for test rows, by their own column.
const IS_TEST: &str = "is_test";
/// The condition for test rows, by their end user.
const USER_IS_TEST: &str = "(SELECT end_users.is_test FROM end_users WHERE end_users.id = end_user_id)";

/// Returns the clauses from WHERE to LIMIT that all lists of the log share. `$1` is the value of `column`. Test rows,
/// which match `is_test`, are listed only if the query names an end user.
fn conditions(column: &str, query: &ActivityQuery<'_>, is_test: &str) -> String {
    let (beyond, direction) = if query.oldest_first { (">", "ASC") } else { ("<", "DESC") };
    let tests = if query.end_user.is_some() { String::new() } else { format!("AND NOT {is_test}") };
    format!(
        "WHERE {column} = $1 AND organization_id = $2 AND (CAST($3 AS TEXT) IS NULL OR server_id = $3)
           AND (CAST($4 AS TEXT) IS NULL OR end_user_id = $4) AND created_at >= $5 AND created_at < $6
           AND (created_at, id) {beyond} ($7, $8) {tests} ORDER BY created_at {direction}, id {direction} LIMIT $9"
    )
}

/// Returns the time and ID after which the page begins.
fn page_start(query: &ActivityQuery<'_>) -> (i64, String) {
    match &query.after {
        Some((at, id)) => (at.0, id.clone()),
        None if query.oldest_first => (i64::MIN, String::new()),
        None => (i64::MAX, String::new()),
    }
}

/// Sorts the rows of several servers and truncates them to one page.
fn merge<T>(rows: &mut Vec<T>, query: &ActivityQuery<'_>, key: impl Fn(&T) -> (Timestamp, String)) {
    rows.sort_by_cached_key(&key);
    if !query.oldest_first {
        rows.reverse();
    }
    rows.truncate(usize::try_from(query.limit).unwrap_or(0));
}

/// Returns a page of events.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list_events(conn: &mut Conn, query: &ActivityQuery<'_>) -> Result<Vec<WalkthroughEvent>> {
    let mut found = Vec::new();
    for (column, value) in index_columns(conn, query).await? {
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
        let (at, id) = page_start(query);
        let rows: Vec<EventRow> = on!(conn, c => sqlx::query_as(sql)
            .bind(value).bind(query.organization.as_str()).bind(query.server.map(ServerId::as_str))
            .bind(query.end_user.map(EndUserId::as_str)).bind(query.range.from.0).bind(query.range.to.0)
            .bind(at).bind(id).bind(query.limit).bind(query.walkthrough.map(WalkthroughId::as_str))
            .fetch_all(c).await?);
        found.extend(rows.into_iter().map(WalkthroughEvent::try_from).collect::<Result<Vec<_>>>()?);
    }
    merge(&mut found, query, |event| (event.created_at, event.id.to_string()));
    Ok(found)
}

/// Returns a page of calls. Ignores `query.walkthrough`, because calls are not linked to a walkthrough.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list_calls(conn: &mut Conn, query: &ActivityQuery<'_>) -> Result<Vec<ToolCall>> {
    let query = &ActivityQuery { walkthrough: None, ..query.clone() };
    let mut found = Vec::new();
    for (column, value) in index_columns(conn, query).await? {
        let sql = sqlx::AssertSqlSafe(format!(
            "SELECT id, organization_id, server_id, end_user_id, tool, arguments, outcome, duration_us, client_name,
                protocol_version, request_id, created_at, session_id, is_test FROM tool_calls {}",
            conditions(column, query, IS_TEST)
        ));
        let (at, id) = page_start(query);
        let rows: Vec<tool_call::Row> = on!(conn, c => sqlx::query_as(sql)
            .bind(value).bind(query.organization.as_str()).bind(query.server.map(ServerId::as_str))
            .bind(query.end_user.map(EndUserId::as_str)).bind(query.range.from.0).bind(query.range.to.0)
            .bind(at).bind(id).bind(query.limit).fetch_all(c).await?);
        found.extend(rows.into_iter().map(ToolCall::from));
    }
    merge(&mut found, query, |call| (call.created_at, call.id.to_string()));
    Ok(found)
}

#[derive(sqlx_macros::FromRow)]
struct SessionRow {
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

/// Returns a page of sessions, ordered by creation time. Ignores `query.walkthrough`.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list_sessions(conn: &mut Conn, query: &ActivityQuery<'_>) -> Result<Vec<ClientSession>> {
    let query = &ActivityQuery { walkthrough: None, ..query.clone() };
    let mut found = Vec::new();
    for (column, value) in index_columns(conn, query).await? {
        let sql = sqlx::AssertSqlSafe(format!(
            "SELECT id, server_id, end_user_id, client_name, client_version, protocol_version, created_at, last_used_at,
                joined_at FROM client_sessions {}",
            conditions(column, query, USER_IS_TEST)
        ));
        let (at, id) = page_start(query);
        let rows: Vec<SessionRow> = on!(conn, c => sqlx::query_as(sql)
            .bind(value).bind(query.organization.as_str()).bind(query.server.map(ServerId::as_str))
            .bind(query.end_user.map(EndUserId::as_str)).bind(query.range.from.0).bind(query.range.to.0)
            .bind(at).bind(id).bind(query.limit).fetch_all(c).await?);
        found.extend(rows.into_iter().map(|row| ClientSession {
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
