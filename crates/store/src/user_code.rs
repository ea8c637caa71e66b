//! Hashes of one-time codes and links for console users. A code can only be used in the browser that requested it; a
//! link can be used by anyone who has it.

use waypost_core::Timestamp;
use waypost_core::account::CodePurpose;
use waypost_core::id::{UserCodeId, UserId};

use crate::db::Conn;
use crate::email_code::{CodeCheck, CodeProof, MAX_ATTEMPTS, PendingCode};
use crate::error::Result;
use crate::on;
use crate::row::RowRef;

/// A code to insert.
pub struct NewUserCode<'a> {
    /// The ID of the code.
    pub id: &'a UserCodeId,
    /// The recipient's email address as entered.
    pub email: &'a str,
    /// The key of that email address.
    pub email_key: &'a str,
    /// The purpose of the code.
    pub purpose: CodePurpose,
    /// The hexadecimal SHA-256 of the browser's cookie.
    pub browser_hash: &'a str,
    /// The keyed hash of the code.
    pub code_hash: &'a str,
    /// The hash of the password that is set once the code is verified.
    pub password_hash: Option<&'a str>,
    /// The creation time.
    pub created_at: Timestamp,
    /// The time at which the code expires.
    pub expires_at: Timestamp,
}

/// Identifies a code and the browser that requested it.
#[derive(Debug, Clone, Copy)]
pub struct UserCodeKey<'a> {
    /// The ID of the code.
    pub id: &'a UserCodeId,
    /// The hexadecimal SHA-256 of the browser's cookie.
    pub browser_hash: &'a str,
}

/// Inserts a code.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn insert(conn: &mut Conn, code: &NewUserCode<'_>) -> Result<()> {
    const SQL: &str = "INSERT INTO user_codes (id, email, email_key, purpose, browser_hash, code_hash, password_hash,
            attempts, created_at, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, 0, $8, $9)";
    on!(conn, c => sqlx::query(SQL)
        .bind(code.id.as_str()).bind(code.email).bind(code.email_key).bind(code.purpose.as_str())
        .bind(code.browser_hash).bind(code.code_hash).bind(code.password_hash).bind(code.created_at.0)
        .bind(code.expires_at.0).execute(c).await?.rows_affected());
    Ok(())
}

/// Returns a code that can still be verified. Returns `None` if it has no attempts left, has expired, is consumed, or
/// was requested in another browser.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn find_pending(conn: &mut Conn, key: UserCodeKey<'_>, now: Timestamp) -> Result<Option<PendingCode>> {
    const SQL: &str = "SELECT email, purpose FROM user_codes WHERE id = $1 AND browser_hash = $2 AND purpose <> 'link'
        AND consumed_at IS NULL AND attempts < $3 AND expires_at > $4";
    let row: Option<(String, String)> = on!(conn, c => sqlx::query_as(SQL)
        .bind(key.id.as_str()).bind(key.browser_hash).bind(MAX_ATTEMPTS).bind(now.0).fetch_optional(c).await?);
    let Some((email, purpose)) = row else { return Ok(None) };
    Ok(Some(PendingCode { email, purpose: row_ref(key).parse("purpose", &purpose)? }))
}

/// Whether a code that can still be verified has this hash. Does not count as an attempt.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn is_correct(conn: &mut Conn, key: UserCodeKey<'_>, code_hash: &str, now: Timestamp) -> Result<bool> {
    const SQL: &str = "SELECT id FROM user_codes WHERE id = $1 AND browser_hash = $2 AND purpose <> 'link'
        AND code_hash = $3 AND consumed_at IS NULL AND attempts < $4 AND expires_at > $5";
    let id: Option<String> = on!(conn, c => sqlx::query_scalar(SQL)
        .bind(key.id.as_str()).bind(key.browser_hash).bind(code_hash).bind(MAX_ATTEMPTS).bind(now.0)
        .fetch_optional(c).await?);
    Ok(id.is_some())
}

/// Returns the key of the email address that a code was sent to, regardless of the code's state; `None` if it does not
/// exist.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find_email_key(conn: &mut Conn, id: &UserCodeId) -> Result<Option<String>> {
    const SQL: &str = "SELECT email_key FROM user_codes WHERE id = $1 AND purpose <> 'link'";
    Ok(on!(conn, c => sqlx::query_scalar(SQL).bind(id.as_str()).fetch_optional(c).await?))
}

#[derive(sqlx_macros::FromRow)]
struct Row {
    email: String,
    email_key: String,
    purpose: String,
    password_hash: Option<String>,
    attempts: i64,
    consumed_at: Option<i64>,
}

/// Counts an attempt, and consumes the code if it is correct. This is one statement, so that every attempt counts and a
/// code works only once.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn verify(conn: &mut Conn, key: UserCodeKey<'_>, code_hash: &str, now: Timestamp) -> Result<CodeCheck> {
    const SQL: &str = "UPDATE user_codes SET attempts = attempts + 1,
            consumed_at = CASE WHEN code_hash = $3 THEN CAST($4 AS BIGINT) ELSE consumed_at END
        WHERE id = $1 AND browser_hash = $2 AND purpose <> 'link'
            AND consumed_at IS NULL AND attempts < $5 AND expires_at > $4
        RETURNING email, email_key, purpose, password_hash, attempts, consumed_at";
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(key.id.as_str()).bind(key.browser_hash).bind(code_hash).bind(now.0).bind(MAX_ATTEMPTS)
        .fetch_optional(c).await?);
    let Some(row) = row else { return Ok(CodeCheck::Invalid) };
    if row.consumed_at.is_none() {
        return Ok(CodeCheck::Rejected { attempts_left: MAX_ATTEMPTS - row.attempts });
    }
    let purpose = row_ref(key).parse("purpose", &row.purpose)?;
    let Row { email, email_key, password_hash, .. } = row;
    Ok(CodeCheck::Accepted(CodeProof { email, email_key, purpose, password_hash }))
}

/// A link to insert.
pub struct NewUserLink<'a> {
    /// The ID of the link.
    pub id: &'a UserCodeId,
    /// The user that it is for.
    pub user: &'a UserId,
    /// The user's email address.
    pub email: &'a str,
    /// The key of the email address.
    pub email_key: &'a str,
    /// The hexadecimal SHA-256 of its token.
    pub token_hash: &'a str,
    /// The creation time.
    pub created_at: Timestamp,
    /// The time at which the link expires.
    pub expires_at: Timestamp,
}

/// Inserts a link and invalidates earlier links for the user.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn insert_link(conn: &mut Conn, link: &NewUserLink<'_>) -> Result<()> {
    const REPLACE: &str =
        "UPDATE user_codes SET consumed_at = $2 WHERE user_id = $1 AND purpose = 'link' AND consumed_at IS NULL";
    const SQL: &str = "INSERT INTO user_codes (id, email, email_key, purpose, browser_hash, code_hash, attempts,
            created_at, expires_at, user_id) VALUES ($1, $2, $3, 'link', '', $4, 0, $5, $6, $7)";
    on!(conn, c => sqlx::query(REPLACE).bind(link.user.as_str()).bind(link.created_at.0).execute(c).await?.rows_affected());
    on!(conn, c => sqlx::query(SQL)
        .bind(link.id.as_str()).bind(link.email).bind(link.email_key).bind(link.token_hash)
        .bind(link.created_at.0).bind(link.expires_at.0).bind(link.user.as_str()).execute(c).await?.rows_affected());
    Ok(())
}

/// Returns the user of a link. Returns `None` if it was used, replaced or revoked, has expired, or does not exist.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find_link(conn: &mut Conn, token_hash: &str, now: Timestamp) -> Result<Option<UserId>> {
    const SQL: &str = "SELECT user_id FROM user_codes
        WHERE code_hash = $1 AND purpose = 'link' AND user_id IS NOT NULL AND consumed_at IS NULL AND expires_at > $2";
    let id: Option<String> =
        on!(conn, c => sqlx::query_scalar(SQL).bind(token_hash).bind(now.0).fetch_optional(c).await?);
    Ok(id.map(UserId::from_store))
}

/// Consumes a link. Returns the same as [`find_link`], but only once.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn consume_link(conn: &mut Conn, token_hash: &str, now: Timestamp) -> Result<Option<UserId>> {
    const SQL: &str = "UPDATE user_codes SET consumed_at = $2
        WHERE code_hash = $1 AND purpose = 'link' AND user_id IS NOT NULL AND consumed_at IS NULL AND expires_at > $2
        RETURNING user_id";
    let id: Option<String> =
        on!(conn, c => sqlx::query_scalar(SQL).bind(token_hash).bind(now.0).fetch_optional(c).await?);
    Ok(id.map(UserId::from_store))
}

fn row_ref(key: UserCodeKey<'_>) -> RowRef<'_> {
    RowRef { table: "user_codes", id: key.id.as_str() }
}
