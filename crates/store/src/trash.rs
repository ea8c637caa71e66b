//! Walkthroughs in the trash: deleted, and kept for a while.

use waypost_core::Timestamp;
use waypost_core::id::{OrganizationId, WalkthroughId};
use waypost_core::walkthrough::Walkthrough;

use crate::db::{Conn, Dialect};
use crate::error::{Error, Result};
use crate::on;
use crate::walkthrough::Row;

/// A deleted walkthrough.
#[derive(Debug, Clone, PartialEq)]
pub struct Trashed {
    /// The walkthrough with the slug and the state that it had.
    pub walkthrough: Walkthrough,
    /// When it was deleted.
    pub deleted_at: Timestamp,
    /// Who deleted it.
    pub deleted_by: String,
}

#[derive(sqlx::FromRow)]
struct TrashedRow {
    #[sqlx(flatten)]
    walkthrough: Row,
    deleted_at: i64,
    deleted_by: String,
}

impl TryFrom<TrashedRow> for Trashed {
    type Error = Error;

    fn try_from(row: TrashedRow) -> Result<Self> {
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

/// Moves a walkthrough to the trash. Returns false if it does not exist or is there already.
///
/// # Errors
/// When the database fails.
pub async fn put(
    conn: &mut Conn,
    organization: &OrganizationId,
    id: &WalkthroughId,
    (at, by): (Timestamp, &str),
) -> Result<bool> {
    // Neither a slug nor a folded title has capital letters.
    const SQL: &str = "UPDATE walkthroughs SET deleted_at = $3, deleted_by = $4, trashed_slug = slug,
            trashed_state = state, slug = 'TRASH:' || id, title_key = 'TRASH:' || id, state = 'archived'
        WHERE organization_id = $1 AND id = $2 AND deleted_at IS NULL";
    let rows = on!(conn, c => sqlx::query(SQL)
        .bind(organization.as_str()).bind(id.as_str()).bind(at.0).bind(by).execute(c).await?.rows_affected());
    Ok(rows > 0)
}

/// Takes a walkthrough out of the trash; slug, title and state are those of `head`. Returns false if it is not there.
///
/// # Errors
/// A unique violation if slug or title is taken; otherwise when the database fails.
pub async fn take(conn: &mut Conn, head: &Walkthrough, title_key: &str) -> Result<bool> {
    const SQL: &str = "UPDATE walkthroughs SET deleted_at = NULL, deleted_by = NULL, trashed_slug = NULL,
            trashed_state = NULL, slug = $3, title = $4, title_key = $5, state = $6
        WHERE organization_id = $1 AND id = $2 AND deleted_at IS NOT NULL";
    let rows = on!(conn, c => sqlx::query(SQL)
        .bind(head.organization_id.as_str()).bind(head.id.as_str()).bind(&head.slug).bind(&head.title)
        .bind(title_key).bind(head.state.as_str()).execute(c).await?.rows_affected());
    Ok(rows > 0)
}

/// The deleted walkthrough with this ID, locked until the end of the transaction.
///
/// # Errors
/// When the database fails, or the row cannot be read.
pub async fn find(conn: &mut Conn, organization: &OrganizationId, id: &WalkthroughId) -> Result<Option<Trashed>> {
    let sql = match conn.dialect() {
        Dialect::Sqlite => select!("AND id = $2"),
        Dialect::Postgres => select!("AND id = $2 FOR NO KEY UPDATE"),
    };
    let row: Option<TrashedRow> =
        on!(conn, c => sqlx::query_as(sql).bind(organization.as_str()).bind(id.as_str()).fetch_optional(c).await?);
    row.map(TryInto::try_into).transpose()
}

/// The deleted walkthroughs of an organisation, the latest deletion first, `limit` at most.
///
/// # Errors
/// As [`find`].
pub async fn list(conn: &mut Conn, organization: &OrganizationId, limit: i64) -> Result<Vec<Trashed>> {
    const SQL: &str = select!("ORDER BY deleted_at DESC, id LIMIT $2");
    let rows: Vec<TrashedRow> =
        on!(conn, c => sqlx::query_as(SQL).bind(organization.as_str()).bind(limit).fetch_all(c).await?);
    rows.into_iter().map(TryInto::try_into).collect()
}

/// The walkthroughs of any organisation that were deleted before `before`, `limit` at most.
///
/// # Errors
/// When the database fails.
pub async fn due(conn: &mut Conn, before: Timestamp, limit: i64) -> Result<Vec<(OrganizationId, WalkthroughId)>> {
    const SQL: &str = "SELECT organization_id, id FROM walkthroughs
        WHERE deleted_at IS NOT NULL AND deleted_at < $1 ORDER BY deleted_at LIMIT $2";
    let rows: Vec<(String, String)> =
        on!(conn, c => sqlx::query_as(SQL).bind(before.0).bind(limit).fetch_all(c).await?);
    let ids = rows.into_iter().map(|(org, id)| (OrganizationId::from_store(org), WalkthroughId::from_store(id)));
    Ok(ids.collect())
}
