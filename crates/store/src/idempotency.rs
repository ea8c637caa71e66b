//! Answers to requests that made something, kept for those who ask again with the same key.

use waypost_core::Timestamp;
use waypost_core::id::OrganizationId;

use crate::db::Conn;
use crate::error::Result;
use crate::on;

/// A request with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Who asks: the id of a user or of an API key.
    pub actor: String,
    /// Their key.
    pub key: String,
    /// For which organisation; none for what needs none yet.
    pub organization_id: Option<OrganizationId>,
    /// What tells this request from others.
    pub request_hash: String,
    /// When it came.
    pub created_at: Timestamp,
    /// Until when it is kept.
    pub expires_at: Timestamp,
}

/// What is known of a key.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Known {
    /// Of the request that came with it first.
    pub request_hash: String,
    /// The answer, sealed; none while the request is at work.
    pub response: Option<String>,
}

/// Takes a key; false when it is taken.
///
/// # Errors
/// When the database fails.
pub async fn claim(conn: &mut Conn, claim: &Claim) -> Result<bool> {
    const EXPIRED: &str = "DELETE FROM idempotency_keys WHERE actor = $1 AND key = $2 AND expires_at <= $3";
    const SQL: &str = "INSERT INTO idempotency_keys (actor, key, organization_id, request_hash, created_at, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
    on!(conn, c => sqlx::query(EXPIRED)
        .bind(&claim.actor).bind(&claim.key).bind(claim.created_at.0).execute(c).await?.rows_affected());
    let inserted = on!(conn, c => sqlx::query(SQL)
        .bind(&claim.actor).bind(&claim.key).bind(claim.organization_id.as_ref().map(OrganizationId::as_str))
        .bind(&claim.request_hash).bind(claim.created_at.0).bind(claim.expires_at.0).execute(c).await?.rows_affected());
    Ok(inserted > 0)
}

/// What is known of a key.
///
/// # Errors
/// When the database fails.
pub async fn find(conn: &mut Conn, actor: &str, key: &str) -> Result<Option<Known>> {
    const SQL: &str = "SELECT request_hash, response FROM idempotency_keys WHERE actor = $1 AND key = $2";
    Ok(on!(conn, c => sqlx::query_as(SQL).bind(actor).bind(key).fetch_optional(c).await?))
}

/// Writes the answer.
///
/// # Errors
/// When the database fails.
pub async fn complete(conn: &mut Conn, actor: &str, key: &str, response: &str) -> Result<()> {
    const SQL: &str = "UPDATE idempotency_keys SET response = $3 WHERE actor = $1 AND key = $2";
    on!(conn, c => sqlx::query(SQL).bind(actor).bind(key).bind(response).execute(c).await?.rows_affected());
    Ok(())
}

/// Gives a key back: its request did nothing.
///
/// # Errors
/// When the database fails.
pub async fn release(conn: &mut Conn, actor: &str, key: &str) -> Result<()> {
    const SQL: &str = "DELETE FROM idempotency_keys WHERE actor = $1 AND key = $2 AND response IS NULL";
    on!(conn, c => sqlx::query(SQL).bind(actor).bind(key).execute(c).await?.rows_affected());
    Ok(())
}
