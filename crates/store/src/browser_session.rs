//! Browser sessions of signed-in end users. Only the SHA-256 of the cookie is stored.

use waypost_core::Timestamp;
use waypost_core::id::{EndUserId, IdentityId, OrganizationId};

use crate::db::Conn;
use crate::error::Result;
use crate::on;

/// A browser session with the profile of its end user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrowserSession {
    /// The signed-in end user.
    pub end_user_id: EndUserId,
    /// The identity used to sign in.
    pub identity_id: IdentityId,
    /// The issuer of that identity.
    pub issuer: String,
    /// The end user's name, if known.
    pub name: Option<String>,
    /// The end user's verified email address, if known.
    pub email: Option<String>,
    /// The time of the sign-in.
    pub created_at: Timestamp,
}

#[derive(sqlx_macros::FromRow)]
struct Row {
    end_user_id: String,
    identity_id: String,
    issuer: String,
    name: Option<String>,
    email: Option<String>,
    created_at: i64,
}

/// A session to insert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBrowserSession<'a> {
    /// The hexadecimal SHA-256 of the cookie's value.
    pub token_hash: &'a str,
    /// The end user who signs in.
    pub end_user_id: &'a EndUserId,
    /// The identity used to sign in.
    pub identity_id: &'a IdentityId,
    /// The time of the sign-in.
    pub created_at: Timestamp,
    /// The time at which the session expires.
    pub expires_at: Timestamp,
}

/// Inserts a session.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn insert(conn: &mut Conn, organization: &OrganizationId, session: &NewBrowserSession<'_>) -> Result<()> {
    const SQL: &str = "INSERT INTO browser_sessions (token_hash, organization_id, end_user_id, identity_id, created_at,
            expires_at) VALUES ($1, $2, $3, $4, $5, $6)";
    on!(conn, c => sqlx::query(SQL)
        .bind(session.token_hash).bind(organization.as_str()).bind(session.end_user_id.as_str())
        .bind(session.identity_id.as_str()).bind(session.created_at.0).bind(session.expires_at.0)
        .execute(c).await?.rows_affected());
    Ok(())
}

/// Returns the session of a cookie in an organisation. Returns `None` if it does not exist or has expired.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find(
    conn: &mut Conn,
    organization: &OrganizationId,
    token_hash: &str,
    now: Timestamp,
) -> Result<Option<BrowserSession>> {
    // Subqueries by key instead of joins: PostgreSQL joins small tables by reading them completely.
    const SQL: &str =
        "SELECT end_user_id, identity_id, (SELECT issuer FROM identities WHERE id = s.identity_id) AS issuer,
            (SELECT name FROM end_users WHERE id = s.end_user_id) AS name,
            (SELECT email FROM end_users WHERE id = s.end_user_id) AS email, created_at
        FROM browser_sessions s WHERE token_hash = $1 AND organization_id = $2 AND expires_at > $3";
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(token_hash).bind(organization.as_str()).bind(now.0).fetch_optional(c).await?);
    Ok(row.map(|row| BrowserSession {
        end_user_id: EndUserId::from_store(row.end_user_id),
        identity_id: IdentityId::from_store(row.identity_id),
        issuer: row.issuer,
        name: row.name,
        email: row.email,
        created_at: Timestamp(row.created_at),
    }))
}

/// Deletes a session. Returns its end user, or `None` if the session does not exist.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn delete(conn: &mut Conn, organization: &OrganizationId, token_hash: &str) -> Result<Option<EndUserId>> {
    const SQL: &str =
        "DELETE FROM browser_sessions WHERE token_hash = $1 AND organization_id = $2 RETURNING end_user_id";
    let end_user: Option<String> = on!(conn, c => sqlx::query_scalar(SQL)
        .bind(token_hash).bind(organization.as_str()).fetch_optional(c).await?);
    Ok(end_user.map(EndUserId::from_store))
}

/// Deletes all sessions of an end user. Returns the number of deleted sessions.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn delete_for_end_user(conn: &mut Conn, organization: &OrganizationId, end_user: &EndUserId) -> Result<u64> {
    const SQL: &str = "DELETE FROM browser_sessions WHERE end_user_id = $1 AND organization_id = $2";
    Ok(on!(conn, c => sqlx::query(SQL)
        .bind(end_user.as_str()).bind(organization.as_str()).execute(c).await?.rows_affected()))
}
