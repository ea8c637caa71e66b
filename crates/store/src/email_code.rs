//! Hashes of one-time codes sent by email. Each code belongs to an authorization request, and therefore to one browser.

use waypost_core::Timestamp;
use waypost_core::account::CodePurpose;
use waypost_core::id::{AuthorizationRequestId, EmailCodeId, OrganizationId};

use crate::authorization_request;
use crate::db::Conn;
use crate::error::Result;
use crate::on;
use crate::row::RowRef;

/// The maximum number of attempts per code.
pub const MAX_ATTEMPTS: i64 = 5;

/// A code to insert.
pub struct NewEmailCode<'a> {
    /// The ID of the code.
    pub id: &'a EmailCodeId,
    /// The organisation.
    pub organization: &'a OrganizationId,
    /// The authorization request for which the code was requested.
    pub request: &'a AuthorizationRequestId,
    /// The recipient's email address as entered.
    pub email: &'a str,
    /// The key of that email address.
    pub email_key: &'a str,
    /// The purpose of the code.
    pub purpose: CodePurpose,
    /// The keyed hash of the code.
    pub code_hash: &'a str,
    /// The hash of the password that is set once the code is verified.
    pub password_hash: Option<&'a str>,
    /// The time at which the code was created.
    pub created_at: Timestamp,
    /// The time at which the code expires.
    pub expires_at: Timestamp,
}

/// Identifies a code of an authorization request.
#[derive(Debug, Clone, Copy)]
pub struct EmailCodeKey<'a> {
    /// The organisation.
    pub organization: &'a OrganizationId,
    /// The authorization request.
    pub request: &'a AuthorizationRequestId,
    /// The ID of the code.
    pub id: &'a EmailCodeId,
}

/// A code that has not been used and has not expired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingCode {
    /// The email address that the code was sent to.
    pub email: String,
    /// The purpose of the code.
    pub purpose: CodePurpose,
}

/// The result of verifying a code.
#[derive(Clone, PartialEq, Eq)]
pub enum CodeCheck {
    /// The code is correct, and is now consumed.
    Accepted(CodeProof),
    /// The code is incorrect.
    Rejected {
        /// The remaining attempts.
        attempts_left: i64,
    },
    /// The code does not exist, has no attempts left, has expired, or is already consumed.
    Invalid,
}

/// The values that were stored with a correct code.
#[derive(Clone, PartialEq, Eq)]
pub struct CodeProof {
    /// The email address as entered.
    pub email: String,
    /// The key of the email address.
    pub email_key: String,
    /// The purpose of the code.
    pub purpose: CodePurpose,
    /// The hash of the password to set, if any.
    pub password_hash: Option<String>,
}

/// Inserts a code.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn insert(conn: &mut Conn, code: &NewEmailCode<'_>) -> Result<()> {
    const SQL: &str = "INSERT INTO email_codes (id, organization_id, request_id, email, email_key, purpose, code_hash,
            password_hash, attempts, created_at, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, $9, $10)";
    on!(conn, c => sqlx::query(SQL)
        .bind(code.id.as_str()).bind(code.organization.as_str()).bind(code.request.as_str()).bind(code.email)
        .bind(code.email_key).bind(code.purpose.as_str()).bind(code.code_hash).bind(code.password_hash)
        .bind(code.created_at.0).bind(code.expires_at.0).execute(c).await?.rows_affected());
    authorization_request::exempt_from_eviction(conn, code.request).await
}

/// Returns a code that can still be verified. Returns `None` if it has no attempts left, has expired, or is consumed.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn find_pending(conn: &mut Conn, key: EmailCodeKey<'_>, now: Timestamp) -> Result<Option<PendingCode>> {
    const SQL: &str =
        "SELECT email, purpose FROM email_codes WHERE id = $1 AND organization_id = $2 AND request_id = $3
        AND consumed_at IS NULL AND attempts < $4 AND expires_at > $5";
    let row: Option<(String, String)> = on!(conn, c => sqlx::query_as(SQL)
        .bind(key.id.as_str()).bind(key.organization.as_str()).bind(key.request.as_str()).bind(MAX_ATTEMPTS).bind(now.0)
        .fetch_optional(c).await?);
    let Some((email, purpose)) = row else { return Ok(None) };
    Ok(Some(PendingCode { email, purpose: row_ref(key).parse("purpose", &purpose)? }))
}

/// Whether a code that can still be verified has this hash. Does not count as an attempt.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn is_correct(conn: &mut Conn, key: EmailCodeKey<'_>, code_hash: &str, now: Timestamp) -> Result<bool> {
    const SQL: &str = "SELECT id FROM email_codes WHERE id = $1 AND organization_id = $2 AND request_id = $3
        AND code_hash = $4 AND consumed_at IS NULL AND attempts < $5 AND expires_at > $6";
    let id: Option<String> = on!(conn, c => sqlx::query_scalar(SQL)
        .bind(key.id.as_str()).bind(key.organization.as_str()).bind(key.request.as_str()).bind(code_hash)
        .bind(MAX_ATTEMPTS).bind(now.0).fetch_optional(c).await?);
    Ok(id.is_some())
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
pub async fn verify(conn: &mut Conn, key: EmailCodeKey<'_>, code_hash: &str, now: Timestamp) -> Result<CodeCheck> {
    const SQL: &str = "UPDATE email_codes SET attempts = attempts + 1,
            consumed_at = CASE WHEN code_hash = $4 THEN CAST($5 AS BIGINT) ELSE consumed_at END
        WHERE id = $1 AND organization_id = $2 AND request_id = $3
            AND consumed_at IS NULL AND attempts < $6 AND expires_at > $5
        RETURNING email, email_key, purpose, password_hash, attempts, consumed_at";
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(key.id.as_str()).bind(key.organization.as_str()).bind(key.request.as_str()).bind(code_hash)
        .bind(now.0).bind(MAX_ATTEMPTS).fetch_optional(c).await?);
    let Some(row) = row else { return Ok(CodeCheck::Invalid) };
    if row.consumed_at.is_none() {
        return Ok(CodeCheck::Rejected { attempts_left: MAX_ATTEMPTS - row.attempts });
    }
    let purpose = row_ref(key).parse("purpose", &row.purpose)?;
    let Row { email, email_key, password_hash, .. } = row;
    Ok(CodeCheck::Accepted(CodeProof { email, email_key, purpose, password_hash }))
}

fn row_ref(key: EmailCodeKey<'_>) -> RowRef<'_> {
    RowRef { table: "email_codes", id: key.id.as_str() }
}
