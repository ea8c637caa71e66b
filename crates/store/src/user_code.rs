//! One-time codes and links for users of the console, as hashes. A code belongs to the browser that asked for it; a link
//! belongs to whoever has it.

use waypost_core::Timestamp;
use waypost_core::account::CodePurpose;
use waypost_core::id::{UserCodeId, UserId};

use crate::db::Conn;
use crate::email_code::{Open, Proof, TRIES, Tried};
use crate::error::Result;
use crate::on;
use crate::row::Place;

/// A code to insert.
pub struct NewCode<'a> {
    /// The code's row.
    pub id: &'a UserCodeId,
    /// The address that it goes to, as it was typed.
    pub email: &'a str,
    /// The key of that address.
    pub email_key: &'a str,
    /// What was asked for.
    pub purpose: CodePurpose,
    /// The SHA-256 of what names the browser, hexadecimal.
    pub browser_hash: &'a str,
    /// The keyed hash of the code.
    pub code_hash: &'a str,
    /// The hash of the password that is set when the code is entered.
    pub password_hash: Option<&'a str>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it can no longer be entered.
    pub expires_at: Timestamp,
}

/// Which code is meant, in which browser.
#[derive(Debug, Clone, Copy)]
pub struct Key<'a> {
    /// The code's row.
    pub id: &'a UserCodeId,
    /// The SHA-256 of what names the browser.
    pub browser_hash: &'a str,
}

/// Inserts a code.
///
/// # Errors
/// When the database fails.
pub async fn insert(conn: &mut Conn, code: &NewCode<'_>) -> Result<()> {
    const SQL: &str = "INSERT INTO user_codes (id, email, email_key, purpose, browser_hash, code_hash, password_hash,
            attempts, created_at, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, 0, $8, $9)";
    on!(conn, c => sqlx::query(SQL)
        .bind(code.id.as_str()).bind(code.email).bind(code.email_key).bind(code.purpose.as_str())
        .bind(code.browser_hash).bind(code.code_hash).bind(code.password_hash).bind(code.created_at.0)
        .bind(code.expires_at.0).execute(c).await?.rows_affected());
    Ok(())
}

/// A code that can still be entered; none when it is used up, expired, consumed, or was asked for in another browser.
///
/// # Errors
/// When the database fails, or the row cannot be read.
pub async fn find_open(conn: &mut Conn, key: Key<'_>, now: Timestamp) -> Result<Option<Open>> {
    const SQL: &str = "SELECT email, purpose FROM user_codes WHERE id = $1 AND browser_hash = $2 AND purpose <> 'link'
        AND consumed_at IS NULL AND attempts < $3 AND expires_at > $4";
    let row: Option<(String, String)> = on!(conn, c => sqlx::query_as(SQL)
        .bind(key.id.as_str()).bind(key.browser_hash).bind(TRIES).bind(now.0).fetch_optional(c).await?);
    let Some((email, purpose)) = row else { return Ok(None) };
    Ok(Some(Open { email, purpose: place(key).name("purpose", &purpose)? }))
}

/// Whether a code that can still be entered has this hash. Counts nothing.
///
/// # Errors
/// When the database fails.
pub async fn is_right(conn: &mut Conn, key: Key<'_>, code_hash: &str, now: Timestamp) -> Result<bool> {
    const SQL: &str = "SELECT id FROM user_codes WHERE id = $1 AND browser_hash = $2 AND purpose <> 'link'
        AND code_hash = $3 AND consumed_at IS NULL AND attempts < $4 AND expires_at > $5";
    let id: Option<String> = on!(conn, c => sqlx::query_scalar(SQL)
        .bind(key.id.as_str()).bind(key.browser_hash).bind(code_hash).bind(TRIES).bind(now.0)
        .fetch_optional(c).await?);
    Ok(id.is_some())
}

/// The key of the address that a code was sent to, whatever became of the code; `None` if there is no such code.
///
/// # Errors
/// When the database fails.
pub async fn address_of(conn: &mut Conn, id: &UserCodeId) -> Result<Option<String>> {
    const SQL: &str = "SELECT email_key FROM user_codes WHERE id = $1 AND purpose <> 'link'";
    Ok(on!(conn, c => sqlx::query_scalar(SQL).bind(id.as_str()).fetch_optional(c).await?))
}

#[derive(sqlx::FromRow)]
struct Row {
    email: String,
    email_key: String,
    purpose: String,
    password_hash: Option<String>,
    attempts: i64,
    consumed_at: Option<i64>,
}

/// Counts a try, and consumes the code when it is the right one: in one statement, so that none is free and a code works
/// once.
///
/// # Errors
/// When the database fails, or the row cannot be read.
pub async fn enter(conn: &mut Conn, key: Key<'_>, code_hash: &str, now: Timestamp) -> Result<Tried> {
    const SQL: &str = "UPDATE user_codes SET attempts = attempts + 1,
            consumed_at = CASE WHEN code_hash = $3 THEN CAST($4 AS BIGINT) ELSE consumed_at END
        WHERE id = $1 AND browser_hash = $2 AND purpose <> 'link'
            AND consumed_at IS NULL AND attempts < $5 AND expires_at > $4
        RETURNING email, email_key, purpose, password_hash, attempts, consumed_at";
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(key.id.as_str()).bind(key.browser_hash).bind(code_hash).bind(now.0).bind(TRIES)
        .fetch_optional(c).await?);
    let Some(row) = row else { return Ok(Tried::Gone) };
    if row.consumed_at.is_none() {
        return Ok(Tried::Wrong { left: TRIES - row.attempts });
    }
    let purpose = place(key).name("purpose", &row.purpose)?;
    let Row { email, email_key, password_hash, .. } = row;
    Ok(Tried::Right(Proof { email, email_key, purpose, password_hash }))
}

/// A link to insert.
pub struct NewLink<'a> {
    /// The link's row.
    pub id: &'a UserCodeId,
    /// The account that it is for.
    pub user: &'a UserId,
    /// The user's address.
    pub email: &'a str,
    /// Its key.
    pub email_key: &'a str,
    /// The SHA-256 of its token, hexadecimal.
    pub token_hash: &'a str,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it can no longer be opened.
    pub expires_at: Timestamp,
}

/// Inserts a link; those that were made for the account before cannot be used any more.
///
/// # Errors
/// When the database fails.
pub async fn insert_link(conn: &mut Conn, link: &NewLink<'_>) -> Result<()> {
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

/// The account that a link is for; `None` if it was used, replaced or revoked, has expired or was never made.
///
/// # Errors
/// When the database fails.
pub async fn find_link(conn: &mut Conn, token_hash: &str, now: Timestamp) -> Result<Option<UserId>> {
    const SQL: &str = "SELECT user_id FROM user_codes
        WHERE code_hash = $1 AND purpose = 'link' AND user_id IS NOT NULL AND consumed_at IS NULL AND expires_at > $2";
    let id: Option<String> =
        on!(conn, c => sqlx::query_scalar(SQL).bind(token_hash).bind(now.0).fetch_optional(c).await?);
    Ok(id.map(UserId::from_store))
}

/// Uses a link up; gives what [`find_link`] gives, once.
///
/// # Errors
/// When the database fails.
pub async fn consume_link(conn: &mut Conn, token_hash: &str, now: Timestamp) -> Result<Option<UserId>> {
    const SQL: &str = "UPDATE user_codes SET consumed_at = $2
        WHERE code_hash = $1 AND purpose = 'link' AND user_id IS NOT NULL AND consumed_at IS NULL AND expires_at > $2
        RETURNING user_id";
    let id: Option<String> =
        on!(conn, c => sqlx::query_scalar(SQL).bind(token_hash).bind(now.0).fetch_optional(c).await?);
    Ok(id.map(UserId::from_store))
}

fn place(key: Key<'_>) -> Place<'_> {
    Place { table: "user_codes", id: key.id.as_str() }
}
