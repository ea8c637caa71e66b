//! The sources of instances: catalogue versions and the secrets of tool servers.

use sqlx::AssertSqlSafe;
use waypost_core::Timestamp;
use waypost_core::catalog::{CatalogEntryState, CatalogVersion};
use waypost_core::id::{CatalogEntryId, CatalogVersionId, OrganizationId, ToolSecretId};

use crate::db::Conn;
use crate::error::Result;
use crate::on;
use crate::row::{RowRef, in_list, to_json};

/// A catalogue version with the state of its entry.
#[derive(Debug, Clone, PartialEq)]
pub struct InstanceSource {
    /// The version.
    pub version: CatalogVersion,
    /// The slug of the entry.
    pub entry_slug: String,
    /// The name of the entry.
    pub entry_name: String,
    /// The state of the entry.
    pub entry_state: CatalogEntryState,
}

#[derive(sqlx_macros::FromRow)]
struct Row {
    id: String,
    organization_id: String,
    catalog_entry_id: String,
    version: String,
    definition: String,
    created_at: i64,
    remote_url: Option<String>,
    slug: String,
    name: String,
    state: String,
}

/// Returns the catalogue version with this ID.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn find(
    conn: &mut Conn,
    organization: &OrganizationId,
    id: &CatalogVersionId,
) -> Result<Option<InstanceSource>> {
    const SQL: &str = "SELECT v.id, v.organization_id, v.catalog_entry_id, v.version, v.definition, v.created_at,
            v.remote_url, e.slug, e.name, e.state
        FROM catalog_versions v JOIN catalog_entries e ON e.id = v.catalog_entry_id
        WHERE v.id = $1 AND v.organization_id = $2";
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(id.as_str()).bind(organization.as_str()).fetch_optional(c).await?);
    let Some(row) = row else { return Ok(None) };
    let at = RowRef { table: "catalog_versions", id: &row.id };
    Ok(Some(InstanceSource {
        entry_state: at.parse("state", &row.state)?,
        entry_slug: row.slug,
        entry_name: row.name,
        version: CatalogVersion {
            definition: at.parse_json("definition", &row.definition)?,
            id: CatalogVersionId::from_store(row.id),
            organization_id: OrganizationId::from_store(row.organization_id),
            catalog_entry_id: CatalogEntryId::from_store(row.catalog_entry_id),
            version: row.version,
            sealed_url: row.remote_url,
            created_at: Timestamp(row.created_at),
        },
    }))
}

/// A secret with its sealed value.
#[derive(Debug, Clone, PartialEq, Eq, sqlx_macros::FromRow)]
pub struct SealedSecret {
    /// The ID of the secret.
    pub id: String,
    /// The name.
    pub name: String,
    /// The sealed value.
    pub value: String,
    /// The version of the secret, which identifies the value.
    pub version: i64,
}

/// Returns the secrets of an organisation with these IDs.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list_secrets(
    conn: &mut Conn,
    organization: &OrganizationId,
    ids: &[&ToolSecretId],
) -> Result<Vec<SealedSecret>> {
    let listed = in_list(conn.dialect());
    let sql = format!("SELECT id, name, value, version FROM tool_secrets WHERE id {listed} AND organization_id = $2");
    let list = to_json(ids.iter().map(|id| id.as_str()).collect::<Vec<_>>());
    Ok(on!(conn, c => sqlx::query_as(AssertSqlSafe(sql)).bind(list).bind(organization.as_str()).fetch_all(c).await?))
}

/// Returns the secret of an organisation with this name.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find_secret_by_name(
    conn: &mut Conn,
    organization: &OrganizationId,
    name: &str,
) -> Result<Option<SealedSecret>> {
    const SQL: &str = "SELECT id, name, value, version FROM tool_secrets WHERE organization_id = $1 AND name = $2";
    Ok(on!(conn, c => sqlx::query_as(SQL).bind(organization.as_str()).bind(name).fetch_optional(c).await?))
}
