//! The gateway's call log.

use std::borrow::Cow;
use std::sync::LazyLock;

use sqlx::AssertSqlSafe;
use waypost_core::Timestamp;
use waypost_core::call::{Call, CallOutcome};
use waypost_core::id::{AgentId, CallId, InstanceId, OrganizationId, ToolboxId};

use crate::batch::{self, Column, Kind};
use crate::db::{Conn, Dialect};
use crate::error::{Error, Result};
use crate::on;
use crate::row::RowRef;

/// The columns of [`Row`].
macro_rules! columns {
    () => {
        "id, organization_id, agent_id, instance_id, method, tool, outcome, duration_ms, upstream_ms, request_bytes,
            response_bytes, argument_shape, at"
    };
}

const COLUMNS: &[Column] = &[
    ("id", Kind::Text),
    ("organization_id", Kind::Text),
    ("agent_id", Kind::Text),
    ("instance_id", Kind::Text),
    ("method", Kind::Text),
    ("tool", Kind::Text),
    ("outcome", Kind::Text),
    ("duration_ms", Kind::Integer),
    ("upstream_ms", Kind::Integer),
    ("request_bytes", Kind::Integer),
    ("response_bytes", Kind::Integer),
    ("argument_shape", Kind::Text),
    ("at", Kind::Integer),
];

/// The maximum number of rows per insert statement. Only the statement for a full chunk is kept prepared.
const CHUNK: usize = 128;

/// Inserts calls. Calls of organisations that were deleted in the meantime are skipped.
///
/// The values are bound one by one: SQLite needs more time to parse a JSON document than to write its rows.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn insert<'c>(conn: &mut Conn, calls: impl IntoIterator<Item = &'c Call>) -> Result<()> {
    let calls: Vec<_> = calls.into_iter().collect();
    for chunk in calls.chunks(CHUNK) {
        let sql = insert_sql(conn.dialect(), chunk.len());
        on!(conn, c => {
            let query = sqlx::query(AssertSqlSafe(sql)).persistent(chunk.len() == CHUNK);
            let bound = chunk.iter().fold(query, |query, call| query
                .bind(call.id.as_str())
                .bind(call.organization_id.as_str())
                .bind(call.agent_id.as_str())
                .bind(call.instance_id.as_ref().map(InstanceId::as_str))
                .bind(call.method.as_str())
                .bind(&call.tool)
                .bind(call.outcome.as_str())
                .bind(call.duration_ms)
                .bind(call.upstream_ms)
                .bind(call.request_bytes)
                .bind(call.response_bytes)
                .bind(&call.argument_shape)
                .bind(call.at.0));
            bound.execute(c).await?.rows_affected()
        });
    }
    Ok(())
}

/// Returns a statement that inserts `rows` calls.
fn insert_sql(dialect: Dialect, rows: usize) -> Cow<'static, str> {
    static SQLITE: LazyLock<String> = LazyLock::new(|| write_insert_sql(Dialect::Sqlite, CHUNK));
    static POSTGRES: LazyLock<String> = LazyLock::new(|| write_insert_sql(Dialect::Postgres, CHUNK));
    match dialect {
        _ if rows != CHUNK => write_insert_sql(dialect, rows).into(),
        Dialect::Sqlite => SQLITE.as_str().into(),
        Dialect::Postgres => POSTGRES.as_str().into(),
    }
}

fn write_insert_sql(dialect: Dialect, rows: usize) -> String {
    let names: Vec<_> = COLUMNS.iter().map(|(name, _)| *name).collect();
    // `OFFSET` keeps PostgreSQL from joining the tables, which would read all organisations.
    format!(
        "{} INSERT INTO calls ({}) SELECT * FROM batch
        WHERE EXISTS (SELECT 1 FROM organizations WHERE organizations.id = batch.organization_id LIMIT 1 OFFSET 0)",
        batch::bound_rows(dialect, rows, COLUMNS),
        names.join(", ")
    )
}

/// Returns the call with this ID.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn find(conn: &mut Conn, organization: &OrganizationId, id: &CallId) -> Result<Option<Call>> {
    const SQL: &str = concat!("SELECT ", columns!(), " FROM calls WHERE id = $1 AND organization_id = $2");
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(id.as_str()).bind(organization.as_str()).fetch_optional(c).await?);
    row.map(Call::try_from).transpose()
}

/// A filter for a list of calls.
#[derive(Debug, Clone, Copy)]
pub struct CallFilter<'a> {
    /// Only calls by this agent.
    pub agent: Option<&'a AgentId>,
    /// Only calls to this instance.
    pub instance: Option<&'a InstanceId>,
    /// Only calls of the tool with this original name.
    pub tool: Option<&'a str>,
    /// Only calls with this outcome.
    pub outcome: Option<CallOutcome>,
    /// Only calls that ended at this time or later.
    pub since: Timestamp,
    /// Only calls that ended before this time.
    pub until: Timestamp,
    /// Only calls older than this one, which is the last call of the previous page.
    pub after: Option<&'a CallId>,
}

/// Returns at most `limit` calls, newest first.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list(
    conn: &mut Conn,
    organization: &OrganizationId,
    filter: CallFilter<'_>,
    limit: i64,
) -> Result<Vec<Call>> {
    // A condition on a column is part of the statement only if it is used, so that the planner selects its index.
    let condition = |is_used: bool, used: &'static str, unused: &'static str| if is_used { used } else { unused };
    let outcome = match filter.outcome {
        None => "CAST($6 AS TEXT) IS NULL",
        Some(CallOutcome::Ok) => "outcome = $6",
        // The condition of the partial index.
        Some(_) => "outcome = $6 AND outcome <> 'ok'",
    };
    let sql = AssertSqlSafe(format!(
        "SELECT {} FROM calls WHERE organization_id = $1 AND id >= $2 AND id < $3 AND {} AND {} AND {outcome}
            AND (CAST($7 AS TEXT) IS NULL OR tool = $7)
         ORDER BY id DESC LIMIT $8",
        columns!(),
        condition(filter.agent.is_some(), "agent_id = $4", "CAST($4 AS TEXT) IS NULL"),
        condition(filter.instance.is_some(), "instance_id = $5", "CAST($5 AS TEXT) IS NULL"),
    ));
    let (start, end) = (CallId::floor(filter.since), CallId::floor(filter.until));
    let end = filter.after.map_or(&end, |after| after.min(&end));
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(sql)
        .bind(organization.as_str()).bind(start.as_str()).bind(end.as_str())
        .bind(filter.agent.map(AgentId::as_str)).bind(filter.instance.map(InstanceId::as_str))
        .bind(filter.outcome.map(CallOutcome::as_str)).bind(filter.tool).bind(limit).fetch_all(c).await?);
    rows.into_iter().map(Call::try_from).collect()
}

/// The calls of an agent to an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallSummary {
    /// The agent.
    pub agent_id: AgentId,
    /// The instance.
    pub instance_id: InstanceId,
    /// The toolbox on which the instance currently runs. `None` if the instance is a remote server or has been deleted.
    pub toolbox_id: Option<ToolboxId>,
    /// The number of calls.
    pub calls: i64,
    /// The number of calls whose outcome is not `ok`.
    pub failures: i64,
    /// The time at which the last call ended.
    pub last_at: Timestamp,
}

/// Summarises the last `limit` calls that ended at `since` or later, by agent and instance, most recent call first.
/// Calls that were rejected before an instance was found only count towards the limit.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn summarize(
    conn: &mut Conn,
    organization: &OrganizationId,
    since: Timestamp,
    limit: i64,
) -> Result<Vec<CallSummary>> {
    const FIRST: &str =
        "SELECT id FROM calls WHERE organization_id = $1 AND id >= $2 ORDER BY id DESC LIMIT 1 OFFSET $3";
    const SQL: &str = "SELECT agent_id, instance_id,
            (SELECT toolbox_id FROM instances WHERE instances.id = calls.instance_id AND instances.organization_id = $1) AS toolbox_id, count(*) AS calls,
            sum(CASE WHEN outcome = 'ok' THEN 0 ELSE 1 END) AS failures, max(at) AS last_at
        FROM calls WHERE organization_id = $1 AND id >= $2 AND instance_id IS NOT NULL
        GROUP BY agent_id, instance_id ORDER BY last_at DESC, agent_id, instance_id";
    let start = CallId::floor(since);
    // The oldest call within the limit, if the limit is reached.
    let first: Option<String> = on!(conn, c => sqlx::query_scalar(FIRST)
        .bind(organization.as_str()).bind(start.as_str()).bind(limit - 1).fetch_optional(c).await?);
    let start = first.map_or(start, CallId::from_store);
    let rows: Vec<SummaryRow> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(start.as_str()).fetch_all(c).await?);
    let summary = |row: SummaryRow| CallSummary {
        agent_id: AgentId::from_store(row.agent_id),
        instance_id: InstanceId::from_store(row.instance_id),
        toolbox_id: row.toolbox_id.map(ToolboxId::from_store),
        calls: row.calls,
        failures: row.failures,
        last_at: Timestamp(row.last_at),
    };
    Ok(rows.into_iter().map(summary).collect())
}

#[derive(sqlx_macros::FromRow)]
struct SummaryRow {
    agent_id: String,
    instance_id: String,
    toolbox_id: Option<String>,
    calls: i64,
    failures: i64,
    last_at: i64,
}

#[derive(sqlx_macros::FromRow)]
struct Row {
    id: String,
    organization_id: String,
    agent_id: String,
    instance_id: Option<String>,
    method: String,
    tool: String,
    outcome: String,
    duration_ms: i64,
    upstream_ms: Option<i64>,
    request_bytes: i64,
    response_bytes: i64,
    argument_shape: String,
    at: i64,
}

impl TryFrom<Row> for Call {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let at = RowRef { table: "calls", id: &row.id };
        Ok(Self {
            method: at.parse("method", &row.method)?,
            outcome: at.parse("outcome", &row.outcome)?,
            id: CallId::from_store(row.id),
            organization_id: OrganizationId::from_store(row.organization_id),
            agent_id: AgentId::from_store(row.agent_id),
            instance_id: row.instance_id.map(InstanceId::from_store),
            tool: row.tool,
            duration_ms: row.duration_ms,
            upstream_ms: row.upstream_ms,
            request_bytes: row.request_bytes,
            response_bytes: row.response_bytes,
            argument_shape: row.argument_shape,
            at: Timestamp(row.at),
        })
    }
}

/// Deletes at most `limit` calls of all organisations that ended before `before`, oldest first. Returns their number.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn delete_old(conn: &mut Conn, before: Timestamp, limit: i64) -> Result<u64> {
    const SQL: &str = "DELETE FROM calls WHERE id IN (SELECT id FROM calls WHERE id < $1 ORDER BY id LIMIT $2)";
    let floor = CallId::floor(before);
    Ok(on!(conn, c => sqlx::query(SQL).bind(floor.as_str()).bind(limit).execute(c).await?.rows_affected()))
}
