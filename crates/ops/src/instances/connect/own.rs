//! The connection of a person's own agent, for every member with a grant to the instance.
//!
//! A person who has neither a grant nor a connection gets the same error as for an instance that does not exist.

use waypost_core::access::Operation;
use waypost_core::agent::Agent;
use waypost_core::caller::Ctx;
use waypost_core::id::OrganizationId;
use waypost_core::instance::{Backend, ConnectionState, Instance};
use waypost_core::{Error, Result, Timestamp};
use waypost_store::remote_connection::{self, RemoteConnection};
use waypost_store::{Conn, agent as agent_store, instance as store};

use super::list::{end_connection, state_of};
use super::owner::{Owner, find_granted_agent};
use super::{StartedConnection, not_found, start, user_of};
use crate::Ops;

/// The view that a person has of an instance to which they can connect their agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnConnection {
    /// The slug of the instance.
    pub slug: String,
    /// The name of the instance.
    pub name: String,
    /// The scheme, host and port of the server.
    pub server: String,
    /// Whether the person has a grant, so that they can connect.
    pub can_connect: bool,
    /// The connection: the issuer of the authorization server, its state, and when it was connected.
    pub current: Option<(String, ConnectionState, Timestamp)>,
    /// The scope that the server requires and the connection lacks. `None` if none is known.
    pub required_scope: Option<String>,
}

/// An instance with the caller's own agent.
struct Found {
    instance: Instance,
    server: String,
    /// The agent, if it has a grant.
    granted: Option<Agent>,
    connection: Option<RemoteConnection>,
}

async fn find(cx: &Ctx, conn: &mut Conn, organization: &OrganizationId, slug: &str) -> Result<Found> {
    let user = user_of(cx)?;
    // The slug comes from a URL, and may contain characters that PostgreSQL rejects.
    if !slug.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Err(not_found());
    }
    let instance = store::find_by_slug(conn, organization, slug).await?;
    let instance = instance.filter(|instance| instance.is_connected_per_agent() && !instance.is_removing);
    let instance = instance.ok_or_else(not_found)?;
    let agent = agent_store::find_by_user(conn, organization, &user).await?.ok_or_else(not_found)?;
    let connection = remote_connection::find(conn, organization, (&instance.id, Some(&agent.id))).await?;
    let granted = find_granted_agent(cx, conn, &instance, &user).await?;
    if granted.is_none() && connection.is_none() {
        return Err(not_found());
    }
    let Backend::Remote(remote) = &instance.backend else { return Err(not_found()) };
    Ok(Found { server: remote.origin.clone(), instance, granted, connection })
}

/// Returns the connection of the caller's own agent to the instance with this slug.
///
/// # Errors
/// `not_found` if the caller cannot access the organisation, the instance does not exist or does not have a connection for each
/// agent, or the caller has neither a grant to it nor a connection; `conflict` (`reason` is `user_required`) for API keys.
pub async fn find_own(cx: &Ctx, ops: &Ops, organization: &OrganizationId, slug: &str) -> Result<OwnConnection> {
    ops.authorize_toolboxes(cx, Operation::InstanceConnect, organization)?;
    let found = find(cx, &mut ops.store.read().await?, organization, slug).await?;
    let state = |connection: RemoteConnection| {
        let state = state_of(cx, &connection);
        (connection.issuer, state, connection.connected_at)
    };
    Ok(OwnConnection {
        required_scope: found.connection.as_ref().and_then(|connection| connection.required_scope.clone()),
        slug: found.instance.slug,
        name: found.instance.name,
        server: found.server,
        can_connect: found.granted.is_some(),
        current: found.connection.map(state),
    })
}

/// Starts the connection of the caller's own agent. `origin` is the public origin of this installation.
///
/// # Errors
/// Those of [`find_own`]; `not_found` without a grant; `rate_limited` after 20 starts within a minute; those of
/// [`super::begin`] about the server.
pub async fn begin_own(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    (slug, origin): (&str, &str),
) -> Result<StartedConnection> {
    ops.authorize_toolbox_use(cx, Operation::InstanceConnect, organization).await?;
    let found = find(cx, &mut ops.store.read().await?, organization, slug).await?;
    let agent = found.granted.ok_or_else(not_found)?;
    ops.connection_limit.check(&user_of(cx)?)?;
    start(cx, ops, (&found.instance, &Owner::Agent(Box::new(agent))), origin).await
}

/// Ends the connection of the caller's own agent, and revokes its tokens at the authorization server.
///
/// # Errors
/// Those of [`find_own`]; `not_found` if there is no connection.
pub async fn disconnect_own(cx: &Ctx, ops: &Ops, organization: &OrganizationId, slug: &str) -> Result<()> {
    ops.authorize_toolboxes(cx, Operation::InstanceConnect, organization)?;
    let found = find(cx, &mut ops.store.read().await?, organization, slug).await?;
    let connection = found.connection.ok_or_else(|| Error::not_found("connection"))?;
    end_connection(cx, ops, organization, (&found.instance.id, connection.agent_id.as_ref())).await
}
