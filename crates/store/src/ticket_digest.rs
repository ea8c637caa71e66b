//! Digests of new tickets for teams: the tickets that are not yet reported, and when the next digest of each server is
//! due.

use waypost_core::Timestamp;
use waypost_core::id::{OrganizationId, ServerId, TicketId};

use crate::db::{Conn, Dialect};
use crate::error::Result;
use crate::on;

/// A server for which a digest is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueDigest {
    /// The organisation.
    pub organization_id: OrganizationId,
    /// The server.
    pub server_id: ServerId,
}

/// Schedules a digest about a new ticket: now, or `pause` milliseconds after the last digest. Must be called in the
/// transaction that inserts the ticket. Other new tickets of the server wait until the end of that transaction.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn schedule(
    conn: &mut Conn,
    organization: &OrganizationId,
    server: &ServerId,
    ticket: &TicketId,
    now: Timestamp,
    pause: i64,
) -> Result<()> {
    const TICKET: &str = "INSERT INTO ticket_notices (ticket_id, organization_id, server_id) VALUES ($1, $2, $3)";
    const DIGEST: &str =
        "INSERT INTO ticket_digests (server_id, organization_id, last_at, due_at) VALUES ($1, $2, 0, $3)
        ON CONFLICT (server_id) DO UPDATE SET due_at = COALESCE(ticket_digests.due_at,
            CASE WHEN ticket_digests.last_at > $3 - $4 THEN ticket_digests.last_at + $4 ELSE $3 END)";
    on!(conn, c => {
        sqlx::query(TICKET).bind(ticket.as_str()).bind(organization.as_str()).bind(server.as_str())
            .execute(&mut *c).await?;
        sqlx::query(DIGEST).bind(server.as_str()).bind(organization.as_str()).bind(now.0).bind(pause)
            .execute(c).await?.rows_affected()
    });
    Ok(())
}

/// Whether a digest is due.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn is_due(conn: &mut Conn, now: Timestamp) -> Result<bool> {
    const SQL: &str = "SELECT due_at FROM ticket_digests WHERE due_at <= $1 LIMIT 1";
    let due: Option<i64> = on!(conn, c => sqlx::query_scalar(SQL).bind(now.0).fetch_optional(c).await?);
    Ok(due.is_some())
}

/// Claims the digest that is due first, if any, and records that it is sent at `now`. Its row stays locked until the
/// end of the transaction, and other processes skip it, so that only one process creates the digest.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn claim(conn: &mut Conn, now: Timestamp) -> Result<Option<DueDigest>> {
    const SQLITE: &str = "UPDATE ticket_digests SET last_at = $1, due_at = NULL WHERE server_id =
            (SELECT server_id FROM ticket_digests WHERE due_at <= $1 ORDER BY due_at LIMIT 1)
        RETURNING organization_id, server_id";
    const POSTGRES: &str = "UPDATE ticket_digests SET last_at = $1, due_at = NULL WHERE server_id = ANY (ARRAY(
            SELECT due.server_id FROM ticket_digests AS due WHERE due.due_at <= $1
            ORDER BY due.due_at LIMIT 1 FOR UPDATE SKIP LOCKED))
        RETURNING organization_id, server_id";
    let sql = match conn.dialect() {
        Dialect::Sqlite => SQLITE,
        Dialect::Postgres => POSTGRES,
    };
    let row: Option<(String, String)> = on!(conn, c => sqlx::query_as(sql).bind(now.0).fetch_optional(c).await?);
    Ok(row.map(|(organization, server)| DueDigest {
        organization_id: OrganizationId::from_store(organization),
        server_id: ServerId::from_store(server),
    }))
}

/// Sets the time of the next digest. The row must be locked by [`claim`].
///
/// # Errors
/// Returns an error if the database fails.
pub async fn postpone(conn: &mut Conn, digest: &DueDigest, until: Timestamp) -> Result<()> {
    const SQL: &str = "UPDATE ticket_digests SET due_at = $3 WHERE server_id = $1 AND organization_id = $2";
    on!(conn, c => sqlx::query(SQL)
        .bind(digest.server_id.as_str()).bind(digest.organization_id.as_str()).bind(until.0)
        .execute(c).await?.rows_affected());
    Ok(())
}

/// Removes the tickets of a digest. Returns their IDs, oldest first.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn consume_tickets(conn: &mut Conn, digest: &DueDigest) -> Result<Vec<TicketId>> {
    const SQL: &str = "DELETE FROM ticket_notices WHERE server_id = $1 AND organization_id = $2 RETURNING ticket_id";
    let mut ids: Vec<String> = on!(conn, c => sqlx::query_scalar(SQL)
        .bind(digest.server_id.as_str()).bind(digest.organization_id.as_str()).fetch_all(c).await?);
    ids.sort();
    Ok(ids.into_iter().map(TicketId::from_store).collect())
}
