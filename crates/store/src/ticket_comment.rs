//! The team's comments on tickets, with their edit history.

use waypost_core::Timestamp;
use waypost_core::id::{OrganizationId, TicketCommentId, TicketId};
use waypost_core::ticket::{TicketComment, TicketCommentEdit};

use crate::db::Conn;
use crate::error::Result;
use crate::on;

/// Records that a reply could not be sent.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn mark_unsent(conn: &mut Conn, organization: &OrganizationId, id: &TicketCommentId) -> Result<()> {
    const SQL: &str = "UPDATE ticket_comments SET mailed_to = NULL WHERE id = $1 AND organization_id = $2";
    on!(conn, c => sqlx::query(SQL).bind(id.as_str()).bind(organization.as_str()).execute(c).await?.rows_affected());
    Ok(())
}

/// A comment with the name of its author.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommentWithAuthor {
    /// The comment.
    pub comment: TicketComment,
    /// The name or email address of the user, or the name of the API key; `None` if the user or the key was deleted.
    pub author: Option<String>,
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT k.id, k.organization_id, k.ticket_id, k.author, k.body, k.internal, k.mailed_to, k.created_at,
                k.updated_at,
                COALESCE((SELECT COALESCE(users.name, users.email) FROM users WHERE users.id = k.author),
                    (SELECT api_keys.name FROM api_keys WHERE api_keys.id = k.author)) AS author_name
             FROM ticket_comments AS k
             WHERE k.organization_id = $1 AND k.ticket_id = $2 ",
            $rest
        )
    };
}

#[derive(sqlx_macros::FromRow)]
struct Row {
    id: String,
    organization_id: String,
    ticket_id: String,
    author: String,
    body: String,
    internal: bool,
    mailed_to: Option<String>,
    created_at: i64,
    updated_at: i64,
    author_name: Option<String>,
}

impl From<Row> for CommentWithAuthor {
    fn from(row: Row) -> Self {
        let comment = TicketComment {
            id: TicketCommentId::from_store(row.id),
            organization_id: OrganizationId::from_store(row.organization_id),
            ticket_id: TicketId::from_store(row.ticket_id),
            author: row.author,
            body: row.body,
            internal: row.internal,
            mailed_to: row.mailed_to,
            created_at: Timestamp(row.created_at),
            updated_at: Timestamp(row.updated_at),
        };
        Self { comment, author: row.author_name }
    }
}

/// Inserts a comment.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn insert(conn: &mut Conn, comment: &TicketComment) -> Result<()> {
    const SQL: &str = "INSERT INTO ticket_comments (id, organization_id, ticket_id, author, body, internal, mailed_to,
            created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    on!(conn, c => sqlx::query(SQL)
        .bind(comment.id.as_str()).bind(comment.organization_id.as_str()).bind(comment.ticket_id.as_str())
        .bind(&comment.author).bind(&comment.body).bind(comment.internal).bind(comment.mailed_to.as_deref())
        .bind(comment.created_at.0).bind(comment.updated_at.0).execute(c).await?.rows_affected());
    Ok(())
}

/// Returns all comments on a ticket, oldest first.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list(conn: &mut Conn, organization: &OrganizationId, ticket: &TicketId) -> Result<Vec<CommentWithAuthor>> {
    const SQL: &str = select!("ORDER BY k.id");
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(ticket.as_str()).fetch_all(c).await?);
    Ok(rows.into_iter().map(CommentWithAuthor::from).collect())
}

/// Returns the newest replies to the end user on a ticket, newest first. Internal notes are omitted.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list_replies(
    conn: &mut Conn,
    organization: &OrganizationId,
    ticket: &TicketId,
    limit: i64,
) -> Result<Vec<TicketComment>> {
    const SQL: &str = select!("AND NOT k.internal ORDER BY k.id DESC LIMIT $3");
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(ticket.as_str()).bind(limit).fetch_all(c).await?);
    Ok(rows.into_iter().map(|row| CommentWithAuthor::from(row).comment).collect())
}

/// Returns the number of comments on a ticket.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn count(conn: &mut Conn, organization: &OrganizationId, ticket: &TicketId) -> Result<i64> {
    const SQL: &str = "SELECT count(*) FROM ticket_comments WHERE ticket_id = $1 AND organization_id = $2";
    Ok(on!(conn, c => sqlx::query_scalar(SQL)
        .bind(ticket.as_str()).bind(organization.as_str()).fetch_one(c).await?))
}

/// Returns a comment on a ticket.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find(
    conn: &mut Conn,
    organization: &OrganizationId,
    ticket: &TicketId,
    id: &TicketCommentId,
) -> Result<Option<CommentWithAuthor>> {
    const SQL: &str = select!("AND k.id = $3");
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(ticket.as_str()).bind(id.as_str()).fetch_optional(c).await?);
    Ok(row.map(CommentWithAuthor::from))
}

/// Updates the body, the recipient and the update time of a comment.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn update(conn: &mut Conn, comment: &TicketComment) -> Result<()> {
    const SQL: &str = "UPDATE ticket_comments SET body = $3, mailed_to = $4, updated_at = $5
        WHERE id = $1 AND organization_id = $2";
    on!(conn, c => sqlx::query(SQL)
        .bind(comment.id.as_str()).bind(comment.organization_id.as_str()).bind(&comment.body)
        .bind(comment.mailed_to.as_deref()).bind(comment.updated_at.0).execute(c).await?.rows_affected());
    Ok(())
}

/// Stores a former body of a comment.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn insert_edit(conn: &mut Conn, organization: &OrganizationId, edit: &TicketCommentEdit) -> Result<()> {
    const SQL: &str = "INSERT INTO ticket_comment_edits (comment_id, number, body, edited_by, edited_at)
        SELECT k.id, (SELECT COALESCE(MAX(number), 0) + 1 FROM ticket_comment_edits WHERE comment_id = k.id), $3, $4, $5
        FROM ticket_comments AS k WHERE k.id = $1 AND k.organization_id = $2";
    on!(conn, c => sqlx::query(SQL)
        .bind(edit.comment_id.as_str()).bind(organization.as_str()).bind(&edit.body).bind(&edit.edited_by)
        .bind(edit.edited_at.0).execute(c).await?.rows_affected());
    Ok(())
}

/// Returns the former bodies of the comments on a ticket, ordered by comment, oldest first.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list_edits(
    conn: &mut Conn,
    organization: &OrganizationId,
    ticket: &TicketId,
) -> Result<Vec<TicketCommentEdit>> {
    const SQL: &str = "SELECT e.comment_id, e.body, e.edited_by, e.edited_at
        FROM ticket_comments AS k JOIN ticket_comment_edits AS e ON e.comment_id = k.id
        WHERE k.ticket_id = $1 AND k.organization_id = $2 ORDER BY e.comment_id, e.number";
    let rows: Vec<(String, String, String, i64)> = on!(conn, c => sqlx::query_as(SQL)
        .bind(ticket.as_str()).bind(organization.as_str()).fetch_all(c).await?);
    let edit = |(comment, body, edited_by, at)| TicketCommentEdit {
        comment_id: TicketCommentId::from_store(comment),
        body,
        edited_by,
        edited_at: Timestamp(at),
    };
    Ok(rows.into_iter().map(edit).collect())
}

/// Deletes a comment with its edit history. Returns `false` if it does not exist.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn delete(conn: &mut Conn, organization: &OrganizationId, id: &TicketCommentId) -> Result<bool> {
    const SQL: &str = "DELETE FROM ticket_comments WHERE id = $1 AND organization_id = $2";
    let deleted = on!(conn, c => sqlx::query(SQL)
        .bind(id.as_str()).bind(organization.as_str()).execute(c).await?.rows_affected());
    Ok(deleted > 0)
}
