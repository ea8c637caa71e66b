//! The queue of emails about tickets. An email is enqueued in the transaction of the change that it is about, and
//! deleted when it is sent.

use waypost_core::Timestamp;
use waypost_core::id::{EmailId, OrganizationId, TicketCommentId, TicketId};

use crate::db::{Conn, Dialect};
use crate::error::{Error, Result};
use crate::on;
use crate::row::RowRef;

/// An email to enqueue.
#[derive(Debug, Clone, Copy)]
pub struct NewEmail<'a> {
    /// The ID of the email.
    pub id: &'a EmailId,
    /// The organisation whose limit it counts against.
    pub organization_id: &'a OrganizationId,
    /// The ticket that it is about. Deleting the ticket deletes the email.
    pub ticket_id: Option<&'a TicketId>,
    /// The reply that it contains. Deleting the comment deletes the email.
    pub comment_id: Option<&'a TicketCommentId>,
    /// The recipient's email address.
    pub recipient: &'a str,
    /// The subject.
    pub subject: &'a str,
    /// The plain-text body.
    pub body: &'a str,
    /// The same body as HTML.
    pub html: &'a str,
    /// The `Reply-To` address, if any.
    pub reply_to: Option<&'a str>,
    /// The time at which it was enqueued, and from which it is due.
    pub created_at: Timestamp,
}

/// An email that has been claimed for sending.
#[derive(Clone, PartialEq, Eq)]
pub struct QueuedEmail {
    /// The ID of the email.
    pub id: EmailId,
    /// The organisation whose limit it counts against.
    pub organization_id: OrganizationId,
    /// The reply that it contains.
    pub comment_id: Option<TicketCommentId>,
    /// The recipient's email address.
    pub recipient: String,
    /// The subject.
    pub subject: String,
    /// The plain-text body.
    pub body: String,
    /// The same body as HTML. `None` for emails that were enqueued by an earlier release.
    pub html: Option<String>,
    /// The `Reply-To` address, if any.
    pub reply_to: Option<String>,
    /// The number of attempts, including the current one.
    pub attempts: u32,
}

/// Omits the recipient and the text.
impl std::fmt::Debug for QueuedEmail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueuedEmail").field("id", &self.id).field("attempts", &self.attempts).finish_non_exhaustive()
    }
}

#[derive(sqlx_macros::FromRow)]
struct Row {
    id: String,
    organization_id: String,
    comment_id: Option<String>,
    recipient: String,
    subject: String,
    body: String,
    html: Option<String>,
    reply_to: Option<String>,
    attempts: i64,
}

impl TryFrom<Row> for QueuedEmail {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let attempts = RowRef { table: "emails", id: &row.id }.to_u32("attempts", row.attempts)?;
        Ok(Self {
            attempts,
            id: EmailId::from_store(row.id),
            organization_id: OrganizationId::from_store(row.organization_id),
            comment_id: row.comment_id.map(TicketCommentId::from_store),
            recipient: row.recipient,
            subject: row.subject,
            body: row.body,
            html: row.html,
            reply_to: row.reply_to,
        })
    }
}

/// Enqueues an email.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn enqueue(conn: &mut Conn, email: &NewEmail<'_>) -> Result<()> {
    const SQL: &str = "INSERT INTO emails (id, organization_id, ticket_id, comment_id, recipient, subject, body,
            next_attempt_at, created_at, html, reply_to)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8, $9, $10)";
    on!(conn, c => sqlx::query(SQL)
        .bind(email.id.as_str()).bind(email.organization_id.as_str()).bind(email.ticket_id.map(TicketId::as_str))
        .bind(email.comment_id.map(TicketCommentId::as_str)).bind(email.recipient).bind(email.subject)
        .bind(email.body).bind(email.created_at.0).bind(email.html).bind(email.reply_to).execute(c).await?.rows_affected());
    Ok(())
}

/// Returns the number of queued emails of an organisation.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn count(conn: &mut Conn, organization: &OrganizationId) -> Result<i64> {
    const SQL: &str = "SELECT count(*) FROM emails WHERE organization_id = $1";
    Ok(on!(conn, c => sqlx::query_scalar(SQL).bind(organization.as_str()).fetch_one(c).await?))
}

/// Whether any email is due.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn is_due(conn: &mut Conn, now: Timestamp) -> Result<bool> {
    const SQL: &str = "SELECT next_attempt_at FROM emails WHERE next_attempt_at <= $1 LIMIT 1";
    let due: Option<i64> = on!(conn, c => sqlx::query_scalar(SQL).bind(now.0).fetch_optional(c).await?);
    Ok(due.is_some())
}

/// Claims at most `limit` due emails until `until` and counts an attempt for each. Organisations take turns: the oldest
/// email of each, then the second oldest of each, and so on.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn claim(conn: &mut Conn, now: Timestamp, until: Timestamp, limit: i64) -> Result<Vec<QueuedEmail>> {
    macro_rules! fair {
        () => {
            "SELECT turns.id FROM (SELECT id, next_attempt_at, row_number() OVER (PARTITION BY organization_id
                ORDER BY next_attempt_at, id) AS turn FROM emails WHERE next_attempt_at <= $1) AS turns
             ORDER BY turns.turn, turns.next_attempt_at, turns.id LIMIT $3"
        };
    }
    macro_rules! update {
        ($($ids:tt)*) => {
            concat!(
                "UPDATE emails SET attempts = attempts + 1, next_attempt_at = $2 WHERE id ",
                $($ids)*,
                " RETURNING id, organization_id, comment_id, recipient, subject, body, html, reply_to, attempts"
            )
        };
    }
    const SQLITE: &str = update!(concat!("IN (", fair!(), ")"));
    // The condition is checked again with the row locked: another process may have claimed it in the meantime.
    const POSTGRES: &str = update!(concat!(
        "= ANY (ARRAY(SELECT due.id FROM emails AS due WHERE due.next_attempt_at <= $1 AND due.id = ANY (ARRAY(",
        fair!(),
        ")) FOR UPDATE SKIP LOCKED))"
    ));
    let sql = match conn.dialect() {
        Dialect::Sqlite => SQLITE,
        Dialect::Postgres => POSTGRES,
    };
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(sql).bind(now.0).bind(until.0).bind(limit).fetch_all(c).await?);
    rows.into_iter().map(QueuedEmail::try_from).collect()
}

/// Deletes an email that was sent or abandoned. Returns `false` if another attempt has started since.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn delete(conn: &mut Conn, email: &QueuedEmail) -> Result<bool> {
    const SQL: &str = "DELETE FROM emails WHERE id = $1 AND organization_id = $2 AND attempts = $3";
    Ok(on!(conn, c => sqlx::query(SQL)
        .bind(email.id.as_str()).bind(email.organization_id.as_str()).bind(i64::from(email.attempts))
        .execute(c).await?.rows_affected())
        > 0)
}

/// Sets the time of the next attempt. Returns `false` if another attempt has started since.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn postpone(conn: &mut Conn, email: &QueuedEmail, until: Timestamp) -> Result<bool> {
    const SQL: &str = "UPDATE emails SET next_attempt_at = $4 WHERE id = $1 AND organization_id = $2 AND attempts = $3";
    Ok(on!(conn, c => sqlx::query(SQL)
        .bind(email.id.as_str()).bind(email.organization_id.as_str()).bind(i64::from(email.attempts)).bind(until.0)
        .execute(c).await?.rows_affected())
        > 0)
}
