//! The contents of calls through the gateway, which are sealed.

use serde_json::json;
use sqlx::AssertSqlSafe;
use waypost_core::id::{AgentId, CallId, InstanceId, OrganizationId};

use crate::batch::{self, Column, Kind};
use crate::db::Conn;
use crate::error::Result;
use crate::on;

const COLUMNS: &[Column] = &[
    ("call_id", Kind::Text),
    ("organization_id", Kind::Text),
    ("agent_id", Kind::Text),
    ("instance_id", Kind::Text),
    ("contents", Kind::Text),
];

/// The contents of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedContents {
    /// The call.
    pub call_id: CallId,
    /// Its organisation.
    pub organization_id: OrganizationId,
    /// Its agent.
    pub agent_id: AgentId,
    /// Its instance.
    pub instance_id: InstanceId,
    /// The contents, sealed to the row.
    pub contents: String,
}

/// Inserts the contents of calls. Contents whose call, agent or instance does not exist are skipped.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn insert(conn: &mut Conn, contents: &[SealedContents]) -> Result<()> {
    let row = |one: &SealedContents| {
        json!({
            "call_id": one.call_id,
            "organization_id": one.organization_id,
            "agent_id": one.agent_id,
            "instance_id": one.instance_id,
            "contents": one.contents,
        })
    };
    let batch = json!({ "contents": contents.iter().map(row).collect::<Vec<_>>() }).to_string();
    // `OFFSET` keeps PostgreSQL from joining the tables, which would read them completely.
    let exists = |table: &str, column: &str| {
        format!(
            "EXISTS (SELECT 1 FROM {table} WHERE {table}.id = {column} AND {table}.organization_id = batch.organization_id LIMIT 1 OFFSET 0)"
        )
    };
    let columns: Vec<_> = COLUMNS.iter().map(|(column, _)| *column).collect();
    let sql = AssertSqlSafe(format!(
        "INSERT INTO call_contents ({}) SELECT {} FROM {} WHERE {} AND {} AND {}",
        columns.join(", "),
        columns.iter().map(|column| format!("batch.{column}")).collect::<Vec<_>>().join(", "),
        batch::aliased_rows(conn.dialect(), "contents", COLUMNS),
        exists("calls", "batch.call_id"),
        exists("agents", "batch.agent_id"),
        exists("instances", "batch.instance_id"),
    ));
    on!(conn, c => sqlx::query(sql).bind(batch).execute(c).await?.rows_affected());
    Ok(())
}

/// Returns the sealed contents of a call, or `None` if none are stored.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find(conn: &mut Conn, organization: &OrganizationId, call: &CallId) -> Result<Option<String>> {
    const SQL: &str = "SELECT contents FROM call_contents WHERE call_id = $1 AND organization_id = $2";
    Ok(on!(conn, c => sqlx::query_scalar(SQL)
        .bind(call.as_str()).bind(organization.as_str()).fetch_optional(c).await?))
}
