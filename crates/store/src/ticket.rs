//! Support tickets.

use waypost_core::Timestamp;
use waypost_core::id::{EndUserId, OrganizationId, ServerId, TicketId, UserId, WalkthroughId};
use waypost_core::ticket::{Priority, Ticket, TicketOrigin, TicketStatus, TicketStep};

use crate::db::{Conn, Dialect};
use crate::error::{Error, Result};
use crate::on;
use crate::row::{RowRef, like_pattern};

/// A ticket with the names of the objects that it references.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TicketDetails {
    /// The ticket.
    pub ticket: Ticket,
    /// The server's name; `None` if the server was deleted.
    pub server: Option<String>,
    /// The end user's display name: the first known of name, verified email address, tracking ID, claimed email address
    /// and ID.
    pub end_user: Option<String>,
    /// The assignee's name, or the email address if there is no name.
    pub assignee: Option<String>,
    /// The assignee's email address.
    pub assignee_email: Option<String>,
    /// Whether the walkthrough is in the trash.
    pub is_walkthrough_deleted: bool,
}

/// A filter for tickets. Absent fields match any value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TicketFilter {
    /// The status.
    pub status: Option<TicketStatus>,
    /// The priority.
    pub priority: Option<Priority>,
    /// The assignee; `Some(None)` matches unassigned tickets.
    pub assignee: Option<Option<UserId>>,
    /// The server.
    pub server: Option<ServerId>,
    /// The walkthrough.
    pub walkthrough: Option<WalkthroughId>,
    /// A lowercase text that the number (such as `#12`), title, problem or email address must contain.
    pub text: Option<String>,
}

/// The opener of tickets, for limits.
#[derive(Debug, Clone, Copy)]
pub enum Opener<'a> {
    /// An end user.
    EndUser(&'a EndUserId),
    /// Unidentified callers of a server.
    Unidentified(&'a ServerId),
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT t.id, t.organization_id, t.number, t.server_id, t.end_user_id, t.walkthrough_id,
                t.walkthrough_title, t.version, t.step_id, t.step_title, t.step_position, t.title, t.problem, t.context,
                t.email, t.email_verified, t.status, t.priority, t.assignee_id, t.revision, t.created_at, t.updated_at,
                t.resolved_at,
                (SELECT servers.name FROM servers WHERE servers.id = t.server_id) AS server_name,
                (SELECT COALESCE(users.name, users.email) FROM users WHERE users.id = t.assignee_id) AS assignee_name,
                (SELECT users.email FROM users WHERE users.id = t.assignee_id) AS assignee_email,
                (SELECT COALESCE(u.name, u.email, u.tracking_id, u.claimed_email, u.id) FROM end_users AS u
                    WHERE u.id = t.end_user_id) AS end_user_name,
                (SELECT w.deleted_at FROM walkthroughs AS w WHERE w.id = t.walkthrough_id) AS walkthrough_deleted_at
             FROM tickets AS t
             WHERE t.organization_id = $1 ",
            $rest
        )
    };
}

/// The conditions of a [`TicketFilter`], from `$2` on, except the status.
macro_rules! filter {
    () => {
        "(CAST($2 AS TEXT) IS NULL OR t.priority = $2)
         AND (CAST($3 AS TEXT) IS NULL OR COALESCE(t.assignee_id, '') = $3)
         AND (CAST($4 AS TEXT) IS NULL OR t.server_id = $4)
         AND (CAST($5 AS TEXT) IS NULL OR t.walkthrough_id = $5)
         AND (CAST($6 AS TEXT) IS NULL OR t.search LIKE $6 ESCAPE '!')"
    };
}

#[derive(sqlx_macros::FromRow)]
struct Row {
    id: String,
    organization_id: String,
    number: i64,
    server_id: Option<String>,
    end_user_id: Option<String>,
    walkthrough_id: Option<String>,
    walkthrough_title: Option<String>,
    version: Option<i64>,
    step_id: Option<String>,
    step_title: Option<String>,
    step_position: Option<i64>,
    title: String,
    problem: String,
    context: Option<String>,
    email: Option<String>,
    email_verified: bool,
    status: String,
    priority: String,
    assignee_id: Option<String>,
    revision: i64,
    created_at: i64,
    updated_at: i64,
    resolved_at: Option<i64>,
    server_name: Option<String>,
    assignee_name: Option<String>,
    assignee_email: Option<String>,
    end_user_name: Option<String>,
    walkthrough_deleted_at: Option<i64>,
}

impl TryFrom<Row> for TicketDetails {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let row_ref = RowRef { table: "tickets", id: &row.id };
        let step = match (row.step_id, row.step_title, row.step_position) {
            (Some(id), Some(title), Some(position)) => {
                Some(TicketStep { id, title, position: row_ref.to_u32("step_position", position)? })
            }
            _ => None,
        };
        let origin = match (row.walkthrough_title, row.version) {
            (Some(title), Some(version)) => Some(TicketOrigin {
                walkthrough_id: row.walkthrough_id.map(WalkthroughId::from_store),
                title,
                version: row_ref.to_u32("version", version)?,
                step,
            }),
            _ => None,
        };
        let ticket = Ticket {
            number: row_ref.to_u32("number", row.number)?,
            status: row_ref.parse("status", &row.status)?,
            priority: row_ref.parse("priority", &row.priority)?,
            revision: row_ref.to_u32("revision", row.revision)?,
            id: TicketId::from_store(row.id),
            organization_id: OrganizationId::from_store(row.organization_id),
            server_id: row.server_id.map(ServerId::from_store),
            end_user_id: row.end_user_id.map(EndUserId::from_store),
            origin,
            title: row.title,
            problem: row.problem,
            context: row.context,
            email: row.email,
            email_verified: row.email_verified,
            assignee_id: row.assignee_id.map(UserId::from_store),
            created_at: Timestamp(row.created_at),
            updated_at: Timestamp(row.updated_at),
            resolved_at: row.resolved_at.map(Timestamp),
        };
        Ok(Self {
            ticket,
            server: row.server_name,
            end_user: row.end_user_name,
            assignee: row.assignee_name,
            assignee_email: row.assignee_email,
            is_walkthrough_deleted: row.walkthrough_deleted_at.is_some(),
        })
    }
}

fn tickets(rows: Vec<Row>) -> Result<Vec<TicketDetails>> {
    rows.into_iter().map(TicketDetails::try_from).collect()
}

/// Returns the next ticket number of an organisation. Concurrent calls for the same organisation wait until the end of
/// the transaction.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn next_number(conn: &mut Conn, organization: &OrganizationId) -> Result<u32> {
    const SQL: &str = "INSERT INTO ticket_numbers (organization_id, last) VALUES ($1, 1)
        ON CONFLICT (organization_id) DO UPDATE SET last = ticket_numbers.last + 1 RETURNING last";
    let last: i64 = on!(conn, c => sqlx::query_scalar(SQL).bind(organization.as_str()).fetch_one(c).await?);
    RowRef { table: "ticket_numbers", id: organization.as_str() }.to_u32("last", last)
}

/// Inserts a ticket.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn insert(conn: &mut Conn, ticket: &Ticket) -> Result<()> {
    const SQL: &str = "INSERT INTO tickets (id, organization_id, number, server_id, end_user_id, walkthrough_id,
            walkthrough_title, version, step_id, step_title, step_position, title, problem, context, email,
            email_verified, status, priority, assignee_id, search, revision, created_at, updated_at, resolved_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22,
            $23, $24)";
    let origin = ticket.origin.as_ref();
    let step = origin.and_then(|origin| origin.step.as_ref());
    on!(conn, c => sqlx::query(SQL)
        .bind(ticket.id.as_str()).bind(ticket.organization_id.as_str()).bind(i64::from(ticket.number))
        .bind(ticket.server_id.as_ref().map(ServerId::as_str))
        .bind(ticket.end_user_id.as_ref().map(EndUserId::as_str))
        .bind(origin.and_then(|origin| origin.walkthrough_id.as_ref()).map(WalkthroughId::as_str))
        .bind(origin.map(|origin| origin.title.as_str())).bind(origin.map(|origin| i64::from(origin.version)))
        .bind(step.map(|step| step.id.as_str())).bind(step.map(|step| step.title.as_str()))
        .bind(step.map(|step| i64::from(step.position)))
        .bind(&ticket.title).bind(&ticket.problem).bind(ticket.context.as_deref()).bind(ticket.email.as_deref())
        .bind(ticket.email_verified).bind(ticket.status.as_str()).bind(ticket.priority.as_str())
        .bind(ticket.assignee_id.as_ref().map(UserId::as_str)).bind(ticket.search_text())
        .bind(i64::from(ticket.revision)).bind(ticket.created_at.0).bind(ticket.updated_at.0)
        .bind(ticket.resolved_at.map(|at| at.0)).execute(c).await?.rows_affected());
    Ok(())
}

/// Records the network from which a ticket was opened, as a keyed hash.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn set_client_network(
    conn: &mut Conn,
    organization: &OrganizationId,
    id: &TicketId,
    client: &str,
) -> Result<()> {
    const SQL: &str = "UPDATE tickets SET client = $3 WHERE id = $1 AND organization_id = $2";
    on!(conn, c => sqlx::query(SQL)
        .bind(id.as_str()).bind(organization.as_str()).bind(client).execute(c).await?.rows_affected());
    Ok(())
}

/// Updates a ticket: email address, status, priority, assignee, revision and times. The caller must have read it with
/// [`find_for_update`] in the same transaction.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn update(conn: &mut Conn, ticket: &Ticket) -> Result<()> {
    const SQL: &str =
        "UPDATE tickets SET email = $3, email_verified = $4, status = $5, priority = $6, assignee_id = $7,
            search = $8, revision = $9, updated_at = $10, resolved_at = $11
        WHERE id = $1 AND organization_id = $2";
    on!(conn, c => sqlx::query(SQL)
        .bind(ticket.id.as_str()).bind(ticket.organization_id.as_str()).bind(ticket.email.as_deref())
        .bind(ticket.email_verified).bind(ticket.status.as_str()).bind(ticket.priority.as_str())
        .bind(ticket.assignee_id.as_ref().map(UserId::as_str)).bind(ticket.search_text())
        .bind(i64::from(ticket.revision)).bind(ticket.updated_at.0).bind(ticket.resolved_at.map(|at| at.0))
        .execute(c).await?.rows_affected());
    Ok(())
}

/// Returns the ticket with this ID.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn find(conn: &mut Conn, organization: &OrganizationId, id: &TicketId) -> Result<Option<TicketDetails>> {
    const SQL: &str = select!("AND t.id = $2");
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(id.as_str()).fetch_optional(c).await?);
    row.map(TicketDetails::try_from).transpose()
}

/// Returns the ticket with this ID, locked until the end of the transaction.
///
/// # Errors
/// The same as for [`find`].
pub async fn find_for_update(
    conn: &mut Conn,
    organization: &OrganizationId,
    id: &TicketId,
) -> Result<Option<TicketDetails>> {
    let sql = match conn.dialect() {
        // The transaction already holds the file's write lock.
        Dialect::Sqlite => select!("AND t.id = $2"),
        Dialect::Postgres => select!("AND t.id = $2 FOR NO KEY UPDATE OF t"),
    };
    let row: Option<Row> = on!(conn, c => sqlx::query_as(sql)
        .bind(organization.as_str()).bind(id.as_str()).fetch_optional(c).await?);
    row.map(TicketDetails::try_from).transpose()
}

/// The bound values of a filter, from `$2` on.
struct FilterValues<'a> {
    priority: Option<&'static str>,
    assignee: Option<&'a str>,
    server: Option<&'a str>,
    walkthrough: Option<&'a str>,
    pattern: Option<String>,
}

impl TicketFilter {
    fn values(&self) -> FilterValues<'_> {
        FilterValues {
            priority: self.priority.map(Priority::as_str),
            assignee: self.assignee.as_ref().map(|id| id.as_ref().map_or("", UserId::as_str)),
            server: self.server.as_ref().map(ServerId::as_str),
            walkthrough: self.walkthrough.as_ref().map(WalkthroughId::as_str),
            pattern: self.text.as_deref().map(like_pattern),
        }
    }
}

/// Returns tickets of an organisation, newest first. With `before`, returns only older ones.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list(
    conn: &mut Conn,
    organization: &OrganizationId,
    filter: &TicketFilter,
    before: Option<&TicketId>,
    limit: i64,
) -> Result<Vec<TicketDetails>> {
    const ALL: &str =
        concat!(select!("AND (CAST($7 AS TEXT) IS NULL OR t.id < $7) AND "), filter!(), " ORDER BY t.id DESC LIMIT $8");
    const OF_STATUS: &str = concat!(
        select!("AND t.status = $9 AND (CAST($7 AS TEXT) IS NULL OR t.id < $7) AND "),
        filter!(),
        " ORDER BY t.id DESC LIMIT $8"
    );
    let (values, before) = (filter.values(), before.map(TicketId::as_str));
    let rows: Vec<Row> = match filter.status {
        None => on!(conn, c => sqlx::query_as(ALL)
            .bind(organization.as_str()).bind(values.priority).bind(values.assignee).bind(values.server)
            .bind(values.walkthrough).bind(values.pattern).bind(before).bind(limit).fetch_all(c).await?),
        Some(status) => on!(conn, c => sqlx::query_as(OF_STATUS)
            .bind(organization.as_str()).bind(values.priority).bind(values.assignee).bind(values.server)
            .bind(values.walkthrough).bind(values.pattern).bind(before).bind(limit).bind(status.as_str())
            .fetch_all(c).await?),
    };
    tickets(rows)
}

/// Returns the number of tickets per status, ignoring the filter's status. Statuses without tickets are omitted.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn count_by_status(
    conn: &mut Conn,
    organization: &OrganizationId,
    filter: &TicketFilter,
) -> Result<Vec<(TicketStatus, u64)>> {
    const SQL: &str = concat!(
        "SELECT t.status, count(*) FROM tickets AS t WHERE t.organization_id = $1 AND ",
        filter!(),
        " GROUP BY t.status"
    );
    let values = filter.values();
    let rows: Vec<(String, i64)> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(values.priority).bind(values.assignee).bind(values.server)
        .bind(values.walkthrough).bind(values.pattern).fetch_all(c).await?);
    let row_ref = RowRef { table: "tickets", id: organization.as_str() };
    let count = |(status, count): (String, i64)| Ok((row_ref.parse("status", &status)?, count.unsigned_abs()));
    rows.into_iter().map(count).collect()
}

/// Returns the newest tickets of an end user, newest first.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list_for_end_user(
    conn: &mut Conn,
    organization: &OrganizationId,
    end_user: &EndUserId,
    limit: i64,
) -> Result<Vec<TicketDetails>> {
    const SQL: &str = select!("AND t.end_user_id = $2 ORDER BY t.created_at DESC, t.id DESC LIMIT $3");
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(end_user.as_str()).bind(limit).fetch_all(c).await?);
    tickets(rows)
}

/// Returns at most 100 tickets of an opener that need an email address and were opened at or after `since`, oldest
/// first.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list_without_email(
    conn: &mut Conn,
    organization: &OrganizationId,
    opener: Opener<'_>,
    since: Timestamp,
) -> Result<Vec<TicketDetails>> {
    const OF_END_USER: &str =
        select!("AND t.end_user_id = $2 AND t.created_at >= $3 AND t.status = 'needs_email' ORDER BY t.id LIMIT 100");
    const UNIDENTIFIED: &str = select!(
        "AND t.server_id = $2 AND t.end_user_id IS NULL AND t.created_at >= $3 AND t.status = 'needs_email'
         ORDER BY t.id LIMIT 100"
    );
    let (sql, id) = match opener {
        Opener::EndUser(id) => (OF_END_USER, id.as_str()),
        Opener::Unidentified(id) => (UNIDENTIFIED, id.as_str()),
    };
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(sql)
        .bind(organization.as_str()).bind(id).bind(since.0).fetch_all(c).await?);
    tickets(rows)
}

/// Whether a server has a ticket that needs an email address, with this title and problem, opened at or after `since`.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn is_duplicate(
    conn: &mut Conn,
    organization: &OrganizationId,
    server: &ServerId,
    title: &str,
    problem: &str,
    since: Timestamp,
) -> Result<bool> {
    const SQL: &str = "SELECT id FROM tickets WHERE server_id = $1 AND created_at >= $2 AND organization_id = $3
        AND status = 'needs_email' AND title = $4 AND problem = $5 LIMIT 1";
    let found: Option<String> = on!(conn, c => sqlx::query_scalar(SQL)
        .bind(server.as_str()).bind(since.0).bind(organization.as_str()).bind(title).bind(problem)
        .fetch_optional(c).await?);
    Ok(found.is_some())
}

/// Returns the number of tickets that were opened on a server after `since`.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn count_for_server(
    conn: &mut Conn,
    organization: &OrganizationId,
    server: &ServerId,
    since: Timestamp,
) -> Result<i64> {
    const SQL: &str = "SELECT count(*) FROM tickets WHERE server_id = $1 AND created_at > $2 AND organization_id = $3";
    Ok(on!(conn, c => sqlx::query_scalar(SQL)
        .bind(server.as_str()).bind(since.0).bind(organization.as_str()).fetch_one(c).await?))
}

/// Returns the number of tickets of an opener that were opened after `since`.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn count_for_opener(
    conn: &mut Conn,
    organization: &OrganizationId,
    opener: Opener<'_>,
    since: Timestamp,
) -> Result<i64> {
    const OF_END_USER: &str =
        "SELECT count(*) FROM tickets WHERE end_user_id = $1 AND created_at > $2 AND organization_id = $3";
    const UNIDENTIFIED: &str = "SELECT count(*) FROM tickets
        WHERE server_id = $1 AND created_at > $2 AND organization_id = $3 AND end_user_id IS NULL";
    let (sql, id) = match opener {
        Opener::EndUser(id) => (OF_END_USER, id.as_str()),
        Opener::Unidentified(id) => (UNIDENTIFIED, id.as_str()),
    };
    Ok(on!(conn, c => sqlx::query_scalar(sql)
        .bind(id).bind(since.0).bind(organization.as_str()).fetch_one(c).await?))
}
