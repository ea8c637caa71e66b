//! Sign-ins in progress at an organisation's identity provider. The state is stored as a hash; the verifier is sealed.

use waypost_core::Timestamp;
use waypost_core::id::{AuthorizationRequestId, OauthConfigId, OrganizationId};

use crate::db::Conn;
use crate::error::Result;
use crate::on;

/// The name of the table in the associated data of sealed values: the table's name before migration 32. It must not
/// change.
pub const SEAL_LABEL: &str = "upstream_states";

/// A sign-in in progress at an identity provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityProviderState {
    /// The hexadecimal SHA-256 of the state.
    pub state_hash: String,
    /// The organisation.
    pub organization_id: OrganizationId,
    /// The provider.
    pub oauth_config_id: OauthConfigId,
    /// The authorization request that the user signs in for.
    pub request_id: AuthorizationRequestId,
    /// The nonce that the ID token must contain.
    pub nonce: String,
    /// The PKCE verifier, sealed to the row.
    pub verifier: String,
    /// The time at which the user was redirected to the provider.
    pub created_at: Timestamp,
    /// The time at which the state expires.
    pub expires_at: Timestamp,
}

/// Inserts a state.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn insert(conn: &mut Conn, state: &IdentityProviderState) -> Result<()> {
    const SQL: &str =
        "INSERT INTO identity_provider_states (state_hash, organization_id, oauth_config_id, request_id, nonce,
            verifier, created_at, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    on!(conn, c => sqlx::query(SQL)
        .bind(&state.state_hash).bind(state.organization_id.as_str()).bind(state.oauth_config_id.as_str())
        .bind(state.request_id.as_str()).bind(&state.nonce).bind(&state.verifier).bind(state.created_at.0)
        .bind(state.expires_at.0).execute(c).await?.rows_affected());
    Ok(())
}

/// Deletes and returns a state, so that it can be used only once. Returns `None` if it does not exist or has expired.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn consume(
    conn: &mut Conn,
    organization: &OrganizationId,
    state_hash: &str,
    now: Timestamp,
) -> Result<Option<IdentityProviderState>> {
    const SQL: &str =
        "DELETE FROM identity_provider_states WHERE state_hash = $1 AND organization_id = $2 AND expires_at > $3
        RETURNING oauth_config_id, request_id, nonce, verifier, created_at, expires_at";
    let row: Option<(String, String, String, String, i64, i64)> = on!(conn, c => sqlx::query_as(SQL)
        .bind(state_hash).bind(organization.as_str()).bind(now.0).fetch_optional(c).await?);
    Ok(row.map(|(oauth_config_id, request_id, nonce, verifier, created_at, expires_at)| IdentityProviderState {
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
