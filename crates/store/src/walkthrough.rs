//! Heads of walkthroughs: everything except steps and versions.

use waypost_core::Timestamp;
use waypost_core::id::{OrganizationId, StepId, VersionId, WalkthroughId};
use waypost_core::walkthrough::Walkthrough;

use crate::db::{Conn, Dialect};
use crate::error::{Error, Result};
use crate::on;
use crate::row::{RowRef, to_json};

/// The columns that all queries read.
macro_rules! columns {
    () => {
        "id, organization_id, title, slug, description, type AS kind, state, estimated_duration_minutes, tags, metadata,
            first_step_id, current_version_id, revision, published_revision, next_ordinal, created_at, updated_at"
    };
}
pub(crate) const COLUMNS: &str = columns!();

macro_rules! select {
    ($tail:literal) => {
        concat!("SELECT ", columns!(), " FROM walkthroughs WHERE organization_id = $1 AND deleted_at IS NULL ", $tail)
    };
}

#[derive(sqlx_macros::FromRow)]
pub(crate) struct Row {
    id: String,
    organization_id: String,
    title: String,
    slug: String,
    description: String,
    kind: String,
    state: String,
    estimated_duration_minutes: Option<i64>,
    tags: String,
    metadata: String,
    first_step_id: Option<String>,
    current_version_id: Option<String>,
    revision: i64,
    published_revision: Option<i64>,
    next_ordinal: i64,
    created_at: i64,
    updated_at: i64,
}

impl TryFrom<Row> for Walkthrough {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let row_ref = RowRef { table: "walkthroughs", id: &row.id };
        Ok(Self {
            kind: row_ref.parse("type", &row.kind)?,
            state: row_ref.parse("state", &row.state)?,
            estimated_duration_minutes: row
                .estimated_duration_minutes
                .map(|minutes| row_ref.to_u32("estimated_duration_minutes", minutes))
                .transpose()?,
            tags: row_ref.parse_json("tags", &row.tags)?,
            metadata: row_ref.parse_json("metadata", &row.metadata)?,
            revision: row_ref.to_u32("revision", row.revision)?,
            published_revision: row
                .published_revision
                .map(|revision| row_ref.to_u32("published_revision", revision))
                .transpose()?,
            next_ordinal: row_ref.to_u32("next_ordinal", row.next_ordinal)?,
            organization_id: OrganizationId::from_store(row.organization_id),
            title: row.title,
            slug: row.slug,
            description: row.description,
            first_step_id: row.first_step_id.map(StepId::from_store),
            current_version_id: row.current_version_id.map(VersionId::from_store),
            created_at: Timestamp(row.created_at),
            updated_at: Timestamp(row.updated_at),
            id: WalkthroughId::from_store(row.id),
        })
    }
}

/// Inserts a walkthrough. `title_key` is the title folded for comparison.
///
/// # Errors
/// Returns a unique violation if the slug or title is taken, or another error if the database fails.
pub async fn insert(conn: &mut Conn, walkthrough: &Walkthrough, title_key: &str) -> Result<()> {
    const SQL: &str = "INSERT INTO walkthroughs (id, organization_id, title, title_key, slug, description, type, state,
            estimated_duration_minutes, tags, metadata, first_step_id, current_version_id, revision, next_ordinal,
            created_at, updated_at, published_revision)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)";
    on!(conn, c => sqlx::query(SQL)
        .bind(walkthrough.id.as_str())
        .bind(walkthrough.organization_id.as_str())
        .bind(&walkthrough.title)
        .bind(title_key)
        .bind(&walkthrough.slug)
        .bind(&walkthrough.description)
        .bind(walkthrough.kind.as_str())
        .bind(walkthrough.state.as_str())
        .bind(walkthrough.estimated_duration_minutes.map(i64::from))
        .bind(to_json(walkthrough.tags.clone()))
        .bind(to_json(walkthrough.metadata.clone()))
        .bind(walkthrough.first_step_id.as_ref().map(StepId::as_str))
        .bind(walkthrough.current_version_id.as_ref().map(VersionId::as_str))
        .bind(i64::from(walkthrough.revision))
        .bind(i64::from(walkthrough.next_ordinal))
        .bind(walkthrough.created_at.0)
        .bind(walkthrough.updated_at.0)
        .bind(walkthrough.published_revision.map(i64::from))
        .execute(c).await?.rows_affected());
    Ok(())
}

/// Updates a walkthrough. Returns `false` if the walkthrough does not exist.
///
/// The caller must have read the walkthrough with [`find_for_update`] in the same transaction, so that no concurrent
/// edit is lost.
///
/// # Errors
/// The same as for [`insert`].
pub async fn update(conn: &mut Conn, walkthrough: &Walkthrough, title_key: &str) -> Result<bool> {
    const SQL: &str = "UPDATE walkthroughs SET title = $3, title_key = $4, slug = $5, description = $6, type = $7,
            state = $8, estimated_duration_minutes = $9, tags = $10, metadata = $11, first_step_id = $12,
            current_version_id = $13, revision = $14, next_ordinal = $15, updated_at = $16,
            published_revision = $17
        WHERE id = $1 AND organization_id = $2";
    let rows = on!(conn, c => sqlx::query(SQL)
        .bind(walkthrough.id.as_str())
        .bind(walkthrough.organization_id.as_str())
        .bind(&walkthrough.title)
        .bind(title_key)
        .bind(&walkthrough.slug)
        .bind(&walkthrough.description)
        .bind(walkthrough.kind.as_str())
        .bind(walkthrough.state.as_str())
        .bind(walkthrough.estimated_duration_minutes.map(i64::from))
        .bind(to_json(walkthrough.tags.clone()))
        .bind(to_json(walkthrough.metadata.clone()))
        .bind(walkthrough.first_step_id.as_ref().map(StepId::as_str))
        .bind(walkthrough.current_version_id.as_ref().map(VersionId::as_str))
        .bind(i64::from(walkthrough.revision))
        .bind(i64::from(walkthrough.next_ordinal))
        .bind(walkthrough.updated_at.0)
        .bind(walkthrough.published_revision.map(i64::from))
        .execute(c).await?.rows_affected());
    Ok(rows > 0)
}

/// Deletes a walkthrough with its draft, versions, assignments and progress. Returns `false` if it does not exist.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn delete(conn: &mut Conn, organization: &OrganizationId, id: &WalkthroughId) -> Result<bool> {
    const SQL: &str = "DELETE FROM walkthroughs WHERE organization_id = $1 AND id = $2";
    let rows = on!(conn, c => sqlx::query(SQL)
        .bind(organization.as_str()).bind(id.as_str()).execute(c).await?.rows_affected());
    Ok(rows > 0)
}

/// Returns the walkthrough with this ID, unless it is in the trash.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn find(conn: &mut Conn, organization: &OrganizationId, id: &WalkthroughId) -> Result<Option<Walkthrough>> {
    find_one(conn, select!("AND id = $2"), organization, id.as_str()).await
}

/// Returns the walkthrough with this ID, locked until the end of the transaction.
///
/// # Errors
/// The same as for [`find`].
pub async fn find_for_update(
    conn: &mut Conn,
    organization: &OrganizationId,
    id: &WalkthroughId,
) -> Result<Option<Walkthrough>> {
    let sql = match conn.dialect() {
        // The transaction already holds the file's write lock.
        Dialect::Sqlite => select!("AND id = $2"),
        // FOR UPDATE would block the foreign key checks of new progress.
        Dialect::Postgres => select!("AND id = $2 FOR NO KEY UPDATE"),
    };
    find_one(conn, sql, organization, id.as_str()).await
}

/// Returns the walkthrough with this slug.
///
/// # Errors
/// The same as for [`find`].
pub async fn find_by_slug(conn: &mut Conn, organization: &OrganizationId, slug: &str) -> Result<Option<Walkthrough>> {
    find_one(conn, select!("AND slug = $2"), organization, slug).await
}

/// Returns the walkthrough whose folded title is `title_key`.
///
/// # Errors
/// The same as for [`find`].
pub async fn find_by_title(
    conn: &mut Conn,
    organization: &OrganizationId,
    title_key: &str,
) -> Result<Option<Walkthrough>> {
    find_one(conn, select!("AND title_key = $2"), organization, title_key).await
}

async fn find_one(
    conn: &mut Conn,
    sql: &'static str,
    organization: &OrganizationId,
    value: &str,
) -> Result<Option<Walkthrough>> {
    let row: Option<Row> =
        on!(conn, c => sqlx::query_as(sql).bind(organization.as_str()).bind(value).fetch_optional(c).await?);
    row.map(Walkthrough::try_from).transpose()
}

/// Returns the number of walkthroughs of an organisation, including those in the trash.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn count(conn: &mut Conn, organization: &OrganizationId) -> Result<i64> {
    const SQL: &str = "SELECT count(*) FROM walkthroughs WHERE organization_id = $1";
    Ok(on!(conn, c => sqlx::query_scalar(SQL).bind(organization.as_str()).fetch_one(c).await?))
}

/// Returns the slugs that begin with `prefix`.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list_slugs_with_prefix(
    conn: &mut Conn,
    organization: &OrganizationId,
    prefix: &str,
) -> Result<Vec<String>> {
    const SQL: &str = "SELECT slug FROM walkthroughs WHERE organization_id = $1 AND substr(slug, 1, length($2)) = $2";
    Ok(on!(conn, c => sqlx::query_scalar(SQL).bind(organization.as_str()).bind(prefix).fetch_all(c).await?))
}

/// Locks the creation and renaming of an organisation's walkthroughs until the end of the transaction. Returns `false`
/// if the organisation does not exist. Uniqueness and limits per organisation are checked under this lock.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn lock_names(conn: &mut Conn, organization: &OrganizationId) -> Result<bool> {
    let sql = match conn.dialect() {
        Dialect::Sqlite => "SELECT id FROM organizations WHERE id = $1",
        Dialect::Postgres => "SELECT id FROM organizations WHERE id = $1 FOR NO KEY UPDATE",
    };
    let found: Option<String> =
        on!(conn, c => sqlx::query_scalar(sql).bind(organization.as_str()).fetch_optional(c).await?);
    Ok(found.is_some())
}
