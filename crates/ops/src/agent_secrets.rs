//! The values of agents for personal secrets. A value can be written but never read back by a caller; it is opened only to start
//! the container of its agent (`toolbox_directory`).
//!
//! People set their own values. Admins set those of services, and can remove those of everyone.
//!
//! Invariants:
//! 1. A member reads and writes only the values of their own agent, and only for instances to which it has a grant: an
//!    instance without a grant is not distinguished from one that does not exist.
//! 2. Every change is numbered within its instance (`store/agent_secret.rs`), so that the daemon replaces the container
//!    of this agent, and of no other.

use serde_json::json;
use waypost_core::access::{Operation, authorize};
use waypost_core::agent::{Agent, AgentKind, MAX_AGENTS};
use waypost_core::agent_secret::AgentSecret;
use waypost_core::caller::Ctx;
use waypost_core::grant::MAX_GRANTS;
use waypost_core::id::{AgentId, AgentSecretId, InstanceId, OrganizationId, UserId};
use waypost_core::instance::Instance;
use waypost_core::seal::{SealLocation, SecretText};
use waypost_core::tool_secret::check_value;
use waypost_core::{Code, Error, Result, Timestamp};
use waypost_store::grant::GrantFilter;
use waypost_store::{Conn, Tx, agent, agent_secret as store, grant, instance, instance_source};

use crate::Ops;
use crate::agents;
use crate::audit::{Entry, record};
use crate::checks::{conflict_if_deleted, require_user};

/// The number of instances that are read at a time.
const PAGE: i64 = 200;

/// A personal secret, and whether an agent has supplied a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PersonalSecretView {
    /// The name.
    pub name: String,
    /// The purpose of the secret.
    pub description: String,
    /// Whether the server does not work without it.
    pub is_required: bool,
    /// When the value was set. `None` if there is none.
    pub set_at: Option<Timestamp>,
}

/// The personal secrets of an instance, from the point of view of one agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstancePersonalSecrets {
    /// The instance.
    pub instance_id: InstanceId,
    /// Its slug.
    pub slug: String,
    /// Its name.
    pub name: String,
    /// The personal secrets, ordered by name.
    pub secrets: Vec<PersonalSecretView>,
}

/// A value of an agent, without the value itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentSecretView {
    /// The agent.
    pub agent_id: AgentId,
    /// The name of the agent.
    pub agent_name: String,
    /// The name of the secret.
    pub name: String,
    /// When the value was set.
    pub set_at: Timestamp,
}

/// Identifies a value of an agent for an instance.
#[derive(Debug, Clone, Copy)]
pub struct AgentSecretRef<'a> {
    /// The instance.
    pub instance: &'a InstanceId,
    /// The agent.
    pub agent: &'a AgentId,
    /// The name of the secret.
    pub name: &'a str,
}

/// Returns the location to which a value is sealed.
pub(crate) fn location(id: &AgentSecretId) -> SealLocation<'_> {
    SealLocation { table: "agent_secrets", column: "value", row: id.as_str() }
}

/// Returns the personal secrets of the instances to which the caller's own agent has a grant, or for which it has a value,
/// ordered by slug. A caller without an agent has none.
///
/// # Errors
/// `not_found` if the caller cannot access the organisation; `conflict` (`reason` is `user_required`) for API keys and the
/// operator.
pub async fn list_own(cx: &Ctx, ops: &Ops, organization: &OrganizationId) -> Result<Vec<InstancePersonalSecrets>> {
    authorize(&cx.caller, Operation::OwnSecretWrite, organization)?;
    let user = user_of(cx)?;
    let mut tx = ops.store.snapshot().await?;
    let Some(agent) = agent::find_by_user(&mut tx, organization, &user).await? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    let mut ids = list_granted(cx, &mut tx, &agent).await?;
    let own = store::list(&mut tx, organization, &agent.id, None).await?;
    ids.extend(own.into_iter().filter(|own| own.is_set).map(|own| own.instance_id));
    ids.sort();
    ids.dedup();
    for id in ids {
        if let Some(instance) = instance::find(&mut tx, organization, &id).await? {
            found.push(instance);
        }
    }
    found.sort_by(|one, other| one.slug.cmp(&other.slug));
    with_secrets(&mut tx, &agent, found).await
}

/// Returns the personal secrets of all instances that have some, and which of them an agent has supplied, ordered by
/// slug.
///
/// # Errors
/// `not_found` if the agent does not exist or the caller cannot access the organisation; `forbidden` for members below admin.
pub async fn list_of_agent(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &AgentId,
) -> Result<Vec<InstancePersonalSecrets>> {
    authorize(&cx.caller, Operation::AgentSecretRead, organization)?;
    let mut tx = ops.store.snapshot().await?;
    let agent = agent::find(&mut tx, organization, id).await?.ok_or_else(agents::not_found)?;
    let (mut found, mut after) = (Vec::new(), None::<String>);
    loop {
        let page = instance::list(&mut tx, organization, after.as_deref(), PAGE).await?;
        after = page.last().map(|last| last.slug.clone());
        found.extend(page);
        if after.is_none() {
            return with_secrets(&mut tx, &agent, found).await;
        }
    }
}

/// Returns the names of the personal secrets of an instance for which agents have supplied values, ordered by the name
/// of the agent.
///
/// # Errors
/// `not_found` if the instance does not exist or the caller cannot access the organisation; `forbidden` for members below admin.
pub async fn list(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &InstanceId) -> Result<Vec<AgentSecretView>> {
    authorize(&cx.caller, Operation::AgentSecretRead, organization)?;
    let mut tx = ops.store.snapshot().await?;
    instance::find(&mut tx, organization, id).await?.ok_or_else(no_instance)?;
    let secrets = store::list_by_instance(&mut tx, organization, id).await?;
    let agents = agent::list(&mut tx, organization, None, u32::try_from(MAX_AGENTS).unwrap_or(u32::MAX)).await?;
    let of = |agent: &Agent| {
        let own = secrets.iter().filter(|secret| secret.agent_id == agent.id);
        let view = |secret: &AgentSecret| AgentSecretView {
            agent_id: agent.id.clone(),
            agent_name: agent.name.clone(),
            name: secret.name.clone(),
            set_at: secret.updated_at,
        };
        own.map(view).collect::<Vec<_>>()
    };
    Ok(agents.iter().flat_map(of).collect())
}

/// Sets or replaces a value of a service. Its container is replaced before its next call.
///
/// # Errors
/// `not_found` if the instance or the agent does not exist or the caller cannot access the organisation; `forbidden`
/// for members below admin; `invalid_arguments` for the name or the value; `conflict` for the agent of a person
/// (`reason` is `person`), or if the instance is being removed.
pub async fn set(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    AgentSecretRef { instance: id, agent, name }: AgentSecretRef<'_>,
    value: &SecretText,
) -> Result<()> {
    authorize(&cx.caller, Operation::AgentSecretWrite, organization)?;
    check_value(value.expose())?;
    let mut tx = ops.store.begin().await?;
    let agent = agent::find(&mut tx, organization, agent).await?.ok_or_else(agents::not_found)?;
    if agent.kind == AgentKind::Person {
        let message = format!("`{}` is the agent of a person, who sets their own values in the console.", agent.name);
        return Err(Error::new(Code::Conflict, message).with("reason", "person"));
    }
    let instance = instance::find(&mut tx, organization, id).await?.ok_or_else(no_instance)?;
    write(cx, ops, &mut tx, (&instance, &agent, name, value)).await?;
    Ok(tx.commit().await?)
}

/// Removes a value of an agent. If it is required, calls by the agent fail from then on.
///
/// # Errors
/// `not_found` if the instance, the agent or the value does not exist or the caller cannot access the organisation;
/// `forbidden` for members below admin.
pub async fn delete(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    AgentSecretRef { instance: id, agent, name }: AgentSecretRef<'_>,
) -> Result<()> {
    authorize(&cx.caller, Operation::AgentSecretWrite, organization)?;
    let mut tx = ops.store.begin().await?;
    let agent = agent::find(&mut tx, organization, agent).await?.ok_or_else(agents::not_found)?;
    let instance = instance::find(&mut tx, organization, id).await?.ok_or_else(no_instance)?;
    remove(cx, &mut tx, (&instance, &agent, name)).await?;
    Ok(tx.commit().await?)
}

/// Sets or replaces a value of the caller's own agent. Its container is replaced before its next call.
///
/// # Errors
/// `not_found` if the caller's agent has no grant to the instance, the instance does not exist, or the caller cannot access the
/// organisation; `invalid_arguments` for the name or the value; `conflict` if the instance is being removed, or (`reason` is
/// `user_required`) for API keys and the operator.
pub async fn set_own(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    (id, name): (&InstanceId, &str),
    value: &SecretText,
) -> Result<()> {
    authorize(&cx.caller, Operation::OwnSecretWrite, organization)?;
    check_value(value.expose())?;
    let mut tx = ops.store.begin().await?;
    let (instance, agent) = find_own(cx, &mut tx, organization, id).await?;
    write(cx, ops, &mut tx, (&instance, &agent, name, value)).await?;
    Ok(tx.commit().await?)
}

/// Removes a value of the caller's own agent, even if it no longer has a grant.
///
/// # Errors
/// `not_found` if there is no value, or the caller cannot access the organisation; `conflict` (`reason` is `user_required`) for
/// API keys and the operator.
pub async fn delete_own(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    (id, name): (&InstanceId, &str),
) -> Result<()> {
    authorize(&cx.caller, Operation::OwnSecretWrite, organization)?;
    let mut tx = ops.store.begin().await?;
    let user = user_of(cx)?;
    let agent = agent::find_by_user(&mut tx, organization, &user).await?.ok_or_else(no_instance)?;
    let own = store::list(&mut tx, organization, &agent.id, Some(id)).await?;
    // A caller without a value must learn nothing about instances.
    if !own.iter().any(|own| own.is_set && own.name == name) {
        return Err(no_instance());
    }
    let instance = instance::find(&mut tx, organization, id).await?.ok_or_else(no_instance)?;
    remove(cx, &mut tx, (&instance, &agent, name)).await?;
    Ok(tx.commit().await?)
}

/// Returns an instance to which the caller's own agent has a grant, and the agent.
async fn find_own(cx: &Ctx, tx: &mut Tx, organization: &OrganizationId, id: &InstanceId) -> Result<(Instance, Agent)> {
    let user = user_of(cx)?;
    let agent = agent::find_by_user(tx, organization, &user).await?.ok_or_else(no_instance)?;
    if !list_granted(cx, tx, &agent).await?.contains(id) {
        return Err(no_instance());
    }
    let instance = instance::find(tx, organization, id).await?;
    Ok((instance.filter(|instance| !instance.personal_secrets.is_empty()).ok_or_else(no_instance)?, agent))
}

/// Returns the user who calls an operation.
fn user_of(cx: &Ctx) -> Result<UserId> {
    require_user(cx, "Only a user who is signed in to the console has values of their own.")
}

/// Returns the instances to which an agent has a grant that has not expired.
async fn list_granted(cx: &Ctx, conn: &mut Conn, agent: &Agent) -> Result<Vec<InstanceId>> {
    let filter = GrantFilter { agent: Some(&agent.id), ..GrantFilter::default() };
    let limit = u32::try_from(MAX_GRANTS).unwrap_or(u32::MAX);
    let mut grants = grant::list(conn, &agent.organization_id, filter, None, limit).await?;
    grants.retain(|grant| !grant.is_expired(cx.now()));
    let mut ids: Vec<_> = grants.into_iter().map(|grant| grant.instance_id).collect();
    ids.sort();
    ids.dedup();
    Ok(ids)
}

/// Returns the personal secrets of `instances`, without the instances that have none.
async fn with_secrets(
    conn: &mut Conn,
    agent: &Agent,
    instances: Vec<Instance>,
) -> Result<Vec<InstancePersonalSecrets>> {
    let own = store::list(conn, &agent.organization_id, &agent.id, None).await?;
    let mut found = Vec::new();
    for instance in instances.into_iter().filter(|instance| !instance.is_removing) {
        let Some(version) = instance.catalog_version_id().filter(|_| !instance.personal_secrets.is_empty()) else {
            continue;
        };
        let source = instance_source::find(conn, &agent.organization_id, version).await?;
        let declared = source.map(|source| source.version.definition.secrets).unwrap_or_default();
        let secrets = instance.personal_secrets.iter().map(|secret| {
            let description = declared.iter().find(|declared| declared.name == secret.name);
            let is_own = |own: &&AgentSecret| own.is_set && own.instance_id == instance.id && own.name == secret.name;
            PersonalSecretView {
                name: secret.name.clone(),
                description: description.map(|declared| declared.description.clone()).unwrap_or_default(),
                is_required: secret.is_required,
                set_at: own.iter().find(is_own).map(|own| own.updated_at),
            }
        });
        let secrets = secrets.collect();
        found.push(InstancePersonalSecrets {
            instance_id: instance.id,
            slug: instance.slug,
            name: instance.name,
            secrets,
        });
    }
    Ok(found)
}

async fn write(
    cx: &Ctx,
    ops: &Ops,
    tx: &mut Tx,
    (instance, agent, name, value): (&Instance, &Agent, &str, &SecretText),
) -> Result<()> {
    if instance.is_removing {
        return Err(Error::new(Code::Conflict, format!("The instance `{}` is being removed.", instance.slug)));
    }
    if !instance.personal_secrets.iter().any(|secret| secret.name == name) {
        let names: Vec<&str> = instance.personal_secrets.iter().map(|secret| secret.name.as_str()).collect();
        let message = match names.is_empty() {
            true => format!("The instance `{}` has no personal secrets.", instance.slug),
            false => format!("`name` must be one of the personal secrets of the instance: `{}`.", names.join("`, `")),
        };
        return Err(Error::invalid("name", message));
    }
    let secret = change(cx, tx, (instance, agent, name), true).await?;
    let sealed = ops.keyring()?.seal(&location(&secret.id), value.expose().as_bytes(), &*cx.random);
    let written = store::replace(tx, &secret, Some(&sealed)).await;
    written.map_err(|error| conflict_if_deleted(error, "The agent or the instance"))?;
    record_operation(cx, tx, (instance, agent, name), "agent_secret.set").await
}

async fn remove(cx: &Ctx, tx: &mut Tx, (instance, agent, name): (&Instance, &Agent, &str)) -> Result<()> {
    let secret = change(cx, tx, (instance, agent, name), false).await?;
    let own = store::list(tx, &agent.organization_id, &agent.id, Some(&instance.id)).await?;
    if !own.iter().any(|own| own.is_set && own.name == name) {
        return Err(Error::not_found("value"));
    }
    store::replace(tx, &secret, None).await?;
    record_operation(cx, tx, (instance, agent, name), "agent_secret.delete").await
}

/// Returns a change with the next version of the personal secrets of the instance. Other changes to them wait until the
/// transaction ends.
async fn change(
    cx: &Ctx,
    tx: &mut Tx,
    (instance, agent, name): (&Instance, &Agent, &str),
    is_set: bool,
) -> Result<AgentSecret> {
    let version = store::next_version(tx, &instance.organization_id, &instance.id).await?.ok_or_else(no_instance)?;
    Ok(AgentSecret {
        id: AgentSecretId::new(&*cx.random),
        organization_id: instance.organization_id.clone(),
        instance_id: instance.id.clone(),
        agent_id: agent.id.clone(),
        name: name.to_owned(),
        is_set,
        version,
        updated_at: cx.now(),
    })
}

/// Records an operation without the value.
async fn record_operation(
    cx: &Ctx,
    tx: &mut Tx,
    (instance, agent, name): (&Instance, &Agent, &str),
    action: &'static str,
) -> Result<()> {
    let detail = json!({ "name": name, "instance": instance.slug, "agent_id": agent.id, "agent": agent.name });
    record(cx, tx, &instance.organization_id, Entry { action, target: instance.id.as_str(), detail }).await
}

fn no_instance() -> Error {
    Error::not_found("instance")
}
