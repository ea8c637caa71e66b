//! Connections to remote servers that a user has started but not finished. The state is stored as a hash; all other
//! secrets are sealed.

use waypost_core::Timestamp;
use waypost_core::id::{AgentId, InstanceId, OrganizationId, UserId};

use crate::db::Conn;
use crate::error::Result;
use crate::on;

/// A connection that a user has started but not finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteConnectionRequest {
    /// The hexadecimal SHA-256 of the state.
    pub state_hash: String,
    /// The organisation.
    pub organization_id: OrganizationId,
    /// The instance.
    pub instance_id: InstanceId,
    /// The agent that is connected. `None` for the connection of the organisation.
    pub agent_id: Option<AgentId>,
    /// The user who started it.
    pub user_id: UserId,
    /// The generation of the instance at that time.
    pub generation: i64,
    /// The PKCE verifier and the discovered metadata, sealed to the row.
    pub request: String,
    /// The time at which it was started.
    pub created_at: Timestamp,
    /// The time at which it expires.
    pub expires_at: Timestamp,
}

/// Inserts a request and deletes the user's earlier requests for the same instance.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn replace(conn: &mut Conn, new: &RemoteConnectionRequest) -> Result<()> {
    const DELETE: &str = "DELETE FROM remote_connection_requests WHERE instance_id = $1 AND user_id = $2";
    const INSERT: &str = "INSERT INTO remote_connection_requests (state_hash, organization_id, instance_id, user_id,
            generation, request, created_at, expires_at, agent_id)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    on!(conn, c => sqlx::query(DELETE)
        .bind(new.instance_id.as_str()).bind(new.user_id.as_str()).execute(c).await?.rows_affected());
    on!(conn, c => sqlx::query(INSERT)
        .bind(&new.state_hash).bind(new.organization_id.as_str()).bind(new.instance_id.as_str())
        .bind(new.user_id.as_str()).bind(new.generation).bind(&new.request).bind(new.created_at.0)
        .bind(new.expires_at.0).bind(new.agent_id.as_ref().map(AgentId::as_str)).execute(c).await?.rows_affected());
    Ok(())
}

/// Returns the organisation of a request of this user. Returns `None` if it does not exist or has expired.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find_organization(
    conn: &mut Conn,
    user: &UserId,
    state_hash: &str,
    now: Timestamp,
) -> Result<Option<OrganizationId>> {
    const SQL: &str = "SELECT organization_id FROM remote_connection_requests
        WHERE state_hash = $1 AND user_id = $2 AND expires_at > $3";
    let found: Option<String> = on!(conn, c => sqlx::query_scalar(SQL)
        .bind(state_hash).bind(user.as_str()).bind(now.0).fetch_optional(c).await?);
    Ok(found.map(OrganizationId::from_store))
}

/// Deletes and returns a request of this user, so that it can be used only once. Returns `None` if it does not exist or
/// has expired.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn consume(
    conn: &mut Conn,
    organization: &OrganizationId,
    user: &UserId,
    state_hash: &str,
    now: Timestamp,
) -> Result<Option<RemoteConnectionRequest>> {
    const SQL: &str = "DELETE FROM remote_connection_requests
        WHERE state_hash = $1 AND organization_id = $2 AND user_id = $3 AND expires_at > $4
        RETURNING instance_id, agent_id, generation, request, created_at, expires_at";
    let row: Option<(String, Option<String>, i64, String, i64, i64)> = on!(conn, c => sqlx::query_as(SQL)
        .bind(state_hash).bind(organization.as_str()).bind(user.as_str()).bind(now.0).fetch_optional(c).await?);
    Ok(row.map(|(instance_id, agent_id, generation, request, created_at, expires_at)| RemoteConnectionRequest {
        state_hash: state_hash.to_owned(),
        organization_id: organization.clone(),
        instance_id: InstanceId::from_store(instance_id),
        agent_id: agent_id.map(AgentId::from_store),
        user_id: user.clone(),
        generation,
        request,
        created_at: Timestamp(created_at),
        expires_at: Timestamp(expires_at),
    }))
}
