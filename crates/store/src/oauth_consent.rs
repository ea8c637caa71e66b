//! Consent that end users have given to OAuth clients.

use waypost_core::Timestamp;
use waypost_core::id::{EndUserId, OrganizationId, ServerId};

use crate::db::Conn;
use crate::error::Result;
use crate::on;

/// Identifies a consent: end user, client, server and redirect URI.
#[derive(Debug, Clone, Copy)]
pub struct ConsentKey<'a> {
    /// The organisation.
    pub organization: &'a OrganizationId,
    /// The server.
    pub server: &'a ServerId,
    /// The end user.
    pub end_user: &'a EndUserId,
    /// The client.
    pub client_id: &'a str,
    /// The redirect URI without a loopback port.
    pub redirect: &'a str,
}

/// Returns the scopes that the end user has consented to, separated by spaces; `None` if there is no consent.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find(conn: &mut Conn, key: ConsentKey<'_>) -> Result<Option<String>> {
    const SQL: &str = "SELECT scope FROM oauth_consents
        WHERE server_id = $1 AND end_user_id = $2 AND client_id = $3 AND redirect = $4 AND organization_id = $5";
    Ok(on!(conn, c => sqlx::query_scalar(SQL)
        .bind(key.server.as_str()).bind(key.end_user.as_str()).bind(key.client_id).bind(key.redirect)
        .bind(key.organization.as_str()).fetch_optional(c).await?))
}

/// Inserts a consent, or replaces the scopes of an existing one.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn upsert(conn: &mut Conn, key: ConsentKey<'_>, scope: &str, now: Timestamp) -> Result<()> {
    const SQL: &str = "INSERT INTO oauth_consents (server_id, end_user_id, client_id, redirect, organization_id, scope,
            updated_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7)
        ON CONFLICT (server_id, end_user_id, client_id, redirect)
        DO UPDATE SET scope = excluded.scope, updated_at = excluded.updated_at";
    on!(conn, c => sqlx::query(SQL)
        .bind(key.server.as_str()).bind(key.end_user.as_str()).bind(key.client_id).bind(key.redirect)
        .bind(key.organization.as_str()).bind(scope).bind(now.0).execute(c).await?.rows_affected());
    Ok(())
}
