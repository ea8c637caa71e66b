//! One-time codes by mail, as hashes: each belongs to an authorization request, and so to its browser.

use waypost_core::Timestamp;
use waypost_core::account::CodePurpose;
use waypost_core::id::{AuthorizationRequestId, EmailCodeId, OrganizationId};

use crate::authorization_request;
use crate::db::Conn;
use crate::error::Result;
use crate::on;
use crate::row::Place;

/// Tries of one code.
pub const TRIES: i64 = 5;

/// A code to insert.
pub struct NewCode<'a> {
    /// The code's row.
    pub id: &'a EmailCodeId,
    /// The tenant.
    pub organization: &'a OrganizationId,
    /// The authorization request that it was asked for in.
    pub request: &'a AuthorizationRequestId,
    /// The address that it goes to, as it was typed.
    pub email: &'a str,
    /// The key of that address.
    pub email_key: &'a str,
    /// What was asked for.
    pub purpose: CodePurpose,
    /// The keyed hash of the code.
    pub code_hash: &'a str,
    /// The hash of the password that is set when the code is entered.
    pub password_hash: Option<&'a str>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it can no longer be entered.
    pub expires_at: Timestamp,
}

/// Which code is meant.
#[derive(Debug, Clone, Copy)]
pub struct Key<'a> {
    /// The tenant.
    pub organization: &'a OrganizationId,
    /// The authorization request.
    pub request: &'a AuthorizationRequestId,
    /// The code's row.
    pub id: &'a EmailCodeId,
}

/// A code that can be entered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// Where it was sent.
    pub email: String,
    /// What was asked for.
    pub purpose: CodePurpose,
}

/// What became of a try.
#[derive(Clone, PartialEq, Eq)]
pub enum Tried {
    /// The code is right, and consumed now.
    Right(Proof),
    /// It is wrong; so many tries are left.
    Wrong {
        /// Tries that are left.
        left: i64,
    },
    /// There is no such code, or it is used up, expired or consumed.
    Gone,
}

/// What a right code proves.
#[derive(Clone, PartialEq, Eq)]
pub struct Proof {
    /// The address, as it was typed.
    pub email: String,
    /// Its key.
    pub email_key: String,
    /// What was asked for.
    pub purpose: CodePurpose,
    /// The hash of the password to set.
    pub password_hash: Option<String>,
}

/// Inserts a code.
///
/// # Errors
/// When the database fails.
pub async fn insert(conn: &mut Conn, code: &NewCode<'_>) -> Result<()> {
    const SQL: &str = "INSERT INTO email_codes (id, organization_id, request_id, email, email_key, purpose, code_hash,
            password_hash, attempts, created_at, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, $9, $10)";
    on!(conn, c => sqlx::query(SQL)
        .bind(code.id.as_str()).bind(code.organization.as_str()).bind(code.request.as_str()).bind(code.email)
        .bind(code.email_key).bind(code.purpose.as_str()).bind(code.code_hash).bind(code.password_hash)
        .bind(code.created_at.0).bind(code.expires_at.0).execute(c).await?.rows_affected());
    authorization_request::keep(conn, code.request).await
}

/// A code that can still be entered; none when it is used up, expired or consumed.
///
/// # Errors
/// When the database fails, or the row cannot be read.
pub async fn find_open(conn: &mut Conn, key: Key<'_>, now: Timestamp) -> Result<Option<Open>> {
    const SQL: &str =
        "SELECT email, purpose FROM email_codes WHERE id = $1 AND organization_id = $2 AND request_id = $3
        AND consumed_at IS NULL AND attempts < $4 AND expires_at > $5";
    let row: Option<(String, String)> = on!(conn, c => sqlx::query_as(SQL)
        .bind(key.id.as_str()).bind(key.organization.as_str()).bind(key.request.as_str()).bind(TRIES).bind(now.0)
        .fetch_optional(c).await?);
    let Some((email, purpose)) = row else { return Ok(None) };
    Ok(Some(Open { email, purpose: place(key).name("purpose", &purpose)? }))
}

/// Whether a code that can still be entered has this hash. Counts nothing.
///
/// # Errors
/// When the database fails.
pub async fn is_right(conn: &mut Conn, key: Key<'_>, code_hash: &str, now: Timestamp) -> Result<bool> {
    const SQL: &str = "SELECT id FROM email_codes WHERE id = $1 AND organization_id = $2 AND request_id = $3
        AND code_hash = $4 AND consumed_at IS NULL AND attempts < $5 AND expires_at > $6";
    let id: Option<String> = on!(conn, c => sqlx::query_scalar(SQL)
        .bind(key.id.as_str()).bind(key.organization.as_str()).bind(key.request.as_str()).bind(code_hash)
        .bind(TRIES).bind(now.0).fetch_optional(c).await?);
    Ok(id.is_some())
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
    const SQL: &str = "UPDATE email_codes SET attempts = attempts + 1,
            consumed_at = CASE WHEN code_hash = $4 THEN CAST($5 AS BIGINT) ELSE consumed_at END
        WHERE id = $1 AND organization_id = $2 AND request_id = $3
            AND consumed_at IS NULL AND attempts < $6 AND expires_at > $5
        RETURNING email, email_key, purpose, password_hash, attempts, consumed_at";
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(key.id.as_str()).bind(key.organization.as_str()).bind(key.request.as_str()).bind(code_hash)
        .bind(now.0).bind(TRIES).fetch_optional(c).await?);
    let Some(row) = row else { return Ok(Tried::Gone) };
    if row.consumed_at.is_none() {
        return Ok(Tried::Wrong { left: TRIES - row.attempts });
    }
    let purpose = place(key).name("purpose", &row.purpose)?;
    let Row { email, email_key, password_hash, .. } = row;
    Ok(Tried::Right(Proof { email, email_key, purpose, password_hash }))
}

fn place(key: Key<'_>) -> Place<'_> {
    Place { table: "email_codes", id: key.id.as_str() }
}
