//! Recorded tool calls, and counts of rejected calls.

use serde::Serialize;
use waypost_core::Timestamp;
use waypost_core::analytics::TimeRange;
use waypost_core::id::{EndUserId, OrganizationId, ServerId, SessionId, ToolCallId};

use crate::batch::{self, Column, Kind};
use crate::db::Conn;
use crate::error::Result;
use crate::on;

/// One minute, in milliseconds. Calls are counted per minute.
pub(crate) const MINUTE_MS: i64 = 60_000;

/// A recorded tool call. The caller masks handles and email addresses in the arguments.
#[derive(Debug, Clone, Serialize)]
pub struct ToolCall {
    /// The call.
    pub id: ToolCallId,
    /// The organisation.
    pub organization_id: OrganizationId,
    /// The server.
    pub server_id: ServerId,
    /// The end user, if known.
    pub end_user_id: Option<EndUserId>,
    /// The tool's name.
    pub tool: String,
    /// The arguments defined in the tool's schema, as a JSON object.
    pub arguments: String,
    /// `ok`, or the error code.
    pub outcome: String,
    /// The time from receiving the request to the decision, in microseconds.
    pub duration_us: i64,
    /// The client's name, as stated by the client.
    pub client_name: Option<String>,
    /// The protocol revision.
    pub protocol_version: Option<String>,
    /// The request ID, as in the log output.
    pub request_id: String,
    /// The time at which the request was received.
    pub created_at: Timestamp,
    /// The session that it belongs to (docs/architecture.md, "Sessions"); `None` if the client has none.
    pub session_id: Option<SessionId>,
    /// Whether the console's "Try it" made the call: such calls are not counted.
    pub is_test: bool,
}

/// The columns in the batches of the writer and the recorder.
pub(crate) const COLUMNS: &[Column] = &[
    ("id", Kind::Text),
    ("organization_id", Kind::Text),
    ("server_id", Kind::Text),
    ("end_user_id", Kind::Text),
    ("tool", Kind::Text),
    ("arguments", Kind::Text),
    ("outcome", Kind::Text),
    ("duration_us", Kind::Integer),
    ("client_name", Kind::Text),
    ("protocol_version", Kind::Text),
    ("request_id", Kind::Text),
    ("created_at", Kind::Integer),
    ("session_id", Kind::Text),
    ("is_test", Kind::Boolean),
];

/// The number of calls that a server rejected in one minute for one reason.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct RejectionCount {
    /// The server.
    pub server_id: ServerId,
    /// Minutes since the Unix epoch.
    pub minute: i64,
    /// The reason for the rejection.
    pub reason: String,
    /// The organisation.
    pub organization_id: OrganizationId,
    /// The number of calls.
    pub count: i64,
}

/// Inserts calls. Calls of servers or end users that were deleted in the meantime are skipped.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn insert(conn: &mut Conn, calls: &[ToolCall]) -> Result<()> {
    let batch = serde_json::json!({ "tool_calls": calls }).to_string();
    let sql = format!(
        "{} AND EXISTS (SELECT 1 FROM servers WHERE servers.id = server_id)
            AND (end_user_id IS NULL OR EXISTS (SELECT 1 FROM end_users WHERE end_users.id = end_user_id))",
        batch::insert(conn.dialect(), "tool_calls", "tool_calls", COLUMNS)
    );
    on!(conn, c => sqlx::query(sqlx::AssertSqlSafe(sql)).bind(batch).execute(c).await?.rows_affected());
    Ok(())
}

/// Adds to the counts. Counts of servers that were deleted in the meantime are skipped.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn add_rejections(conn: &mut Conn, rejections: &[RejectionCount]) -> Result<()> {
    const COLUMNS: &[Column] = &[
        ("server_id", Kind::Text),
        ("minute", Kind::Integer),
        ("reason", Kind::Text),
        ("organization_id", Kind::Text),
        ("count", Kind::Integer),
    ];
    let batch = serde_json::json!({ "rejections": rejections }).to_string();
    let sql = format!(
        "{} AND EXISTS (SELECT 1 FROM servers WHERE servers.id = server_id)
         ON CONFLICT (server_id, minute, reason) DO UPDATE SET count = refused_calls.count + excluded.count",
        batch::insert(conn.dialect(), "refused_calls", "rejections", COLUMNS)
    );
    on!(conn, c => sqlx::query(sqlx::AssertSqlSafe(sql)).bind(batch).execute(c).await?.rows_affected());
    Ok(())
}

/// The number of calls that a server rejected for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedCalls {
    /// The server.
    pub server_id: ServerId,
    /// Its name.
    pub server_name: String,
    /// The reason for the rejection.
    pub reason: String,
    /// The number of calls.
    pub count: i64,
}

/// Returns the number of rejected calls by server and reason, most frequent first. Calls are counted per minute: every
/// minute that overlaps the range counts completely.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn sum_rejected(
    conn: &mut Conn,
    organization: &OrganizationId,
    server: Option<&ServerId>,
    range: TimeRange,
) -> Result<Vec<RejectedCalls>> {
    const SQL: &str = "SELECT servers.id, servers.name, refused_calls.reason, CAST(sum(refused_calls.count) AS BIGINT)
        FROM servers JOIN refused_calls ON refused_calls.server_id = servers.id
        WHERE servers.organization_id = $1 AND (CAST($2 AS TEXT) IS NULL OR servers.id = $2)
          AND refused_calls.minute >= $3 AND refused_calls.minute <= $4
        GROUP BY servers.id, servers.name, refused_calls.reason
        ORDER BY 4 DESC, servers.name, refused_calls.reason";
    let minute = |at: Timestamp| at.0.div_euclid(MINUTE_MS);
    let rows: Vec<(String, String, String, i64)> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(server.map(ServerId::as_str))
        .bind(minute(range.from)).bind(minute(range.to.plus(-1))).fetch_all(c).await?);
    let row = |(server, server_name, reason, count)| {
        let server_id = ServerId::from_store(server);
        RejectedCalls { server_id, server_name, reason, count }
    };
    Ok(rows.into_iter().map(row).collect())
}

#[derive(sqlx_macros::FromRow)]
pub(crate) struct Row {
    id: String,
    organization_id: String,
    server_id: String,
    end_user_id: Option<String>,
    tool: String,
    arguments: String,
    outcome: String,
    duration_us: i64,
    client_name: Option<String>,
    protocol_version: Option<String>,
    request_id: String,
    created_at: i64,
    session_id: Option<String>,
    is_test: bool,
}

/// Returns the newest calls of a server, newest first.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list(
    conn: &mut Conn,
    organization: &OrganizationId,
    server: &ServerId,
    limit: i64,
) -> Result<Vec<ToolCall>> {
    const SQL: &str = "SELECT id, organization_id, server_id, end_user_id, tool, arguments, outcome, duration_us,
               client_name, protocol_version, request_id, created_at, session_id, is_test
        FROM tool_calls WHERE organization_id = $1 AND server_id = $2 ORDER BY created_at DESC, id DESC LIMIT $3";
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(server.as_str()).bind(limit).fetch_all(c).await?);
    Ok(rows.into_iter().map(ToolCall::from).collect())
}

impl From<Row> for ToolCall {
    fn from(row: Row) -> Self {
        Self {
            id: ToolCallId::from_store(row.id),
            organization_id: OrganizationId::from_store(row.organization_id),
            server_id: ServerId::from_store(row.server_id),
            end_user_id: row.end_user_id.map(EndUserId::from_store),
            tool: row.tool,
            arguments: row.arguments,
            outcome: row.outcome,
            duration_us: row.duration_us,
            client_name: row.client_name,
            protocol_version: row.protocol_version,
            request_id: row.request_id,
            created_at: Timestamp(row.created_at),
            session_id: row.session_id.map(SessionId::from_store),
            is_test: row.is_test,
        }
    }
}
