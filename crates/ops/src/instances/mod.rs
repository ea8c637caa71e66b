//! Instances: tool servers that run in containers on a toolbox, or elsewhere ([`remote`]).
//!
//! An operation writes the desired state, increments its revision for the toolbox, and returns at once. The daemon
//! converges to it, and its reports update the observed state (`toolbox_directory`). Locks are acquired in this order:
//! organisation, toolbox. A remote server has no toolbox, and is changed under the lock of its organisation.

pub mod call;
pub mod config;
pub mod connect;
mod container_stream;
pub mod containers;
mod create;
mod desired;
pub mod exchange;
mod initial_access;
pub mod logs;
mod placement;
pub mod remote;
mod remote_exchange;
mod remote_stream;
mod removal;
pub(crate) mod requests;
mod rotation;
mod run;
pub mod server_stream;
mod spec;
pub mod stats;
mod update;

use serde_json::{Value, json};
use waypost_core::access::Operation;
use waypost_core::caller::Ctx;
use waypost_core::deployment::Deployment;
use waypost_core::id::{InstanceEventId, InstanceId, OrganizationId, ToolboxId};
use waypost_core::instance::{Backend, Instance, InstanceEvent};
use waypost_core::{Code, Error, Result};
use waypost_store::{Tx, deployment, initial_approval, instance as store, instance_event, toolbox};
use waypost_toolbox_proto::instance::InstanceState;

pub use self::create::{CatalogServer, NewInstance, NewServer, create};
pub(crate) use self::desired::load as load_desired_state;
pub use self::initial_access::{InitialAccess, InitialGrant, MAX_INITIAL_GRANTS};
pub use self::removal::delete;
pub use self::rotation::advance_rotations;
pub(crate) use self::rotation::continue_after as continue_rotations;
pub use self::run::{restart, start, stop};
pub use self::update::{InstancePatch, update};
use crate::Ops;
use crate::audit::{Entry, record};
use crate::deployments;

/// The maximum number of instances that are searched for a name.
const MAX_SEARCHED: i64 = 1_000;

/// An instance with the deployment of its current generation.
#[derive(Debug, Clone, PartialEq)]
pub struct InstanceView {
    /// The instance.
    pub instance: Instance,
    /// The deployment of its current generation.
    pub deployment: Option<Deployment>,
}

/// Returns at most `limit` instances, ordered by slug. With `after`, returns only those with a later slug.
///
/// # Errors
/// `not_found` if the caller cannot access the organisation.
pub async fn list(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    after: Option<&str>,
    limit: u32,
) -> Result<Vec<InstanceView>> {
    ops.authorize_toolboxes(cx, Operation::InstanceRead, organization)?;
    // A snapshot, so that each instance matches its deployment.
    let mut tx = ops.store.snapshot().await?;
    let instances = store::list(&mut tx, organization, after, i64::from(limit)).await?;
    let ids: Vec<_> = instances.iter().map(|instance| &instance.id).collect();
    let mut deployments = deployment::list_current(&mut tx, organization, &ids).await?;
    let view = |instance: Instance| {
        let at = deployments.iter().position(|deployment| deployment.instance_id == instance.id);
        InstanceView { deployment: at.map(|at| deployments.swap_remove(at)), instance }
    };
    Ok(instances.into_iter().map(view).collect())
}

/// Returns the instances of a toolbox, ordered by ID.
///
/// # Errors
/// Those of [`list`]; `not_found` if the toolbox does not exist.
pub async fn list_by_toolbox(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    toolbox: &ToolboxId,
) -> Result<Vec<Instance>> {
    ops.authorize_toolboxes(cx, Operation::InstanceRead, organization)?;
    let mut conn = ops.store.read().await?;
    if toolbox::find(&mut conn, organization, toolbox).await?.is_none() {
        return Err(Error::not_found("toolbox"));
    }
    Ok(store::list_by_toolbox(&mut conn, organization, toolbox).await?)
}

/// Returns an instance.
///
/// # Errors
/// Those of [`list`]; `not_found` if the instance does not exist.
pub async fn get(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &InstanceId) -> Result<InstanceView> {
    ops.authorize_toolboxes(cx, Operation::InstanceRead, organization)?;
    let mut tx = ops.store.snapshot().await?;
    let instance = store::find(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    let deployment = deployment::list_current(&mut tx, organization, &[id]).await?.pop();
    Ok(InstanceView { instance, deployment })
}

/// Returns the instance with the ID, the slug or the name `text`.
///
/// # Errors
/// Those of [`get`]; `conflict` if several instances have this name.
pub async fn resolve(cx: &Ctx, ops: &Ops, organization: &OrganizationId, text: &str) -> Result<InstanceView> {
    ops.authorize_toolboxes(cx, Operation::InstanceRead, organization)?;
    let mut tx = ops.store.snapshot().await?;
    let by_id = match text.parse::<InstanceId>() {
        Ok(id) => store::find(&mut tx, organization, &id).await?,
        Err(_) => None,
    };
    let found = match by_id {
        Some(instance) => Some(instance),
        None => store::find_by_slug(&mut tx, organization, text).await?,
    };
    let instance = match found {
        Some(instance) => instance,
        None => {
            let mut named = store::list(&mut tx, organization, None, MAX_SEARCHED).await?;
            named.retain(|instance| instance.name == text);
            let instance = named.pop().ok_or_else(not_found)?;
            if !named.is_empty() {
                let message = format!("Several instances are named `{text}`. Use the slug or the ID.");
                return Err(Error::new(Code::Conflict, message));
            }
            instance
        }
    };
    let deployment = deployment::list_current(&mut tx, organization, &[&instance.id]).await?.pop();
    Ok(InstanceView { instance, deployment })
}

/// Returns at most `limit` events of an instance, newest first. With `before`, returns only older ones.
///
/// # Errors
/// Those of [`get`].
pub async fn list_events(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &InstanceId,
    before: Option<&InstanceEventId>,
    limit: u32,
) -> Result<Vec<InstanceEvent>> {
    ops.authorize_toolboxes(cx, Operation::InstanceRead, organization)?;
    let mut conn = ops.store.read().await?;
    if store::find(&mut conn, organization, id).await?.is_none() {
        return Err(not_found());
    }
    Ok(instance_event::list(&mut conn, organization, id, before, i64::from(limit)).await?)
}

/// Returns an instance that is about to be changed. Locks its toolbox, or its organisation if the server is remote.
///
/// # Errors
/// `not_found` if the instance does not exist; `conflict` if it is being removed.
async fn lock(tx: &mut Tx, organization: &OrganizationId, id: &InstanceId) -> Result<Instance> {
    match store::find(tx, organization, id).await?.ok_or_else(not_found)?.backend {
        Backend::Container(container) => drop(toolbox::lock(tx, organization, &container.toolbox_id).await?),
        Backend::Remote(_) => drop(toolbox::lock_organization(tx, organization).await?),
    }
    // The instance may have been changed or deleted while this transaction waited for the lock.
    let instance = store::find(tx, organization, id).await?.ok_or_else(not_found)?;
    if instance.is_removing {
        return Err(Error::new(Code::Conflict, "The instance is being removed."));
    }
    Ok(instance)
}

/// Begins the deployment of a new generation of an instance, which must be locked ([`lock`]). Returns `None` for a
/// remote server, which has no deployment and is checked instead.
async fn deploy(cx: &Ctx, tx: &mut Tx, instance: &mut Instance) -> Result<Option<Deployment>> {
    // A new generation uses the current values of its secrets.
    rotation::refresh_secrets(tx, instance).await?;
    instance.generation += 1;
    // An initial approval applies to the first generation only.
    initial_approval::delete(tx, &instance.organization_id, &instance.id).await?;
    let Backend::Container(container) = &instance.backend else {
        remote::restart_checks(cx, tx, instance).await?;
        store::replace_secrets(tx, instance).await?;
        return Ok(None);
    };
    let toolbox_id = container.toolbox_id.clone();
    // An instance that an earlier container serves keeps its state.
    if instance.observed_generation == 0 || instance.state == InstanceState::Failed {
        instance.state = InstanceState::Deploying;
    }
    store::update(tx, instance).await?;
    store::replace_secrets(tx, instance).await?;
    toolbox::increment_revision(tx, &instance.organization_id, &toolbox_id).await?;
    Ok(Some(deployments::begin(cx, tx, instance).await?))
}

/// Tells the daemon of an instance that its desired state has changed.
fn notify_desired(ops: &Ops, instance: &Instance) {
    if let Some(toolbox) = instance.toolbox_id() {
        ops.links().notify_desired(toolbox);
    }
}

/// Records an operation on an instance, and notifies the gateways of all processes. Called at the end of a transaction,
/// because it locks the change counter until the transaction ends.
async fn record_operation(cx: &Ctx, tx: &mut Tx, instance: &Instance, action: &'static str) -> Result<()> {
    let detail = audit_detail(instance);
    record(cx, tx, &instance.organization_id, Entry { action, target: instance.id.as_str(), detail }).await?;
    Ok(tx.bump_config_version(&instance.organization_id).await?)
}

/// Returns the details for the audit log: IDs and names only. A configuration may be large, and is stored with its
/// deployment.
fn audit_detail(instance: &Instance) -> Value {
    let secrets: Vec<_> =
        instance.secrets.iter().map(|secret| json!({ secret.name.as_str(): secret.secret_id })).collect();
    json!({
        "slug": instance.slug,
        "name": instance.name,
        "catalog_version_id": instance.catalog_version_id(),
        "toolbox_id": instance.toolbox_id(),
        "generation": instance.generation,
        "secrets": secrets,
        "personal_secrets": instance.personal_secrets.iter().map(|secret| &secret.name).collect::<Vec<_>>(),
    })
}

fn not_found() -> Error {
    Error::not_found("instance")
}
