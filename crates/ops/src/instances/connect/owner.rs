//! Rules for who can connect which agent if each agent has its own connection.
//!
//! Invariants:
//! 1. A person is connected only by themselves, if they are active and have a grant to the instance, so that nobody uses
//!    another person's account without their knowledge, or lends an account to a person.
//! 2. A service is connected only by an admin.

use waypost_core::access::Operation;
use waypost_core::agent::{Agent, AgentKind, AgentState};
use waypost_core::caller::Ctx;
use waypost_core::grant::MAX_GRANTS;
use waypost_core::id::{AgentId, OrganizationId, UserId};
use waypost_core::instance::Instance;
use waypost_core::{Code, Error, Result};
use waypost_store::grant::GrantFilter;
use waypost_store::{Conn, agent as agent_store, grant};

use super::{ConnectionOwner, user_of};
use crate::Ops;

/// The owner of a connection.
pub(super) enum Owner {
    /// The organisation.
    Organization,
    /// An agent.
    Agent(Box<Agent>),
}

impl Owner {
    /// Returns the ID of the agent.
    pub(super) fn agent_id(&self) -> Option<&AgentId> {
        match self {
            Self::Organization => None,
            Self::Agent(agent) => Some(&agent.id),
        }
    }

    pub(super) fn kind(&self) -> ConnectionOwner {
        match self {
            Self::Organization => ConnectionOwner::Organization,
            Self::Agent(agent) if agent.kind == AgentKind::Person => ConnectionOwner::Person,
            Self::Agent(_) => ConnectionOwner::Service,
        }
    }
}

fn conflict(reason: &str, message: &str) -> Error {
    Error::new(Code::Conflict, message).with("reason", reason)
}

/// Returns the owner of a connection that an admin starts.
///
/// # Errors
/// `not_found` if the agent does not exist; `conflict` (`reason` is `agent_required`, `not_per_agent` or `person_required`) if
/// the instance has no such connection, or the agent belongs to a person.
pub(super) async fn find_owner(conn: &mut Conn, instance: &Instance, agent: Option<&AgentId>) -> Result<Owner> {
    match (instance.is_connected_per_agent(), agent) {
        (false, None) => Ok(Owner::Organization),
        (false, Some(_)) => {
            let message = "The instance has one connection for all agents. Connect it without an agent.";
            Err(conflict("not_per_agent", message))
        }
        (true, None) => {
            let message = "Each agent has its own connection to this instance. Specify the service to connect.";
            Err(conflict("agent_required", message))
        }
        (true, Some(id)) => {
            let agent = agent_store::find(conn, &instance.organization_id, id).await?;
            let agent = agent.ok_or_else(|| Error::not_found("agent"))?;
            if agent.kind == AgentKind::Person {
                let message = "This agent belongs to a person. Only they can connect it, with their own account.";
                return Err(conflict("person_required", message));
            }
            Ok(Owner::Agent(Box::new(agent)))
        }
    }
}

/// Returns the active agent of a user, if it has a grant to the instance.
pub(super) async fn find_granted_agent(
    cx: &Ctx,
    conn: &mut Conn,
    instance: &Instance,
    user: &UserId,
) -> Result<Option<Agent>> {
    let organization = &instance.organization_id;
    let found = agent_store::find_by_user(conn, organization, user).await?;
    let Some(agent) = found.filter(|agent| agent.state == AgentState::Active) else { return Ok(None) };
    let filter = GrantFilter { agent: Some(&agent.id), instance: Some(&instance.id) };
    let limit = u32::try_from(MAX_GRANTS).unwrap_or(u32::MAX);
    let grants = grant::list(conn, organization, filter, None, limit).await?;
    let has_grant = grants.iter().any(|grant| grant.expires_at.is_none_or(|at| cx.now() < at));
    Ok(Some(agent).filter(|_| has_grant))
}

/// Authorizes the caller to finish a connection that they started: members only for their own agent, admins for any.
///
/// # Errors
/// `forbidden` for members below admin, except for their own agent.
pub(super) async fn authorize_owner(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    agent: Option<&AgentId>,
) -> Result<()> {
    let user = user_of(cx)?;
    let own = agent_store::find_by_user(&mut ops.store.read().await?, organization, &user).await?;
    match agent.is_some() && own.as_ref().map(|own| &own.id) == agent {
        true => Ok(()),
        false => ops.authorize_toolboxes(cx, Operation::InstanceWrite, organization),
    }
}

/// Returns the owner of a connection that the caller stores. The caller has been authorized.
///
/// # Errors
/// `not_found` if the person no longer has a grant to the instance, or the agent does not exist; `conflict` as in
/// [`find_owner`].
pub(super) async fn check_owner(
    cx: &Ctx,
    conn: &mut Conn,
    instance: &Instance,
    agent: Option<&AgentId>,
) -> Result<Owner> {
    if let Some(id) = agent.filter(|_| instance.is_connected_per_agent()) {
        let own = find_granted_agent(cx, conn, instance, &user_of(cx)?).await?;
        if let Some(own) = own.filter(|own| own.id == *id) {
            return Ok(Owner::Agent(Box::new(own)));
        }
        let found = agent_store::find(conn, &instance.organization_id, id).await?;
        if found.is_none_or(|agent| agent.kind == AgentKind::Person) {
            return Err(super::not_found());
        }
    }
    find_owner(conn, instance, agent).await
}
