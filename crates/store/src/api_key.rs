//! API keys. Only the SHA-256 of the secret is stored.

use waypost_core::Timestamp;
use waypost_core::id::{ApiKeyId, OrganizationId};
use waypost_core::organization::ApiKey;

use crate::db::Conn;
use crate::error::{Error, Result};
use crate::on;

#[derive(sqlx_macros::FromRow)]
pub(crate) struct Row {
    id: String,
    organization_id: String,
    name: String,
    scope: String,
    created_at: i64,
    expires_at: Option<i64>,
    last_used_at: Option<i64>,
}

impl TryFrom<Row> for ApiKey {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let scope =
            row.scope.parse().map_err(|reason| Error::Corrupt { table: "api_keys", id: row.id.clone(), reason })?;
        Ok(Self {
            id: ApiKeyId::from_store(row.id),
            organization_id: OrganizationId::from_store(row.organization_id),
            name: row.name,
            scope,
            created_at: Timestamp(row.created_at),
            expires_at: row.expires_at.map(Timestamp),
            last_used_at: row.last_used_at.map(Timestamp),
        })
    }
}

/// Inserts a key. `secret_hash` is the hexadecimal SHA-256 of the secret, and `created_by` the ID of the user or key
/// that creates it.
///
/// # Errors
/// Returns a unique violation if the name is taken in the organisation, or another error if the database fails.
pub async fn insert(conn: &mut Conn, key: &ApiKey, secret_hash: &str, created_by: &str) -> Result<()> {
    const SQL: &str = "INSERT INTO api_keys (id, organization_id, name, scope, secret_hash, created_at, expires_at,
            created_by) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    on!(conn, c => sqlx::query(SQL)
        .bind(key.id.as_str()).bind(key.organization_id.as_str()).bind(&key.name).bind(key.scope.as_str())
        .bind(secret_hash).bind(key.created_at.0).bind(key.expires_at.map(|at| at.0))
        .bind(created_by).execute(c).await?.rows_affected());
    Ok(())
}

/// Returns the key with this ID.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn find(conn: &mut Conn, organization: &OrganizationId, id: &ApiKeyId) -> Result<Option<ApiKey>> {
    const SQL: &str = "SELECT id, organization_id, name, scope, created_at, expires_at, last_used_at FROM api_keys
        WHERE id = $1 AND organization_id = $2";
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(id.as_str()).bind(organization.as_str()).fetch_optional(c).await?);
    row.map(ApiKey::try_from).transpose()
}

/// Returns the key with this name.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn find_by_name(conn: &mut Conn, organization: &OrganizationId, name: &str) -> Result<Option<ApiKey>> {
    const SQL: &str = "SELECT id, organization_id, name, scope, created_at, expires_at, last_used_at FROM api_keys
        WHERE organization_id = $1 AND name = $2";
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(name).fetch_optional(c).await?);
    row.map(ApiKey::try_from).transpose()
}

/// Returns all keys of an organisation, ordered by name.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list(conn: &mut Conn, organization: &OrganizationId) -> Result<Vec<ApiKey>> {
    const SQL: &str = "SELECT id, organization_id, name, scope, created_at, expires_at, last_used_at FROM api_keys
        WHERE organization_id = $1 ORDER BY name";
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(SQL).bind(organization.as_str()).fetch_all(c).await?);
    rows.into_iter().map(ApiKey::try_from).collect()
}

/// Returns the keys that were created with the key `creator`, ordered by name.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list_created_by(
    conn: &mut Conn,
    organization: &OrganizationId,
    creator: &ApiKeyId,
) -> Result<Vec<ApiKey>> {
    const SQL: &str = "SELECT id, organization_id, name, scope, created_at, expires_at, last_used_at FROM api_keys
        WHERE created_by = $2 AND organization_id = $1 ORDER BY name";
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(creator.as_str()).fetch_all(c).await?);
    rows.into_iter().map(ApiKey::try_from).collect()
}

/// Updates the name, scope and expiry of a key. Returns `false` if the key does not exist.
///
/// # Errors
/// Returns a unique violation if the name is taken in the organisation, or another error if the database fails.
pub async fn update(conn: &mut Conn, key: &ApiKey) -> Result<bool> {
    const SQL: &str =
        "UPDATE api_keys SET name = $3, scope = $4, expires_at = $5 WHERE id = $1 AND organization_id = $2";
    let changed = on!(conn, c => sqlx::query(SQL)
        .bind(key.id.as_str()).bind(key.organization_id.as_str()).bind(&key.name).bind(key.scope.as_str())
        .bind(key.expires_at.map(|at| at.0)).execute(c).await?.rows_affected());
    Ok(changed > 0)
}

/// Records that a key was used at `now`, unless a use after `before` is already recorded.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn record_use(
    conn: &mut Conn,
    organization: &OrganizationId,
    id: &ApiKeyId,
    now: Timestamp,
    before: Timestamp,
) -> Result<()> {
    const SQL: &str = "UPDATE api_keys SET last_used_at = $3
        WHERE id = $1 AND organization_id = $2 AND (last_used_at IS NULL OR last_used_at <= $4)";
    on!(conn, c => sqlx::query(SQL)
        .bind(id.as_str()).bind(organization.as_str()).bind(now.0).bind(before.0).execute(c).await?.rows_affected());
    Ok(())
}

/// Deletes a key. Returns `false` if it does not exist.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn delete(conn: &mut Conn, organization: &OrganizationId, id: &ApiKeyId) -> Result<bool> {
    const SQL: &str = "DELETE FROM api_keys WHERE id = $1 AND organization_id = $2";
    let deleted = on!(conn, c => sqlx::query(SQL)
        .bind(id.as_str()).bind(organization.as_str()).execute(c).await?.rows_affected());
    Ok(deleted > 0)
}
