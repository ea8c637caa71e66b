//! Tokens of organisations' providers, sealed. One row for every identity: the newest sign-in replaces what was there.

use waypost_core::Timestamp;
use waypost_core::id::{IdentityId, OauthConfigId, OrganizationId};

use crate::db::Conn;
use crate::error::Result;
use crate::on;

/// The tokens of an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamToken {
    /// Whose they are.
    pub identity_id: IdentityId,
    /// The organisation.
    pub organization_id: OrganizationId,
    /// The provider that gave them.
    pub oauth_config_id: OauthConfigId,
    /// Sealed to the row.
    pub access_token: String,
    /// Sealed to the row.
    pub refresh_token: Option<String>,
    /// What they allow, separated by spaces.
    pub scope: String,
    /// When the access token ends; none when the provider does not say.
    pub expires_at: Option<Timestamp>,
    /// When they were written.
    pub updated_at: Timestamp,
}

#[derive(sqlx::FromRow)]
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

impl From<Row> for UpstreamToken {
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

/// Keeps the tokens of a sign-in in place of those that were there. A refresh that is under way then writes nothing.
///
/// # Errors
/// When the database fails.
pub async fn put(conn: &mut Conn, token: &UpstreamToken) -> Result<()> {
    const SQL: &str = "INSERT INTO upstream_tokens (identity_id, organization_id, oauth_config_id, access_token,
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

/// The tokens of an identity.
///
/// # Errors
/// When the database fails.
pub async fn get(
    conn: &mut Conn,
    organization: &OrganizationId,
    identity: &IdentityId,
) -> Result<Option<UpstreamToken>> {
    const SQL: &str = "SELECT identity_id, organization_id, oauth_config_id, access_token, refresh_token, scope,
            expires_at, updated_at
        FROM upstream_tokens WHERE identity_id = $1 AND organization_id = $2";
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(identity.as_str()).bind(organization.as_str()).fetch_optional(c).await?);
    Ok(row.map(UpstreamToken::from))
}

/// Takes tokens of any organisation that end before `soon` and can be refreshed, `limit` at most, for the caller alone
/// until `until`.
///
/// # Errors
/// When the database fails.
pub async fn lease(
    conn: &mut Conn,
    now: Timestamp,
    (soon, until): (Timestamp, Timestamp),
    limit: i64,
) -> Result<Vec<UpstreamToken>> {
    // The condition stands twice, because on PostgreSQL the outer one is looked at again when another process held the
    // row, and the inner one is not.
    const SQL: &str = "UPDATE upstream_tokens SET leased_until = $3
        WHERE (leased_until IS NULL OR leased_until <= $1) AND identity_id IN
            (SELECT identity_id FROM upstream_tokens WHERE expires_at <= $2 AND refresh_token IS NOT NULL
                 AND (leased_until IS NULL OR leased_until <= $1) ORDER BY expires_at LIMIT $4)
        RETURNING identity_id, organization_id, oauth_config_id, access_token, refresh_token, scope, expires_at,
            updated_at";
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(now.0).bind(soon.0).bind(until.0).bind(limit).fetch_all(c).await?);
    Ok(rows.into_iter().map(UpstreamToken::from).collect())
}

/// Writes what a refresh brought, and ends the lease; false when the tokens that were refreshed (`former`, as they were
/// leased) are no longer there.
///
/// # Errors
/// When the database fails.
pub async fn refreshed(conn: &mut Conn, former: &UpstreamToken, token: &UpstreamToken) -> Result<bool> {
    const SQL: &str = "UPDATE upstream_tokens SET access_token = $4, refresh_token = $5, scope = $6, expires_at = $7,
            updated_at = $8, leased_until = NULL
        WHERE identity_id = $1 AND organization_id = $2 AND refresh_token = $3";
    let changed = on!(conn, c => sqlx::query(SQL)
        .bind(former.identity_id.as_str()).bind(former.organization_id.as_str()).bind(former.refresh_token.as_deref())
        .bind(&token.access_token).bind(token.refresh_token.as_deref()).bind(&token.scope)
        .bind(token.expires_at.map(|at| at.0)).bind(token.updated_at.0).execute(c).await?.rows_affected());
    Ok(changed > 0)
}

/// Forgets a refresh token that the provider does not take any more; false when it is no longer there.
///
/// # Errors
/// When the database fails.
pub async fn forget_refresh(conn: &mut Conn, former: &UpstreamToken) -> Result<bool> {
    const SQL: &str = "UPDATE upstream_tokens SET refresh_token = NULL, leased_until = NULL
        WHERE identity_id = $1 AND organization_id = $2 AND refresh_token = $3";
    let changed = on!(conn, c => sqlx::query(SQL)
        .bind(former.identity_id.as_str()).bind(former.organization_id.as_str()).bind(former.refresh_token.as_deref())
        .execute(c).await?.rows_affected());
    Ok(changed > 0)
}
