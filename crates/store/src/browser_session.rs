//! Signed-in browsers of end users. The cookie itself is never stored, only its SHA-256.

use waypost_core::Timestamp;
use waypost_core::id::{EndUserId, IdentityId, OrganizationId};

use crate::db::Conn;
use crate::error::Result;
use crate::on;

/// A signed-in browser, with what is known of its end user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrowserSession {
    /// Who is signed in.
    pub end_user_id: EndUserId,
    /// By which identity.
    pub identity_id: IdentityId,
    /// Who says that it is them: the issuer of that identity.
    pub issuer: String,
    /// Their name, when it is known.
    pub name: Option<String>,
    /// Their verified e-mail address, when it is known.
    pub email: Option<String>,
    /// When they signed in.
    pub created_at: Timestamp,
}

#[derive(sqlx::FromRow)]
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
    /// SHA-256 of the cookie's value, hexadecimal.
    pub token_hash: &'a str,
    /// Who signs in.
    pub end_user_id: &'a EndUserId,
    /// By which identity.
    pub identity_id: &'a IdentityId,
    /// When they sign in.
    pub created_at: Timestamp,
    /// When the session ends by itself.
    pub expires_at: Timestamp,
}

/// Inserts a session.
///
/// # Errors
/// When the database fails.
pub async fn insert(conn: &mut Conn, organization: &OrganizationId, session: &NewBrowserSession<'_>) -> Result<()> {
    const SQL: &str = "INSERT INTO browser_sessions (token_hash, organization_id, end_user_id, identity_id, created_at,
            expires_at) VALUES ($1, $2, $3, $4, $5, $6)";
    on!(conn, c => sqlx::query(SQL)
        .bind(session.token_hash).bind(organization.as_str()).bind(session.end_user_id.as_str())
        .bind(session.identity_id.as_str()).bind(session.created_at.0).bind(session.expires_at.0)
        .execute(c).await?.rows_affected());
    Ok(())
}

/// The session of a cookie in an organisation; none when it is unknown there or has ended.
///
/// # Errors
/// When the database fails.
pub async fn find(
    conn: &mut Conn,
    organization: &OrganizationId,
    token_hash: &str,
    now: Timestamp,
) -> Result<Option<BrowserSession>> {
    // Look-ups by key, and no joins: PostgreSQL joins small tables by reading them as a whole.
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

/// Deletes a session; says who was signed in, when there was one.
///
/// # Errors
/// When the database fails.
pub async fn delete(conn: &mut Conn, organization: &OrganizationId, token_hash: &str) -> Result<Option<EndUserId>> {
    const SQL: &str =
        "DELETE FROM browser_sessions WHERE token_hash = $1 AND organization_id = $2 RETURNING end_user_id";
    let end_user: Option<String> = on!(conn, c => sqlx::query_scalar(SQL)
        .bind(token_hash).bind(organization.as_str()).fetch_optional(c).await?);
    Ok(end_user.map(EndUserId::from_store))
}

/// Deletes all sessions of an end user; says how many.
///
/// # Errors
/// When the database fails.
pub async fn delete_of_end_user(conn: &mut Conn, organization: &OrganizationId, end_user: &EndUserId) -> Result<u64> {
    const SQL: &str = "DELETE FROM browser_sessions WHERE end_user_id = $1 AND organization_id = $2";
    Ok(on!(conn, c => sqlx::query(SQL)
        .bind(end_user.as_str()).bind(organization.as_str()).execute(c).await?.rows_affected()))
}
