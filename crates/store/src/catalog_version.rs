//! Versions of catalogue entries. They are immutable.

use waypost_core::Timestamp;
use waypost_core::catalog::CatalogVersion;
use waypost_core::id::{CatalogEntryId, CatalogVersionId, OrganizationId};

use crate::db::{Conn, Dialect};
use crate::error::{Error, Result};
use crate::on;
use crate::row::RowRef;

/// The columns of [`Row`].
macro_rules! columns {
    () => {
        "catalog_versions.id, catalog_versions.organization_id, catalog_versions.catalog_entry_id,
         catalog_versions.version, catalog_versions.definition, catalog_versions.created_at,
         catalog_versions.remote_url"
    };
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
}

impl TryFrom<Row> for CatalogVersion {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let definition = RowRef { table: "catalog_versions", id: &row.id }.parse_json("definition", &row.definition)?;
        Ok(Self {
            id: CatalogVersionId::from_store(row.id),
            organization_id: OrganizationId::from_store(row.organization_id),
            catalog_entry_id: CatalogEntryId::from_store(row.catalog_entry_id),
            version: row.version,
            definition,
            sealed_url: row.remote_url,
            created_at: Timestamp(row.created_at),
        })
    }
}

/// Inserts a version.
///
/// # Errors
/// Returns a unique violation if the entry already has this version, or another error if the database fails.
pub async fn insert(conn: &mut Conn, version: &CatalogVersion) -> Result<()> {
    const SQL: &str = "INSERT INTO catalog_versions (id, organization_id, catalog_entry_id, version, definition,
            created_at, remote_url) VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let definition = serde_json::to_string(&version.definition)
        .map_err(|error| RowRef { table: "catalog_versions", id: version.id.as_str() }.corrupt("definition", error))?;
    on!(conn, c => sqlx::query(SQL)
        .bind(version.id.as_str()).bind(version.organization_id.as_str()).bind(version.catalog_entry_id.as_str())
        .bind(&version.version).bind(definition).bind(version.created_at.0)
        .bind(&version.sealed_url).execute(c).await?.rows_affected());
    Ok(())
}

/// Returns the version with this ID.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn find(
    conn: &mut Conn,
    organization: &OrganizationId,
    id: &CatalogVersionId,
) -> Result<Option<CatalogVersion>> {
    const SQL: &str = concat!("SELECT ", columns!(), " FROM catalog_versions WHERE id = $2 AND organization_id = $1");
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(id.as_str()).fetch_optional(c).await?);
    row.map(CatalogVersion::try_from).transpose()
}

/// Returns the versions of an entry, newest first.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list(
    conn: &mut Conn,
    organization: &OrganizationId,
    entry: &CatalogEntryId,
) -> Result<Vec<CatalogVersion>> {
    const SQL: &str = concat!(
        "SELECT ",
        columns!(),
        " FROM catalog_versions WHERE catalog_entry_id = $2 AND organization_id = $1
          ORDER BY created_at DESC, version DESC"
    );
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(entry.as_str()).fetch_all(c).await?);
    rows.into_iter().map(CatalogVersion::try_from).collect()
}

/// Returns the versions of the entries whose slugs are between `first` and `last` (inclusive), newest first.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub(crate) async fn list_between(
    conn: &mut Conn,
    organization: &OrganizationId,
    first: &str,
    last: &str,
) -> Result<Vec<CatalogVersion>> {
    const SQL: &str = concat!(
        "SELECT ",
        columns!(),
        " FROM catalog_entries JOIN catalog_versions ON catalog_versions.catalog_entry_id = catalog_entries.id
          WHERE catalog_entries.organization_id = $1 AND catalog_entries.slug >= $2 AND catalog_entries.slug <= $3
          ORDER BY catalog_versions.created_at DESC, catalog_versions.version DESC"
    );
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(first).bind(last).fetch_all(c).await?);
    rows.into_iter().map(CatalogVersion::try_from).collect()
}

/// Returns the slugs of the entries with a version whose registry requires the secret `name`, sorted.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list_entries_with_registry_secret(
    conn: &mut Conn,
    organization: &OrganizationId,
    name: &str,
) -> Result<Vec<String>> {
    macro_rules! sql {
        ($registry_secret:literal) => {
            concat!(
                "SELECT DISTINCT catalog_entries.slug FROM catalog_versions
                 JOIN catalog_entries ON catalog_entries.id = catalog_versions.catalog_entry_id
                 WHERE catalog_versions.organization_id = $1 AND ",
                $registry_secret,
                " = $2 ORDER BY catalog_entries.slug"
            )
        };
    }
    let sql = match conn.dialect() {
        Dialect::Sqlite => sql!("catalog_versions.definition ->> 'registry_secret'"),
        Dialect::Postgres => sql!("catalog_versions.definition::json ->> 'registry_secret'"),
    };
    Ok(on!(conn, c => sqlx::query_scalar(sql).bind(organization.as_str()).bind(name).fetch_all(c).await?))
}
