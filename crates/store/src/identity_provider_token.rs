//! Sealed tokens of organisations' identity providers. There is one row per identity; each sign-in replaces it.

use waypost_core::Timestamp;
use waypost_core::id::{IdentityId, OauthConfigId, OrganizationId};

use crate::db::Conn;
use crate::error::Result;
use crate::on;

/// The name of the table in the associated data of sealed values: the table's name before migration 32. It must not
/// change.
pub const SEAL_LABEL: &str = "upstream_tokens";

/// The tokens of an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityProviderToken {
    /// The identity.
    pub identity_id: IdentityId,
    /// The organisation.
    pub organization_id: OrganizationId,
    /// The provider that issued them.
    pub oauth_config_id: OauthConfigId,
    /// The access token, sealed to the row.
    pub access_token: String,
    /// The refresh token, sealed to the row.
    pub refresh_token: Option<String>,
    /// The granted scopes, separated by spaces.
    pub scope: String,
    /// The expiry of the access token; `None` if the provider does not state it.
    pub expires_at: Option<Timestamp>,
    /// The time of the last update.
    pub updated_at: Timestamp,
}

#[derive(sqlx_macros::FromRow)]
struct Row {
    identity_id: String,
    organization_id: String,
    oauth_config_id: String,
    access_token: String,
    refresh_token: Option<String>,
    scope: String,
    expires_at: Option<i64>,
    updated_at: i64,
}

impl From<Row> for IdentityProviderToken {
    fn from(row: Row) -> Self {
        Self {
            identity_id: IdentityId::from_store(row.identity_id),
            organization_id: OrganizationId::from_store(row.organization_id),
            oauth_config_id: OauthConfigId::from_store(row.oauth_config_id),
            access_token: row.access_token,
            refresh_token: row.refresh_token,
            scope: row.scope,
            expires_at: row.expires_at.map(Timestamp),
            updated_at: Timestamp(row.updated_at),
        }
    }
}

/// Inserts the tokens of a sign-in, or replaces the existing ones. A refresh in progress then writes nothing.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn upsert(conn: &mut Conn, token: &IdentityProviderToken) -> Result<()> {
    const SQL: &str =
        "INSERT INTO identity_provider_tokens (identity_id, organization_id, oauth_config_id, access_token,
            refresh_token, scope, expires_at, updated_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
        ON CONFLICT (identity_id) DO UPDATE SET oauth_config_id = excluded.oauth_config_id,
            access_token = excluded.access_token, refresh_token = excluded.refresh_token, scope = excluded.scope,
            expires_at = excluded.expires_at, updated_at = excluded.updated_at, leased_until = NULL";
    on!(conn, c => sqlx::query(SQL)
        .bind(token.identity_id.as_str()).bind(token.organization_id.as_str()).bind(token.oauth_config_id.as_str())
        .bind(&token.access_token).bind(token.refresh_token.as_deref()).bind(&token.scope)
        .bind(token.expires_at.map(|at| at.0)).bind(token.updated_at.0).execute(c).await?.rows_affected());
    Ok(())
}

/// Returns the tokens of an identity, or `None` if none are stored.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find(
    conn: &mut Conn,
    organization: &OrganizationId,
    identity: &IdentityId,
) -> Result<Option<IdentityProviderToken>> {
    const SQL: &str = "SELECT identity_id, organization_id, oauth_config_id, access_token, refresh_token, scope,
            expires_at, updated_at
        FROM identity_provider_tokens WHERE identity_id = $1 AND organization_id = $2";
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(identity.as_str()).bind(organization.as_str()).fetch_optional(c).await?);
    Ok(row.map(IdentityProviderToken::from))
}

/// Leases at most `limit` tokens of any organisation that expire at or before `soon` and can be refreshed, the earliest
/// first. Skips tokens whose lease has not expired at `now`. No other process leases them before `until`.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn lease_expiring(
    conn: &mut Conn,
    now: Timestamp,
    soon: Timestamp,
    until: Timestamp,
    limit: i64,
) -> Result<Vec<IdentityProviderToken>> {
    // The conditions are repeated because PostgreSQL re-evaluates only the outer ones after waiting for another process
    // that locked the row. That process may have leased the token, or already refreshed it.
    const SQL: &str = "UPDATE identity_provider_tokens SET leased_until = $3
        WHERE expires_at <= $2 AND refresh_token IS NOT NULL AND (leased_until IS NULL OR leased_until <= $1)
            AND identity_id IN
            (SELECT identity_id FROM identity_provider_tokens WHERE expires_at <= $2 AND refresh_token IS NOT NULL
                 AND (leased_until IS NULL OR leased_until <= $1) ORDER BY expires_at LIMIT $4)
        RETURNING identity_id, organization_id, oauth_config_id, access_token, refresh_token, scope, expires_at,
            updated_at";
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(now.0).bind(soon.0).bind(until.0).bind(limit).fetch_all(c).await?);
    Ok(rows.into_iter().map(IdentityProviderToken::from).collect())
}

/// Stores the result of a refresh and ends the lease. Returns `false` if the refreshed tokens (`former`, as leased)
/// have been replaced.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn complete_refresh(
    conn: &mut Conn,
    former: &IdentityProviderToken,
    token: &IdentityProviderToken,
) -> Result<bool> {
    const SQL: &str =
        "UPDATE identity_provider_tokens SET access_token = $4, refresh_token = $5, scope = $6, expires_at = $7,
            updated_at = $8, leased_until = NULL
        WHERE identity_id = $1 AND organization_id = $2 AND refresh_token = $3";
    let changed = on!(conn, c => sqlx::query(SQL)
        .bind(former.identity_id.as_str()).bind(former.organization_id.as_str()).bind(former.refresh_token.as_deref())
        .bind(&token.access_token).bind(token.refresh_token.as_deref()).bind(&token.scope)
        .bind(token.expires_at.map(|at| at.0)).bind(token.updated_at.0).execute(c).await?.rows_affected());
    Ok(changed > 0)
}

/// Deletes a refresh token that the provider no longer accepts. Returns `false` if it has been replaced.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn discard_refresh_token(conn: &mut Conn, former: &IdentityProviderToken) -> Result<bool> {
    const SQL: &str = "UPDATE identity_provider_tokens SET refresh_token = NULL, leased_until = NULL
        WHERE identity_id = $1 AND organization_id = $2 AND refresh_token = $3";
    let changed = on!(conn, c => sqlx::query(SQL)
        .bind(former.identity_id.as_str()).bind(former.organization_id.as_str()).bind(former.refresh_token.as_deref())
        .execute(c).await?.rows_affected());
    Ok(changed > 0)
}
