//! Emails about tickets that wait to be sent: enqueued in the transaction of what they tell about, sent one attempt at a time,
//! and deleted when they are sent.

use waypost_core::Timestamp;
use waypost_core::id::{EmailId, OrganizationId, TicketCommentId, TicketId};

use crate::db::{Conn, Dialect};
use crate::error::{Error, Result};
use crate::on;
use crate::row::Place;

/// An email to be enqueued.
#[derive(Debug, Clone, Copy)]
pub struct NewEmail<'a> {
    /// Its ID.
    pub id: &'a EmailId,
    /// The organisation that it is counted for.
    pub organization_id: &'a OrganizationId,
    /// The only ticket that it is about: it goes with it.
    pub ticket_id: Option<&'a TicketId>,
    /// The answer that it contains: it goes with it.
    pub comment_id: Option<&'a TicketCommentId>,
    /// The address.
    pub recipient: &'a str,
    /// The subject.
    pub subject: &'a str,
    /// The text.
    pub body: &'a str,
    /// When it was enqueued. It is due from then on.
    pub created_at: Timestamp,
}

/// An email whose attempt has begun.
#[derive(Clone, PartialEq, Eq)]
pub struct QueuedEmail {
    /// Its ID.
    pub id: EmailId,
    /// The organisation that it is counted for.
    pub organization_id: OrganizationId,
    /// The answer that it contains.
    pub comment_id: Option<TicketCommentId>,
    /// The address.
    pub recipient: String,
    /// The subject.
    pub subject: String,
    /// The text.
    pub body: String,
    /// The attempts, the present one included.
    pub attempts: u32,
}

/// Shows neither address nor text.
impl std::fmt::Debug for QueuedEmail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueuedEmail").field("id", &self.id).field("attempts", &self.attempts).finish_non_exhaustive()
    }
}

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    organization_id: String,
    comment_id: Option<String>,
    recipient: String,
    subject: String,
    body: String,
    attempts: i64,
}

impl TryFrom<Row> for QueuedEmail {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let attempts = Place { table: "emails", id: &row.id }.count("attempts", row.attempts)?;
        Ok(Self {
            attempts,
            id: EmailId::from_store(row.id),
            organization_id: OrganizationId::from_store(row.organization_id),
            comment_id: row.comment_id.map(TicketCommentId::from_store),
            recipient: row.recipient,
            subject: row.subject,
            body: row.body,
        })
    }
}

/// Enqueues an email.
///
/// # Errors
/// When the database fails.
pub async fn insert(conn: &mut Conn, email: &NewEmail<'_>) -> Result<()> {
    const SQL: &str = "INSERT INTO emails (id, organization_id, ticket_id, comment_id, recipient, subject, body,
            next_attempt_at, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)";
    on!(conn, c => sqlx::query(SQL)
        .bind(email.id.as_str()).bind(email.organization_id.as_str()).bind(email.ticket_id.map(TicketId::as_str))
        .bind(email.comment_id.map(TicketCommentId::as_str)).bind(email.recipient).bind(email.subject)
        .bind(email.body).bind(email.created_at.0).execute(c).await?.rows_affected());
    Ok(())
}

/// Returns the number of emails of an organisation that wait.
///
/// # Errors
/// When the database fails.
pub async fn count(conn: &mut Conn, organization: &OrganizationId) -> Result<i64> {
    const SQL: &str = "SELECT count(*) FROM emails WHERE organization_id = $1";
    Ok(on!(conn, c => sqlx::query_scalar(SQL).bind(organization.as_str()).fetch_one(c).await?))
}

/// Whether an attempt is due.
///
/// # Errors
/// When the database fails.
pub async fn is_due(conn: &mut Conn, now: Timestamp) -> Result<bool> {
    const SQL: &str = "SELECT next_attempt_at FROM emails WHERE next_attempt_at <= $1 LIMIT 1";
    let due: Option<i64> = on!(conn, c => sqlx::query_scalar(SQL).bind(now.0).fetch_optional(c).await?);
    Ok(due.is_some())
}

/// Takes emails that are due, of each organisation the oldest first, then of each the second: nobody else takes them before
/// `until`, and the attempt counts already.
///
/// # Errors
/// When the database fails, or a row cannot be read.
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
                " RETURNING id, organization_id, comment_id, recipient, subject, body, attempts"
            )
        };
    }
    const SQLITE: &str = update!(concat!("IN (", fair!(), ")"));
    // Checked again with the row locked: somebody else may have taken it meanwhile.
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

/// Deletes an email that was sent, or that is given up. Returns `false` if another attempt has begun since.
///
/// # Errors
/// When the database fails.
pub async fn delete(conn: &mut Conn, email: &QueuedEmail) -> Result<bool> {
    const SQL: &str = "DELETE FROM emails WHERE id = $1 AND organization_id = $2 AND attempts = $3";
    Ok(on!(conn, c => sqlx::query(SQL)
        .bind(email.id.as_str()).bind(email.organization_id.as_str()).bind(i64::from(email.attempts))
        .execute(c).await?.rows_affected())
        > 0)
}

/// Sets when the next attempt is due. Returns `false` if another attempt has begun since.
///
/// # Errors
/// When the database fails.
pub async fn postpone(conn: &mut Conn, email: &QueuedEmail, until: Timestamp) -> Result<bool> {
    const SQL: &str = "UPDATE emails SET next_attempt_at = $4 WHERE id = $1 AND organization_id = $2 AND attempts = $3";
    Ok(on!(conn, c => sqlx::query(SQL)
        .bind(email.id.as_str()).bind(email.organization_id.as_str()).bind(i64::from(email.attempts)).bind(until.0)
        .execute(c).await?.rows_affected())
        > 0)
}
