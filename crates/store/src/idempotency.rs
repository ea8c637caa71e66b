//! Idempotency keys: the responses to requests that created something, stored so that a retry with the same key returns
//! the same response.

use waypost_core::Timestamp;
use waypost_core::id::OrganizationId;

use crate::db::Conn;
use crate::error::Result;
use crate::on;

/// A claim of an idempotency key by a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyClaim {
    /// The ID of the user or API key that sends the request.
    pub actor: String,
    /// The idempotency key.
    pub key: String,
    /// The organisation, if the request is for one.
    pub organization_id: Option<OrganizationId>,
    /// A hash that identifies the request.
    pub request_hash: String,
    /// The time of the request.
    pub created_at: Timestamp,
    /// The time at which the key expires.
    pub expires_at: Timestamp,
}

/// The stored state of a key.
#[derive(Debug, Clone, PartialEq, Eq, sqlx_macros::FromRow)]
pub struct IdempotencyRecord {
    /// The hash of the request that first used the key.
    pub request_hash: String,
    /// The sealed response; `None` while the request is in progress.
    pub response: Option<String>,
}

/// Claims a key. Returns `false` if it is already claimed.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn claim(conn: &mut Conn, claim: &IdempotencyClaim) -> Result<bool> {
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

/// Returns the state of a key.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find(conn: &mut Conn, actor: &str, key: &str) -> Result<Option<IdempotencyRecord>> {
    const SQL: &str = "SELECT request_hash, response FROM idempotency_keys WHERE actor = $1 AND key = $2";
    Ok(on!(conn, c => sqlx::query_as(SQL).bind(actor).bind(key).fetch_optional(c).await?))
}

/// Stores the response.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn complete(conn: &mut Conn, actor: &str, key: &str, response: &str) -> Result<()> {
    const SQL: &str = "UPDATE idempotency_keys SET response = $3 WHERE actor = $1 AND key = $2";
    on!(conn, c => sqlx::query(SQL).bind(actor).bind(key).bind(response).execute(c).await?.rows_affected());
    Ok(())
}

/// Releases a key whose request changed nothing.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn release(conn: &mut Conn, actor: &str, key: &str) -> Result<()> {
    const SQL: &str = "DELETE FROM idempotency_keys WHERE actor = $1 AND key = $2 AND response IS NULL";
    on!(conn, c => sqlx::query(SQL).bind(actor).bind(key).execute(c).await?.rows_affected());
    Ok(())
}
