//! Catalogue entries: tool servers that an organisation can deploy.

use std::collections::HashMap;

use waypost_core::Timestamp;
use waypost_core::catalog::{CatalogEntry, CatalogVersion};
use waypost_core::id::{CatalogEntryId, OrganizationId};

use crate::catalog_version;
use crate::db::Conn;
use crate::error::Result;
use crate::on;
use crate::row::{RowRef, to_json};

/// The columns of [`Row`].
macro_rules! columns {
    () => {
        "catalog_entries.id, catalog_entries.organization_id, catalog_entries.slug, catalog_entries.name,
         catalog_entries.description, catalog_entries.categories, catalog_entries.license,
         catalog_entries.documentation_url, catalog_entries.state, catalog_entries.created_at,
         catalog_entries.updated_at,
         (SELECT count(*) FROM catalog_versions JOIN instances ON instances.catalog_version_id = catalog_versions.id
            WHERE catalog_versions.catalog_entry_id = catalog_entries.id) AS deployments,
         (SELECT CAST(coalesce(sum(length(catalog_versions.definition)), 0) AS BIGINT) FROM catalog_versions
            WHERE catalog_versions.catalog_entry_id = catalog_entries.id) AS version_chars"
    };
}

#[derive(sqlx_macros::FromRow)]
struct Row {
    id: String,
    organization_id: String,
    slug: String,
    name: String,
    description: String,
    categories: String,
    license: Option<String>,
    documentation_url: Option<String>,
    state: String,
    created_at: i64,
    updated_at: i64,
    deployments: i64,
    version_chars: i64,
}

impl Row {
    fn into_entry(self, versions: Vec<CatalogVersion>) -> Result<CatalogEntry> {
        let row_ref = RowRef { table: "catalog_entries", id: &self.id };
        Ok(CatalogEntry {
            categories: row_ref.parse_json("categories", &self.categories)?,
            state: row_ref.parse("state", &self.state)?,
            deployments: u64::try_from(self.deployments).map_err(|error| row_ref.corrupt("deployments", error))?,
            id: CatalogEntryId::from_store(self.id),
            organization_id: OrganizationId::from_store(self.organization_id),
            slug: self.slug,
            name: self.name,
            description: self.description,
            license: self.license,
            documentation_url: self.documentation_url,
            versions,
            created_at: Timestamp(self.created_at),
            updated_at: Timestamp(self.updated_at),
        })
    }
}

/// Inserts an entry without its versions.
///
/// # Errors
/// Returns a unique violation if the slug is taken in the organisation, or another error if the database fails.
pub async fn insert(conn: &mut Conn, entry: &CatalogEntry) -> Result<()> {
    const SQL: &str = "INSERT INTO catalog_entries (id, organization_id, slug, name, description, categories, license,
            documentation_url, state, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
    on!(conn, c => sqlx::query(SQL)
        .bind(entry.id.as_str()).bind(entry.organization_id.as_str()).bind(&entry.slug).bind(&entry.name)
        .bind(&entry.description).bind(to_json(entry.categories.clone())).bind(entry.license.as_deref())
        .bind(entry.documentation_url.as_deref()).bind(entry.state.as_str()).bind(entry.created_at.0)
        .bind(entry.updated_at.0).execute(c).await?.rows_affected());
    Ok(())
}

/// Updates everything except the slug, the versions and `created_at`. Returns `false` if the entry does not exist.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn update(conn: &mut Conn, entry: &CatalogEntry) -> Result<bool> {
    const SQL: &str = "UPDATE catalog_entries SET name = $3, description = $4, categories = $5, license = $6,
            documentation_url = $7, state = $8, updated_at = $9 WHERE id = $1 AND organization_id = $2";
    let changed = on!(conn, c => sqlx::query(SQL)
        .bind(entry.id.as_str()).bind(entry.organization_id.as_str()).bind(&entry.name).bind(&entry.description)
        .bind(to_json(entry.categories.clone())).bind(entry.license.as_deref())
        .bind(entry.documentation_url.as_deref()).bind(entry.state.as_str()).bind(entry.updated_at.0)
        .execute(c).await?.rows_affected());
    Ok(changed > 0)
}

/// Returns the entry with this ID.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn find(conn: &mut Conn, organization: &OrganizationId, id: &CatalogEntryId) -> Result<Option<CatalogEntry>> {
    const SQL: &str = concat!("SELECT ", columns!(), " FROM catalog_entries WHERE organization_id = $1 AND id = $2");
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(id.as_str()).fetch_optional(c).await?);
    with_versions(conn, organization, row).await
}

/// Returns the entry with this slug.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn find_by_slug(conn: &mut Conn, organization: &OrganizationId, slug: &str) -> Result<Option<CatalogEntry>> {
    const SQL: &str = concat!("SELECT ", columns!(), " FROM catalog_entries WHERE organization_id = $1 AND slug = $2");
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(slug).fetch_optional(c).await?);
    with_versions(conn, organization, row).await
}

async fn with_versions(
    conn: &mut Conn,
    organization: &OrganizationId,
    row: Option<Row>,
) -> Result<Option<CatalogEntry>> {
    let Some(row) = row else { return Ok(None) };
    let versions = catalog_version::list(conn, organization, &CatalogEntryId::from_store(row.id.clone())).await?;
    row.into_entry(versions).map(Some)
}

/// A page of a catalogue.
#[derive(Debug, Clone, Copy)]
pub struct CatalogPage<'a> {
    /// Only entries whose slug sorts after this one.
    pub after: Option<&'a str>,
    /// The maximum number of entries.
    pub limit: u32,
    /// The maximum number of characters in the definitions of all versions. A page has at least one entry.
    pub max_chars: i64,
}

/// Returns a page of an organisation's entries, ordered by slug, and whether there are more entries.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list(
    conn: &mut Conn,
    organization: &OrganizationId,
    page: CatalogPage<'_>,
) -> Result<(Vec<CatalogEntry>, bool)> {
    const SQL: &str = concat!(
        "SELECT ",
        columns!(),
        " FROM catalog_entries WHERE organization_id = $1 AND slug > $2 ORDER BY slug LIMIT $3"
    );
    let mut rows: Vec<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(page.after.unwrap_or_default()).bind(i64::from(page.limit) + 1)
        .fetch_all(c).await?);
    let mut chars = 0;
    let fits = rows.iter().take_while(|row| {
        let is_first = chars == 0;
        // At least 1, so that `chars` is 0 only for the first entry, even if entries have no versions.
        chars += row.version_chars.max(1);
        is_first || chars <= page.max_chars
    });
    let fits = fits.count().min(page.limit as usize);
    let has_more = rows.len() > fits;
    rows.truncate(fits);
    let mut versions: HashMap<CatalogEntryId, Vec<CatalogVersion>> = HashMap::new();
    if let (Some(first), Some(last)) = (rows.first(), rows.last()) {
        for version in catalog_version::list_between(conn, organization, &first.slug, &last.slug).await? {
            versions.entry(version.catalog_entry_id.clone()).or_default().push(version);
        }
    }
    let entries = rows.into_iter().map(|row| {
        let versions = versions.remove(&CatalogEntryId::from_store(row.id.clone())).unwrap_or_default();
        row.into_entry(versions)
    });
    Ok((entries.collect::<Result<_>>()?, has_more))
}

/// Returns the number of entries of an organisation.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn count(conn: &mut Conn, organization: &OrganizationId) -> Result<i64> {
    const SQL: &str = "SELECT count(*) FROM catalog_entries WHERE organization_id = $1";
    Ok(on!(conn, c => sqlx::query_scalar(SQL).bind(organization.as_str()).fetch_one(c).await?))
}

/// Returns the slugs of the instances that run a version of an entry or have a deployment of one, sorted.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list_instance_slugs(
    conn: &mut Conn,
    organization: &OrganizationId,
    id: &CatalogEntryId,
) -> Result<Vec<String>> {
    const SQL: &str = "SELECT instances.slug FROM instances
        WHERE instances.organization_id = $1
            AND (EXISTS (SELECT 1 FROM catalog_versions
                    WHERE catalog_versions.id = instances.catalog_version_id
                        AND catalog_versions.catalog_entry_id = $2)
                OR EXISTS (SELECT 1 FROM deployments
                    JOIN catalog_versions ON catalog_versions.id = deployments.catalog_version_id
                    WHERE deployments.instance_id = instances.id AND catalog_versions.catalog_entry_id = $2))
        ORDER BY instances.slug";
    Ok(on!(conn, c => sqlx::query_scalar(SQL).bind(organization.as_str()).bind(id.as_str()).fetch_all(c).await?))
}

/// Deletes an entry with its versions. Returns `false` if it does not exist.
///
/// # Errors
/// Returns a foreign key violation if an instance or a deployment uses one of the versions, or another error if the
/// database fails.
pub async fn delete(conn: &mut Conn, organization: &OrganizationId, id: &CatalogEntryId) -> Result<bool> {
    const SQL: &str = "DELETE FROM catalog_entries WHERE id = $1 AND organization_id = $2";
    let deleted = on!(conn, c => sqlx::query(SQL)
        .bind(id.as_str()).bind(organization.as_str()).execute(c).await?.rows_affected());
    Ok(deleted > 0)
}
