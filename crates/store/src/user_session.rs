//! Browser sessions of console users. Only the SHA-256 of the cookie is stored.

use waypost_core::Timestamp;
use waypost_core::id::{OrganizationId, UserId, UserSessionId};
use waypost_core::organization::{Membership, Organization};

use crate::db::Conn;
use crate::error::{Error, Result};
use crate::on;

/// A browser session of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserSession {
    /// The ID.
    pub id: UserSessionId,
    /// The signed-in user.
    pub user_id: UserId,
    /// The organisation that was used last.
    pub organization_id: Option<OrganizationId>,
    /// The browser's user agent.
    pub user_agent: String,
    /// The IP address of the last use.
    pub address: String,
    /// The time of the sign-in.
    pub created_at: Timestamp,
    /// The time of the last use, to the minute.
    pub last_used_at: Timestamp,
    /// The time at which it expires.
    pub expires_at: Timestamp,
}

#[derive(sqlx_macros::FromRow)]
struct Row {
    id: String,
    user_id: String,
    organization_id: Option<String>,
    user_agent: String,
    address: String,
    created_at: i64,
    last_used_at: i64,
    expires_at: i64,
}

impl From<Row> for UserSession {
    fn from(row: Row) -> Self {
        Self {
            id: UserSessionId::from_store(row.id),
            user_id: UserId::from_store(row.user_id),
            organization_id: row.organization_id.map(OrganizationId::from_store),
            user_agent: row.user_agent,
            address: row.address,
            created_at: Timestamp(row.created_at),
            last_used_at: Timestamp(row.last_used_at),
            expires_at: Timestamp(row.expires_at),
        }
    }
}

/// Inserts a session. `token_hash` is the hexadecimal SHA-256 of the cookie's value.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn insert(conn: &mut Conn, session: &UserSession, token_hash: &str) -> Result<()> {
    const SQL: &str = "INSERT INTO user_sessions (id, token_hash, user_id, organization_id, user_agent, address,
            created_at, last_used_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    on!(conn, c => sqlx::query(SQL)
        .bind(session.id.as_str()).bind(token_hash).bind(session.user_id.as_str())
        .bind(session.organization_id.as_ref().map(OrganizationId::as_str)).bind(&session.user_agent)
        .bind(&session.address).bind(session.created_at.0).bind(session.last_used_at.0).bind(session.expires_at.0)
        .execute(c).await?.rows_affected());
    Ok(())
}

/// Returns the session of a cookie. Returns `None` if it does not exist or has expired.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find(conn: &mut Conn, token_hash: &str, now: Timestamp) -> Result<Option<UserSession>> {
    const SQL: &str = "SELECT id, user_id, organization_id, user_agent, address, created_at, last_used_at, expires_at
        FROM user_sessions WHERE token_hash = $1 AND expires_at > $2";
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL).bind(token_hash).bind(now.0).fetch_optional(c).await?);
    Ok(row.map(UserSession::from))
}

/// Returns the active sessions of a user, most recently used first.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list(conn: &mut Conn, user: &UserId, now: Timestamp) -> Result<Vec<UserSession>> {
    const SQL: &str = "SELECT id, user_id, organization_id, user_agent, address, created_at, last_used_at, expires_at
        FROM user_sessions WHERE user_id = $1 AND expires_at > $2 ORDER BY last_used_at DESC, id DESC";
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(SQL).bind(user.as_str()).bind(now.0).fetch_all(c).await?);
    Ok(rows.into_iter().map(UserSession::from).collect())
}

/// Records a use: organisation, IP address and time.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn record_use(conn: &mut Conn, session: &UserSession) -> Result<()> {
    const SQL: &str = "UPDATE user_sessions SET organization_id = $2, address = $3, last_used_at = $4 WHERE id = $1";
    on!(conn, c => sqlx::query(SQL)
        .bind(session.id.as_str()).bind(session.organization_id.as_ref().map(OrganizationId::as_str))
        .bind(&session.address).bind(session.last_used_at.0).execute(c).await?.rows_affected());
    Ok(())
}

/// Deletes a session of a user. Returns `false` if it does not exist.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn delete(conn: &mut Conn, user: &UserId, id: &UserSessionId) -> Result<bool> {
    const SQL: &str = "DELETE FROM user_sessions WHERE id = $1 AND user_id = $2";
    Ok(on!(conn, c => sqlx::query(SQL).bind(id.as_str()).bind(user.as_str()).execute(c).await?.rows_affected()) > 0)
}

/// Deletes the session of a cookie. Returns its user, or `None` if it does not exist.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn delete_by_token(conn: &mut Conn, token_hash: &str) -> Result<Option<UserId>> {
    const SQL: &str = "DELETE FROM user_sessions WHERE token_hash = $1 RETURNING user_id";
    let user: Option<String> = on!(conn, c => sqlx::query_scalar(SQL).bind(token_hash).fetch_optional(c).await?);
    Ok(user.map(UserId::from_store))
}

/// Deletes all sessions of a user except `except`. Returns the number of deleted sessions.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn delete_others(conn: &mut Conn, user: &UserId, except: Option<&UserSessionId>) -> Result<u64> {
    const SQL: &str = "DELETE FROM user_sessions WHERE user_id = $1 AND id <> $2";
    let except = except.map_or("", UserSessionId::as_str);
    Ok(on!(conn, c => sqlx::query(SQL).bind(user.as_str()).bind(except).execute(c).await?.rows_affected()))
}

#[derive(sqlx_macros::FromRow)]
struct MembershipRow {
    #[sqlx(flatten)]
    organization: crate::organization::Row,
    role: String,
}

/// Returns the memberships of a user, ordered by the organisations' slugs.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list_memberships(conn: &mut Conn, user: &UserId) -> Result<Vec<Membership>> {
    const SQL: &str = "SELECT organizations.id, organizations.slug, organizations.name,
            organizations.toolboxes_enabled, organizations.gateway_enabled, organizations.created_at, memberships.role
        FROM memberships JOIN organizations ON organizations.id = memberships.organization_id
        WHERE memberships.user_id = $1 ORDER BY organizations.slug";
    let rows: Vec<MembershipRow> = on!(conn, c => sqlx::query_as(SQL).bind(user.as_str()).fetch_all(c).await?);
    let membership = |row: MembershipRow| {
        let organization = Organization::from(row.organization);
        let id = || organization.id.as_str().to_owned();
        let role = row.role.parse().map_err(|reason| Error::Corrupt { table: "memberships", id: id(), reason })?;
        Ok(Membership { organization, role })
    };
    rows.into_iter().map(membership).collect()
}
