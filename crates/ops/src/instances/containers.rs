//! Selects the container that a request uses, if the instance has personal secrets.
//!
//! Invariants:
//! 1. The values of an agent are used only for the container with the key of this agent (`toolbox_directory/secrets.rs`).
//! 2. A request that needs a container whose required values are missing fails here, before a container starts.

use waypost_core::agent::AgentState;
use waypost_core::agent_secret::{AgentSecret, missing, version};
use waypost_core::caller::Ctx;
use waypost_core::id::{AgentId, OrganizationId};
use waypost_core::instance::Instance;
use waypost_core::{Code, Error, Result};
use waypost_store::{Conn, agent, agent_secret, organization};
use waypost_toolbox_proto::http::agent_key;

use crate::Ops;
use crate::checks::find_user;

/// The container that a request uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerKey {
    /// The key, if the instance has several. Shared instances and remote servers ignore it.
    pub key: String,
    /// The version of the personal secrets of the container's agent; 0 for other containers. A container that was
    /// started with an earlier version is replaced first.
    pub personal_version: u64,
}

impl ContainerKey {
    /// Returns the key of a container without personal secrets.
    #[must_use]
    pub fn new(key: String) -> Self {
        Self { key, personal_version: 0 }
    }
}

/// Returns the container of an agent. Reads the database only if the instance has personal secrets. The caller has been
/// authorized.
///
/// # Errors
/// `conflict` (`reason` is `secret_missing`) if the agent has not supplied a required value; the message contains the
/// URL of the page on which to set it. Any error of the store.
pub async fn find_of_agent(ops: &Ops, instance: &Instance, agent: &AgentId) -> Result<ContainerKey> {
    let key = agent_key(agent.as_str());
    if instance.personal_secrets.is_empty() {
        return Ok(ContainerKey::new(key));
    }
    let mut conn = ops.store.read().await?;
    let secrets = agent_secret::list(&mut conn, &instance.organization_id, agent, Some(&instance.id)).await?;
    check(ops, &mut conn, instance, (agent, &secrets)).await?;
    Ok(ContainerKey { key, personal_version: version(&secrets) })
}

async fn check(
    ops: &Ops,
    conn: &mut Conn,
    instance: &Instance,
    (id, secrets): (&AgentId, &[AgentSecret]),
) -> Result<()> {
    let missing = missing(&instance.personal_secrets, secrets);
    if missing.is_empty() {
        return Ok(());
    }
    let organization = &instance.organization_id;
    let slug = organization::find(conn, organization).await?.map(|found| found.slug).unwrap_or_default();
    let is_person = agent::find(conn, organization, id).await?.is_some_and(|agent| agent.user_id.is_some());
    let url = match is_person {
        true => ops.console_url(&format!("/o/{slug}/personal-secrets#{}", instance.slug)),
        false => ops.console_url(&format!("/o/{slug}/agents/{id}/secrets#{}", instance.slug)),
    };
    let names = missing.join("`, `");
    let message = match is_person {
        true => format!("This server needs your own value of `{names}`. Set it at {url} and call again."),
        false => format!("This server needs the agent's own value of `{names}`. An admin can set it at {url}."),
    };
    Err(secret_missing(message).with("secrets", missing.clone()).with("url", url))
}

fn secret_missing(message: String) -> Error {
    Error::new(Code::Conflict, message).with("reason", "secret_missing")
}

/// Returns the container from which the lists of a server are read: `default` if no personal secret is required,
/// otherwise that of an active agent that has supplied every required value. Services come first, because admins set
/// their values, then people with a grant.
///
/// # Errors
/// `conflict` (`reason` is `secret_missing`) if there is no such agent; any error of the store.
pub(crate) async fn find_for_lists(ops: &Ops, instance: &Instance, default: &str) -> Result<ContainerKey> {
    let required: Vec<&str> = {
        let required = instance.personal_secrets.iter().filter(|secret| secret.is_required);
        required.map(|secret| secret.name.as_str()).collect()
    };
    if required.is_empty() {
        return Ok(ContainerKey::new(default.to_owned()));
    }
    let mut conn = ops.store.read().await?;
    let supplied =
        agent_secret::list_agents(&mut conn, &instance.organization_id, &instance.id, ops.background().now()).await?;
    let has_all =
        |agents: &&[(AgentId, String)]| required.iter().all(|name| agents.iter().any(|(_, supplied)| supplied == name));
    let complete = supplied.chunk_by(|(one, _), (other, _)| one == other).find(has_all);
    let Some((agent, _)) = complete.and_then(<[_]>::first) else {
        let message = format!(
            "No agent has supplied its own value of `{}` yet, so the server cannot be started. Set the values of an agent first.",
            required.join("`, `")
        );
        return Err(secret_missing(message).with("secrets", required));
    };
    drop(conn);
    find_of_agent(ops, instance, agent).await
}

/// Returns the container for a call that a member makes in the console or with the API; `default` if the instance has
/// no personal secrets, or if the member has no agent and no secret is required; otherwise the container of the
/// member's own agent.
///
/// # Errors
/// `conflict` (`reason` is `secret_missing`) if a secret is required and the caller has no agent, or has not supplied
/// its value; any error of the store.
pub(super) async fn find_of_caller(cx: &Ctx, ops: &Ops, instance: &Instance, default: String) -> Result<ContainerKey> {
    if instance.personal_secrets.is_empty() {
        return Ok(ContainerKey::new(default));
    }
    if let Some(agent) = find_agent(cx, ops, &instance.organization_id).await? {
        return find_of_agent(ops, instance, &agent).await;
    }
    if instance.personal_secrets.iter().any(|secret| secret.is_required) {
        let message = "Each agent has its own secrets of this server, and you have no agent in this organisation. \
            Call the server with an agent through the gateway.";
        return Err(secret_missing(message.to_owned()));
    }
    Ok(ContainerKey::new(default))
}

/// Returns the active agent with which the caller uses the gateway. `None` if the caller is not a user, or has no
/// active agent.
pub(super) async fn find_agent(cx: &Ctx, ops: &Ops, organization: &OrganizationId) -> Result<Option<AgentId>> {
    let Some(user) = find_user(cx) else { return Ok(None) };
    let found = agent::find_by_user(&mut ops.store.read().await?, organization, &user).await?;
    Ok(found.filter(|agent| agent.state == AgentState::Active).map(|agent| agent.id))
}

/// Deletes the values that agents have supplied for names that are no longer personal secrets of the instance.
///
/// # Errors
/// Any error of the store.
pub(crate) async fn delete_undeclared(conn: &mut Conn, instance: &Instance) -> Result<()> {
    let names: Vec<&str> = instance.personal_secrets.iter().map(|secret| secret.name.as_str()).collect();
    Ok(agent_secret::delete_others(conn, &instance.organization_id, &instance.id, &names).await?)
}
