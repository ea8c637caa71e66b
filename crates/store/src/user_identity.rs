//! Identities of console users at the installation's identity providers.

use waypost_core::Timestamp;
use waypost_core::id::UserId;

use crate::db::Conn;
use crate::error::Result;
use crate::on;

/// Returns the user with this issuer and subject.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find(conn: &mut Conn, issuer: &str, subject: &str) -> Result<Option<UserId>> {
    const SQL: &str = "SELECT user_id FROM user_identities WHERE issuer = $1 AND subject = $2";
    let id: Option<String> =
        on!(conn, c => sqlx::query_scalar(SQL).bind(issuer).bind(subject).fetch_optional(c).await?);
    Ok(id.map(UserId::from_store))
}

/// Inserts an identity of a user. Returns `false` if it already exists.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn insert(conn: &mut Conn, issuer: &str, subject: &str, user: &UserId, now: Timestamp) -> Result<bool> {
    const SQL: &str = "INSERT INTO user_identities (issuer, subject, user_id, created_at) VALUES ($1, $2, $3, $4)
        ON CONFLICT (issuer, subject) DO NOTHING";
    let inserted = on!(conn, c => sqlx::query(SQL)
        .bind(issuer).bind(subject).bind(user.as_str()).bind(now.0).execute(c).await?.rows_affected());
    Ok(inserted > 0)
}
