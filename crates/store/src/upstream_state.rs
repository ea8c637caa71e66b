//! Users who are away at an organisation's provider. The state is stored as a hash, the verifier sealed.

use waypost_core::Timestamp;
use waypost_core::id::{AuthorizationRequestId, OauthConfigId, OrganizationId};

use crate::db::Conn;
use crate::error::Result;
use crate::on;

/// A user who is away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamState {
    /// SHA-256 of the state, hexadecimal.
    pub state_hash: String,
    /// The organisation.
    pub organization_id: OrganizationId,
    /// The provider.
    pub oauth_config_id: OauthConfigId,
    /// The request that the user came with.
    pub request_id: AuthorizationRequestId,
    /// What the ID token has to repeat.
    pub nonce: String,
    /// PKCE's verifier, sealed to the row.
    pub verifier: String,
    /// When the user left.
    pub created_at: Timestamp,
    /// When they need not come back any more.
    pub expires_at: Timestamp,
}

/// Inserts a state.
///
/// # Errors
/// When the database fails.
pub async fn insert(conn: &mut Conn, state: &UpstreamState) -> Result<()> {
    const SQL: &str = "INSERT INTO upstream_states (state_hash, organization_id, oauth_config_id, request_id, nonce,
            verifier, created_at, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    on!(conn, c => sqlx::query(SQL)
        .bind(&state.state_hash).bind(state.organization_id.as_str()).bind(state.oauth_config_id.as_str())
        .bind(state.request_id.as_str()).bind(&state.nonce).bind(&state.verifier).bind(state.created_at.0)
        .bind(state.expires_at.0).execute(c).await?.rows_affected());
    Ok(())
}

/// Takes a state away: of several who come with it, one gets it. None when there is none, or it has expired.
///
/// # Errors
/// When the database fails.
pub async fn consume(
    conn: &mut Conn,
    organization: &OrganizationId,
    state_hash: &str,
    now: Timestamp,
) -> Result<Option<UpstreamState>> {
    const SQL: &str = "DELETE FROM upstream_states WHERE state_hash = $1 AND organization_id = $2 AND expires_at > $3
        RETURNING oauth_config_id, request_id, nonce, verifier, created_at, expires_at";
    let row: Option<(String, String, String, String, i64, i64)> = on!(conn, c => sqlx::query_as(SQL)
        .bind(state_hash).bind(organization.as_str()).bind(now.0).fetch_optional(c).await?);
    Ok(row.map(|(oauth_config_id, request_id, nonce, verifier, created_at, expires_at)| UpstreamState {
        state_hash: state_hash.to_owned(),
        organization_id: organization.clone(),
        oauth_config_id: OauthConfigId::from_store(oauth_config_id),
        request_id: AuthorizationRequestId::from_store(request_id),
        nonce,
        verifier,
        created_at: Timestamp(created_at),
        expires_at: Timestamp(expires_at),
    }))
}
