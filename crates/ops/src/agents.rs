//! Agents: the AI clients of an organisation. The agents of people are created when they sign in to the gateway.

use serde_json::json;
use waypost_core::access::{Operation, authorize};
use waypost_core::agent::{Agent, AgentKind, AgentState, AgentToken, MAX_AGENTS, MAX_NAME, check_agent_name};
use waypost_core::caller::Ctx;
use waypost_core::id::{AgentId, OrganizationId, UserId};
use waypost_core::organization::Member;
use waypost_core::{Code, Error, Result};
use waypost_store::remote_connection::{self, RemoteConnection};
use waypost_store::{Conn, Tx, agent as store, agent_token, organization, user};

use crate::Ops;
use crate::audit::{Entry, record};
use crate::checks::{check_short_name, conflict_if_taken, exceeds};
use crate::remote_tokens::revoke;

/// The maximum number of characters that make the name of a person's agent unique.
const SUFFIX: usize = 5;

/// An agent with its tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentView {
    /// The agent.
    pub agent: Agent,
    /// The tokens without their secrets, oldest first.
    pub tokens: Vec<AgentToken>,
}

/// Changes to an agent. Fields that are `None` stay unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentPatch {
    /// The new name.
    pub name: Option<String>,
    /// Whether the agent can use the gateway.
    pub state: Option<AgentState>,
}

/// Creates an agent of the kind `service`, without tokens or grants.
///
/// # Errors
/// `not_found` if the caller cannot access the organisation; `forbidden` for members below admin; `invalid_arguments` for
/// the name; `conflict` if the name is taken, or the organisation has 1,000 agents.
pub async fn create(cx: &Ctx, ops: &Ops, organization: &OrganizationId, name: &str) -> Result<AgentView> {
    authorize(&cx.caller, Operation::AgentWrite, organization)?;
    let agent = Agent {
        id: AgentId::new(&*cx.random),
        organization_id: organization.clone(),
        name: checked_name(name)?,
        kind: AgentKind::Service,
        user_id: None,
        state: AgentState::Active,
        created_at: cx.now(),
        created_by: cx.caller.actor().to_owned(),
        last_seen_at: None,
    };
    let mut tx = ops.store.begin().await?;
    if organization::find(&mut tx, organization).await?.is_none() {
        return Err(Error::not_found("organisation"));
    }
    insert(cx, &mut tx, &agent).await?;
    tx.commit().await?;
    Ok(AgentView { agent, tokens: Vec::new() })
}

async fn insert(cx: &Ctx, tx: &mut Tx, agent: &Agent) -> Result<()> {
    // The insertion locks the change counter, so agents are counted one after another.
    store::insert(tx, agent).await.map_err(|error| name_taken(error, &agent.name))?;
    if exceeds(store::count(tx, &agent.organization_id).await?, MAX_AGENTS) {
        let message = format!("An organisation can have at most {MAX_AGENTS} agents. Delete one first.");
        return Err(Error::new(Code::Conflict, message));
    }
    record_operation(cx, tx, agent, "agent.create").await
}

/// Returns the agent of a member; creates it without grants if there is none. The caller must have locked the
/// membership.
///
/// # Errors
/// `conflict` if the organisation has 1,000 agents; any error of the store.
pub(crate) async fn find_or_create_for_member(
    cx: &Ctx,
    tx: &mut Tx,
    organization: &OrganizationId,
    member: &Member,
) -> Result<Agent> {
    if let Some(agent) = store::find_by_user(tx, organization, &member.user_id).await? {
        return Ok(agent);
    }
    let agent = Agent {
        id: AgentId::new(&*cx.random),
        organization_id: organization.clone(),
        name: unused_name(tx, organization, &member.email).await?,
        kind: AgentKind::Person,
        user_id: Some(member.user_id.clone()),
        state: AgentState::Active,
        created_at: cx.now(),
        created_by: cx.caller.actor().to_owned(),
        last_seen_at: None,
    };
    insert(cx, tx, &agent).await?;
    Ok(agent)
}

/// Returns the email of a person, shortened, as the name of their agent. If an agent has this name already, returns it with
/// a number.
async fn unused_name(tx: &mut Tx, organization: &OrganizationId, email: &str) -> Result<String> {
    let base: String = waypost_content::name::clean(email).chars().take(MAX_NAME - SUFFIX).collect();
    for number in 1..=MAX_AGENTS + 1 {
        let name = if number == 1 { base.clone() } else { format!("{base} {number}") };
        if store::find_by_name(tx, organization, &name).await?.is_none() {
            return Ok(name);
        }
    }
    Err(Error::internal("all names of an agent are taken"))
}

/// Whether the person of an agent is still a member of the organisation, and the agent is active.
pub(crate) async fn is_person_active(tx: &mut Tx, organization: &OrganizationId, id: &AgentId) -> Result<bool> {
    let Some(agent) = store::find(tx, organization, id).await? else { return Ok(false) };
    let Some(user) = agent.user_id.filter(|_| agent.state == AgentState::Active) else { return Ok(false) };
    Ok(user::find_member(tx, organization, &user).await?.is_some())
}

/// Deletes the agent of a member who leaves, with its grants, tokens and connections. A person who joins again starts without
/// grants. Returns the connections, whose tokens the caller revokes after the transaction.
pub(crate) async fn delete_for_user(
    cx: &Ctx,
    tx: &mut Tx,
    organization: &OrganizationId,
    user: &UserId,
) -> Result<Vec<RemoteConnection>> {
    let Some(agent) = store::find_by_user(tx, organization, user).await? else { return Ok(Vec::new()) };
    let connections = remote_connection::list_of_agent(tx, organization, &agent.id).await?;
    store::delete(tx, organization, &agent.id).await?;
    record_operation(cx, tx, &agent, "agent.delete").await?;
    Ok(connections)
}

/// Returns at most `limit` agents with their tokens, ordered by name. With `after`, returns only those with a later
/// name.
///
/// # Errors
/// `not_found` if the caller cannot access the organisation; `forbidden` for members below admin.
pub async fn list(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    after: Option<&str>,
    limit: u32,
) -> Result<Vec<AgentView>> {
    authorize(&cx.caller, Operation::AgentRead, organization)?;
    let mut conn = ops.store.read().await?;
    let agents = store::list(&mut conn, organization, after, limit).await?;
    with_tokens(&mut conn, organization, agents).await
}

/// Returns an agent with its tokens.
///
/// # Errors
/// Those of [`list`]; `not_found` if the agent does not exist.
pub async fn get(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &AgentId) -> Result<AgentView> {
    authorize(&cx.caller, Operation::AgentRead, organization)?;
    let mut conn = ops.store.read().await?;
    let agent = store::find(&mut conn, organization, id).await?;
    view(&mut conn, organization, agent).await
}

/// Returns the agent with the ID or the name `text`.
///
/// # Errors
/// Those of [`get`].
pub async fn resolve(cx: &Ctx, ops: &Ops, organization: &OrganizationId, text: &str) -> Result<AgentView> {
    authorize(&cx.caller, Operation::AgentRead, organization)?;
    let mut conn = ops.store.read().await?;
    // No name has the form of an ID.
    let agent = match text.parse::<AgentId>() {
        Ok(id) => store::find(&mut conn, organization, &id).await?,
        Err(_) => store::find_by_name(&mut conn, organization, &waypost_content::name::clean(text)).await?,
    };
    view(&mut conn, organization, agent).await
}

/// Changes the name or the state of an agent. A disabled agent is rejected everywhere within one second; its tokens and
/// grants are kept.
///
/// # Errors
/// Those of [`create`]; `not_found` if the agent does not exist.
pub async fn update(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &AgentId,
    change: &AgentPatch,
) -> Result<AgentView> {
    authorize(&cx.caller, Operation::AgentWrite, organization)?;
    let mut tx = ops.store.begin().await?;
    let before = store::find(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    let mut agent = before.clone();
    if let Some(name) = &change.name {
        agent.name = checked_name(name)?;
    }
    agent.state = change.state.unwrap_or(agent.state);
    if agent != before {
        store::update(&mut tx, &agent).await.map_err(|error| name_taken(error, &agent.name))?;
        record_operation(cx, &mut tx, &agent, "agent.update").await?;
    }
    let view = view(&mut tx, organization, Some(agent)).await?;
    tx.commit().await?;
    Ok(view)
}

/// Deletes an agent with its tokens, grants and connections, whose tokens are revoked at the authorization server.
///
/// # Errors
/// `not_found` if the agent does not exist or the caller cannot access the organisation; `forbidden` for members below
/// admin.
pub async fn delete(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &AgentId) -> Result<()> {
    authorize(&cx.caller, Operation::AgentWrite, organization)?;
    let mut tx = ops.store.begin().await?;
    let agent = store::find(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    let connections = remote_connection::list_of_agent(&mut tx, organization, id).await?;
    store::delete(&mut tx, organization, id).await?;
    record_operation(cx, &mut tx, &agent, "agent.delete").await?;
    tx.commit().await?;
    revoke(ops, connections).await;
    Ok(())
}

async fn view(conn: &mut Conn, organization: &OrganizationId, agent: Option<Agent>) -> Result<AgentView> {
    let views = with_tokens(conn, organization, agent.into_iter().collect()).await?;
    views.into_iter().next().ok_or_else(not_found)
}

async fn with_tokens(conn: &mut Conn, organization: &OrganizationId, agents: Vec<Agent>) -> Result<Vec<AgentView>> {
    let ids: Vec<_> = agents.iter().map(|agent| &agent.id).collect();
    let tokens = agent_token::list(conn, organization, &ids).await?;
    let mut views: Vec<_> = agents.into_iter().map(|agent| AgentView { agent, tokens: Vec::new() }).collect();
    for token in tokens {
        if let Some(view) = views.iter_mut().find(|view| view.agent.id == token.agent_id) {
            view.tokens.push(token);
        }
    }
    Ok(views)
}

fn checked_name(text: &str) -> Result<String> {
    let name = check_short_name(text)?;
    check_agent_name(&name)?;
    Ok(name)
}

async fn record_operation(cx: &Ctx, tx: &mut Tx, agent: &Agent, action: &'static str) -> Result<()> {
    let detail = json!({
        "name": agent.name,
        "kind": agent.kind.as_str(),
        "user_id": agent.user_id,
        "state": agent.state.as_str(),
    });
    record(cx, tx, &agent.organization_id, Entry { action, target: agent.id.as_str(), detail }).await
}

pub(crate) fn not_found() -> Error {
    Error::not_found("agent")
}

fn name_taken(error: waypost_store::Error, name: &str) -> Error {
    conflict_if_taken(error, || format!("An agent named `{name}` already exists. Choose another name."))
}
