//! Assignments of walkthroughs to servers.

use waypost_core::Timestamp;
use waypost_core::assignment::{Assignment, AssignmentCandidate, AssignmentView};
use waypost_core::id::{AssignmentId, OrganizationId, ServerId, WalkthroughId};

use crate::batch::{self, Kind};
use crate::db::Conn;
use crate::error::{Error, Result};
use crate::on;
use crate::row::like_pattern;

/// The query shared by [`find`] and the lists.
macro_rules! select_view {
    ($tail:literal) => {
        concat!(
            "SELECT assignments.id, assignments.organization_id, assignments.server_id, assignments.walkthrough_id,
                assignments.display_order, assignments.enabled, assignments.created_at, walkthroughs.title,
                walkthroughs.slug, walkthroughs.state, servers.name AS server_name, servers.slug AS server_slug
             FROM assignments JOIN walkthroughs ON walkthroughs.id = assignments.walkthrough_id
             JOIN servers ON servers.id = assignments.server_id
             WHERE assignments.organization_id = $1 AND walkthroughs.deleted_at IS NULL ",
            $tail
        )
    };
}

#[derive(sqlx_macros::FromRow)]
struct Row {
    id: String,
    organization_id: String,
    server_id: String,
    walkthrough_id: String,
    display_order: i64,
    enabled: bool,
    created_at: i64,
}

#[derive(sqlx_macros::FromRow)]
struct AssignmentViewRow {
    #[sqlx(flatten)]
    assignment: Row,
    title: String,
    slug: String,
    state: String,
    server_name: String,
    server_slug: String,
}

impl From<Row> for Assignment {
    fn from(row: Row) -> Self {
        Self {
            id: AssignmentId::from_store(row.id),
            organization_id: OrganizationId::from_store(row.organization_id),
            server_id: ServerId::from_store(row.server_id),
            walkthrough_id: WalkthroughId::from_store(row.walkthrough_id),
            display_order: row.display_order,
            enabled: row.enabled,
            created_at: Timestamp(row.created_at),
        }
    }
}

impl TryFrom<AssignmentViewRow> for AssignmentView {
    type Error = Error;

    fn try_from(row: AssignmentViewRow) -> Result<Self> {
        let assignment = Assignment::from(row.assignment);
        let id = assignment.walkthrough_id.as_str();
        let state =
            row.state.parse().map_err(|reason| Error::Corrupt { table: "walkthroughs", id: id.to_owned(), reason })?;
        let (server_name, server_slug) = (row.server_name, row.server_slug);
        Ok(Self { assignment, title: row.title, slug: row.slug, state, server_name, server_slug })
    }
}

/// Assigns a walkthrough to a server. Returns `false` if the organisation does not own both.
///
/// # Errors
/// Returns a unique violation if it is already assigned, or another error if the database fails.
pub async fn insert(conn: &mut Conn, assignment: &Assignment) -> Result<bool> {
    const SQL: &str = "INSERT INTO assignments
            (id, organization_id, server_id, walkthrough_id, display_order, enabled, created_at)
        SELECT $1, servers.organization_id, servers.id, walkthroughs.id, $5, $6, $7
        FROM servers JOIN walkthroughs ON walkthroughs.organization_id = servers.organization_id
        WHERE servers.organization_id = $2 AND servers.id = $3 AND walkthroughs.id = $4
          AND walkthroughs.deleted_at IS NULL";
    conn.bump_config_version(&assignment.organization_id).await?;
    let inserted = on!(conn, c => sqlx::query(SQL)
        .bind(assignment.id.as_str()).bind(assignment.organization_id.as_str()).bind(assignment.server_id.as_str())
        .bind(assignment.walkthrough_id.as_str()).bind(assignment.display_order).bind(assignment.enabled)
        .bind(assignment.created_at.0).execute(c).await?.rows_affected());
    Ok(inserted > 0)
}

/// Returns the assignment of a walkthrough to a server. Returns `None` if the walkthrough is not assigned or is in the
/// trash.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find_by_walkthrough(
    conn: &mut Conn,
    organization: &OrganizationId,
    server: &ServerId,
    walkthrough: &WalkthroughId,
) -> Result<Option<Assignment>> {
    const SQL: &str = "SELECT id, organization_id, server_id, walkthrough_id, display_order, enabled, created_at
        FROM assignments WHERE organization_id = $1 AND server_id = $2 AND walkthrough_id = $3
          AND EXISTS (SELECT 1 FROM walkthroughs WHERE walkthroughs.id = $3 AND deleted_at IS NULL)";
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(server.as_str()).bind(walkthrough.as_str()).fetch_optional(c).await?);
    Ok(row.map(Assignment::from))
}

/// Returns the assignments of a server in display order, including disabled ones and those of unpublished walkthroughs.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list(conn: &mut Conn, organization: &OrganizationId, server: &ServerId) -> Result<Vec<AssignmentView>> {
    const SQL: &str = select_view!("AND assignments.server_id = $2 ORDER BY assignments.display_order, assignments.id");
    let rows: Vec<AssignmentViewRow> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(server.as_str()).fetch_all(c).await?);
    rows.into_iter().map(AssignmentView::try_from).collect()
}

/// Returns the assignments of a walkthrough, ordered by the servers' slugs.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list_for_walkthrough(
    conn: &mut Conn,
    organization: &OrganizationId,
    walkthrough: &WalkthroughId,
) -> Result<Vec<AssignmentView>> {
    const SQL: &str = select_view!("AND assignments.walkthrough_id = $2 ORDER BY servers.slug");
    let rows: Vec<AssignmentViewRow> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(walkthrough.as_str()).fetch_all(c).await?);
    rows.into_iter().map(AssignmentView::try_from).collect()
}

/// Returns the assignment with this ID.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn find(conn: &mut Conn, organization: &OrganizationId, id: &AssignmentId) -> Result<Option<AssignmentView>> {
    const SQL: &str = select_view!("AND assignments.id = $2");
    let row: Option<AssignmentViewRow> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(id.as_str()).fetch_optional(c).await?);
    row.map(AssignmentView::try_from).transpose()
}

/// Returns at most `limit` walkthroughs, ordered by title, that are not archived, are not yet assigned to the server
/// and whose title contains `text`.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list_candidates(
    conn: &mut Conn,
    organization: &OrganizationId,
    server: &ServerId,
    text: &str,
    limit: u32,
) -> Result<Vec<AssignmentCandidate>> {
    const SQL: &str = "SELECT walkthroughs.id, walkthroughs.title, walkthroughs.state FROM walkthroughs
        WHERE walkthroughs.organization_id = $1 AND walkthroughs.deleted_at IS NULL AND walkthroughs.state <> 'archived'
          AND lower(walkthroughs.title) LIKE lower($3) ESCAPE '!'
          AND NOT EXISTS (SELECT 1 FROM assignments
              WHERE assignments.server_id = $2 AND assignments.walkthrough_id = walkthroughs.id)
        ORDER BY walkthroughs.title_key LIMIT $4";
    let rows: Vec<(String, String, String)> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(server.as_str()).bind(like_pattern(text)).bind(i64::from(limit))
        .fetch_all(c).await?);
    let candidate = |(id, title, state): (String, String, String)| {
        let state = state.parse().map_err(|reason| Error::Corrupt { table: "walkthroughs", id: id.clone(), reason })?;
        Ok(AssignmentCandidate { id: WalkthroughId::from_store(id), title, state })
    };
    rows.into_iter().map(candidate).collect()
}

/// Returns the display order that follows the highest one on a server; 1 if the server has no assignments.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn next_display_order(conn: &mut Conn, organization: &OrganizationId, server: &ServerId) -> Result<i64> {
    const SQL: &str = "SELECT max(display_order) FROM assignments WHERE server_id = $1 AND organization_id = $2";
    let last: Option<i64> = on!(conn, c => sqlx::query_scalar(SQL)
        .bind(server.as_str()).bind(organization.as_str()).fetch_one(c).await?);
    Ok(last.map_or(1, |last| last.saturating_add(1)))
}

/// Updates the display order and the `enabled` flag. A value that is `None` is not changed, so concurrent changes to
/// the two do not overwrite each other. Returns `false` if the assignment does not exist.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn update(
    conn: &mut Conn,
    organization: &OrganizationId,
    id: &AssignmentId,
    display_order: Option<i64>,
    enabled: Option<bool>,
) -> Result<bool> {
    const SQL: &str =
        "UPDATE assignments SET display_order = coalesce($3, display_order), enabled = coalesce($4, enabled)
        WHERE id = $1 AND organization_id = $2";
    conn.bump_config_version(organization).await?;
    let changed = on!(conn, c => sqlx::query(SQL)
        .bind(id.as_str()).bind(organization.as_str()).bind(display_order).bind(enabled)
        .execute(c).await?.rows_affected());
    Ok(changed > 0)
}

/// Sets the display orders of several assignments in one statement.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn set_display_orders(
    conn: &mut Conn,
    organization: &OrganizationId,
    orders: &[(AssignmentId, i64)],
) -> Result<()> {
    let sql = batch::update(
        conn.dialect(),
        "assignments",
        "assignments",
        &[("id", Kind::Text), ("display_order", Kind::Integer)],
    );
    let sql = format!("{sql} AND assignments.organization_id = $2");
    let rows: Vec<_> =
        orders.iter().map(|(id, order)| serde_json::json!({ "id": id, "display_order": order })).collect();
    let document = serde_json::json!({ "assignments": rows }).to_string();
    conn.bump_config_version(organization).await?;
    on!(conn, c => sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(document).bind(organization.as_str()).execute(c).await?.rows_affected());
    Ok(())
}

/// Deletes an assignment. Returns `false` if it does not exist. Progress is kept.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn delete(conn: &mut Conn, organization: &OrganizationId, id: &AssignmentId) -> Result<bool> {
    const SQL: &str = "DELETE FROM assignments WHERE id = $1 AND organization_id = $2";
    conn.bump_config_version(organization).await?;
    let deleted = on!(conn, c => sqlx::query(SQL)
        .bind(id.as_str()).bind(organization.as_str()).execute(c).await?.rows_affected());
    Ok(deleted > 0)
}
