//! The audit log. Events are written in the transaction of the operation that they record.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use waypost_core::Timestamp;
use waypost_core::audit::AuditEvent;
use waypost_core::id::{AuditEventId, OrganizationId};

use crate::batch::{self, Column, Kind};
use crate::db::Conn;
use crate::error::{Error, Result};
use crate::on;
use crate::row::in_list;

#[derive(sqlx_macros::FromRow)]
struct Row {
    id: String,
    organization_id: String,
    actor: String,
    act: String,
    target: String,
    detail: String,
    created_at: i64,
}

impl TryFrom<Row> for AuditEvent {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let detail = serde_json::from_str(&row.detail).map_err(|error| Error::Corrupt {
            table: "audit_events",
            id: row.id.clone(),
            reason: error.to_string(),
        })?;
        Ok(Self {
            id: AuditEventId::from_store(row.id),
            organization_id: OrganizationId::from_store(row.organization_id),
            actor: row.actor,
            act: row.act,
            target: row.target,
            detail,
            created_at: Timestamp(row.created_at),
        })
    }
}

/// Inserts an event.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn insert(conn: &mut Conn, event: &AuditEvent) -> Result<()> {
    const SQL: &str = "INSERT INTO audit_events (id, organization_id, actor, act, target, detail, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7)";
    on!(conn, c => sqlx::query(SQL)
        .bind(event.id.as_str()).bind(event.organization_id.as_str()).bind(&event.actor).bind(&event.act)
        .bind(&event.target).bind(Value::Object(event.detail.clone()).to_string()).bind(event.created_at.0)
        .execute(c).await?.rows_affected());
    Ok(())
}

/// Inserts any number of events, including none, with one statement.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn insert_all(conn: &mut Conn, events: &[AuditEvent]) -> Result<()> {
    const COLUMNS: [Column; 7] = [
        ("id", Kind::Text),
        ("organization_id", Kind::Text),
        ("actor", Kind::Text),
        ("act", Kind::Text),
        ("target", Kind::Text),
        ("detail", Kind::Text),
        ("created_at", Kind::Integer),
    ];
    let row = |event: &AuditEvent| {
        json!({
            "id": event.id.as_str(),
            "organization_id": event.organization_id.as_str(),
            "actor": event.actor,
            "act": event.act,
            "target": event.target,
            "detail": Value::Object(event.detail.clone()).to_string(),
            "created_at": event.created_at.0,
        })
    };
    let document = json!({ "events": events.iter().map(row).collect::<Vec<_>>() }).to_string();
    let sql = sqlx::AssertSqlSafe(batch::insert(conn.dialect(), "audit_events", "events", &COLUMNS));
    on!(conn, c => sqlx::query(sql).bind(document).execute(c).await?.rows_affected());
    Ok(())
}

/// Replaces the detail of an event that represents several edits. Returns `false` if the event does not exist.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn update_detail(
    conn: &mut Conn,
    organization: &OrganizationId,
    id: &AuditEventId,
    detail: Value,
) -> Result<bool> {
    const SQL: &str = "UPDATE audit_events SET detail = $3 WHERE organization_id = $1 AND id = $2";
    let rows = on!(conn, c => sqlx::query(SQL)
        .bind(organization.as_str()).bind(id.as_str()).bind(detail.to_string()).execute(c).await?.rows_affected());
    Ok(rows > 0)
}

/// A filter for events. Empty strings and `None` match any value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// A prefix of the action, such as `member.`.
    pub act: String,
    /// The ID of the actor.
    pub actor: String,
    /// The ID of the target.
    pub target: String,
    /// The start of the time range (inclusive).
    pub from: Option<Timestamp>,
    /// The end of the time range (exclusive).
    pub to: Option<Timestamp>,
}

/// Returns the newest events of an organisation, newest first. With `before`, returns only older ones.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list(
    conn: &mut Conn,
    organization: &OrganizationId,
    before: Option<&AuditEventId>,
    limit: i64,
) -> Result<Vec<AuditEvent>> {
    search(conn, organization, &AuditFilter::default(), before, limit).await
}

/// Like [`list`], but returns only events that match `filter`.
///
/// # Errors
/// The same as for [`list`].
pub async fn search(
    conn: &mut Conn,
    organization: &OrganizationId,
    filter: &AuditFilter,
    before: Option<&AuditEventId>,
    limit: i64,
) -> Result<Vec<AuditEvent>> {
    // IDs begin with the time, so the time range is a range of IDs: the index on organisation and ID leads directly to
    // the first row, and rows outside the range are not read.
    const SQL: &str = "SELECT id, organization_id, actor, act, target, detail, created_at FROM audit_events
        WHERE organization_id = $1 AND id >= $3 AND id < $4
            AND ($5 = '' OR actor = $5) AND ($6 = '' OR target = $6) AND substr(act, 1, length($7)) = $7
        ORDER BY id DESC LIMIT $2";
    let from = filter.from.map_or_else(String::new, |from| AuditEventId::floor(from).to_string());
    // Sorts after every ID, both by bytes and in any collation.
    let to = filter.to.map_or_else(|| format!("aud_{}", "z".repeat(25)), |to| AuditEventId::floor(to).to_string());
    let before = before.map_or(to.as_str(), |before| before.as_str().min(to.as_str()));
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(limit).bind(&from).bind(before)
        .bind(&filter.actor).bind(&filter.target).bind(&filter.act).fetch_all(c).await?);
    rows.into_iter().map(AuditEvent::try_from).collect()
}

/// Returns the email addresses of users and the names of API keys among `actors`, by ID. Deleted users and keys are
/// omitted.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find_actor_names(
    conn: &mut Conn,
    organization: &OrganizationId,
    actors: &[&str],
) -> Result<BTreeMap<String, String>> {
    let listed = in_list(conn.dialect());
    let sql = format!(
        "SELECT id, email FROM users WHERE id {listed}
         UNION ALL SELECT id, name FROM api_keys WHERE organization_id = $2 AND id {listed}"
    );
    let list = Value::from(actors.to_vec()).to_string();
    let found: Vec<(String, String)> = on!(conn, c => sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(list).bind(organization.as_str()).fetch_all(c).await?);
    Ok(found.into_iter().collect())
}
