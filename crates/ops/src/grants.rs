//! Grants: the access of agents to instances. Every process applies a change within one second.

use serde_json::{Value, json};
use waypost_core::access::{Operation, authorize};
use waypost_core::agent::Agent;
use waypost_core::argument_rule::ArgumentRule;
use waypost_core::caller::Ctx;
use waypost_core::grant::{AccessLevel, Grant, GrantedNames, MAX_GRANTS};
use waypost_core::id::{AgentId, GrantId, InstanceId, OrganizationId};
use waypost_core::instance::Instance;
use waypost_core::webhook::WebhookEvent;
use waypost_core::{Code, Error, Result, Timestamp};
use waypost_store::grant as store;
pub use waypost_store::grant::GrantFilter;
use waypost_store::{Tx, agent, instance};

use crate::Ops;
use crate::audit::{Entry, record};
use crate::checks::{check_expiry, conflict_if_deleted, exceeds};
use crate::webhooks::{Event, enqueue};

/// The maximum number of names and rules in an audit log entry.
const MAX_AUDITED: usize = 20;

/// A grant to create.
#[derive(Debug, Clone, PartialEq)]
pub struct NewGrant {
    /// The agent.
    pub agent_id: AgentId,
    /// The instance.
    pub instance_id: InstanceId,
    /// The access level.
    pub access: AccessLevel,
    /// The tools, prompts and resources that `custom` covers.
    pub names: GrantedNames,
    /// The rules on arguments.
    pub rules: Vec<ArgumentRule>,
    /// The expiry. `None` if the grant does not expire.
    pub expires_at: Option<Timestamp>,
}

/// Changes to a grant. Fields that are `None` stay unchanged.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GrantPatch {
    /// The access level. Any level other than `custom` empties the lists.
    pub access: Option<AccessLevel>,
    /// All original names of tools.
    pub tools: Option<Vec<String>>,
    /// All original names of prompts.
    pub prompts: Option<Vec<String>>,
    /// All URIs and URI templates of resources.
    pub resources: Option<Vec<String>>,
    /// All rules on arguments.
    pub rules: Option<Vec<ArgumentRule>>,
    /// The expiry. `Some(None)` removes it.
    pub expires_at: Option<Option<Timestamp>>,
}

/// Grants an agent access to an instance.
///
/// # Errors
/// `not_found` if the caller cannot access the organisation; `forbidden` for members below admin; `invalid_arguments`
/// naming the field; `conflict` if the instance is being removed, or the agent has 200 grants.
pub async fn create(cx: &Ctx, ops: &Ops, organization: &OrganizationId, new: &NewGrant) -> Result<Grant> {
    authorize(&cx.caller, Operation::GrantWrite, organization)?;
    let mut tx = ops.store.begin().await?;
    let grant = create_in(cx, &mut tx, organization, new).await?;
    tx.commit().await?;
    Ok(grant)
}

/// Like [`create`], in a transaction. The caller has been authorized.
///
/// # Errors
/// Those of [`create`], except authorization errors.
pub(crate) async fn create_in(cx: &Ctx, tx: &mut Tx, organization: &OrganizationId, new: &NewGrant) -> Result<Grant> {
    let now = cx.now();
    check_expiry(now, new.expires_at)?;
    let grant = Grant {
        id: GrantId::new(now, &*cx.random),
        organization_id: organization.clone(),
        agent_id: new.agent_id.clone(),
        instance_id: new.instance_id.clone(),
        access: new.access,
        names: new.names.clone(),
        rules: new.rules.clone(),
        expires_at: new.expires_at,
        created_at: now,
        created_by: cx.caller.actor().to_owned(),
    };
    grant.check()?;
    let unknown = |field, noun| Error::invalid(field, format!("There is no such {noun}."));
    let agent = agent::find(tx, organization, &new.agent_id).await?;
    let agent = agent.ok_or_else(|| unknown("agent_id", "agent"))?;
    let instance = instance::find(tx, organization, &new.instance_id).await?;
    let instance = instance.ok_or_else(|| unknown("instance_id", "instance"))?;
    if instance.is_removing {
        return Err(Error::new(Code::Conflict, format!("The instance `{}` is being removed.", instance.slug)));
    }
    // The insertion locks the change counter, so grants are counted one after another.
    let inserted = store::insert(tx, &grant).await;
    inserted.map_err(|error| conflict_if_deleted(error, "The agent or the instance"))?;
    if exceeds(store::count(tx, organization, &grant.agent_id).await?, MAX_GRANTS) {
        let message = format!("An agent can have at most {MAX_GRANTS} grants. Delete one first.");
        return Err(Error::new(Code::Conflict, message));
    }
    record_operation(cx, tx, &grant, "grant.create").await?;
    notify(cx, tx, &grant, &agent, &instance).await?;
    Ok(grant)
}

/// Returns at most `limit` grants, newest first. With `before`, returns only older ones.
///
/// # Errors
/// `not_found` if the caller cannot access the organisation; `forbidden` for members below admin.
pub async fn list(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    filter: GrantFilter<'_>,
    (before, limit): (Option<&GrantId>, u32),
) -> Result<Vec<Grant>> {
    authorize(&cx.caller, Operation::GrantRead, organization)?;
    Ok(store::list(&mut ops.store.read().await?, organization, filter, before, limit).await?)
}

/// Returns a grant.
///
/// # Errors
/// Those of [`list`]; `not_found` if the grant does not exist.
pub async fn get(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &GrantId) -> Result<Grant> {
    authorize(&cx.caller, Operation::GrantRead, organization)?;
    store::find(&mut ops.store.read().await?, organization, id).await?.ok_or_else(not_found)
}

/// Changes a grant, except its agent and instance. An expired grant works again if it gets a later expiry.
///
/// # Errors
/// Those of [`create`]; `not_found` if the grant does not exist.
pub async fn update(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &GrantId,
    change: &GrantPatch,
) -> Result<Grant> {
    authorize(&cx.caller, Operation::GrantWrite, organization)?;
    let mut tx = ops.store.begin().await?;
    let before = store::find(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    let grant = apply(&before, change);
    if grant == before {
        return Ok(before);
    }
    if grant.expires_at != before.expires_at {
        check_expiry(cx.now(), grant.expires_at)?;
    }
    grant.check()?;
    store::update(&mut tx, &grant).await?;
    record_operation(cx, &mut tx, &grant, "grant.update").await?;
    tx.commit().await?;
    Ok(grant)
}

fn apply(before: &Grant, change: &GrantPatch) -> Grant {
    let mut grant = before.clone();
    grant.access = change.access.unwrap_or(grant.access);
    if grant.access != AccessLevel::Custom {
        grant.names = GrantedNames::default();
    }
    let names = &mut grant.names;
    for (list, new) in [
        (&mut names.tools, &change.tools),
        (&mut names.prompts, &change.prompts),
        (&mut names.resources, &change.resources),
    ] {
        if let Some(new) = new {
            list.clone_from(new);
        }
    }
    if let Some(rules) = &change.rules {
        grant.rules.clone_from(rules);
    }
    grant.expires_at = change.expires_at.unwrap_or(grant.expires_at);
    grant
}

/// Deletes a grant.
///
/// # Errors
/// `not_found` if the grant does not exist or the caller cannot access the organisation; `forbidden` for members below
/// admin.
pub async fn delete(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &GrantId) -> Result<()> {
    authorize(&cx.caller, Operation::GrantWrite, organization)?;
    let mut tx = ops.store.begin().await?;
    let grant = store::find(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    store::delete(&mut tx, organization, id).await?;
    record_operation(cx, &mut tx, &grant, "grant.delete").await?;
    tx.commit().await?;
    Ok(())
}

/// Enqueues the webhooks for a new grant.
async fn notify(cx: &Ctx, tx: &mut Tx, grant: &Grant, agent: &Agent, instance: &Instance) -> Result<()> {
    let access = match grant.access {
        AccessLevel::ReadOnly => "read-only access",
        AccessLevel::Custom => "access to selected tools",
        AccessLevel::FullAccess => "full access",
    };
    let text = format!("The agent {} was granted {access} to {} ({}).", agent.name, instance.name, instance.slug);
    let data = json!({
        "grant": {
            "id": grant.id,
            "access": grant.access.as_str(),
            "expires_at": grant.expires_at.map(Timestamp::rfc3339),
            "created_by": grant.created_by,
        },
        "agent": { "id": agent.id, "name": agent.name, "kind": agent.kind.as_str() },
        "instance": { "id": instance.id, "slug": instance.slug, "name": instance.name },
    });
    let event = Event { event: WebhookEvent::GrantCreated, end_user_id: None, text: &text, data };
    enqueue(cx, tx, &grant.organization_id, &event).await
}

/// Records an operation in the audit log. Long lists are truncated.
async fn record_operation(cx: &Ctx, tx: &mut Tx, grant: &Grant, action: &'static str) -> Result<()> {
    let names = |list: &[String]| json!({ "count": list.len(), "first": &list[..list.len().min(MAX_AUDITED)] });
    let rules: Vec<Value> = grant.rules.iter().take(MAX_AUDITED).map(|rule| json!(rule)).collect();
    let detail = json!({
        "agent_id": grant.agent_id,
        "instance_id": grant.instance_id,
        "access": grant.access.as_str(),
        "tools": names(&grant.names.tools),
        "prompts": names(&grant.names.prompts),
        "resources": names(&grant.names.resources),
        "rules": { "count": grant.rules.len(), "first": rules },
        "expires_at": grant.expires_at.map(Timestamp::rfc3339),
    });
    record(cx, tx, &grant.organization_id, Entry { action, target: grant.id.as_str(), detail }).await
}

fn not_found() -> Error {
    Error::not_found("grant")
}
