//! Starts, stops and restarts instances. Starting and stopping are idempotent.

use waypost_core::access::Operation;
use waypost_core::caller::Ctx;
use waypost_core::deployment::Deployment;
use waypost_core::id::{InstanceId, OrganizationId};
use waypost_core::instance::{Backend, DesiredRun, Instance};
use waypost_core::{Error, Result};
use waypost_store::{Tx, deployment, instance as store, toolbox};
use waypost_toolbox_proto::instance::InstanceState;

use super::{InstanceView, deploy, lock, notify_desired, record_operation, remote, rotation};
use crate::Ops;

/// Starts a stopped instance. If a secret was rotated while it was stopped, this starts a new deployment.
///
/// # Errors
/// `not_found` if the instance does not exist or the caller cannot access it; `forbidden` for members below admin;
/// `conflict` if it is being removed.
pub async fn start(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &InstanceId) -> Result<InstanceView> {
    ops.authorize_toolbox_use(cx, Operation::InstanceWrite, organization).await?;
    let mut tx = ops.store.begin().await?;
    let mut instance = lock(&mut tx, organization, id).await?;
    if instance.desired == DesiredRun::Running {
        return with_deployment(&mut tx, instance).await;
    }
    (instance.desired, instance.updated_at) = (DesiredRun::Running, cx.now());
    let deployment = match rotation::refresh_secrets(&mut tx, &mut instance).await? {
        true => deploy(cx, &mut tx, &mut instance).await?,
        false => write(cx, &mut tx, &mut instance).await?,
    };
    record_operation(cx, &mut tx, &instance, "instance.start").await?;
    tx.commit().await?;
    notify_desired(ops, &instance);
    Ok(InstanceView { instance, deployment })
}

/// Stops an instance.
///
/// # Errors
/// Those of [`start`].
pub async fn stop(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &InstanceId) -> Result<InstanceView> {
    ops.authorize_toolboxes(cx, Operation::InstanceWrite, organization)?;
    let mut tx = ops.store.begin().await?;
    let mut instance = lock(&mut tx, organization, id).await?;
    if instance.desired == DesiredRun::Stopped {
        return with_deployment(&mut tx, instance).await;
    }
    (instance.desired, instance.updated_at) = (DesiredRun::Stopped, cx.now());
    let deployment = write(cx, &mut tx, &mut instance).await?;
    record_operation(cx, &mut tx, &instance, "instance.stop").await?;
    tx.commit().await?;
    notify_desired(ops, &instance);
    Ok(InstanceView { instance, deployment })
}

/// Restarts an instance, and starts it if it is stopped. If its deployment failed, or a secret was rotated since, this
/// starts a new deployment.
///
/// # Errors
/// Those of [`start`].
pub async fn restart(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &InstanceId) -> Result<InstanceView> {
    ops.authorize_toolbox_use(cx, Operation::InstanceWrite, organization).await?;
    let mut tx = ops.store.begin().await?;
    let mut instance = lock(&mut tx, organization, id).await?;
    (instance.desired, instance.updated_at) = (DesiredRun::Running, cx.now());
    instance.restarts += 1;
    // A container is started with the values that its generation uses, so current values require a new generation.
    let is_outdated = rotation::refresh_secrets(&mut tx, &mut instance).await?;
    let deployment = match is_outdated || instance.state == InstanceState::Failed {
        true => deploy(cx, &mut tx, &mut instance).await?,
        false => write(cx, &mut tx, &mut instance).await?,
    };
    record_operation(cx, &mut tx, &instance, "instance.restart").await?;
    tx.commit().await?;
    notify_desired(ops, &instance);
    Ok(InstanceView { instance, deployment })
}

/// Writes an instance without a new generation. Returns its current deployment.
async fn write(cx: &Ctx, tx: &mut Tx, instance: &mut Instance) -> Result<Option<Deployment>> {
    let Backend::Container(container) = &instance.backend else {
        remote::restart_checks(cx, tx, instance).await?;
        return Ok(None);
    };
    store::update(tx, instance).await?;
    toolbox::increment_revision(tx, &instance.organization_id, &container.toolbox_id).await?;
    Ok(deployment::list_current(tx, &instance.organization_id, &[&instance.id]).await?.pop())
}

async fn with_deployment(tx: &mut Tx, instance: Instance) -> Result<InstanceView> {
    let deployment = deployment::list_current(tx, &instance.organization_id, &[&instance.id]).await?.pop();
    Ok::<_, Error>(InstanceView { instance, deployment })
}
