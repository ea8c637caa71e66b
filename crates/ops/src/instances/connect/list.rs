//! Lists and ends the connections of an instance.

use waypost_core::access::Operation;
use waypost_core::agent::AgentKind;
use waypost_core::caller::Ctx;
use waypost_core::id::{AgentId, InstanceId, OrganizationId};
use waypost_core::instance::ConnectionState;
use waypost_core::{Error, Result, Timestamp};
use waypost_store::instance as store;
use waypost_store::remote_connection::{self, ConnectionKey, ListedConnection, RemoteConnection};

use super::{lock, not_found, record_connection, remote};
use crate::Ops;
use crate::remote_tokens::revoke;

/// A connection in a list, without its tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentConnection {
    /// The agent. `None` for the connection of the organisation.
    pub agent_id: Option<AgentId>,
    /// The name and the kind of the agent.
    pub agent: Option<(String, AgentKind)>,
    /// The issuer of the authorization server.
    pub issuer: String,
    /// The state.
    pub state: ConnectionState,
    /// When it was connected.
    pub connected_at: Timestamp,
    /// When the access token expires; `None` if this is unknown.
    pub expires_at: Option<Timestamp>,
    /// The scope that the server requires and the connection lacks. `None` if none is known.
    pub required_scope: Option<String>,
}

/// Returns the current state of a connection.
pub(super) fn state_of(cx: &Ctx, connection: &RemoteConnection) -> ConnectionState {
    match (connection.failed_at, connection.expires_at) {
        (Some(_), _) => ConnectionState::Failed,
        (None, Some(at)) if at <= cx.now() => ConnectionState::Expired,
        _ => ConnectionState::Connected,
    }
}

/// Returns at most `limit` connections of an instance, ordered by the ID of the agent. With `after`, returns only those
/// after this agent.
///
/// # Errors
/// `not_found` if the instance does not exist or the caller cannot access it; `forbidden` for members below admin.
pub async fn list(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &InstanceId,
    (after, limit): (Option<&AgentId>, u32),
) -> Result<Vec<AgentConnection>> {
    ops.authorize_toolboxes(cx, Operation::InstanceWrite, organization)?;
    let mut conn = ops.store.read().await?;
    if store::find(&mut conn, organization, id).await?.is_none() {
        return Err(not_found());
    }
    let found = remote_connection::list(&mut conn, organization, id, after, limit).await?;
    let view = |ListedConnection { connection, agent }| AgentConnection {
        state: state_of(cx, &connection),
        agent_id: connection.agent_id,
        agent,
        issuer: connection.issuer,
        connected_at: connection.connected_at,
        expires_at: connection.expires_at,
        required_scope: connection.required_scope,
    };
    Ok(found.into_iter().map(view).collect())
}

/// Ends the connection of an agent, or of the organisation if `agent` is `None`, and revokes its tokens at the authorization
/// server. Without the connection of the organisation, the instance waits until it is connected again.
///
/// # Errors
/// `not_found` if the instance does not exist or has no such connection, or the caller cannot access it; `forbidden` for
/// members below admin.
pub async fn disconnect(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &InstanceId,
    agent: Option<&AgentId>,
) -> Result<()> {
    ops.authorize_toolboxes(cx, Operation::InstanceWrite, organization)?;
    end_connection(cx, ops, organization, (id, agent)).await
}

/// Ends a connection. The caller has been authorized.
pub(super) async fn end_connection(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    (id, agent): ConnectionKey<'_>,
) -> Result<()> {
    let mut tx = ops.store.begin().await?;
    let mut instance = lock(&mut tx, organization, id).await?;
    let deleted = remote_connection::delete(&mut tx, organization, (id, agent)).await?;
    let deleted = deleted.ok_or_else(|| Error::not_found("connection"))?;
    if agent.is_none() {
        // Makes all processes drop their sessions, which use the token.
        instance.restarts += 1;
        instance.updated_at = cx.now();
        remote::restart_checks(cx, &mut tx, &mut instance).await?;
    }
    record_connection(cx, &mut tx, &instance, ("instance.disconnect", &deleted)).await?;
    tx.bump_config_version(organization).await?;
    tx.commit().await?;
    revoke(ops, vec![deleted]).await;
    Ok(())
}
