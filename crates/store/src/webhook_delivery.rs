//! Webhook deliveries. A delivery is enqueued in the transaction of its event, and sent with retries.

use waypost_core::Timestamp;
use waypost_core::id::{OrganizationId, WebhookDeliveryId, WebhookId};
use waypost_core::webhook::{Delivery, NewDelivery};

use crate::batch::{self, Column, Kind};
use crate::db::{Conn, Dialect};
use crate::error::{Error, Result};
use crate::on;
use crate::row::RowRef;

const COLUMNS: &[Column] = &[
    ("id", Kind::Text),
    ("organization_id", Kind::Text),
    ("webhook_id", Kind::Text),
    ("end_user_id", Kind::Text),
    ("event", Kind::Text),
    ("payload", Kind::Text),
    ("created_at", Kind::Integer),
    ("next_attempt_at", Kind::Integer),
];

macro_rules! columns {
    () => {
        "id, organization_id, webhook_id, event, payload, status, attempts, next_attempt_at, last_attempt_at,
         response_status, response_body, error, duration_ms, created_at, delivered_at"
    };
}

#[derive(sqlx_macros::FromRow)]
struct Row {
    id: String,
    organization_id: String,
    webhook_id: String,
    event: String,
    payload: String,
    status: String,
    attempts: i64,
    next_attempt_at: Option<i64>,
    last_attempt_at: Option<i64>,
    response_status: Option<i64>,
    response_body: Option<String>,
    error: Option<String>,
    duration_ms: Option<i64>,
    created_at: i64,
    delivered_at: Option<i64>,
}

impl TryFrom<Row> for Delivery {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let row_ref = RowRef { table: "webhook_deliveries", id: &row.id };
        let response_status =
            row.response_status.map(|status| row_ref.to_u32("response_status", status)).transpose()?;
        Ok(Self {
            event: row_ref.parse("event", &row.event)?,
            status: row_ref.parse("status", &row.status)?,
            attempts: row_ref.to_u32("attempts", row.attempts)?,
            response_status,
            id: WebhookDeliveryId::from_store(row.id),
            organization_id: OrganizationId::from_store(row.organization_id),
            webhook_id: WebhookId::from_store(row.webhook_id),
            payload: row.payload,
            next_attempt_at: row.next_attempt_at.map(Timestamp),
            last_attempt_at: row.last_attempt_at.map(Timestamp),
            response_body: row.response_body,
            error: row.error,
            duration_ms: row.duration_ms,
            created_at: Timestamp(row.created_at),
            delivered_at: row.delivered_at.map(Timestamp),
        })
    }
}

/// Returns the statement that enqueues the deliveries in member `deliveries` of a JSON document. Deliveries to webhooks
/// that were deleted or disabled in the meantime are skipped, so that progress never fails because of a webhook.
pub(crate) fn insert_statement(dialect: Dialect) -> String {
    let list: Vec<_> = COLUMNS.iter().map(|(column, _)| *column).collect();
    let list = list.join(", ");
    let rows = batch::rows(dialect, "deliveries", COLUMNS);
    format!(
        "INSERT INTO webhook_deliveries ({list}) SELECT {list} FROM {rows}
         WHERE (SELECT webhooks.enabled FROM webhooks WHERE webhooks.id = webhook_id)"
    )
}

/// Enqueues deliveries.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn enqueue(conn: &mut Conn, deliveries: &[NewDelivery]) -> Result<()> {
    if deliveries.is_empty() {
        return Ok(());
    }
    let sql = sqlx::AssertSqlSafe(insert_statement(conn.dialect()));
    let document = serde_json::json!({ "deliveries": deliveries }).to_string();
    on!(conn, c => sqlx::query(sql).bind(document).execute(c).await?.rows_affected());
    Ok(())
}

/// Whether any delivery is due.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn is_due(conn: &mut Conn, now: Timestamp) -> Result<bool> {
    const SQL: &str = "SELECT next_attempt_at FROM webhook_deliveries WHERE next_attempt_at <= $1 LIMIT 1";
    let due: Option<i64> = on!(conn, c => sqlx::query_scalar(SQL).bind(now.0).fetch_optional(c).await?);
    Ok(due.is_some())
}

/// Claims at most `limit` due deliveries, oldest first, and counts an attempt for each. They can be claimed again from
/// `claimed_until` on.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn claim(conn: &mut Conn, now: Timestamp, claimed_until: Timestamp, limit: i64) -> Result<Vec<Delivery>> {
    const SQLITE: &str = concat!(
        "UPDATE webhook_deliveries SET attempts = attempts + 1, last_attempt_at = $1, next_attempt_at = $2
         WHERE id IN (SELECT id FROM webhook_deliveries WHERE next_attempt_at <= $1 ORDER BY next_attempt_at LIMIT $3)
         RETURNING ",
        columns!()
    );
    const POSTGRES: &str = concat!(
        "UPDATE webhook_deliveries SET attempts = attempts + 1, last_attempt_at = $1, next_attempt_at = $2
         WHERE id = ANY (ARRAY(SELECT due.id FROM webhook_deliveries AS due WHERE due.next_attempt_at <= $1
             ORDER BY due.next_attempt_at LIMIT $3 FOR UPDATE SKIP LOCKED))
         RETURNING ",
        columns!()
    );
    let sql = match conn.dialect() {
        Dialect::Sqlite => SQLITE,
        Dialect::Postgres => POSTGRES,
    };
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(sql)
        .bind(now.0).bind(claimed_until.0).bind(limit).fetch_all(c).await?);
    rows.into_iter().map(Delivery::try_from).collect()
}

/// Records the result of attempt number `delivery.attempts`. Returns `false` if another attempt has started since.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn record_attempt(conn: &mut Conn, delivery: &Delivery) -> Result<bool> {
    const SQL: &str = "UPDATE webhook_deliveries SET status = $4, next_attempt_at = $5, response_status = $6,
            response_body = $7, error = $8, duration_ms = $9, delivered_at = $10
        WHERE id = $1 AND organization_id = $2 AND attempts = $3 AND status = 'pending'";
    let written = on!(conn, c => sqlx::query(SQL)
        .bind(delivery.id.as_str()).bind(delivery.organization_id.as_str()).bind(i64::from(delivery.attempts))
        .bind(delivery.status.as_str()).bind(delivery.next_attempt_at.map(|at| at.0))
        .bind(delivery.response_status.map(i64::from)).bind(delivery.response_body.as_deref())
        .bind(delivery.error.as_deref()).bind(delivery.duration_ms).bind(delivery.delivered_at.map(|at| at.0))
        .execute(c).await?.rows_affected());
    Ok(written > 0)
}

/// Marks all pending deliveries of a webhook as failed.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn fail_pending(
    conn: &mut Conn,
    organization: &OrganizationId,
    webhook: &WebhookId,
    reason: &str,
) -> Result<()> {
    const SQL: &str = "UPDATE webhook_deliveries SET status = 'failed', next_attempt_at = NULL, error = $3
        WHERE webhook_id = $1 AND organization_id = $2 AND status = 'pending'";
    on!(conn, c => sqlx::query(SQL)
        .bind(webhook.as_str()).bind(organization.as_str()).bind(reason).execute(c).await?.rows_affected());
    Ok(())
}

/// Enqueues a delivery again with the same ID and resets its number of attempts. Returns `false` if it is pending or
/// does not exist.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn replay(
    conn: &mut Conn,
    organization: &OrganizationId,
    id: &WebhookDeliveryId,
    now: Timestamp,
) -> Result<bool> {
    const SQL: &str = "UPDATE webhook_deliveries SET status = 'pending', attempts = 0, next_attempt_at = $3
        WHERE id = $1 AND organization_id = $2 AND status <> 'pending'";
    let changed = on!(conn, c => sqlx::query(SQL)
        .bind(id.as_str()).bind(organization.as_str()).bind(now.0).execute(c).await?.rows_affected());
    Ok(changed > 0)
}

/// Returns the delivery with this ID.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn find(conn: &mut Conn, organization: &OrganizationId, id: &WebhookDeliveryId) -> Result<Option<Delivery>> {
    const SQL: &str = concat!("SELECT ", columns!(), " FROM webhook_deliveries WHERE id = $1 AND organization_id = $2");
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(id.as_str()).bind(organization.as_str()).fetch_optional(c).await?);
    row.map(Delivery::try_from).transpose()
}

/// Returns at most `limit` deliveries of a webhook, newest first. With `before`, returns only deliveries older than it.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list(
    conn: &mut Conn,
    organization: &OrganizationId,
    webhook: &WebhookId,
    before: Option<&WebhookDeliveryId>,
    limit: i64,
) -> Result<Vec<Delivery>> {
    const SQL: &str = concat!(
        "SELECT ",
        columns!(),
        " FROM webhook_deliveries WHERE webhook_id = $1 AND organization_id = $2
          AND (CAST($3 AS TEXT) IS NULL OR id < $3) ORDER BY id DESC LIMIT $4"
    );
    let before = before.map(WebhookDeliveryId::as_str);
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(webhook.as_str()).bind(organization.as_str()).bind(before).bind(limit).fetch_all(c).await?);
    rows.into_iter().map(Delivery::try_from).collect()
}

/// Deletes at most `limit` finished deliveries that were created before `before`. Returns the number of deleted rows.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn delete_old(conn: &mut Conn, before: Timestamp, limit: i64) -> Result<u64> {
    const SQL: &str = "DELETE FROM webhook_deliveries WHERE id IN
        (SELECT id FROM webhook_deliveries WHERE created_at < $1 AND status <> 'pending' ORDER BY created_at LIMIT $2)";
    Ok(on!(conn, c => sqlx::query(SQL).bind(before.0).bind(limit).execute(c).await?.rows_affected()))
}
