//! Organisations.

use waypost_core::Timestamp;
use waypost_core::id::OrganizationId;
use waypost_core::organization::Organization;

use crate::db::{Conn, Dialect};
use crate::error::Result;
use crate::on;

#[derive(sqlx_macros::FromRow)]
pub(crate) struct Row {
    id: String,
    slug: String,
    name: String,
    toolboxes_enabled: bool,
    gateway_enabled: bool,
    created_at: i64,
}

impl From<Row> for Organization {
    fn from(row: Row) -> Self {
        Self {
            id: OrganizationId::from_store(row.id),
            slug: row.slug,
            name: row.name,
            toolboxes_enabled: row.toolboxes_enabled,
            gateway_enabled: row.gateway_enabled,
            created_at: Timestamp(row.created_at),
        }
    }
}

/// Inserts an organisation.
///
/// # Errors
/// Returns a unique violation if the slug is taken, or another error if the database fails.
pub async fn insert(conn: &mut Conn, organization: &Organization) -> Result<()> {
    const SQL: &str =
        "INSERT INTO organizations (id, slug, name, toolboxes_enabled, gateway_enabled, created_at, updated_at)
        VALUES ($1, $2, $3, $4, $5, $6, $6)";
    on!(conn, c => sqlx::query(SQL)
        .bind(organization.id.as_str()).bind(&organization.slug).bind(&organization.name)
        .bind(organization.toolboxes_enabled).bind(organization.gateway_enabled).bind(organization.created_at.0)
        .execute(c).await?.rows_affected());
    Ok(())
}

/// Returns the organisation with this ID.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find(conn: &mut Conn, id: &OrganizationId) -> Result<Option<Organization>> {
    const SQL: &str =
        "SELECT id, slug, name, toolboxes_enabled, gateway_enabled, created_at FROM organizations WHERE id = $1";
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL).bind(id.as_str()).fetch_optional(c).await?);
    Ok(row.map(Organization::from))
}

/// Locks an organisation until the transaction ends, so that limits on the number of its objects are exact. Returns
/// `false` if it does not exist.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn lock(conn: &mut Conn, id: &OrganizationId) -> Result<bool> {
    // SQLite needs no lock, because it has a single writer.
    let sql = match conn.dialect() {
        Dialect::Sqlite => "SELECT id FROM organizations WHERE id = $1",
        Dialect::Postgres => "SELECT id FROM organizations WHERE id = $1 FOR NO KEY UPDATE",
    };
    let found: Option<String> = on!(conn, c => sqlx::query_scalar(sql).bind(id.as_str()).fetch_optional(c).await?);
    Ok(found.is_some())
}

/// Updates the slug, the name, and the switches for toolboxes and the gateway. Returns `false` if the organisation does
/// not exist.
///
/// # Errors
/// Returns a unique violation if the slug is taken, or another error if the database fails.
pub async fn update(conn: &mut Conn, organization: &Organization, now: Timestamp) -> Result<bool> {
    const SQL: &str = "UPDATE organizations SET slug = $2, name = $3, toolboxes_enabled = $4, gateway_enabled = $5,
        updated_at = $6 WHERE id = $1";
    conn.bump_config_version(&organization.id).await?;
    let changed = on!(conn, c => sqlx::query(SQL)
        .bind(organization.id.as_str()).bind(&organization.slug).bind(&organization.name)
        .bind(organization.toolboxes_enabled).bind(organization.gateway_enabled).bind(now.0)
        .execute(c).await?.rows_affected());
    Ok(changed > 0)
}

/// Deletes an organisation and everything that it owns, except the audit log. Returns `false` if it does not exist.
/// Users are kept; see [`crate::user::delete_without_membership`].
///
/// # Errors
/// Returns an error if the database fails.
pub async fn delete(conn: &mut Conn, id: &OrganizationId) -> Result<bool> {
    const SQL: &str = "DELETE FROM organizations WHERE id = $1";
    conn.bump_config_version(id).await?;
    Ok(on!(conn, c => sqlx::query(SQL).bind(id.as_str()).execute(c).await?.rows_affected()) > 0)
}
