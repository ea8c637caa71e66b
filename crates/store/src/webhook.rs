//! Webhooks: receivers of events.

use waypost_core::Timestamp;
use waypost_core::id::{OrganizationId, WebhookId};
use waypost_core::webhook::{Webhook, WebhookEvent};

use crate::db::Conn;
use crate::error::{Error, Result};
use crate::on;
use crate::row::{RowRef, to_json};

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, organization_id, url, description, secret, previous_secret, previous_until, events, enabled,
                failing_since, disabled_at, created_at, updated_at FROM webhooks WHERE organization_id = $1 ",
            $rest
        )
    };
}

#[derive(sqlx_macros::FromRow)]
struct Row {
    id: String,
    organization_id: String,
    url: String,
    description: String,
    secret: String,
    previous_secret: Option<String>,
    previous_until: Option<i64>,
    events: String,
    enabled: bool,
    failing_since: Option<i64>,
    disabled_at: Option<i64>,
    created_at: i64,
    updated_at: i64,
}

impl TryFrom<Row> for Webhook {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let events = RowRef { table: "webhooks", id: &row.id }.parse_json("events", &row.events)?;
        Ok(Self {
            id: WebhookId::from_store(row.id),
            organization_id: OrganizationId::from_store(row.organization_id),
            url: row.url,
            description: row.description,
            secret: row.secret,
            previous_secret: row.previous_secret,
            previous_until: row.previous_until.map(Timestamp),
            events,
            enabled: row.enabled,
            failing_since: row.failing_since.map(Timestamp),
            disabled_at: row.disabled_at.map(Timestamp),
            created_at: Timestamp(row.created_at),
            updated_at: Timestamp(row.updated_at),
        })
    }
}

fn events(webhook: &Webhook) -> String {
    to_json(webhook.events.iter().map(|event| event.as_str()).collect::<Vec<_>>())
}

/// Inserts a webhook.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn insert(conn: &mut Conn, webhook: &Webhook) -> Result<()> {
    const SQL: &str = "INSERT INTO webhooks (id, organization_id, url, description, secret, previous_secret,
            previous_until, events, enabled, failing_since, disabled_at, created_at, updated_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";
    conn.bump_config_version(&webhook.organization_id).await?;
    on!(conn, c => sqlx::query(SQL)
        .bind(webhook.id.as_str()).bind(webhook.organization_id.as_str()).bind(&webhook.url)
        .bind(&webhook.description).bind(&webhook.secret).bind(webhook.previous_secret.as_deref())
        .bind(webhook.previous_until.map(|at| at.0)).bind(events(webhook)).bind(webhook.enabled)
        .bind(webhook.failing_since.map(|at| at.0)).bind(webhook.disabled_at.map(|at| at.0))
        .bind(webhook.created_at.0).bind(webhook.updated_at.0).execute(c).await?.rows_affected());
    Ok(())
}

/// Updates all settings of a webhook. Returns `false` if it does not exist.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn update(conn: &mut Conn, webhook: &Webhook) -> Result<bool> {
    const SQL: &str = "UPDATE webhooks SET url = $3, description = $4, secret = $5, previous_secret = $6,
            previous_until = $7, events = $8, enabled = $9, failing_since = $10, disabled_at = $11, updated_at = $12
        WHERE id = $1 AND organization_id = $2";
    conn.bump_config_version(&webhook.organization_id).await?;
    let changed = on!(conn, c => sqlx::query(SQL)
        .bind(webhook.id.as_str()).bind(webhook.organization_id.as_str()).bind(&webhook.url)
        .bind(&webhook.description).bind(&webhook.secret).bind(webhook.previous_secret.as_deref())
        .bind(webhook.previous_until.map(|at| at.0)).bind(events(webhook)).bind(webhook.enabled)
        .bind(webhook.failing_since.map(|at| at.0)).bind(webhook.disabled_at.map(|at| at.0))
        .bind(webhook.updated_at.0).execute(c).await?.rows_affected());
    Ok(changed > 0)
}

/// Sets the time since which deliveries to a webhook have been failing; `None` if they succeed.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn set_failing_since(
    conn: &mut Conn,
    organization: &OrganizationId,
    id: &WebhookId,
    since: Option<Timestamp>,
) -> Result<()> {
    const SQL: &str = "UPDATE webhooks SET failing_since = $3 WHERE id = $1 AND organization_id = $2";
    on!(conn, c => sqlx::query(SQL)
        .bind(id.as_str()).bind(organization.as_str()).bind(since.map(|at| at.0)).execute(c).await?.rows_affected());
    Ok(())
}

/// Returns the webhook with this ID.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn find(conn: &mut Conn, organization: &OrganizationId, id: &WebhookId) -> Result<Option<Webhook>> {
    const SQL: &str = select!("AND id = $2");
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(id.as_str()).fetch_optional(c).await?);
    row.map(Webhook::try_from).transpose()
}

/// Returns all webhooks of an organisation, oldest first.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list(conn: &mut Conn, organization: &OrganizationId) -> Result<Vec<Webhook>> {
    const SQL: &str = select!("ORDER BY created_at, id");
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(SQL).bind(organization.as_str()).fetch_all(c).await?);
    rows.into_iter().map(Webhook::try_from).collect()
}

/// Returns the enabled webhooks that are subscribed to `event`.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list_receivers(
    conn: &mut Conn,
    organization: &OrganizationId,
    event: WebhookEvent,
) -> Result<Vec<WebhookId>> {
    const SQL: &str = "SELECT id, events FROM webhooks WHERE organization_id = $1 AND enabled = $2 ORDER BY id";
    let rows: Vec<(String, String)> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(true).fetch_all(c).await?);
    let mut found = Vec::new();
    for (id, events) in rows {
        let events: Vec<WebhookEvent> = RowRef { table: "webhooks", id: &id }.parse_json("events", &events)?;
        if events.contains(&event) {
            found.push(WebhookId::from_store(id));
        }
    }
    Ok(found)
}

/// Deletes a webhook with its deliveries. Returns `false` if it does not exist.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn delete(conn: &mut Conn, organization: &OrganizationId, id: &WebhookId) -> Result<bool> {
    const SQL: &str = "DELETE FROM webhooks WHERE id = $1 AND organization_id = $2";
    conn.bump_config_version(organization).await?;
    let deleted = on!(conn, c => sqlx::query(SQL)
        .bind(id.as_str()).bind(organization.as_str()).execute(c).await?.rows_affected());
    Ok(deleted > 0)
}
