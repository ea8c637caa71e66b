//! The trash: deleted walkthroughs that can be restored for a limited time.

use waypost_core::Timestamp;
use waypost_core::id::{OrganizationId, WalkthroughId};
use waypost_core::walkthrough::Walkthrough;

use crate::db::{Conn, Dialect};
use crate::error::{Error, Result};
use crate::on;
use crate::walkthrough::Row;

/// A walkthrough in the trash.
#[derive(Debug, Clone, PartialEq)]
pub struct DeletedWalkthrough {
    /// The walkthrough with its former slug and state.
    pub walkthrough: Walkthrough,
    /// The time of the deletion.
    pub deleted_at: Timestamp,
    /// The actor who deleted it.
    pub deleted_by: String,
}

#[derive(sqlx_macros::FromRow)]
struct DeletedRow {
    #[sqlx(flatten)]
    walkthrough: Row,
    deleted_at: i64,
    deleted_by: String,
}

impl TryFrom<DeletedRow> for DeletedWalkthrough {
    type Error = Error;

    fn try_from(row: DeletedRow) -> Result<Self> {
        let deleted_at = Timestamp(row.deleted_at);
        Ok(Self { walkthrough: row.walkthrough.try_into()?, deleted_at, deleted_by: row.deleted_by })
    }
}

macro_rules! select {
    ($tail:literal) => {
        concat!(
            "SELECT id, organization_id, title, trashed_slug AS slug, description, type AS kind, trashed_state AS state,
                estimated_duration_minutes, tags, metadata, first_step_id, current_version_id, revision,
                published_revision, next_ordinal, created_at, updated_at, deleted_at, deleted_by
             FROM walkthroughs WHERE organization_id = $1 AND deleted_at IS NOT NULL ",
            $tail
        )
    };
}

/// Moves a walkthrough to the trash. Returns `false` if it does not exist or is already in the trash.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn insert(
    conn: &mut Conn,
    organization: &OrganizationId,
    id: &WalkthroughId,
    at: Timestamp,
    by: &str,
) -> Result<bool> {
    // Slugs and folded titles contain no uppercase letters, so these values cannot conflict.
    const SQL: &str = "UPDATE walkthroughs SET deleted_at = $3, deleted_by = $4, trashed_slug = slug,
            trashed_state = state, slug = 'TRASH:' || id, title_key = 'TRASH:' || id, state = 'archived'
        WHERE organization_id = $1 AND id = $2 AND deleted_at IS NULL";
    let rows = on!(conn, c => sqlx::query(SQL)
        .bind(organization.as_str()).bind(id.as_str()).bind(at.0).bind(by).execute(c).await?.rows_affected());
    Ok(rows > 0)
}

/// Restores a walkthrough from the trash with the slug, title and state of `walkthrough`. Returns `false` if it is not
/// in the trash.
///
/// # Errors
/// Returns a unique violation if the slug or title is taken, or another error if the database fails.
pub async fn restore(conn: &mut Conn, walkthrough: &Walkthrough, title_key: &str) -> Result<bool> {
    const SQL: &str = "UPDATE walkthroughs SET deleted_at = NULL, deleted_by = NULL, trashed_slug = NULL,
            trashed_state = NULL, slug = $3, title = $4, title_key = $5, state = $6
        WHERE organization_id = $1 AND id = $2 AND deleted_at IS NOT NULL";
    let rows = on!(conn, c => sqlx::query(SQL)
        .bind(walkthrough.organization_id.as_str()).bind(walkthrough.id.as_str()).bind(&walkthrough.slug).bind(&walkthrough.title)
        .bind(title_key).bind(walkthrough.state.as_str()).execute(c).await?.rows_affected());
    Ok(rows > 0)
}

/// Returns the walkthrough with this ID from the trash, locked until the end of the transaction.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn find_for_update(
    conn: &mut Conn,
    organization: &OrganizationId,
    id: &WalkthroughId,
) -> Result<Option<DeletedWalkthrough>> {
    let sql = match conn.dialect() {
        Dialect::Sqlite => select!("AND id = $2"),
        Dialect::Postgres => select!("AND id = $2 FOR NO KEY UPDATE"),
    };
    let row: Option<DeletedRow> =
        on!(conn, c => sqlx::query_as(sql).bind(organization.as_str()).bind(id.as_str()).fetch_optional(c).await?);
    row.map(TryInto::try_into).transpose()
}

/// Returns at most `limit` walkthroughs in the trash of an organisation, latest deletion first.
///
/// # Errors
/// The same as for [`find_for_update`].
pub async fn list(conn: &mut Conn, organization: &OrganizationId, limit: i64) -> Result<Vec<DeletedWalkthrough>> {
    const SQL: &str = select!("ORDER BY deleted_at DESC, id LIMIT $2");
    let rows: Vec<DeletedRow> =
        on!(conn, c => sqlx::query_as(SQL).bind(organization.as_str()).bind(limit).fetch_all(c).await?);
    rows.into_iter().map(TryInto::try_into).collect()
}

/// Returns at most `limit` walkthroughs of any organisation that were deleted before `before`.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list_expired(
    conn: &mut Conn,
    before: Timestamp,
    limit: i64,
) -> Result<Vec<(OrganizationId, WalkthroughId)>> {
    const SQL: &str = "SELECT organization_id, id FROM walkthroughs
        WHERE deleted_at IS NOT NULL AND deleted_at < $1 ORDER BY deleted_at LIMIT $2";
    let rows: Vec<(String, String)> =
        on!(conn, c => sqlx::query_as(SQL).bind(before.0).bind(limit).fetch_all(c).await?);
    let ids = rows.into_iter().map(|(org, id)| (OrganizationId::from_store(org), WalkthroughId::from_store(id)));
    Ok(ids.collect())
}
